//! Exchanging the roles of a clone and the dataset it was cloned from (`dsl_dataset_promote_check`,
//! `dsl_dataset_promote_sync`, dsl_dataset.c; `dsl_dataset_promote_crypt_check`, `…_sync`, dsl_crypt.c).
//!
//! The snapshots up to the clone's origin become the clone's, with their bookmarks; the dataset they came
//! from becomes the clone. No block is read, written or freed: only names, links and sums change.
//!
//! Invariants:
//! 1. All that can refuse is looked at before the first change.
//! 2. What one directory gains the other loses: the pool's sum is unchanged, and each directory's breakdown
//!    still sums up to its use.
//! 3. Encryption roots stay where they are, or move from the origin to the clone with all that hangs on them.

use crate::Dsl;
use crate::error::{DslError, Result};
use crate::limits::Counted;
use crate::lookup::DatasetRef;
use crate::mos::int_key;
use crate::name::NAME_LEN_MAX;
use crate::phys::Used;
use crate::prop::{SetSource, Value};
use icecore_dmu::{BlockStore, BlockWriter, Space};
use icecore_format::{Corrupt, ObjectType};

/// What a promotion is about to do, all of it checked.
struct Plan {
    clone: DatasetRef,
    /// Directory of the snapshots that move, and its head.
    from: DatasetRef,
    /// The snapshots that move, newest (the origin) first, with their names.
    shared: Vec<(u64, String)>,
    /// The oldest snapshot of the clone, or the clone itself: what follows the origin from now on.
    follower: u64,
    /// Bytes that the moved snapshots gave birth to.
    moved: Space,
    /// Bytes that only snapshots will hold, of the clone and of the dataset it came from.
    clone_snap_used: i64,
    from_snap_used: i64,
    /// Bytes that only the origin will hold.
    unique: u64,
}

impl Dsl {
    /// Makes the clone `path` the owner of the snapshots it was cloned from (`zfs promote`).
    ///
    /// # Errors
    /// [`DslError::Conflict`] names the snapshots (and bookmarks) whose names the clone has already.
    pub fn promote(&mut self, io: &mut dyn BlockWriter, path: &str) -> Result<()> {
        let clone = self.lookup_head(io, path)?;
        let dd = self.dir(io, clone.dir)?;
        if !self.is_clone(&dd) {
            return Err(DslError::Invalid("not a cloned filesystem".into()));
        }
        // What is unwritten is accounted against neighbours that are about to change.
        let from_dir = self.dataset(io, dd.origin_obj)?.dir_obj;
        let from_head = self.dir(io, from_dir)?.head_dataset_obj;
        self.sync_dataset(io, clone.obj)?;
        self.sync_dataset(io, from_head)?;
        let plan = self.promote_check(io, path, clone)?;
        self.promote_keys(io, &plan)?;
        self.promote_links(io, &plan)?;
        let origin = plan.shared.first().map_or(0, |(obj, _)| *obj);
        let txg = self.dataset(io, origin)?.creation_txg;
        self.bookmarks_move(io, plan.from.obj, clone.obj, txg)?;
        self.errlog_promoted(io, plan.from.obj, clone.obj, txg)?;
        self.bookmarks_next_changed(
            io,
            clone.obj,
            DatasetRef { obj: origin, dir: clone.dir, snapshot: true },
        )?;
        self.promote_snapshots(io, &plan)?;
        self.promote_space(io, &plan)?;
        let mut o = self.dataset(io, origin)?;
        o.unique_bytes = plan.unique;
        self.put_dataset(io, origin, &o)?;
        self.livelist_remove(io, clone.dir)?;
        self.livelist_remove(io, plan.from.dir)
    }

    /// The datasets from `last` back to `first`, which is left out.
    fn chain(&self, io: &dyn BlockStore, first: u64, last: u64) -> Result<Vec<u64>> {
        let (mut out, mut obj, mut txg) = (Vec::new(), last, u64::MAX);
        while obj != first {
            let ds = self.dataset(io, obj)?;
            if obj == 0 || (ds.is_snapshot() && ds.creation_txg >= txg) {
                return Err(Corrupt::new("DSL dataset", "snapshots out of order").into());
            }
            if ds.is_snapshot() {
                txg = ds.creation_txg;
            }
            out.push(obj);
            obj = ds.prev_snap_obj;
        }
        Ok(out)
    }

    fn promote_check(&self, io: &dyn BlockStore, path: &str, clone: DatasetRef) -> Result<Plan> {
        let dd = self.dir(io, clone.dir)?;
        let origin = self.by_object(io, dd.origin_obj)?;
        let o = self.dataset(io, origin.obj)?;
        let odd = self.dir(io, origin.dir)?;
        let from = DatasetRef { obj: odd.head_dataset_obj, dir: origin.dir, snapshot: false };
        self.promote_keys_check(io, &dd, from.dir)?;
        let older = self.chain(io, odd.origin_obj, origin.obj)?;
        let clones = self.chain(io, origin.obj, clone.obj)?;
        let younger = self.chain(io, origin.obj, from.obj)?;
        let follower = *clones.last().unwrap_or(&clone.obj);
        let shared = self.promote_names(io, path, clone, from, &older)?;

        self.transfer_limit_check(io, (from.dir, clone.dir), 0, shared.len() as u64)?;

        let mut moved = refers(&o);
        for obj in &older {
            let ds = self.dataset(io, *obj)?;
            if ds.prev_snap_obj != 0 {
                moved.add(self.deadlist_space(io, ds.deadlist_obj)?);
            }
        }
        if odd.origin_obj != 0 {
            moved.sub(refers(&self.dataset(io, odd.origin_obj)?));
        }
        let need = u64::try_from(moved.used).unwrap_or(0);
        if self.available_for_transfer(io, from.dir, clone.dir, need)? < need {
            return Err(DslError::NoSpace);
        }
        let list = self.dataset(io, follower)?.deadlist_obj;
        let unique = self.deadlist_space_range(io, list, o.prev_snap_txg, u64::MAX)?.used;
        let since = self.origin_txg(io, &odd)?;
        let sum = |objs: &[u64], mintxg: u64| -> Result<i64> {
            let mut sum = 0_i64;
            for obj in objs {
                let list = self.dataset(io, *obj)?.deadlist_obj;
                sum = sum.saturating_add(self.deadlist_space_range(io, list, mintxg, u64::MAX)?.used);
            }
            Ok(sum)
        };
        Ok(Plan {
            clone,
            from,
            shared,
            follower,
            moved,
            clone_snap_used: sum(&older, since)?.saturating_add(sum(&clones, since)?),
            from_snap_used: sum(&younger, o.creation_txg)?,
            unique: u64::try_from(unique).unwrap_or(0),
        })
    }

    /// Names of the snapshots that move, none of which, and none of their bookmarks', the clone may have.
    fn promote_names(
        &self,
        io: &dyn BlockStore,
        path: &str,
        clone: DatasetRef,
        from: DatasetRef,
        older: &[u64],
    ) -> Result<Vec<(u64, String)>> {
        let names = self.zap_list_u64(io, self.dataset(io, from.obj)?.snapnames_zapobj)?;
        let own = self.dataset(io, clone.obj)?.snapnames_zapobj;
        let (mut shared, mut conflicts) = (Vec::new(), Vec::new());
        let fits = |name: &str| path.len() + 1 + name.len() < NAME_LEN_MAX;
        let too_long = || Err(DslError::Name("dataset name is too long".into()));
        for obj in older {
            let name = names.iter().find(|(_, o)| o == obj).map(|(n, _)| n.clone());
            let name =
                name.ok_or_else(|| Corrupt::new("DSL dataset", format!("snapshot {obj} has no name")))?;
            if !fits(&name) {
                return too_long();
            }
            if self.zap_u64(io, own, &name)?.is_some() {
                conflicts.push(name.clone());
            }
            shared.push((*obj, name));
        }
        let txg = match older.first() {
            Some(origin) => self.dataset(io, *origin)?.creation_txg,
            None => 0,
        };
        for (name, mark) in self.bookmarks_of(io, from.obj)? {
            if mark.creation_txg > txg {
                continue;
            }
            if !fits(&name) {
                return too_long();
            }
            if self.bookmark(io, clone, &name)?.is_some() {
                conflicts.push(name);
            }
        }
        if conflicts.is_empty() { Ok(shared) } else { Err(DslError::Conflict(conflicts)) }
    }

    /// Bytes that directory `to` could take over from directory `from` (`dsl_dir_transfer_possible`).
    fn available_for_transfer(&self, io: &dyn BlockStore, from: u64, to: u64, space: u64) -> Result<u64> {
        let above = self.ancestors(io, to)?;
        let (mut dir, mut delta) = (from, -i64::try_from(space).unwrap_or(i64::MAX));
        while !above.contains(&dir) {
            let dd = self.dir(io, dir)?;
            if dd.parent_obj == 0 {
                break;
            }
            delta = crate::space::through(dd.reserved, dd.used_bytes, delta);
            dir = dd.parent_obj;
        }
        self.dir_available_after(io, to, dir, delta)
    }

    /// Whether both keep their encryption roots, or the clone can take over the origin's.
    fn promote_keys_check(&self, io: &dyn BlockStore, clone: &crate::Dir, from: u64) -> Result<()> {
        let odd = self.dir(io, from)?;
        let Some(root) = self.encryption_root(io, from)? else { return Ok(()) };
        if self.is_clone(&odd) || root == from {
            return Ok(());
        }
        let above = self.encryption_root(io, odd.parent_obj)?;
        if above.is_none() || above != self.encryption_root(io, clone.parent_obj)? {
            return Err(DslError::OutsideRoot("cannot promote dataset outside its encryption root".into()));
        }
        Ok(())
    }

    /// Where the origin is an encryption root, the clone becomes it in its place.
    fn promote_keys(&mut self, io: &mut dyn BlockWriter, plan: &Plan) -> Result<()> {
        let (from, to) = (plan.from, plan.clone);
        if self.is_clone(&self.dir(io, from.dir)?) || self.encryption_root(io, from.dir)? != Some(from.dir) {
            return Ok(());
        }
        let location = match self.prop_get(io, from, "keylocation")? {
            Some((Value::Text(text), _)) => text,
            _ => "none".into(),
        };
        self.prop_set_raw(io, to, "keylocation", &Value::Text(location), SetSource::Local)?;
        self.prop_clear(io, from, "keylocation", false)?;
        self.move_root(io, from.dir, to.dir)
    }

    /// Who follows whom, and who is a clone of what.
    fn promote_links(&mut self, io: &mut dyn BlockWriter, plan: &Plan) -> Result<()> {
        let origin = plan.shared.first().map_or(0, |(obj, _)| *obj);
        let mut o = self.dataset(io, origin)?;
        let old_next = o.next_snap_obj;
        o.next_snap_obj = plan.follower;
        self.put_dataset(io, origin, &o)?;
        if o.next_clones_obj != 0 {
            self.zap_del(io, o.next_clones_obj, &int_key(plan.follower))?;
            self.zap_put_u64(io, o.next_clones_obj, &int_key(old_next), old_next)?;
        }
        let mut dd = self.dir(io, plan.clone.dir)?;
        let mut odd = self.dir(io, plan.from.dir)?;
        let grand = odd.origin_obj;
        dd.origin_obj = grand;
        odd.origin_obj = origin;
        if odd.clones != 0 {
            self.zap_del(io, odd.clones, &int_key(plan.clone.obj))?;
        }
        if dd.clones == 0 {
            dd.clones = self.zap_new(io, ObjectType::DSL_CLONES)?;
        }
        self.zap_put_u64(io, dd.clones, &int_key(plan.from.obj), plan.from.obj)?;
        self.put_dir(io, plan.clone.dir, &dd)?;
        self.put_dir(io, plan.from.dir, &odd)?;
        if grand != 0 {
            let dir = self.dataset(io, grand)?.dir_obj;
            let clones = self.dir(io, dir)?.clones;
            if clones != 0 {
                self.zap_del(io, clones, &int_key(plan.from.obj))?;
                self.zap_put_u64(io, clones, &int_key(plan.clone.obj), plan.clone.obj)?;
            }
        }
        // What was a clone of the origin besides stays one, now of the promoted dataset's snapshot.
        for (obj, _) in &plan.shared {
            let zap = self.dataset(io, *obj)?.next_clones_obj;
            for (_, next) in self.zap_list_u64(io, zap)? {
                if next == old_next && *obj == origin {
                    continue;
                }
                let dir = self.dataset(io, next)?.dir_obj;
                let head = self.dir(io, dir)?.head_dataset_obj;
                self.zap_del(io, odd.clones, &int_key(head))?;
                self.zap_put_u64(io, dd.clones, &int_key(head), head)?;
            }
        }
        Ok(())
    }

    fn promote_snapshots(&mut self, io: &mut dyn BlockWriter, plan: &Plan) -> Result<()> {
        let theirs = self.dataset(io, plan.from.obj)?.snapnames_zapobj;
        let ours = self.dataset(io, plan.clone.obj)?.snapnames_zapobj;
        for (obj, name) in &plan.shared {
            self.zap_del(io, theirs, name)?;
            self.zap_put_u64(io, ours, name, *obj)?;
            self.count_adjust(io, plan.from.dir, Counted::Snapshots, -1)?;
            self.count_adjust(io, plan.clone.dir, Counted::Snapshots, 1)?;
            let mut ds = self.dataset(io, *obj)?;
            ds.dir_obj = plan.clone.dir;
            self.put_dataset(io, *obj, &ds)?;
        }
        self.snapshots_changed(io, plan.from.dir)
    }

    fn promote_space(&mut self, io: &mut dyn BlockWriter, plan: &Plan) -> Result<()> {
        let only = |used: i64| Space { used, ..Space::default() };
        let snap = |dsl: &Self, io: &dyn BlockStore, dir: u64, will: i64| -> Result<i64> {
            let dd = dsl.dir(io, dir)?;
            if dd.flags & crate::phys::DD_FLAG_USED_BREAKDOWN == 0 {
                return Ok(0);
            }
            Ok(will - i64::try_from(dd.used_breakdown[Used::Snap as usize]).unwrap_or(i64::MAX))
        };
        let delta = snap(self, io, plan.clone.dir, plan.clone_snap_used)?;
        self.diduse(io, plan.clone.dir, Used::Snap, only(delta))?;
        let head = Space { used: plan.moved.used - delta, ..plan.moved };
        self.diduse(io, plan.clone.dir, Used::Head, head)?;
        let delta = snap(self, io, plan.from.dir, plan.from_snap_used)?;
        self.diduse(io, plan.from.dir, Used::Snap, only(delta))?;
        let mut less = Space::default();
        less.sub(plan.moved);
        less.used -= delta;
        self.diduse(io, plan.from.dir, Used::Head, less)
    }
}

fn refers(ds: &crate::Dataset) -> Space {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Space {
        used: signed(ds.referenced_bytes),
        compressed: signed(ds.compressed_bytes),
        uncompressed: signed(ds.uncompressed_bytes),
    }
}
