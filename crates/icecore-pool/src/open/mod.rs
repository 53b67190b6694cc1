//! Opening a pool: which devices, which uberblock, which configuration, and whether we may.
//!
//! `Candidates` (what the labels say) → `Opened` (its MOS is readable) → [`Pool`].
//!
//! Invariants:
//! 1. Opening writes nothing, in either mode: the first commit does. It may have to (see [`crate::claim`]): the open txg
//!    begins with the intent logs that power left.
//! 2. The newest uberblock is taken, or with `max_txg` the newest up to it; if its MOS cannot be read, that
//!    is an error and not a reason to fall back by itself.
//! 3. Missing top-level vdevs and damage to the pool's own objects fail the opening, except in [`Mode::Salvage`], which
//!    says of each what it passed by.
//! 4. A pool is opened for writing only if every rule in `writable` is met; the reasons against are all
//!    given at once.

mod find;
mod indirect;
mod writable;

pub use find::{Candidate, find};

use crate::error::{PoolError, Result};
use crate::features::{self, Support};
use crate::io::Io;
use crate::metaslab::load::{Geometry, open_top};
use crate::metaslab::{Allocator, Class, Top};
use crate::pool::{EnvChance, Host, Objects, Pool};
use crate::range_tree::RangeTree;
use icecore_dmu::{Objset, Want, zap};
use icecore_dsl::{Dsl, PoolInfo};
use icecore_env::{Device, Env};
use icecore_format::nvlist::NvList;
use icecore_format::reader::u64_at;
use icecore_format::uberblock::{UberblockPhys, VERSION_FEATURES, VERSION_LAST_NUMBERED};
use icecore_format::{Corrupt, Guid, ObjectId, Txg};
use icecore_transform::checksum::PoolSalt;
use icecore_vdev::{Leaf, PoolConfig, PoolState, VdevConfig, VdevKind, VdevSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The object directory of the MOS.
pub(crate) const DIRECTORY: ObjectId = ObjectId(1);
/// A configuration is at most this long.
const CONFIG_MAX: u64 = 16 << 20;

/// What a pool is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Nothing is written, whatever happens.
    ReadOnly,
    /// The same, and what is missing or damaged of the pool itself is passed by as far as anything is left to read:
    /// [`Pool::passed_by`] tells of it.
    Salvage,
    /// Commits are possible.
    Write,
}

/// Which pool, from where, what for.
pub struct OpenSpec {
    /// Devices to look at: whole disks' partitions and files; others than the pool's do no harm.
    pub devices: Vec<Arc<dyn Device>>,
    /// The pool's name or its guid in digits; `None` if there is only one.
    pub pool: Option<String>,
    /// What for.
    pub mode: Mode,
    /// Also if another system seems to have it, or it was destroyed.
    pub force: bool,
    /// Who opens it.
    pub host: Host,
    /// Go back to a txg no newer than this.
    pub max_txg: Option<Txg>,
}

/// A pool whose MOS is readable.
pub(crate) struct Opened {
    pub io: Io,
    pub mos: Objset,
    pub config: PoolConfig,
    pub label_features: BTreeSet<String>,
    pub uberblock: UberblockPhys,
    pub directory: BTreeMap<String, u64>,
    pub features: BTreeMap<String, u64>,
    /// Devices that missed txgs, and which.
    pub stale: BTreeMap<Guid, RangeTree>,
    /// Every device of the pool that was found.
    pub devices: BTreeMap<Guid, Arc<dyn Device>>,
    /// Txg of the newest uberblock or label on any device.
    pub newest: Txg,
    /// What a salvage passed by.
    pub passed: Vec<String>,
}

/// What to do about something of the pool that cannot be had.
struct Lenient {
    salvage: bool,
    passed: Vec<String>,
}

impl Lenient {
    /// The value; in a salvage `other` in its place, and why is noted.
    fn or<T, E: Into<PoolError>>(&mut self, what: &str, got: Result<T, E>, other: T) -> Result<T> {
        match got.map_err(Into::into) {
            Err(e) if self.salvage => {
                self.passed.push(format!("{what}: {e}"));
                Ok(other)
            }
            got => got,
        }
    }
}

impl Pool {
    /// Opens a pool.
    pub fn open(env: Env, spec: OpenSpec) -> Result<Self> {
        let mut opened = open_mos(env.clone(), &spec)?;
        let objects = Objects {
            config: opened.entry("config"),
            log_spacemap_zap: opened.entry("com.delphix:log_spacemap_zap"),
            sync_bpobj: opened.entry("sync_bplist"),
            history: opened.entry("history"),
        };
        let space = opened.load_space(objects.log_spacemap_zap);
        if spec.mode == Mode::Write {
            let reasons = writable::reasons_against(&opened)?;
            if !reasons.is_empty() {
                return Err(PoolError::ReadOnlyOnly(reasons));
            }
            space?;
            opened.leave_out_stale()?;
            opened.io.writable = true;
            // Past every uberblock on disk: after going back, the ones undone must not win again.
            opened.io.txg = Txg(opened.newest.0.max(opened.uberblock.txg().0) + 1);
        } else {
            opened.io.missed = std::mem::take(&mut opened.stale);
        }
        let info = PoolInfo {
            name: opened.config.name.clone().unwrap_or_default(),
            version: opened.uberblock.version.get(),
            usable: opened.io.space().usable(),
            at_once: opened.io.space().at_once(),
        };
        let root = opened.uberblock.rootbp;
        let dsl = Dsl::open(&opened.io, &root, info, Box::new(EnvChance(env)))?;
        let missing = opened.io.vdevs.absent().iter().map(|l| l.guid).collect();
        let mut config = opened.config;
        if spec.mode == Mode::Write {
            config.state = Some(PoolState::ACTIVE.0);
            config.hostid = Some(spec.host.id).filter(|id| *id != 0);
            config.hostname = Some(spec.host.name.clone());
        }
        let mut pool = Self {
            io: opened.io,
            dsl,
            config,
            uberblock: opened.uberblock,
            label_features: opened.label_features,
            config_dirty: false,
            note: None,
            announce: spec.mode == Mode::Write,
            objects,
            host: spec.host,
            load_guid: std::sync::OnceLock::new(),
            missing,
            devices: opened.devices,
            passes: 0,
            logs: BTreeMap::new(),
            passed: opened.passed,
            scanning: crate::scan::Scanning::default(),
            resilver: None,
            copying: crate::scan::Scanning::default(),
        };
        if spec.mode == Mode::Write {
            pool.load_scan()?;
            let vdevs = std::sync::Arc::clone(&pool.io.vdevs);
            let reasons = vdevs.uncounted(|| pool.claim_logs())?;
            if !reasons.is_empty() {
                return Err(PoolError::ReadOnlyOnly(reasons));
            }
        }
        Ok(pool)
    }
}

/// Everything up to a readable MOS and a trusted configuration.
pub(crate) fn open_mos(env: Env, spec: &OpenSpec) -> Result<Opened> {
    let candidate = find::choose(&spec.devices, spec.pool.as_deref())?;
    candidate.check_state(spec)?;
    let (root, found) = candidate.newest(spec.max_txg)?;
    check_label_features(&candidate)?;
    let uberblock = found.uberblock;
    check_uberblock(&uberblock)?;
    let mut lenient = Lenient { salvage: spec.mode == Mode::Salvage, passed: Vec::new() };
    let devices = |e: icecore_vdev::VdevError| PoolError::Devices(e.to_string());
    let vdevs = VdevSet::open(&root, &candidate.devices)?.at(&uberblock);
    if !lenient.salvage {
        vdevs.check_readable_by_labels().map_err(devices)?;
    }
    let mut io = Io::new(env.clone(), vdevs, uberblock.txg(), uberblock.rootbp);
    let read = read_config(&io, &uberblock, &candidate, &root, &mut lenient);
    let (mos, directory, config) = read.map_err(|e| missing_or(e, &root))?;
    let tree = config.vdev_tree.as_ref();
    let tree = tree.ok_or_else(|| Corrupt::new("pool config", "no vdev_tree in the MOS"))?;
    io.vdevs = Arc::new(VdevSet::open(tree, &candidate.devices)?.at(&uberblock));
    lenient.or("devices", io.vdevs.check_readable().map_err(devices), ())?;
    let mappings =
        lenient.or("removed vdevs", indirect::load(&mos, &io, tree), indirect::Mappings::default())?;
    let stale = stale_leaves(&mos, &io, tree, &candidate);
    let stale = lenient.or("what devices missed", stale, BTreeMap::new())?;
    let behind = stale.keys().copied().collect();
    let vdevs = VdevSet::open_with_stale(tree, &candidate.devices, &behind)?.at(&uberblock);
    mappings.install(&vdevs)?;
    let mut io = Io::new(env, vdevs, uberblock.txg(), uberblock.rootbp);
    io.salt = lenient.or("the salt of checksums", read_salt(&mos, &io), PoolSalt([0; 32]))?;
    let features = match read_features(&mos, &io, &directory) {
        Err(unknown @ PoolError::UnsupportedRead(_)) => return Err(unknown),
        features => lenient.or("features", features, BTreeMap::new())?,
    };
    io.hole_birth = features.get("com.delphix:hole_birth").is_some_and(|n| *n > 0);
    let label_features = candidate.label_features();
    let newest = candidate.newest_txg(&found, spec.max_txg);
    let devices = candidate.devices.clone();
    let passed = lenient.passed;
    Ok(Opened {
        io,
        mos,
        config,
        label_features,
        uberblock,
        directory,
        features,
        stale,
        devices,
        newest,
        passed,
    })
}

/// The MOS, its directory and its configuration, over a tree known from labels.
fn read_config(
    io: &Io,
    uberblock: &UberblockPhys,
    candidate: &Candidate,
    root: &VdevConfig,
    lenient: &mut Lenient,
) -> Result<(Objset, BTreeMap<String, u64>, PoolConfig)> {
    let mos = Objset::open(io, 0, &uberblock.rootbp, Want::Logical)?;
    let directory = read_directory(&mos, io)?;
    let mut labels = candidate.config.clone();
    labels.vdev_tree = Some(root.clone());
    let config = lenient.or("configuration", trusted_config(&mos, io, &directory, candidate), labels)?;
    Ok((mos, directory, config))
}

/// What could not be read is most likely on the top-level vdevs that no label tells of.
fn missing_or(e: PoolError, root: &VdevConfig) -> PoolError {
    let unknown = root.children.iter().filter(|t| t.kind == VdevKind::Missing).filter_map(|t| t.id);
    let unknown: Vec<String> = unknown.map(|id| id.to_string()).collect();
    if unknown.is_empty() {
        return e;
    }
    PoolError::Devices(format!(
        "no device of top-level vdev {} (of {}) was found, and without it the pool's own list of devices cannot \
         be read: {e}",
        unknown.join(", "),
        root.children.len()
    ))
}

fn check_uberblock(ub: &UberblockPhys) -> Result<()> {
    let version = ub.version.get();
    let known = (1..=VERSION_LAST_NUMBERED).contains(&version) || version == VERSION_FEATURES;
    if known { Ok(ub.check()?) } else { Err(PoolError::Version(version)) }
}

fn check_label_features(candidate: &Candidate) -> Result<()> {
    let all = candidate.label_features();
    let unknown = all.iter().filter(|f| features::support(f) == Support::No);
    let unknown: Vec<String> = unknown.map(|f| features::title(f)).collect();
    if unknown.is_empty() { Ok(()) } else { Err(PoolError::UnsupportedRead(unknown)) }
}

/// All entries that are one number.
fn read_directory(mos: &Objset, io: &Io) -> Result<BTreeMap<String, u64>> {
    let entries = zap::iter(mos, io, DIRECTORY)?;
    Ok(entries.iter().filter_map(|e| Some((e.name_str(), e.value.as_u64()?))).collect())
}

/// The configuration in the MOS. It must be of the pool the labels told of.
fn trusted_config(
    mos: &Objset,
    io: &Io,
    directory: &BTreeMap<String, u64>,
    candidate: &Candidate,
) -> Result<PoolConfig> {
    let bad = |why: &str| Corrupt::new("pool config", why);
    let object = ObjectId(*directory.get("config").ok_or_else(|| bad("not in the object directory"))?);
    let config = PoolConfig::parse(&packed_list(mos, io, object)?)?;
    if config.pool_guid != Some(candidate.guid.0) {
        return Err(bad("of another pool than the labels").into());
    }
    Ok(config)
}

/// An nvlist kept in an object, its length in the bonus (`load_nvlist`, spa.c).
fn packed_list(mos: &Objset, io: &Io, object: ObjectId) -> Result<NvList> {
    let size = u64_at(&mos.bonus(io, object)?, 0);
    if size > CONFIG_MAX {
        return Err(Corrupt::new("packed nvlist", format!("{object} claims {size} bytes")).into());
    }
    let (list, _) = NvList::decode(&mos.read(io, object, 0, size as usize)?)?;
    Ok(list)
}

/// Devices that belong to no top-level vdev (`spa_load_spares`, `spa_load_l2cache`, spa.c): `spares` or `l2cache`.
pub(crate) fn aux_devices(mos: &Objset, io: &Io, name: &str) -> Result<Vec<VdevConfig>> {
    let object = match zap::lookup(mos, io, DIRECTORY, name)? {
        Some(zap::ZapValue::U64(v)) if v.first().is_some_and(|o| *o != 0) => ObjectId(v[0]),
        _ => return Ok(Vec::new()),
    };
    let list = packed_list(mos, io, object)?;
    let devices = list.list_array(name).unwrap_or_default();
    Ok(devices.iter().map(VdevConfig::parse).collect::<Result<_, _>>()?)
}

/// Leaves that missed txgs: their time log is not empty, or their label is older than their siblings'.
fn stale_leaves(
    mos: &Objset,
    io: &Io,
    tree: &VdevConfig,
    candidate: &Candidate,
) -> Result<BTreeMap<Guid, RangeTree>> {
    let mut stale = BTreeMap::new();
    for top in &tree.children {
        let newest = top.leaves().iter().filter_map(|l| candidate.label_txg(l.guid, io.txg)).max();
        for leaf in top.leaves() {
            let written = candidate.label_txg(leaf.guid, io.txg);
            let mut missed = match leaf.dtl.filter(|object| *object != 0) {
                Some(object) => crate::dtl::read(mos, io, ObjectId(object))?.0,
                None => RangeTree::new(),
            };
            if missed.is_empty()
                && let Some(written) = written.filter(|w| Some(*w) < newest)
            {
                missed.cover(written.0.saturating_add(1), io.txg.0.saturating_sub(written.0));
            }
            if !missed.is_empty() {
                stale.insert(leaf.guid, missed);
            }
        }
    }
    Ok(stale)
}

fn read_salt(mos: &Objset, io: &Io) -> Result<PoolSalt> {
    let mut salt = [0; 32];
    if let Some(zap::ZapValue::U8(bytes)) = zap::lookup(mos, io, DIRECTORY, "org.illumos:checksum_salt")?
        && bytes.len() == salt.len()
    {
        salt.copy_from_slice(&bytes);
    }
    Ok(PoolSalt(salt))
}

/// All features with their counts. Fails if one that readers must know is active and unknown.
fn read_features(mos: &Objset, io: &Io, directory: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    let mut unknown = Vec::new();
    for (which, for_read) in [("features_for_read", true), ("features_for_write", false)] {
        let Some(object) = directory.get(which) else { continue };
        for e in zap::iter(mos, io, ObjectId(*object))? {
            let count = e.value.as_u64().unwrap_or(0);
            if for_read && count > 0 && features::support(&e.name_str()) == Support::No {
                unknown.push(features::title(&e.name_str()));
            }
            all.insert(e.name_str(), count);
        }
    }
    if unknown.is_empty() { Ok(all) } else { Err(PoolError::UnsupportedRead(unknown)) }
}

impl Opened {
    pub(crate) fn entry(&self, name: &str) -> u64 {
        self.directory.get(name).copied().unwrap_or(0)
    }

    /// Closes the devices that missed something: they count as absent while we write.
    fn leave_out_stale(&mut self) -> Result<()> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let of = |l: &Leaf| Some((l.guid, l.device().filter(|_| !self.stale.contains_key(&l.guid))?.clone()));
        let devices = self.io.vdevs.leaves().iter().filter_map(of).collect();
        let root = self.io.vdevs.config().clone();
        self.io.vdevs = Arc::new(VdevSet::open(&root, &devices)?);
        Ok(())
    }

    /// Opens all metaslabs and reads the space map logs.
    fn load_space(&mut self, log_zap: u64) -> Result<()> {
        let mut tops: Vec<Option<Top>> = Vec::new();
        let configs = self.config.vdev_tree.as_ref().map_or(&[][..], |t| &t.children);
        for (i, config) in configs.iter().enumerate() {
            tops.push(self.load_top(i as u32, config)?);
        }
        let mut alloc = Allocator::new(tops);
        if log_zap != 0 {
            let mut logs = Vec::new();
            for e in zap::iter(&self.mos, &self.io, ObjectId(log_zap))? {
                let txg = u64::from_str_radix(&e.name_str(), 16);
                let txg = txg.map_err(|_| Corrupt::new("log space map", "key is no txg"))?;
                logs.push((txg, e.value.as_u64().unwrap_or(0)));
            }
            logs.sort_unstable();
            for (txg, object) in logs {
                alloc.read_log(&self.mos, &self.io, txg, object)?;
            }
        }
        alloc.logs_done();
        if !alloc.adds_up() {
            return Err(Corrupt::new("log space map", "more is freed than was allocated").into());
        }
        self.io.set_alloc(alloc);
        Ok(())
    }

    fn load_top(&self, id: u32, config: &VdevConfig) -> Result<Option<Top>> {
        let holds_none = matches!(config.kind, VdevKind::Hole | VdevKind::Missing | VdevKind::Indirect);
        let (Some(shift), Some(asize)) = (config.metaslab_shift, config.asize) else { return Ok(None) };
        let vdev = self.io.vdevs.tops().get(id as usize);
        let Some(vdev) = vdev.filter(|_| !holds_none && !config.is_hole() && shift != 0) else {
            return Ok(None);
        };
        let geo = Geometry {
            id,
            ashift: config.ashift.filter(|a| *a != 0).unwrap_or(9) as u32,
            ms_shift: shift as u32,
            array: config.metaslab_array.unwrap_or(0),
            asize,
            top_zap: config.vdev_zap_top.unwrap_or(0),
            unit: vdev.unit(),
        };
        let mut unflushed = 0;
        if geo.top_zap != 0 {
            let key = "com.delphix:ms_unflushed_phys_txgs";
            unflushed = zap::lookup_u64(&self.mos, &self.io, ObjectId(geo.top_zap), key)?.unwrap_or(0);
        }
        let mut top = open_top(&self.mos, &self.io, &geo, unflushed)?;
        top.class = match writable::bias(self, config)?.as_deref() {
            _ if config.holds_log() => Class::Log,
            Some("dedup") => Class::Dedup,
            Some(_) => Class::Special,
            None => Class::Normal,
        };
        top.allocating = top.class != Class::Log && config.non_allocating.unwrap_or(0) == 0;
        top.deflate = vdev.deflate_ratio();
        Ok(Some(top))
    }
}
