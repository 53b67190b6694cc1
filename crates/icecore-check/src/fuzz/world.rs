//! Pools in memory for the targets.

use icecore_dmu::BlockWriter;
use icecore_dsl::{Dsl, KeyForm, NewContents, NewCrypt, NewKey, wrapping_key};
use icecore_env::{Clock, Device, Env};
use icecore_format::fletcher::Fletcher4;
use icecore_pool::{CreateSpec, Host, Mode, OpenSpec, Pool};
use icecore_sim::{InlineWorkers, SimClock, SimDisk, SimEntropy};
use icecore_stream::receive::{Engine, ReceiveSpec, receive};
use icecore_transform::crypt::{MasterKeys, Suite};
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
use std::sync::Arc;

/// The raw key of the encrypted dataset.
pub(super) const KEY: [u8; 32] = [7; 32];

fn env() -> Env {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000, 1000));
    Env { clock, entropy: Arc::new(SimEntropy::new(1)), workers: Arc::new(InlineWorkers) }
}

fn host() -> Host {
    Host { id: 1, name: "fuzz".into() }
}

/// An empty pool.
pub(super) fn empty() -> SimDisk {
    let disk = Arc::new(SimDisk::with_sector("disk", 256 << 20, 512));
    let leaf = NewLeaf { device: disk.clone(), path: "/disk".into(), whole_disk: None };
    let top = NewTop { kind: NewKind::Single, leaves: vec![leaf], log: false, ashift: Some(12) };
    let env = env();
    let tree = build(vec![top], &*env.entropy).expect("a tree");
    let features = icecore_pool::features::of_new_pools().collect();
    let (root, devices) = (tree.root, tree.devices);
    let spec = CreateSpec { name: "fuzz".into(), root, devices, host: host(), comment: None, features };
    drop(Pool::create(env, spec).expect("a pool"));
    disk.fork()
}

/// A pool in memory that can be opened anew.
pub(super) struct OnDisk {
    disk: Arc<SimDisk>,
    pool: Option<Pool>,
}

impl OnDisk {
    /// Opens the pool on a disk of its own.
    pub(super) fn on(disk: SimDisk) -> Self {
        let mut engine = Self { disk: Arc::new(disk), pool: None };
        engine.reopen().expect("a sound pool");
        engine
    }
    pub(super) fn reopen(&mut self) -> Result<(), String> {
        self.pool = None;
        self.pool = Some(open(self.disk.clone(), Mode::Write)?);
        Ok(())
    }
    pub(super) fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("open")
    }
}

impl Engine for OnDisk {
    fn parts(&mut self) -> (&mut dyn BlockWriter, &mut Dsl) {
        let (io, dsl) = self.pool().parts();
        (io, dsl)
    }
    fn commit(&mut self) -> Result<(), String> {
        self.pool().commit().map(|_| ()).map_err(|e| e.to_string())
    }
    fn abandon(&mut self) -> Result<(), String> {
        self.reopen()
    }
    fn now_ns(&mut self) -> u64 {
        self.pool().io().env().clock.monotonic_ns()
    }
    fn add_keys(&mut self, objset: u64, keys: Arc<MasterKeys>) {
        self.pool().io_mut().add_key(objset, keys);
    }
}

/// A full stream of directories, links, extended attributes and access lists, made by OpenZFS.
pub(super) fn fixture() -> Vec<u8> {
    let packed = include_bytes!("../../../icecore-stream/tests/fixtures/shapes-kinds@first.phb.zfs.zz");
    let gzip = icecore_format::Compress::GZIP_9;
    icecore_transform::compress::decompress(gzip, packed, 95_788).expect("the fixture")
}

/// A small pool with something of everything: OpenZFS's odd files, snapshots, a clone, a bookmark, a hold, a volume,
/// an encrypted dataset.
pub(super) fn made() -> SimDisk {
    let mut engine = OnDisk::on(empty());
    let spec = ReceiveSpec { target: "fuzz/in".into(), ..ReceiveSpec::default() };
    receive(&mut engine, &mut fixture().as_slice(), &spec, Fletcher4::of, &mut |_| {}).expect("received");
    let form = KeyForm { keyformat: 1, salt: 0, iters: 0 };
    let wrapping = wrapping_key(form, &KEY).expect("a key");
    let key = NewKey { suite: Suite::Aes256Gcm, form, wrapping, keylocation: "prompt".into() };
    let pool = engine.pool();
    let (io, dsl) = pool.parts();
    let vault = dsl.create_encrypted(io, "fuzz/vault", &[], &key).expect("created");
    let keys = dsl.master_keys(io, vault.dir).expect("keys").expect("keys");
    io.add_key(vault.obj, keys);
    let contents = NewContents::Volume { size: 1 << 20, block: 8192 };
    dsl.create_dataset(io, "fuzz/volume", contents, &[], NewCrypt::Inherit).expect("created");
    pool.commit().expect("committed");
    for snap in ["one", "two"] {
        let (io, dsl) = pool.parts();
        let names: Vec<String> = dsl.snapshot_names_below(io, "fuzz", snap).expect("names");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        dsl.snapshot(io, &names, &[("org.example:note", snap)]).expect("snapshots");
        pool.commit().expect("committed");
        let (io, dsl) = pool.parts();
        dsl.bookmark_create(io, &format!("fuzz/in#{snap}"), &format!("fuzz/in@{snap}")).expect("bookmark");
        dsl.hold(io, &format!("fuzz/in@{snap}"), "kept").expect("hold");
        pool.commit().expect("committed");
    }
    let (io, dsl) = pool.parts();
    let origin = dsl.lookup_snapshot(io, "fuzz/in@one").expect("there");
    dsl.clone_snapshot(io, origin, "fuzz/clone").expect("cloned");
    pool.commit().expect("committed");
    pool.log_command("zpool create fuzz", 0).expect("logged");
    pool.mark_exported().expect("exported");
    engine.disk.fork()
}

/// Opens what is on the disk.
pub(super) fn open(disk: Arc<SimDisk>, mode: Mode) -> Result<Pool, String> {
    let devices = vec![disk as Arc<dyn Device>];
    let spec = OpenSpec { devices, pool: None, mode, force: false, host: host(), max_txg: None };
    Pool::open(env(), spec).map_err(|e| e.to_string())
}
