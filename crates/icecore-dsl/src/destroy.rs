//! Destroying snapshots and datasets (dsl_destroy.c).
//!
//! A snapshot's own blocks move from its neighbour's deadlist to the pool's free list; a head's own blocks
//! are found by walking its tree, as OpenZFS does in pools without `async_destroy`. Both are given back in
//! the same txg.
//!
//! Invariant: what is freed was born after the previous snapshot, and no deadlist or younger snapshot
//! refers to it.

use crate::error::{DslError, Result};
use crate::limits::Counted;
use crate::lookup::DatasetRef;
use crate::phys::{DS_FLAG_DEFER_DESTROY, DS_FLAG_UNIQUE_ACCURATE, Dataset, Used};
use crate::{DatasetEvent, Dsl};
use icecore_dmu::{BlockStore, BlockWriter, ReadError, Space, Want};
use icecore_format::dnode::{MAX_LEVELS, SLOTS_PER_BLOCK};
use icecore_format::objset::ObjsetPhys;
use icecore_format::{Blkptr, Bookmark, Corrupt, Dnode, ObjectId, Txg};
use zerocopy::FromBytes;

/// Where the intent log header keeps the pointer to the log's first block (`zh_log`, zil.h).
const ZH_LOG: std::ops::Range<usize> = 16..144;

impl Dsl {
    /// Destroys snapshot `name`; with `defer` it is only marked while held or cloned (`zfs destroy -d`).
    /// True if it is gone, false if marked.
    pub fn destroy_snapshot(&mut self, io: &mut dyn BlockWriter, name: &str, defer: bool) -> Result<bool> {
        let snap = self.lookup_snapshot(io, name)?;
        self.check_unused(snap.obj)?;
        let mut ds = self.dataset(io, snap.obj)?;
        let held = self.userrefs(io, snap.obj)? > 0;
        if held || ds.num_children > 1 {
            if defer {
                ds.flags |= DS_FLAG_DEFER_DESTROY;
                self.put_dataset(io, snap.obj, &ds)?;
                return Ok(false);
            }
            if held {
                return Err(DslError::Busy(format!("{name} is held")));
            }
            return Err(DslError::Dependents(self.clones(io, snap)?));
        }
        self.destroy_snapshot_object(io, snap.obj)?;
        Ok(true)
    }

    /// Names of the datasets cloned from a snapshot.
    pub fn clones(&self, io: &dyn BlockStore, snap: DatasetRef) -> Result<Vec<String>> {
        let ds = self.dataset(io, snap.obj)?;
        let mut out = Vec::new();
        for (_, obj) in self.zap_list_u64(io, ds.next_clones_obj)? {
            out.push(self.dir_name(io, self.dataset(io, obj)?.dir_obj)?);
        }
        out.sort();
        Ok(out)
    }

    /// `dsl_destroy_snapshot_sync_impl`, all checks done.
    pub(crate) fn destroy_snapshot_object(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        let ds = self.dataset(io, obj)?;
        let name = self.snapshot_name(io, DatasetRef { obj, dir: ds.dir_obj, snapshot: true })?;
        // An open head between here and its next sync would account against neighbours that are gone.
        self.sync_dataset(io, ds.next_snap_obj)?;
        let book_exists = self.bookmarks_snapshot_destroyed(io, obj)?;
        self.deactivate_features(io, obj)?;
        let prev = self.unlink_from_previous(io, obj, &ds)?;
        let mut next = self.dataset(io, ds.next_snap_obj)?;
        let old_unique = next.unique_bytes;
        next.prev_snap_obj = ds.prev_snap_obj;
        next.prev_snap_txg = ds.prev_snap_txg;
        self.put_dataset(io, ds.next_snap_obj, &next)?;
        if self.deadlist_old_format(io, next.deadlist_obj)? {
            self.process_old_deadlist(io, obj, &ds, prev)?;
        } else {
            self.process_deadlist(io, &ds, &next, prev)?;
        }
        let freed_list = self.dataset(io, obj)?.deadlist_obj;
        self.deadlist_free(io, freed_list)?;
        if !book_exists {
            self.remove_clones_key(io, ds.dir_obj, ds.creation_txg)?;
        }
        self.recount_next(io, &ds, old_unique, book_exists)?;
        let head = self.dir(io, ds.dir_obj)?.head_dataset_obj;
        let map = self.dataset(io, head)?.snapnames_zapobj;
        self.zap_del(io, map, &name)?;
        self.count_adjust(io, ds.dir_obj, Counted::Snapshots, -1)?;
        self.snapshots_changed(io, ds.dir_obj)?;
        for zap in [ds.next_clones_obj, ds.props_obj, ds.userrefs_obj] {
            if zap != 0 {
                self.free_obj(io, zap)?;
            }
        }
        self.events.push(DatasetEvent::Destroyed { object: obj, next: Some(ds.next_snap_obj) });
        self.free_zapified(io, obj)
    }

    /// Takes `obj` out of the chain behind its previous snapshot. Gives that one's object if `obj` was its
    /// next in the same dataset (not a clone's first).
    fn unlink_from_previous(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        ds: &Dataset,
    ) -> Result<Option<u64>> {
        if ds.prev_snap_obj == 0 {
            return Ok(None);
        }
        let mut prev = self.dataset(io, ds.prev_snap_obj)?;
        if prev.next_snap_obj == obj {
            prev.next_snap_obj = ds.next_snap_obj;
            self.put_dataset(io, ds.prev_snap_obj, &prev)?;
            return Ok(Some(ds.prev_snap_obj));
        }
        if prev.next_clones_obj != 0 {
            self.zap_del(io, prev.next_clones_obj, &crate::mos::int_key(obj))?;
            if ds.next_snap_obj != 0 {
                let key = crate::mos::int_key(ds.next_snap_obj);
                self.zap_put_u64(io, prev.next_clones_obj, &key, ds.next_snap_obj)?;
            }
        }
        Ok(None)
    }

    /// The next dataset's deadlist: what was born before the snapshot stays, what is the snapshot's own goes.
    fn process_deadlist(
        &mut self,
        io: &mut dyn BlockWriter,
        ds: &Dataset,
        next: &Dataset,
        prev: Option<u64>,
    ) -> Result<()> {
        if let Some(prev_obj) = prev {
            let mut p = self.dataset(io, prev_obj)?;
            let more = self.deadlist_space_range(io, next.deadlist_obj, p.prev_snap_txg, ds.prev_snap_txg)?;
            p.unique_bytes = crate::space::add(p.unique_bytes, more.used);
            self.put_dataset(io, prev_obj, &p)?;
        }
        let own = self.deadlist_space_range(io, next.deadlist_obj, ds.prev_snap_txg, u64::MAX)?;
        let mut less = Space::default();
        less.sub(own);
        self.diduse(io, ds.dir_obj, Used::Snap, less)?;
        let free = self.free_list()?;
        self.deadlist_move(io, next.deadlist_obj, free, ds.prev_snap_txg)?;
        if self.free_dir != 0 {
            self.diduse(io, self.free_dir, Used::Head, own)?;
        }
        self.deadlist_merge(io, next.deadlist_obj, ds.deadlist_obj)
    }

    /// The same for deadlists of pools before version 26: the two datasets exchange their lists
    /// (`process_old_deadlist`).
    fn process_old_deadlist(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        ds: &Dataset,
        prev: Option<u64>,
    ) -> Result<()> {
        let next_list = self.dataset(io, ds.next_snap_obj)?.deadlist_obj;
        let mut keep = Vec::new();
        let mut less = Space::default();
        for bp in self.bpobj_blocks(io, next_list)? {
            if bp.alloc_birth().0 <= ds.prev_snap_txg {
                if let Some(prev_obj) = prev {
                    let mut p = self.dataset(io, prev_obj)?;
                    if bp.alloc_birth().0 > p.prev_snap_txg {
                        p.unique_bytes = p.unique_bytes.saturating_add(bp.asize());
                        self.put_dataset(io, prev_obj, &p)?;
                    }
                }
                keep.push(bp);
            } else {
                less.sub(Space::of(&bp));
                io.free(&bp)?;
            }
        }
        self.deadlist_insert(io, ds.deadlist_obj, &keep)?;
        self.diduse(io, ds.dir_obj, Used::Snap, less)?;
        let mut own = self.dataset(io, obj)?;
        let mut next = self.dataset(io, ds.next_snap_obj)?;
        std::mem::swap(&mut own.deadlist_obj, &mut next.deadlist_obj);
        self.put_dataset(io, obj, &own)?;
        self.put_dataset(io, ds.next_snap_obj, &next)
    }

    /// Unique bytes of the dataset after the one that goes.
    fn recount_next(
        &mut self,
        io: &mut dyn BlockWriter,
        ds: &Dataset,
        old_unique: u64,
        book_exists: bool,
    ) -> Result<()> {
        let mut next = self.dataset(io, ds.next_snap_obj)?;
        if next.is_snapshot() {
            let after = self.dataset(io, next.next_snap_obj)?;
            let more =
                self.deadlist_space_range(io, after.deadlist_obj, ds.prev_snap_txg, ds.creation_txg)?;
            next.unique_bytes = crate::space::add(next.unique_bytes, more.used);
            self.put_dataset(io, ds.next_snap_obj, &next)?;
            if !book_exists {
                let head = self.dir(io, ds.dir_obj)?.head_dataset_obj;
                let list = self.dataset(io, head)?.deadlist_obj;
                self.deadlist_remove_key(io, list, ds.creation_txg)?;
            }
            return Ok(());
        }
        self.recalc_head_unique(io, ds.next_snap_obj)?;
        let head = DatasetRef { obj: ds.next_snap_obj, dir: ds.dir_obj, snapshot: false };
        let reserved = self.prop_number(io, head, "refreservation")?;
        if old_unique < reserved {
            let unique = self.dataset(io, head.obj)?.unique_bytes;
            let delta = unique.saturating_sub(old_unique).min(reserved - old_unique);
            let delta = i64::try_from(delta).unwrap_or(i64::MAX);
            self.diduse(io, ds.dir_obj, Used::RefRsrv, Space { used: -delta, ..Space::default() })?;
        }
        Ok(())
    }

    /// What only the head holds: all it references, less what the previous snapshot still has
    /// (`dsl_dataset_recalc_head_uniq`).
    pub(crate) fn recalc_head_unique(&mut self, io: &mut dyn BlockWriter, head: u64) -> Result<()> {
        let mut ds = self.dataset(io, head)?;
        let shared =
            if ds.prev_snap_obj == 0 { 0 } else { self.dataset(io, ds.prev_snap_obj)?.referenced_bytes };
        let dead = self.deadlist_space(io, ds.deadlist_obj)?.used;
        let still = crate::space::add(shared, -dead);
        ds.unique_bytes = ds.referenced_bytes.saturating_sub(still);
        ds.flags |= DS_FLAG_UNIQUE_ACCURATE;
        self.put_dataset(io, head, &ds)
    }

    /// Clones of younger snapshots of `dir` have `txg` as a key in their deadlists: remove it, and so on
    /// for clones of clones (`dsl_dir_remove_clones_key`).
    pub(crate) fn remove_clones_key(&mut self, io: &mut dyn BlockWriter, dir: u64, txg: u64) -> Result<()> {
        let mut todo = vec![dir];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(dir) = todo.pop() {
            if !seen.insert(dir) {
                return Err(Corrupt::new("DSL directory", "clones of itself").into());
            }
            let dd = self.dir(io, dir)?;
            for (_, clone) in self.zap_list_u64(io, dd.clones)? {
                let ds = self.dataset(io, clone)?;
                let cdd = self.dir(io, ds.dir_obj)?;
                if self.origin_txg(io, &cdd)? > txg {
                    self.sync_dataset(io, clone)?;
                    let list = self.dataset(io, clone)?.deadlist_obj;
                    self.deadlist_remove_key(io, list, txg)?;
                    todo.push(ds.dir_obj);
                }
            }
        }
        Ok(())
    }

    /// Destroys a head without snapshots or children (`dsl_destroy_head`). Its unwritten changes are lost.
    pub fn destroy_head(&mut self, io: &mut dyn BlockWriter, path: &str) -> Result<()> {
        let head = self.lookup_head(io, path)?;
        if head.dir == self.root_dir {
            return Err(DslError::Invalid("the root dataset goes with its pool only".into()));
        }
        self.check_unused(head.obj)?;
        let ds = self.dataset(io, head.obj)?;
        let snaps = self.snapshots_of(io, head)?;
        if !snaps.is_empty() {
            return Err(DslError::Dependents(
                snaps.into_iter().map(|(n, _)| format!("{path}@{n}")).collect(),
            ));
        }
        let children = self.zap_list_u64(io, self.dir(io, head.dir)?.child_dir_zapobj)?;
        if !children.is_empty() {
            return Err(DslError::Dependents(
                children.into_iter().map(|(n, _)| format!("{path}/{n}")).collect(),
            ));
        }
        if ds.prev_snap_obj != 0 && self.dataset(io, ds.prev_snap_obj)?.next_snap_obj == head.obj {
            return Err(DslError::Busy(format!("{path} has snapshots")));
        }
        self.log_block(io, head.obj)?;
        self.destroy_head_object(io, head)
    }

    /// The one block of a head's empty intent log: it belongs to no dataset's accounting. A log with records
    /// is not ours to throw away (`zil_destroy_sync`).
    pub(crate) fn log_block(&self, io: &dyn BlockStore, head: u64) -> Result<Option<Blkptr>> {
        let ds = self.dataset(io, head)?;
        if ds.bp.is_hole() {
            return Ok(None);
        }
        let at = Bookmark::root(head);
        let phys = ObjsetPhys::parse(&io.read(&ds.bp, &at, Want::NoKey)?)?;
        let log =
            phys.zil_header().get(ZH_LOG).and_then(|b| Blkptr::read_from_bytes(b).ok()).unwrap_or_default();
        if log.is_hole() {
            return Ok(None);
        }
        // Blocks of a log are written after they are linked: the first that does not verify is its end.
        if io.read(&log, &at, Want::Stored).is_ok() {
            let why = "the dataset has an intent log to be replayed first";
            return Err(DslError::Unsupported(why.into()));
        }
        Ok(Some(log))
    }

    /// A clone starts with its origin's objset block, but not with the log that block leads to
    /// (`dsl_dataset_zero_zil`).
    pub(crate) fn zero_log(&mut self, io: &mut dyn BlockWriter, head: u64) -> Result<()> {
        let ds = self.dataset(io, head)?;
        if ds.bp.is_hole() {
            return Ok(());
        }
        let phys = ObjsetPhys::parse(&io.read(&ds.bp, &Bookmark::root(head), Want::NoKey)?)?;
        if phys.zil_header().iter().all(|b| *b == 0) {
            return Ok(());
        }
        // Needs no key: the header is under no MAC.
        let os = self.open_dataset_as(io, head, Want::NoKey)?;
        os.phys_mut().zil_header_mut().fill(0);
        self.abandon(io, head)
    }

    /// `dsl_destroy_head_sync_impl`, all checks done.
    pub(crate) fn destroy_head_object(&mut self, io: &mut dyn BlockWriter, head: DatasetRef) -> Result<()> {
        self.abandon(io, head.obj)?;
        if let Some(log) = self.log_block(io, head.obj)? {
            io.free(&log)?;
        }
        let mut ds = self.dataset(io, head.obj)?;
        self.set_refreservation(io, head, 0)?;
        self.prop_clear(io, head, "refreservation", false)?;
        self.deactivate_features(io, head.obj)?;
        self.livelist_remove(io, head.dir)?;
        let origin = self.unlink_from_origin(io, head, &ds)?;
        self.free_tree(io, head.obj, &mut ds)?;
        self.put_dataset(io, head.obj, &ds)?;
        self.deadlist_free(io, ds.deadlist_obj)?;
        let mut dd = self.dir(io, head.dir)?;
        dd.head_dataset_obj = 0;
        self.put_dir(io, head.dir, &dd)?;
        self.free_obj(io, ds.snapnames_zapobj)?;
        self.bookmarks_destroy_all(io, head.obj)?;
        self.errlog_head_destroyed(io, head.obj)?;
        self.events.push(DatasetEvent::Destroyed { object: head.obj, next: None });
        self.free_zapified(io, head.obj)?;
        self.destroy_dir(io, head.dir)?;
        if let Some(origin) = origin {
            let o = self.dataset(io, origin)?;
            if origin != self.origin_snap
                && o.is_defer_destroy()
                && o.num_children == 1
                && self.userrefs(io, origin)? == 0
            {
                self.destroy_snapshot_object(io, origin)?;
            }
        }
        Ok(())
    }

    /// What an open objset wrote in this txg without a sync is unreachable already, but allocated: write it
    /// out, so that the walk finds it.
    fn abandon(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        let synced = self.sync_dataset(io, obj);
        self.forget(obj);
        synced
    }

    fn unlink_from_origin(
        &mut self,
        io: &mut dyn BlockWriter,
        head: DatasetRef,
        ds: &Dataset,
    ) -> Result<Option<u64>> {
        if ds.prev_snap_obj == 0 {
            return Ok(None);
        }
        let key = crate::mos::int_key(head.obj);
        let mut prev = self.dataset(io, ds.prev_snap_obj)?;
        if prev.next_clones_obj != 0 {
            self.zap_del(io, prev.next_clones_obj, &key)?;
        }
        prev.num_children = prev.num_children.saturating_sub(1);
        self.put_dataset(io, ds.prev_snap_obj, &prev)?;
        let clones = self.dir(io, prev.dir_obj)?.clones;
        if clones != 0 {
            self.zap_del(io, clones, &key)?;
        }
        Ok(Some(ds.prev_snap_obj))
    }

    /// Frees every block of a head that was born after its origin. It must have no snapshots.
    fn free_tree(&mut self, io: &mut dyn BlockWriter, obj: u64, ds: &mut Dataset) -> Result<()> {
        if ds.bp.is_hole() {
            return Ok(());
        }
        let mut walk = Walk::new(obj, ds.prev_snap_txg, &ds.bp);
        loop {
            let batch = walk.batch(io)?;
            if batch.is_empty() {
                break;
            }
            // No refreservation any more; blocks of this very txg count like the others.
            self.killed(io, obj, ds, 0, &batch)?;
        }
        ds.bp = Blkptr::default();
        Ok(())
    }

    fn destroy_dir(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        let dd = self.dir(io, dir)?;
        let parent = self.dir(io, dd.parent_obj)?;
        self.count_adjust(io, dd.parent_obj, Counted::Filesystems, -1)?;
        self.set_reservation(io, dir, 0)?;
        self.key_release(io, dir)?;
        for zap in [dd.child_dir_zapobj, dd.props_zapobj, dd.clones] {
            if zap != 0 {
                self.free_obj(io, zap)?;
            }
        }
        self.free_delegations(io, dd.deleg_zapobj)?;
        let names = self.zap_list_u64(io, parent.child_dir_zapobj)?;
        if let Some((name, _)) = names.iter().find(|(_, o)| *o == dir) {
            self.zap_del(io, parent.child_dir_zapobj, name)?;
        }
        self.free_zapified(io, dir)
    }

    /// A ZAP of ZAPs (`dsl_deleg_destroy`).
    fn free_delegations(&mut self, io: &mut dyn BlockWriter, zap: u64) -> Result<()> {
        if zap == 0 {
            return Ok(());
        }
        for (_, sub) in self.zap_list_u64(io, zap)? {
            self.free_obj(io, sub)?;
        }
        self.free_obj(io, zap)
    }
}

/// Blocks handed out at once by a walk: 8 MiB of pointers.
const BATCH: usize = 65_536;

/// What a pointer on the walk's stack leads to.
enum Kind {
    /// The objset block.
    Root,
    /// A tree of blocks of dnodes, or of an object's contents.
    Tree {
        object: u64,
        level: u8,
        blkid: u64,
        /// log2 of the pointers in an indirect block.
        epbs: u32,
    },
    /// A spill block.
    Leaf,
}

/// All blocks of an objset born after `mintxg`, a batch at a time: memory is bounded by the height of the
/// trees, not by the dataset. Needs no key: pointers are never encrypted. A block is handed out after it was
/// read, so that it may be freed at once.
pub(crate) struct Walk {
    objset: u64,
    mintxg: u64,
    stack: Vec<(Blkptr, Kind)>,
}

impl Walk {
    pub(crate) fn new(objset: u64, mintxg: u64, root: &Blkptr) -> Self {
        let mut walk = Self { objset, mintxg, stack: Vec::new() };
        walk.push(root, Kind::Root);
        walk
    }

    /// A young block hangs below young ones only: what is old needs no visit.
    fn push(&mut self, bp: &Blkptr, kind: Kind) {
        if !bp.is_hole() && !bp.is_redacted() && bp.alloc_birth() > Txg(self.mintxg) {
            self.stack.push((*bp, kind));
        }
    }

    /// The next blocks; empty at the end.
    pub(crate) fn batch(&mut self, io: &dyn BlockStore) -> Result<Vec<Blkptr>> {
        let mut out = Vec::new();
        while out.len() < BATCH {
            let Some((bp, kind)) = self.stack.pop() else { break };
            match kind {
                Kind::Root => self.root(io, &bp)?,
                Kind::Tree { object, level, blkid, epbs } if level > 0 || object == 0 => {
                    self.block(io, &bp, object, level, blkid, epbs)?;
                }
                Kind::Tree { .. } | Kind::Leaf => {}
            }
            out.push(bp);
        }
        Ok(out)
    }

    fn root(&mut self, io: &dyn BlockStore, bp: &Blkptr) -> Result<()> {
        let phys = ObjsetPhys::parse(&io.read(bp, &Bookmark::root(self.objset), Want::NoKey)?)?;
        let accounting = [phys.userused_dnode()?, phys.groupused_dnode()?, phys.projectused_dnode()?];
        for (id, dn) in accounting.iter().enumerate().filter(|(_, dn)| !dn.is_free()) {
            self.dnode(u64::MAX - id as u64, dn)?;
        }
        self.dnode(0, &phys.meta_dnode()?)
    }

    fn dnode(&mut self, object: u64, dn: &Dnode) -> Result<()> {
        if dn.nlevels() == 0 || dn.nlevels() > MAX_LEVELS {
            return Err(Corrupt::new("dnode", format!("{} levels", dn.nlevels())).into());
        }
        for i in 0..dn.nblkptr() {
            let level = dn.nlevels() - 1;
            let kind = Kind::Tree { object, level, blkid: u64::from(i), epbs: dn.epbs() };
            self.push(&dn.blkptr(usize::from(i)), kind);
        }
        if let Some(bp) = dn.spill() {
            self.push(&bp, Kind::Leaf);
        }
        Ok(())
    }

    /// An indirect block, or a block of dnodes.
    fn block(
        &mut self,
        io: &dyn BlockStore,
        bp: &Blkptr,
        object: u64,
        level: u8,
        blkid: u64,
        epbs: u32,
    ) -> Result<()> {
        if bp.is_embedded() {
            return Ok(());
        }
        let at = Bookmark {
            objset: self.objset,
            object: ObjectId(object),
            level: i8::try_from(level).unwrap_or(0),
            blkid,
        };
        let bytes = io.read(bp, &at, Want::NoKey)?;
        if level > 0 {
            for (i, child) in bytes.chunks_exact(128).enumerate() {
                let child = Blkptr::read_from_bytes(child).unwrap_or_default();
                let blkid = blkid.checked_shl(epbs).unwrap_or(u64::MAX).saturating_add(i as u64);
                self.push(&child, Kind::Tree { object, level: level - 1, blkid, epbs });
            }
            return Ok(());
        }
        for (slot, _) in icecore_dmu::objset::slot_starts(&bytes).map_err(ReadError::Corrupt)? {
            let dn = Dnode::parse(bytes.get(slot * 512..).unwrap_or(&[]))?;
            self.dnode(blkid.saturating_mul(SLOTS_PER_BLOCK).saturating_add(slot as u64), &dn)?;
        }
        Ok(())
    }
}
