//! The pool's log of blocks that are lost (spa_errlog.c): two ZAPs in the MOS, `errlog_scrub` of the scrub that runs and
//! `errlog_last` of what is known since it ended.
//!
//! There are two forms. Without the feature `head_errlog` an entry's name is the block's bookmark, four hex words
//! `objset:object:level:blkid` (`bookmark_to_name`). With it, the log maps the object of a head, in hex, to a ZAP of that
//! head's blocks, whose names are `object:level:blkid:birth` (`errphys_to_name`): which snapshots and clones share the
//! block is found when somebody asks. Values are empty strings.
//!
//! Invariants:
//! 1. What is written has the form that the pool's features call for; what is read may have either, entry by entry.
//! 2. An entry that makes no sense is counted, not shown, and no reason to fail.
//! 3. Nothing is freed or written to but objects of the type for error logs, whatever an entry says.
//! 4. The walk over snapshots goes down in txgs and sees no head twice, so it ends on any pool.

use crate::error::Result;
use crate::mos::int_key;
use crate::{Dsl, Feature};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter, Want};
use icecore_format::{Bookmark, ObjectId, ObjectType, Txg};
use std::collections::BTreeSet;

/// Blocks listed; a log that leads to more is shown up to here.
const LIST_MAX: usize = 100_000;

/// Which of the two logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorLog {
    /// Of the scrub that is under way (`DMU_POOL_ERRLOG_SCRUB`).
    Scrub,
    /// Of the last scrub, and what was met since (`DMU_POOL_ERRLOG_LAST`).
    Last,
}

impl ErrorLog {
    fn entry(self) -> &'static str {
        match self {
            Self::Scrub => icecore_format::dsl::pool::ERRLOG_SCRUB,
            Self::Last => icecore_format::dsl::pool::ERRLOG_LAST,
        }
    }
}

/// A lost block as the log has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Logged {
    /// `objset` is the head's object in the form by heads, any dataset's in the other.
    at: Bookmark,
    /// When it was written; `None` in the form without.
    birth: Option<Txg>,
}

impl Dsl {
    /// Notes a lost block. `at.objset` is the oldest dataset that has it, 0 for the MOS; `birth` when it
    /// was written (`BP_GET_PHYSICAL_BIRTH`).
    /// The same block twice is one entry.
    ///
    /// # Errors
    /// As any write.
    pub fn errlog_add(
        &mut self,
        io: &mut dyn BlockWriter,
        log: ErrorLog,
        at: &Bookmark,
        birth: Txg,
    ) -> Result<()> {
        let object = match self.errlog_object(io, log)? {
            0 => {
                let new = self.zap_new(io, ObjectType::ERROR_LOG)?;
                self.set_directory_entry(io, log.entry(), new)?;
                new
            }
            object => object,
        };
        // What is printed is the level as a 64-bit word.
        let level = i64::from(at.level).cast_unsigned();
        let (object, name) = if self.feature_enabled(io, Feature::HEAD_ERRLOG)? {
            let head = self.head_of(io, at.objset).unwrap_or(at.objset);
            let of_head = self.errlog_for_head(io, object, head)?;
            (of_head, format!("{:x}:{level:x}:{:x}:{:x}", at.object.0, at.blkid, birth.0))
        } else {
            (object, format!("{:x}:{:x}:{level:x}:{:x}", at.objset, at.object.0, at.blkid))
        };
        self.zap_put(io, object, &name, &ZapValue::string(""))
    }

    /// A scrub has ended: what it found is all that is known from now on (`spa_errlog_rotate`).
    ///
    /// # Errors
    /// As any write.
    pub fn errlog_rotate(&mut self, io: &mut dyn BlockWriter) -> Result<()> {
        let (scrub, last) =
            (self.errlog_object(io, ErrorLog::Scrub)?, self.errlog_object(io, ErrorLog::Last)?);
        if scrub == 0 && last == 0 {
            return Ok(());
        }
        if last != 0 && last != scrub {
            self.errlog_free(io, last)?;
        }
        self.set_directory_entry(io, ErrorLog::Last.entry(), scrub)?;
        self.set_directory_entry(io, ErrorLog::Scrub.entry(), 0)
    }

    /// Forgets what a scrub that is given up has found so far.
    ///
    /// # Errors
    /// As any write.
    pub fn errlog_drop_scrub(&mut self, io: &mut dyn BlockWriter) -> Result<()> {
        let object = self.errlog_object(io, ErrorLog::Scrub)?;
        if object == 0 {
            return Ok(());
        }
        if object != self.errlog_object(io, ErrorLog::Last)? {
            self.errlog_free(io, object)?;
        }
        self.set_directory_entry(io, ErrorLog::Scrub.entry(), 0)
    }

    /// Entries in both logs: the number that `zpool status` gives (`spa_approx_errlog_size`).
    ///
    /// # Errors
    /// The logs cannot be read.
    pub fn errlog_count(&self, io: &dyn BlockStore) -> Result<u64> {
        let mut sum = 0_u64;
        for log in [ErrorLog::Last, ErrorLog::Scrub] {
            let object = self.errlog_object(io, log)?;
            for (name, value) in self.zap_list(io, object)? {
                let of_head = value.as_u64().filter(|_| !name.contains(':'));
                let more = of_head.map_or(Ok(1), |o| self.zap_count(io, o)).unwrap_or(0);
                sum = sum.saturating_add(more);
            }
        }
        Ok(sum)
    }

    /// Every lost block in each dataset that still has it, heads, snapshots and clones (`spa_get_errlog`); sorted, each
    /// once. Blocks that have been freed or overwritten since are left out.
    ///
    /// # Errors
    /// The logs cannot be read.
    pub fn errlog(&self, io: &dyn BlockStore) -> Result<BTreeSet<Bookmark>> {
        let mut out = BTreeSet::new();
        for log in [ErrorLog::Last, ErrorLog::Scrub] {
            for logged in self.errlog_entries(io, log)? {
                if out.len() >= LIST_MAX {
                    return Ok(out);
                }
                match logged.birth.filter(|b| b.0 != 0 && logged.at.objset != 0) {
                    Some(birth) => self.sharers(io, logged.at, birth, &mut out),
                    None => {
                        out.insert(logged.at);
                    }
                }
            }
        }
        Ok(out)
    }

    /// The object of a log, 0 for none.
    fn errlog_object(&self, io: &dyn BlockStore, log: ErrorLog) -> Result<u64> {
        let object = self.directory_entry(io, log.entry())?;
        Ok(object.filter(|o| self.is_errlog(io, *o)).unwrap_or(0))
    }

    /// The object of a head's part of a log.
    fn errlog_of_head(&self, io: &dyn BlockStore, object: u64, head: u64) -> Result<Option<u64>> {
        Ok(self.zap_u64(io, object, &int_key(head))?.filter(|o| self.is_errlog(io, *o)))
    }

    /// The same, made if there is none.
    fn errlog_for_head(&mut self, io: &mut dyn BlockWriter, object: u64, head: u64) -> Result<u64> {
        if let Some(of_head) = self.errlog_of_head(io, object, head)? {
            return Ok(of_head);
        }
        let new = self.zap_new(io, ObjectType::ERROR_LOG)?;
        self.zap_put_u64(io, object, &int_key(head), new)?;
        Ok(new)
    }

    fn is_errlog(&self, io: &dyn BlockStore, object: u64) -> bool {
        let dn = self.mos.dnode(io, ObjectId(object));
        object != 0 && dn.is_ok_and(|dn| dn.kind() == ObjectType::ERROR_LOG)
    }

    fn errlog_entries(&self, io: &dyn BlockStore, log: ErrorLog) -> Result<Vec<Logged>> {
        let mut out = Vec::new();
        for (name, value) in self.zap_list(io, self.errlog_object(io, log)?)? {
            if let Some([objset, object, level, blkid]) = words(&name) {
                out.extend(bookmark(objset, object, level, blkid).map(|at| Logged { at, birth: None }));
                continue;
            }
            let (Ok(head), Some(of_head)) = (u64::from_str_radix(&name, 16), value.as_u64()) else {
                continue;
            };
            if !self.is_errlog(io, of_head) {
                continue;
            }
            // One head's list that is damaged hides no other's.
            for (name, _) in self.zap_list(io, of_head).unwrap_or_default() {
                let Some([object, level, blkid, birth]) = words(&name) else { continue };
                let at = bookmark(head, object, level, blkid);
                out.extend(at.map(|at| Logged { at, birth: Some(Txg(birth)) }));
            }
        }
        Ok(out)
    }

    fn errlog_free(&mut self, io: &mut dyn BlockWriter, object: u64) -> Result<()> {
        for (name, value) in self.zap_list(io, object)? {
            let of_head = value.as_u64().filter(|_| !name.contains(':'));
            // Asked each time: two entries may name one object.
            if let Some(of_head) = of_head.filter(|o| *o != object && self.is_errlog(io, *o)) {
                self.free_obj(io, of_head)?;
            }
        }
        self.free_obj(io, object)
    }

    /// A head is destroyed: its object may be another's tomorrow (`spa_delete_dataset_errlog`).
    pub(crate) fn errlog_head_destroyed(&mut self, io: &mut dyn BlockWriter, head: u64) -> Result<()> {
        for log in [ErrorLog::Last, ErrorLog::Scrub] {
            let object = self.errlog_object(io, log)?;
            if let Some(of_head) = self.errlog_of_head(io, object, head)? {
                self.free_obj(io, of_head)?;
                self.zap_del(io, object, &int_key(head))?;
            }
        }
        Ok(())
    }

    /// Snapshots up to the one made in `txg` have become the clone's: so have the blocks that are in them
    /// (`spa_swap_errlog`).
    pub(crate) fn errlog_promoted(
        &mut self,
        io: &mut dyn BlockWriter,
        from: u64,
        to: u64,
        txg: u64,
    ) -> Result<()> {
        for log in [ErrorLog::Last, ErrorLog::Scrub] {
            let object = self.errlog_object(io, log)?;
            let Some(of_old) = self.errlog_of_head(io, object, from)? else { continue };
            for (name, value) in self.zap_list(io, of_old)? {
                if words(&name).is_none_or(|[.., birth]| birth > txg) {
                    continue;
                }
                let of_new = self.errlog_for_head(io, object, to)?;
                self.zap_put(io, of_new, &name, &value)?;
                self.zap_del(io, of_old, &name)?;
            }
        }
        Ok(())
    }

    /// The head of the directory that a dataset is in.
    fn head_of(&self, io: &dyn BlockStore, objset: u64) -> Result<u64> {
        Ok(self.dir(io, self.dataset(io, objset)?.dir_obj)?.head_dataset_obj)
    }

    /// All datasets that have the block of `at.objset`'s family that was born in `birth` (`process_error_block`,
    /// `check_filesystem`).
    fn sharers(&self, io: &dyn BlockStore, at: Bookmark, birth: Txg, out: &mut BTreeSet<Bookmark>) {
        let before = out.len();
        let mut unsure = false;
        // A block that was cloned or found by dedup may be older than all that has it.
        let mut todo = vec![at.objset, self.oldest_head(io, at.objset, birth).unwrap_or(at.objset)];
        let mut seen = BTreeSet::new();
        while let Some(head) = todo.pop() {
            if seen.insert(head) && out.len() < LIST_MAX {
                unsure |= self.in_family(io, head, at, birth, out, &mut todo).is_err();
            }
        }
        // What cannot be looked at, or cannot be judged by its birth, is not known to be gone.
        if out.len() == before && (unsure || !judged(&at)) {
            out.insert(at);
        }
    }

    /// The head of the directory whose snapshot (or itself) gave birth to the block (`find_top_affected_fs`).
    fn oldest_head(&self, io: &dyn BlockStore, head: u64, birth: Txg) -> Result<u64> {
        let (mut obj, mut ds) = (head, self.dataset(io, head)?);
        while ds.prev_snap_obj != 0 && ds.prev_snap_txg >= birth.0 {
            let prev = self.dataset(io, ds.prev_snap_obj)?;
            if prev.prev_snap_txg >= ds.prev_snap_txg {
                break;
            }
            (obj, ds) = (ds.prev_snap_obj, prev);
        }
        self.head_of(io, obj)
    }

    /// The head and those of its own snapshots that have the block; `todo` gets the clones of these.
    fn in_family(
        &self,
        io: &dyn BlockStore,
        head: u64,
        at: Bookmark,
        birth: Txg,
        out: &mut BTreeSet<Bookmark>,
        todo: &mut Vec<u64>,
    ) -> Result<()> {
        let mut ds = self.dataset(io, head)?;
        let dir = ds.dir_obj;
        let here = self.birth_of(io, head, &at);
        let whole = here == Some(birth);
        if whole {
            out.insert(Bookmark { objset: head, ..at });
        }
        // Snapshots younger than what is there now have it too, not the other.
        let newest = if whole { u64::MAX } else { here.map_or(u64::MAX, |t| t.0) };
        let mut affected = BTreeSet::new();
        while ds.prev_snap_obj != 0 && birth.0 <= ds.prev_snap_txg && out.len() < LIST_MAX {
            let (obj, txg) = (ds.prev_snap_obj, ds.prev_snap_txg);
            ds = self.dataset(io, obj)?;
            if ds.prev_snap_txg >= txg || ds.dir_obj != dir {
                break;
            }
            if txg <= newest && (whole || self.birth_of(io, obj, &at) == Some(birth)) {
                out.insert(Bookmark { objset: obj, ..at });
                affected.insert(obj);
            }
        }
        if !affected.is_empty() {
            for (_, clone) in self.zap_list_u64(io, self.dir(io, dir)?.clones)? {
                let clone_dir = self.dataset(io, clone)?.dir_obj;
                if affected.contains(&self.dir(io, clone_dir)?.origin_obj) {
                    todo.push(clone);
                }
            }
        }
        Ok(())
    }

    /// When the block now at this place was written; `None` if there is none, or it cannot be reached.
    fn birth_of(&self, io: &dyn BlockStore, objset: u64, at: &Bookmark) -> Option<Txg> {
        if *at == Bookmark::root(at.objset) {
            return Some(self.dataset(io, objset).ok()?.bp.physical_birth());
        }
        let os = self.objset(io, objset, Want::NoKey).ok()?;
        let dn = os.dnode(io, at.object).ok()?;
        let bp = if at.blkid == Bookmark::SPILL {
            dn.spill()?
        } else {
            let level = u8::try_from(at.level).ok().filter(|l| *l < dn.nlevels())?;
            os.blkptr(io, at.object, &dn, level, at.blkid).ok()?
        };
        (!bp.is_hole()).then(|| bp.physical_birth())
    }
}

/// Whether a place can be looked up by [`Dsl::birth_of`]: not those of the dnodes themselves and the accounting objects.
fn judged(at: &Bookmark) -> bool {
    at.level == -1 || (at.object.0 != 0 && at.object.0 < u64::MAX - 2)
}

/// The four hex words of an entry's name.
fn words(name: &str) -> Option<[u64; 4]> {
    let all: Option<Vec<u64>> = name.split(':').map(|w| u64::from_str_radix(w, 16).ok()).collect();
    all?.try_into().ok()
}

fn bookmark(objset: u64, object: u64, level: u64, blkid: u64) -> Option<Bookmark> {
    let level = i8::try_from(level.cast_signed()).ok()?;
    Some(Bookmark { objset, object: ObjectId(object), level, blkid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_openzfs_prints_them() {
        assert_eq!(words("36:0:ffffffffffffffff:0"), Some([0x36, 0, u64::MAX, 0]));
        assert_eq!(bookmark(0x36, 0, u64::MAX, 0), Some(Bookmark::root(0x36)));
        assert_eq!(bookmark(1, 2, 400, 0), None);
        for bad in ["", "36", "1:2:3", "1:2:3:4:5", "1:2:x:4", "1:2::4", "1:2:3:11111111111111111"] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }
}
