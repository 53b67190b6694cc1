//! Block I/O of one pool: what the DMU's `BlockStore` and `BlockWriter` ask for, over the vdev tree.
//!
//! Invariants:
//! 1. Reads take `&self` and are repeatable; what they cache is keyed by checksum.
//! 2. After a write that no copy of a device took the pool is suspended: every later write and commit fails,
//!    and nothing more reaches a device. Reopen it. Where another side of a mirror took it, the side that did
//!    not is left alone from then on, and its time log says so (`dtl`).
//! 3. Allocation order is input order; everything random comes from `Env::entropy` in input order too.
//! 4. At most one batch is on its way to the devices behind the caller's back (`behind`). It has arrived before
//!    any read of a device, before the next batch starts, before every flush, and before the devices are let go.
//!
//! Does not do: dedup tables, block cloning tables.

mod behind;
mod cache;
pub mod codec;
mod examine;
mod gang;
mod read;
mod write;

use crate::metaslab::{Allocator, Space};
use crate::range_tree::RangeTree;
use behind::Behind;
use cache::Cache;
pub use examine::Examined;
use icecore_dmu::{ReadError, WriteError};
use icecore_env::Env;
use icecore_format::{Blkptr, Dva, Guid, Txg};
use icecore_transform::checksum::PoolSalt;
use icecore_vdev::{VdevError, VdevSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Bytes of metadata kept in memory.
const CACHE_BYTES: usize = 64 << 20;
/// And of the lowest pointers to files' data: blocks for 2 GiB of files of 128 KiB records.
const POINTER_BYTES: usize = 2 << 20;
/// Blocks that may share a salt (`ZFS_CURRENT_MAX_SALT_USES`); far fewer, since a new one costs nothing.
const SALT_USES: u64 = 1 << 24;

struct Loaded {
    keys: codec::Keys,
    /// Salt of new blocks and how many have it.
    salt: Option<([u8; 8], u64)>,
}

/// Reads, writes, allocates and frees the blocks of a pool.
pub struct Io {
    pub(crate) env: Env,
    pub(crate) vdevs: Arc<VdevSet>,
    behind: Behind,
    pub(crate) alloc: Allocator,
    pub(crate) txg: Txg,
    /// Pass of the commit in progress; 0 before it.
    pub(crate) pass: u32,
    /// Root of the MOS as last committed: space maps are loaded from it.
    pub(crate) mos_root: Blkptr,
    pub(crate) salt: PoolSalt,
    pub(crate) hole_birth: bool,
    pub(crate) writable: bool,
    /// log2 of the smallest allocation of any vdev.
    pub(crate) min_shift: u32,
    pub(crate) unflushed_writes: bool,
    /// Leaves that failed since the last look, and that the pool goes on without.
    pub(crate) lost: BTreeSet<Guid>,
    /// What sides of mirrors are known to lack, as txgs, of a pool that is not opened for writing: there they are read, too.
    pub(crate) missed: BTreeMap<Guid, RangeTree>,
    gang_above: u64,
    suspended: Option<String>,
    keys: BTreeMap<u64, Loaded>,
    cache: Mutex<Cache>,
    /// What was freed in the open txg, if somebody wants to know.
    freed: Option<BTreeMap<u32, RangeTree>>,
}

impl Io {
    pub(crate) fn new(env: Env, vdevs: VdevSet, txg: Txg, mos_root: Blkptr) -> Self {
        Self {
            env,
            vdevs: Arc::new(vdevs),
            behind: Behind::default(),
            alloc: Allocator::default(),
            txg,
            pass: 0,
            mos_root,
            salt: PoolSalt([0; 32]),
            hole_birth: false,
            writable: false,
            min_shift: 9,
            unflushed_writes: false,
            lost: BTreeSet::new(),
            missed: BTreeMap::new(),
            gang_above: u64::MAX,
            suspended: None,
            keys: BTreeMap::new(),
            cache: Mutex::new(Cache::new(CACHE_BYTES, POINTER_BYTES)),
            freed: None,
        }
    }

    /// Whether what is freed is kept for [`Io::take_freed`].
    pub(crate) fn watch_frees(&mut self, watch: bool) {
        self.freed = if watch { Some(self.freed.take().unwrap_or_default()) } else { None };
    }
    /// What was freed since the last look.
    pub(crate) fn take_freed(&mut self) -> BTreeMap<u32, RangeTree> {
        self.freed.as_mut().map(std::mem::take).unwrap_or_default()
    }
    /// Gives a place back.
    pub(crate) fn release(&mut self, dva: &Dva) -> Result<(), WriteError> {
        self.alloc.free(dva)?;
        if let Some(freed) = &mut self.freed {
            freed.entry(dva.vdev()).or_default().cover(dva.offset(), dva.asize());
        }
        Ok(())
    }

    /// Clock, entropy, workers.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }
    /// The pool's devices.
    #[must_use]
    pub fn vdevs(&self) -> &VdevSet {
        &self.vdevs
    }
    /// What the pool's salted checksums are salted with.
    #[must_use]
    pub fn salt(&self) -> &PoolSalt {
        &self.salt
    }
    /// Space in the pool, the open txg included. All zero for pools opened read-only.
    #[must_use]
    pub fn space(&self) -> Space {
        self.alloc.space()
    }

    /// Devices that are there and missed txgs, of a pool that is not opened for writing: the first and the last txg each missed.
    pub fn behind(&self) -> impl Iterator<Item = (Guid, Txg, Txg)> + '_ {
        let here = |guid: &Guid| self.vdevs.leaves().iter().any(|l| l.guid == *guid && l.device().is_some());
        self.missed.iter().filter(move |(guid, _)| here(guid)).filter_map(|(guid, txgs)| {
            let (first, last) = (txgs.iter().next()?, txgs.iter().last()?);
            Some((*guid, Txg(first.0), Txg(last.0.saturating_add(last.1).saturating_sub(1))))
        })
    }

    /// For tests: blocks of datasets stored in more than `bytes` are ganged although there is a place for
    /// them (as OpenZFS's `metaslab_force_ganging`).
    pub fn force_ganging(&mut self, bytes: u64) {
        self.gang_above = bytes;
    }
    /// Bytes of all space maps: what opening all metaslabs would read.
    #[must_use]
    pub fn space_map_bytes(&self) -> u64 {
        self.alloc.space_map_bytes()
    }
    /// Whether the pool's space map logs hold changes that the next commit will put into the space maps.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.alloc.has_unflushed()
    }

    /// Makes the keys of a dataset available to reads with `Want::Logical` and to writes.
    pub fn add_key(&mut self, objset: u64, keys: codec::Keys) {
        self.forget(objset);
        self.keys.insert(objset, Loaded { keys, salt: None });
    }
    /// Forgets the keys and everything read with them. Key material is wiped with its last user.
    pub fn remove_key(&mut self, objset: u64) -> bool {
        self.forget(objset);
        self.keys.remove(&objset).is_some()
    }
    /// The keys of a dataset, if loaded.
    #[must_use]
    pub fn key(&self, objset: u64) -> Option<&codec::Keys> {
        self.keys.get(&objset).map(|l| &l.keys)
    }
    fn forget(&self, objset: u64) {
        if let Ok(mut cache) = self.cache.lock() {
            cache.forget_objset(objset);
        }
    }
    /// Forgets what is cached of a block that is freed, or rewritten in its place.
    fn forget_block(&self, bp: &Blkptr) {
        if let (Some(place), Ok(mut cache)) = (bp.dva.first(), self.cache.lock()) {
            cache.forget_place(place);
        }
    }

    /// Forgets every block that is kept in memory: what is read next comes from the devices.
    pub fn forget_blocks(&self) {
        if let Ok(mut cache) = self.cache.lock() {
            *cache = Cache::new(CACHE_BYTES, POINTER_BYTES);
        }
    }

    /// Why nothing can be written any more, if so.
    #[must_use]
    pub fn suspended(&self) -> Option<&str> {
        self.suspended.as_deref()
    }
    pub(crate) fn suspend(&mut self, why: String) -> WriteError {
        let why = self.suspended.get_or_insert(why);
        WriteError::Device(format!("pool I/O is suspended: {why}"))
    }
    pub(crate) fn check_writable(&self) -> Result<(), WriteError> {
        match &self.suspended {
            Some(why) => Err(WriteError::Device(format!("pool I/O is suspended: {why}"))),
            None if !self.writable => Err(WriteError::Invalid("the pool is opened read-only".into())),
            None => Ok(()),
        }
    }
    /// Makes everything written so far durable.
    pub(crate) fn flush(&mut self) -> Result<(), WriteError> {
        self.check_writable()?;
        self.settle()?;
        if std::mem::take(&mut self.unflushed_writes) {
            let flushed = self.vdevs.flush();
            return self.outcome(flushed);
        }
        Ok(())
    }

    /// What became of a write, flush, label or uberblock: where other copies took it, the pool goes on
    /// without the devices that did not; else it is suspended.
    pub(crate) fn outcome(&mut self, result: Result<(), VdevError>) -> Result<(), WriteError> {
        let Err(error) = result else { return Ok(()) };
        // Nothing else holds the devices: what was behind the caller's back has ended.
        if let (VdevError::Partial { failed, .. }, Some(vdevs)) = (&error, Arc::get_mut(&mut self.vdevs)) {
            let mut lost = vdevs.lose(failed);
            if !lost.is_empty() {
                self.lost.append(&mut lost);
                return Ok(());
            }
        }
        Err(self.suspend(error.to_string()))
    }
    /// The devices, with nothing on its way to them behind the caller's back.
    pub(crate) fn settled(&self) -> &VdevSet {
        self.behind.settle();
        &self.vdevs
    }
    /// Waits for the writes under way and deals with how they ended.
    fn settle(&mut self) -> Result<(), WriteError> {
        match self.behind.failure() {
            Some(error) => self.outcome(Err(error)),
            None => Ok(()),
        }
    }
    pub(crate) fn set_alloc(&mut self, alloc: Allocator) {
        let shifts = alloc.tops.iter().flatten().map(|t| t.ashift);
        self.min_shift = shifts.min().unwrap_or(9);
        self.alloc = alloc;
    }
}

/// A shared block.
type Block = Result<Arc<[u8]>, ReadError>;
