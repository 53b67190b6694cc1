//! A pool to receive into, and judges of what comes out.

use icecore_dmu::{BlockWriter, Objset, Want};
use icecore_dsl::Dsl;
use icecore_env::{Clock, Device, Env};
use icecore_format::ObjectId;
use icecore_pool::{CreateSpec, Host, Mode, OpenSpec, Pool};
use icecore_sim::{InlineWorkers, SimClock, SimDisk, SimEntropy};
use icecore_stream::receive::{Engine, ReceiveError, ReceiveSpec, Received, receive_plain};
use icecore_transform::crypt::MasterKeys;
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn sim_env(seed: u64) -> Env {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000, 1000));
    Env { clock, entropy: Arc::new(SimEntropy::new(seed)), workers: Arc::new(InlineWorkers) }
}

pub fn host() -> Host {
    Host { id: 0x1234, name: "sim".into() }
}

/// A pool on a simulated disk, or on several.
pub struct SimPool {
    pub name: String,
    pub disk: Arc<SimDisk>,
    /// The other sides of a mirror.
    pub more: Vec<Arc<SimDisk>>,
    pool: Option<Pool>,
    seed: u64,
    pub commits: u32,
}

impl SimPool {
    pub fn new(name: &str) -> Self {
        let seed = name.bytes().fold(7, |n: u64, b| n.wrapping_mul(31) + u64::from(b));
        Self::made(name, seed, &[768 << 20], 12)
    }

    /// A pool on one disk, or a mirror of several, of these sizes.
    pub fn made(name: &str, seed: u64, sizes: &[u64], ashift: u64) -> Self {
        let mut more: Vec<Arc<SimDisk>> = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            more.push(Arc::new(SimDisk::with_sector(&format!("disk{i}"), *size, 512)));
        }
        let env = sim_env(seed);
        let leaves = more.iter().enumerate().map(|(i, disk)| NewLeaf {
            device: disk.clone(),
            path: format!("/sim/{name}-{i}.img"),
            whole_disk: None,
        });
        let leaves: Vec<NewLeaf> = leaves.collect();
        let kind = if sizes.len() > 1 { NewKind::Mirror } else { NewKind::Single };
        let top = NewTop { kind, leaves, log: false, ashift: Some(ashift) };
        let disk = more.remove(0);
        let tree = build(vec![top], &*env.entropy).unwrap();
        let spec = CreateSpec {
            name: name.into(),
            root: tree.root,
            devices: tree.devices,
            host: host(),
            comment: None,
            features: icecore_pool::features::of_new_pools().collect(),
        };
        let pool = Pool::create(env, spec).unwrap();
        Self { name: name.into(), disk, more, pool: Some(pool), seed, commits: 0 }
    }

    /// The pool that is on `disk`, opened for writing.
    pub fn on(name: &str, disk: Arc<SimDisk>, seed: u64) -> Self {
        let mut pool = Self { name: name.into(), disk, more: Vec::new(), pool: None, seed, commits: 0 };
        pool.reopen();
        pool
    }

    /// Where an interrupted receive into `path` would go on, if there is one.
    pub fn stopped_at(&mut self, path: &str) -> Option<(u64, u64)> {
        let (io, dsl) = self.pool().parts();
        let head = dsl.lookup_head(io, path).ok()?;
        let ds = dsl.receive_clone(io, head).unwrap().unwrap_or(head);
        dsl.resume_state(io, ds.obj).unwrap().map(|s| (s.point.object, s.point.offset))
    }

    pub fn reopen(&mut self) {
        self.try_reopen().unwrap();
    }

    pub fn try_reopen(&mut self) -> Result<(), icecore_pool::PoolError> {
        self.pool = None;
        self.seed += 1;
        let disks = std::iter::once(&self.disk).chain(&self.more);
        let devices = disks.map(|d| d.clone() as Arc<dyn Device>).collect();
        let spec =
            OpenSpec { devices, pool: None, mode: Mode::Write, force: false, host: host(), max_txg: None };
        self.pool = Some(Pool::open(sim_env(self.seed), spec)?);
        Ok(())
    }

    pub fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("open")
    }

    /// Commits what waits, and gives the txg then durable.
    pub fn commit_now(&mut self) -> icecore_format::Txg {
        self.pool().commit().unwrap()
    }

    /// As a later command would: what is left in the open txg is committed, and the pool opened anew.
    pub fn commit_and_reopen(&mut self) {
        self.commit_now();
        self.reopen();
    }

    /// Closes the pool without a word to its disks.
    pub fn close(&mut self) {
        self.pool = None;
    }

    pub fn receive(&mut self, stream: &[u8], spec: &ReceiveSpec) -> Result<Received, ReceiveError> {
        receive_plain(self, &mut &stream[..], spec)
    }

    /// Every dataset, hidden ones too, with its snapshots.
    pub fn names(&mut self) -> Vec<String> {
        let name = self.name.clone();
        let (io, dsl) = self.pool().parts();
        let mut out = Vec::new();
        for path in dsl.descendants(io, &name).unwrap() {
            let head = dsl.lookup_head(io, &path).unwrap();
            out.extend(dsl.receive_clone(io, head).unwrap().map(|_| format!("{path}/%recv")));
            out.extend(dsl.snapshots(io, &path).unwrap().into_iter().map(|(s, _)| format!("{path}@{s}")));
            out.push(path);
        }
        out
    }

    /// Where the receive into `path` stopped.
    pub fn resume_point(&mut self, path: &str) -> (u64, u64) {
        let (io, dsl) = self.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        let ds = dsl.receive_clone(io, head).unwrap().unwrap_or(head);
        let state = dsl.resume_state(io, ds.obj).unwrap().expect("resume state");
        (state.point.object, state.point.offset)
    }

    pub fn snapshot(&mut self, name: &str) {
        let (io, dsl) = self.pool().parts();
        dsl.snapshot(io, &[name], &[]).unwrap();
        self.commit().unwrap();
    }

    /// IV of the wrapping of a dataset's key.
    pub fn key_iv(&mut self, path: &str) -> [u8; 12] {
        let (io, dsl) = self.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        dsl.key_object(io, head.dir).unwrap().unwrap().iv
    }

    /// Stores the key as if it were wrapped anew.
    pub fn rewrap(&mut self, path: &str, iv: [u8; 12]) {
        let (io, dsl) = self.pool().parts();
        let head = dsl.lookup_head(io, path).unwrap();
        let mut key = dsl.key_object(io, head.dir).unwrap().unwrap();
        key.iv = iv;
        dsl.raw_key_store(io, head, &key).unwrap();
        self.commit().unwrap();
    }

    /// Value and source of a property.
    pub fn prop(&mut self, path: &str, name: &str) -> (String, String) {
        let (io, dsl) = self.pool().parts();
        let row = dsl.prop(io, path, name).unwrap().unwrap();
        (row.value.clone(), row.source.text())
    }

    /// Bytes of an object.
    pub fn read(&mut self, name: &str, object: u64, offset: u64, len: usize) -> Vec<u8> {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        let os = dsl.objset(io, r.obj, Want::Logical).unwrap();
        os.read(io, ObjectId(object), offset, len).unwrap()
    }

    pub fn destroy_snapshots(&mut self, path: &str) {
        let (io, dsl) = self.pool().parts();
        for (snap, _) in dsl.snapshots(io, path).unwrap().into_iter().rev() {
            dsl.destroy_snapshot(io, &format!("{path}@{snap}"), false).unwrap();
        }
        self.commit().unwrap();
    }

    /// Destroys a dataset with its snapshots.
    pub fn destroy(&mut self, path: &str) {
        let (io, dsl) = self.pool().parts();
        for (snap, _) in dsl.snapshots(io, path).unwrap().into_iter().rev() {
            dsl.destroy_snapshot(io, &format!("{path}@{snap}"), false).unwrap();
        }
        dsl.destroy_head(io, path).unwrap();
        self.commit().unwrap();
    }

    /// Guids of all snapshots by name.
    pub fn snapshots(&mut self) -> BTreeMap<String, u64> {
        let name = self.name.clone();
        let (io, dsl) = self.pool().parts();
        let mut out = BTreeMap::new();
        for path in dsl.descendants(io, &name).unwrap() {
            for (snap, r) in dsl.snapshots(io, &path).unwrap() {
                out.insert(format!("{path}@{snap}"), dsl.dataset(io, r.obj).unwrap().guid);
            }
        }
        out
    }

    /// Everything that can be read of a dataset or snapshot: shape of every object and sum of its blocks.
    pub fn contents(&mut self, name: &str) -> BTreeMap<u64, String> {
        let (io, dsl) = self.pool().parts();
        let r = dsl.lookup_dataset(io, name).unwrap();
        let ds = dsl.dataset(io, r.obj).unwrap();
        let encrypted = dsl.is_encrypted(io, r).unwrap();
        let want = if encrypted { Want::NoKey } else { Want::Logical };
        let os = Objset::open(io, r.obj, &ds.bp, want).unwrap();
        let mut out = BTreeMap::new();
        let mut at = ObjectId(0);
        while let Some(obj) = os.next_object(io, at).unwrap() {
            at = obj;
            let dn = os.dnode(io, obj).unwrap();
            let mut sum = 0_u64;
            for blkid in 0..=dn.maxblkid().min(1 << 20) {
                let bp = os.blkptr(io, obj, &dn, 0, blkid).unwrap();
                if bp.is_hole() {
                    continue;
                }
                let form = if encrypted { Want::Stored } else { Want::Logical };
                let b = icecore_format::Bookmark { objset: r.obj, object: obj, level: 0, blkid };
                let block = icecore_dmu::BlockStore::read(io, &bp, &b, form).unwrap();
                for w in block.chunks(8) {
                    sum = sum.rotate_left(5) ^ w.iter().fold(blkid, |s, b| s << 8 | u64::from(*b));
                }
            }
            let bonus: Vec<u8> = dn.bonus_area().to_vec();
            let shape =
                (dn.kind(), dn.block_size(), dn.slots(), dn.maxblkid(), dn.bonus_type(), dn.has_spill());
            out.insert(obj.0, format!("{shape:?} {sum:x} {bonus:x?}"));
        }
        out
    }

    /// Lets `zdb` verify everything, if asked for.
    pub fn judge(&self) {
        self.judge_by(true);
    }

    /// The same without a look into files: for streams of files that no file system could have made.
    pub fn judge_blocks(&self) {
        self.judge_by(false);
    }

    fn judge_by(&self, files: bool) {
        if std::env::var_os("ICECORE_ZDB").is_none() {
            return;
        }
        // Several tests make pools of one name, and run side by side: a folder for each judgement.
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mine = format!("icecore-recv-{}-{}-{serial}", self.name, std::process::id());
        let dir = std::env::temp_dir().join(mine);
        std::fs::create_dir_all(&dir).unwrap();
        for (i, disk) in std::iter::once(&self.disk).chain(&self.more).enumerate() {
            disk.save(&dir.join(format!("{}-{i}.img", self.name))).unwrap();
        }
        zdb(&dir, &self.name, &["-bcc"], "No leaks");
        if files {
            zdb(&dir, &self.name, &["-dddd"], "Dataset mos");
        }
        if std::env::var_os("ICECORE_KEEP").is_none() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

impl Engine for SimPool {
    fn parts(&mut self) -> (&mut dyn BlockWriter, &mut Dsl) {
        let (io, dsl) = self.pool.as_mut().expect("open").parts();
        (io, dsl)
    }
    fn commit(&mut self) -> Result<(), String> {
        self.commits += 1;
        self.pool().commit().map(|_| ()).map_err(|e| e.to_string())
    }
    fn abandon(&mut self) -> Result<(), String> {
        self.try_reopen().map_err(|e| e.to_string())
    }
    fn now_ns(&mut self) -> u64 {
        self.pool().io().env().clock.monotonic_ns()
    }
    fn add_keys(&mut self, objset: u64, keys: Arc<MasterKeys>) {
        self.pool().io_mut().add_key(objset, keys);
    }
}

fn zdb(dir: &Path, name: &str, flags: &[&str], must: &str) {
    let out =
        icecore_check::zdb::command().arg("-e").arg("-p").arg(dir).args(flags).arg(name).output().unwrap();
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let bad = ["leaked space", "error", "mismatch", "ASSERT", "DOUBLE ALLOC", "not referenced", "unable to"];
    let harmless = ["persistent error log", "error log", "errors found"];
    let lines: Vec<&str> = text.lines().chain(err.lines()).collect();
    let complaints: Vec<&&str> = lines
        .iter()
        .filter(|l| bad.iter().any(|b| l.contains(b)) && !harmless.iter().any(|h| l.contains(h)))
        .collect();
    let tail = &lines[lines.len().saturating_sub(8)..];
    assert!(out.status.success() && complaints.is_empty(), "zdb {flags:?}: {complaints:#?}\n{tail:#?}");
    assert!(text.contains(must), "zdb {flags:?} does not say «{must}»:\n{text}\n{err}");
}

/// A small package with properties, bookmarks and holds, made by OpenZFS: directories, links, extended
/// attributes, access lists.
pub fn kinds() -> Vec<u8> {
    let packed = include_bytes!("../fixtures/shapes-kinds@first.phb.zfs.zz");
    let gzip = icecore_format::Compress::GZIP_9;
    icecore_transform::compress::decompress(gzip, packed, 95_788).unwrap()
}

/// A stream made by OpenZFS; `None`, loudly, where it is not at hand.
pub fn zoo(name: &str) -> Option<Vec<u8>> {
    icecore_check::fixture::zoo(name).map(|file| std::fs::read(file).unwrap())
}

pub fn to(target: &str) -> ReceiveSpec {
    ReceiveSpec { target: target.into(), ..ReceiveSpec::default() }
}
pub fn force(target: &str) -> ReceiveSpec {
    ReceiveSpec { force: true, ..to(target) }
}
