//! Making a pool: fresh labels, then one txg with everything a pool has from its first moment
//! (`spa_create`, spa.c; `vdev_construct_zaps`, vdev.c).
//!
//! Invariant: until the first commit there is no uberblock, so a creation cut short leaves no pool.

use crate::error::{PoolError, Result};
use crate::io::Io;
use crate::metaslab::{Allocator, Metaslab, Top};
use crate::open::DIRECTORY;
use crate::pool::{EnvChance, Host, Objects, Pool};
use crate::space_map::Phys;
use crate::sync::CONFIG_BLOCK;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{NewObject, bpobj};
use icecore_dsl::{Dsl, Feature, PoolInfo, RootDataset};
use icecore_env::{Device, Env};
use icecore_format::reader::put_u64_at;
use icecore_format::uberblock::{UberblockPhys, VERSION_FEATURES};
use icecore_format::{Blkptr, Compress, Guid, ObjectId, ObjectType, Txg};
use icecore_transform::checksum::PoolSalt;
use icecore_vdev::{PoolConfig, PoolState, VdevConfig, VdevSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use zerocopy::little_endian::U64;

/// The first txg of every pool (`TXG_INITIAL`).
pub const TXG_INITIAL: u64 = 4;
/// Largest block before large_blocks: block size of the history.
const HISTORY_BLOCK: u64 = 128 << 10;

/// What to make.
pub struct CreateSpec {
    /// The pool's name.
    pub name: String,
    /// The vdevs, guids and sizes chosen, labels not yet written.
    pub root: VdevConfig,
    /// The devices by leaf guid.
    pub devices: BTreeMap<Guid, Arc<dyn Device>>,
    /// Who makes it.
    pub host: Host,
    /// The administrator's remark.
    pub comment: Option<String>,
    /// The features to enable, each with what it depends on: see [`crate::features::chosen`].
    pub features: Vec<Feature>,
}

impl Pool {
    /// Makes a pool with a plain root file system and commits its first txg.
    pub fn create(env: Env, spec: CreateSpec) -> Result<Self> {
        Self::create_with(env, spec, &RootDataset::default())
    }

    /// The same with another root file system.
    pub fn create_with(env: Env, spec: CreateSpec, root: &RootDataset) -> Result<Self> {
        icecore_dsl::name::check_pool(&spec.name)?;
        let guid = spec.root.guid;
        let config = first_config(&spec, guid);
        for (leaf, device) in &spec.devices {
            let label = config.label_for(*leaf, &BTreeSet::new());
            let label = label.ok_or_else(|| PoolError::Invalid(format!("device {leaf} is in no vdev")))?;
            icecore_vdev::label::init(&**device, &label.to_nvlist())?;
            device.flush().map_err(icecore_vdev::VdevError::Device)?;
        }
        let vdevs = VdevSet::open(&spec.root, &spec.devices)?;
        vdevs.check_readable()?;
        let mut pool = Self::start(env, vdevs, config, &spec, root)?;
        pool.make_objects()?;
        pool.commit()?;
        Ok(pool)
    }

    fn start(
        env: Env,
        vdevs: VdevSet,
        config: PoolConfig,
        spec: &CreateSpec,
        root: &RootDataset,
    ) -> Result<Self> {
        let devices = spec.devices.clone();
        let mut io = Io::new(env.clone(), vdevs, Txg(TXG_INITIAL), Blkptr::default());
        let mut salt = [0; 32];
        env.entropy.fill(&mut salt);
        io.salt = PoolSalt(salt);
        io.writable = true;
        io.hole_birth = true;
        io.set_alloc(fresh_allocator(&io.vdevs));
        let info = PoolInfo {
            name: spec.name.clone(),
            version: VERSION_FEATURES,
            usable: io.space().usable(),
            at_once: io.space().at_once(),
        };
        let chance = Box::new(EnvChance(env));
        let dsl = Dsl::create(&mut io, info, chance, &spec.features, root)?;
        if let Some(keys) = dsl.master_keys(&io, dsl.root_dir())? {
            io.add_key(dsl.lookup_head(&io, &spec.name)?.obj, keys);
        }
        let mut uberblock = UberblockPhys { version: U64::new(VERSION_FEATURES), ..Default::default() };
        uberblock.set_mmp_off();
        Ok(Self {
            io,
            dsl,
            config,
            uberblock,
            label_features: BTreeSet::new(),
            config_dirty: true,
            note: None,
            announce: false,
            objects: Objects::default(),
            host: spec.host.clone(),
            missing: BTreeSet::new(),
            devices,
            passes: 0,
            logs: Default::default(),
            load_guid: std::sync::OnceLock::new(),
            passed: Vec::new(),
            scanning: Default::default(),
            resilver: Default::default(),
            copying: Default::default(),
        })
    }

    fn make_objects(&mut self) -> Result<()> {
        self.make_history()?;
        let nvlist = NewObject::plain(ObjectType::PACKED_NVLIST, CONFIG_BLOCK as u64)
            .with_bonus(ObjectType::PACKED_NVLIST_SIZE, 8);
        self.objects.config = self.dsl.mos.allocate(&self.io, &nvlist)?.0;
        self.entry("config", self.objects.config)?;
        self.entry("creation_version", VERSION_FEATURES)?;
        self.entry("deflate", 1)?;
        let deferred =
            NewObject::plain(ObjectType::BPOBJ, 16 << 10).with_bonus(ObjectType::BPOBJ_HDR, bpobj::SIZE_V2);
        let deferred = self.dsl.mos.allocate(&self.io, &deferred)?;
        self.dsl.mos.edit(&self.io, deferred)?.set_compress(Compress::OFF);
        self.objects.sync_bpobj = deferred.0;
        self.entry("sync_bplist", deferred.0)?;
        let salt = ZapValue::U8(self.io.salt.0.to_vec());
        zap::add(&mut self.dsl.mos, &mut self.io, DIRECTORY, "org.illumos:checksum_salt", &salt)?;
        self.make_props()?;
        self.make_vdev_zaps()?;
        self.make_metaslab_arrays()?;
        self.refresh_label_features()
    }

    fn entry(&mut self, name: &str, value: u64) -> Result<()> {
        Ok(self.dsl.set_directory_entry(&mut self.io, name, value)?)
    }

    /// An empty history: 0.1 % of the pool, at least 128 KiB, at most 1 GiB (`spa_history_create_obj`).
    fn make_history(&mut self) -> Result<()> {
        let new = NewObject::plain(ObjectType::SPA_HISTORY, HISTORY_BLOCK)
            .with_bonus(ObjectType::SPA_HISTORY_OFFSETS, 40);
        let object = self.dsl.mos.allocate(&self.io, &new)?;
        let size = (self.io.space().size / 1000).clamp(128 << 10, 1 << 30);
        let dn = self.dsl.mos.edit(&self.io, object)?;
        let _ = put_u64_at(dn.bonus_mut(), 8, size);
        self.objects.history = object.0;
        self.entry("history", object.0)
    }

    fn make_props(&mut self) -> Result<()> {
        let (mos, io) = (&mut self.dsl.mos, &mut self.io);
        let props = zap::create(mos, io, ObjectType::POOL_PROPS, None, 0)?;
        self.entry("pool_props", props.0)
    }

    /// A ZAP for the root (where the feature for it is enabled), each top-level vdev and each leaf, all listed in one map.
    fn make_vdev_zaps(&mut self) -> Result<()> {
        let map = self.new_zap()?;
        self.entry("com.delphix:vdev_zap_map", map.0)?;
        let with_root = self.dsl.feature_enabled(&self.io, Feature::AVZ_V2)?;
        if with_root {
            self.dsl.feature_incr(&mut self.io, Feature::AVZ_V2)?;
        }
        let Some(mut root) = self.config.vdev_tree.take() else { return Ok(()) };
        if with_root {
            root.vdev_zap_root = Some(self.listed_zap(map)?);
        }
        for top in &mut root.children {
            self.leaf_zaps(top, map)?;
            top.vdev_zap_top = Some(self.listed_zap(map)?);
        }
        self.config.vdev_tree = Some(root);
        Ok(())
    }

    fn leaf_zaps(&mut self, vdev: &mut VdevConfig, map: ObjectId) -> Result<()> {
        if vdev.kind.is_leaf() {
            vdev.vdev_zap_leaf = Some(self.listed_zap(map)?);
        }
        vdev.children.iter_mut().try_for_each(|c| self.leaf_zaps(c, map))
    }

    fn new_zap(&mut self) -> Result<ObjectId> {
        let kind = ObjectType::OTN_ZAP_METADATA;
        Ok(zap::create(&mut self.dsl.mos, &self.io, kind, None, 0)?)
    }

    fn listed_zap(&mut self, map: ObjectId) -> Result<u64> {
        let object = self.new_zap()?;
        let key = format!("{:x}", object.0);
        zap::add(&mut self.dsl.mos, &mut self.io, map, &key, &ZapValue::u64(object.0))?;
        Ok(object.0)
    }

    /// The object of each top-level vdev that will list its space maps.
    fn make_metaslab_arrays(&mut self) -> Result<()> {
        let Some(root) = &mut self.config.vdev_tree else { return Ok(()) };
        for (i, top) in root.children.iter_mut().enumerate() {
            let object = self.dsl.mos.allocate(&self.io, &metaslab_array())?.0;
            top.metaslab_array = Some(object);
            if let Some(Some(top)) = self.io.alloc.tops.get_mut(i) {
                top.array = object;
            }
        }
        Ok(())
    }
}

fn first_config(spec: &CreateSpec, guid: Guid) -> PoolConfig {
    let mut root = spec.root.clone();
    root.id = Some(0);
    root.create_txg = Some(TXG_INITIAL);
    let mut config = PoolConfig::default();
    config.version = Some(VERSION_FEATURES);
    config.name = Some(spec.name.clone());
    config.state = Some(PoolState::ACTIVE.0);
    config.txg = Some(0);
    config.pool_guid = Some(guid.0);
    config.errata = Some(0);
    config.comment.clone_from(&spec.comment);
    config.hostid = Some(spec.host.id).filter(|id| *id != 0);
    config.hostname = Some(spec.host.name.clone());
    config.has_per_vdev_zaps = true;
    config.vdev_children = Some(root.children.len() as u64);
    config.features_for_read = Some(BTreeSet::new());
    config.vdev_tree = Some(root);
    config
}

/// The object of a top-level vdev that lists its space maps.
pub(crate) fn metaslab_array() -> NewObject {
    NewObject::plain(ObjectType::OBJECT_ARRAY, 512)
}

/// All space free.
fn fresh_allocator(vdevs: &VdevSet) -> Allocator {
    Allocator::new(vdevs.tops().iter().map(fresh).collect())
}

/// A top-level vdev of which nothing is allocated; `None` where nothing can be.
pub(crate) fn fresh(top: &icecore_vdev::tree::Top) -> Option<Top> {
    let (shift, count) = top.metaslabs();
    let slabs = (0..count).map(|i| Metaslab::new(i << shift, 1 << shift, 0, Phys::new())).collect();
    top.is_concrete().then(|| Top::new(top.id as u32, top.ashift as u32, shift as u32, 0, slabs))
}
