//! Bookmarks: what is left of a snapshot for a later incremental send (dsl_bookmark.c).
//!
//! Invariants:
//! 1. A bookmark with counted frees (`ZBM_FLAG_HAS_FBN`) keeps its creation txg as a key in the deadlists
//!    of its dataset and clones, also when its snapshot is gone.
//! 2. The features `bookmarks`, `bookmark_v2` and `bookmark_written` count tables, long entries, and
//!    entries with counted frees.

use crate::Dsl;
use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::lookup::{DatasetRef, Found};
use crate::mos::OTN_ZAP_METADATA;
use crate::name::{self, Part};
use icecore_dmu::zap::ZapValue;
use icecore_dmu::{BlockStore, BlockWriter, Space};
use icecore_format::{Blkptr, Corrupt, ObjectId};

const FIELD: &str = "com.delphix:bookmarks";
/// The frees before the next snapshot are counted.
const FLAG_HAS_FBN: u64 = 1;
/// The bookmarked snapshot is still there.
const FLAG_SNAPSHOT_EXISTS: u64 = 2;
const WORDS_V1: usize = 3;
const WORDS_V2: usize = 12;

/// What a bookmark remembers (`zfs_bookmark_phys_t`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BookmarkPhys {
    /// Guid of the snapshot.
    pub guid: u64,
    /// Its creation txg.
    pub creation_txg: u64,
    /// Its creation time.
    pub creation_time: u64,
    /// Redaction list object, 0 = none.
    pub redaction_obj: u64,
    /// `ZBM_FLAG_*`.
    pub flags: u64,
    /// What the snapshot referenced: used, compressed, uncompressed.
    pub referenced: [u64; 3],
    /// What of it was freed before the next snapshot.
    pub freed_before_next: [u64; 3],
    /// IV set of an encrypted snapshot, 0 = unknown.
    pub ivset_guid: u64,
}

impl BookmarkPhys {
    fn parse(name: &str, v: &ZapValue) -> Result<Self> {
        let ZapValue::U64(w) = v else {
            return Err(Corrupt::new("bookmark", format!("{name} is not made of numbers")).into());
        };
        if w.len() < WORDS_V1 {
            return Err(Corrupt::new("bookmark", format!("{name} has {} words", w.len())).into());
        }
        let at = |i: usize| w.get(i).copied().unwrap_or(0);
        Ok(Self {
            guid: at(0),
            creation_txg: at(1),
            creation_time: at(2),
            redaction_obj: at(3),
            flags: at(4),
            referenced: [at(5), at(6), at(7)],
            freed_before_next: [at(8), at(9), at(10)],
            ivset_guid: at(11),
        })
    }
    fn words(&self, n: usize) -> ZapValue {
        let mut w = vec![self.guid, self.creation_txg, self.creation_time, self.redaction_obj, self.flags];
        w.extend(self.referenced);
        w.extend(self.freed_before_next);
        w.push(self.ivset_guid);
        w.truncate(n);
        ZapValue::U64(w)
    }
    /// Whether frees before the next snapshot are counted, so that `written#` and estimates work.
    #[must_use]
    pub fn has_freed_before_next(&self) -> bool {
        self.flags & FLAG_HAS_FBN != 0
    }
}

impl Dsl {
    fn bookmark_table(&self, io: &dyn BlockStore, head: u64) -> Result<u64> {
        Ok(self.field_u64(io, head, FIELD)?.unwrap_or(0))
    }

    /// Bookmark `name` of a head.
    pub fn bookmark(
        &self,
        io: &dyn BlockStore,
        head: DatasetRef,
        name: &str,
    ) -> Result<Option<BookmarkPhys>> {
        match self.zap_get(io, self.bookmark_table(io, head.obj)?, name)? {
            Some(v) => BookmarkPhys::parse(name, &v).map(Some),
            None => Ok(None),
        }
    }

    /// The bookmarks of a head, oldest first: name after `#`, contents.
    pub fn bookmarks(&self, io: &dyn BlockStore, path: &str) -> Result<Vec<(String, BookmarkPhys)>> {
        let head = self.lookup_head(io, path)?;
        self.bookmarks_of(io, head.obj)
    }

    pub(crate) fn bookmarks_of(&self, io: &dyn BlockStore, head: u64) -> Result<Vec<(String, BookmarkPhys)>> {
        let mut all = Vec::new();
        for (name, v) in self.zap_list(io, self.bookmark_table(io, head)?)? {
            let b = BookmarkPhys::parse(&name, &v)?;
            all.push((name, b));
        }
        all.sort_by(|a, b| {
            let key = |(n, p): &(String, BookmarkPhys)| (p.creation_txg, p.flags & FLAG_HAS_FBN, n.clone());
            key(a).cmp(&key(b))
        });
        Ok(all)
    }

    /// Guids of the snapshots a redaction bookmark was made for (`redaction_list_phys_t`): in the bonus of
    /// its list, or in the spill block of a long one.
    pub fn redaction_snaps(&self, io: &dyn BlockStore, b: &BookmarkPhys) -> Result<Vec<u64>> {
        let obj = ObjectId(b.redaction_obj);
        let dn = self.mos.dnode(io, obj)?;
        let bytes = match self.mos.spill(io, obj, &dn)? {
            Some(spill) => spill.to_vec(),
            None => dn.bonus().to_vec(),
        };
        let word = |i: usize| icecore_format::reader::u64_at(&bytes, i * 8);
        let n = usize::try_from(word(3)).unwrap_or(usize::MAX);
        if n > bytes.len() / 8 {
            return Err(
                Corrupt::new("redaction list", format!("{n} snapshots in {} bytes", bytes.len())).into()
            );
        }
        Ok((0..n).map(|i| word(4 + i)).collect())
    }

    fn bookmark_store(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        name: &str,
        b: &BookmarkPhys,
    ) -> Result<()> {
        let table = self.bookmark_table(io, head)?;
        self.zap_put(io, table, name, &b.words(WORDS_V2))
    }

    /// Makes bookmark `new` (`pool/fs#mark`) of the snapshot or bookmark `source`
    /// (`dsl_bookmark_create_check_impl`, `…_sync`).
    pub fn bookmark_create(&mut self, io: &mut dyn BlockWriter, new: &str, source: &str) -> Result<()> {
        let (path, Part::Bookmark(short)) = name::split(new)? else {
            return Err(DslError::Name(format!("'{new}' is not a bookmark name")));
        };
        let head = self.lookup_head(io, path)?;
        if !self.feature_enabled(io, Feature::BOOKMARKS)? {
            return Err(DslError::Unsupported("feature bookmarks is not enabled".into()));
        }
        if self.bookmark(io, head, short)?.is_some() {
            return Err(DslError::Exists(new.into()));
        }
        let phys = match self.lookup(io, source)? {
            Found::Dataset(r) if r.snapshot => {
                if !self.is_before(io, head.obj, r.obj, None)? {
                    return Err(DslError::Invalid(
                        "source is not an ancestor of the new bookmark's dataset".into(),
                    ));
                }
                self.bookmark_of(io, r)?
            }
            Found::Dataset(_) => {
                return Err(DslError::Invalid(format!("{source} is neither snapshot nor bookmark")));
            }
            Found::Bookmark { head: of, phys, .. } => {
                if !self.is_before(io, head.obj, of.obj, Some(phys.creation_txg))? {
                    return Err(DslError::Invalid(
                        "source is not an ancestor of the new bookmark's dataset".into(),
                    ));
                }
                BookmarkPhys { redaction_obj: 0, ..phys }
            }
        };
        self.bookmark_add(io, head.obj, short, &phys)
    }

    /// What a new bookmark of a snapshot says (`dsl_bookmark_set_phys`).
    fn bookmark_of(&self, io: &dyn BlockStore, snap: DatasetRef) -> Result<BookmarkPhys> {
        let ds = self.dataset(io, snap.obj)?;
        let mut b = BookmarkPhys {
            guid: ds.guid,
            creation_txg: ds.creation_txg,
            creation_time: ds.creation_time,
            ..BookmarkPhys::default()
        };
        if self.crypto_obj(io, snap.dir)?.is_some() && self.feature_enabled(io, Feature::BOOKMARK_V2)? {
            b.ivset_guid = self.ivset_guid(io, snap.obj)?.unwrap_or(0);
        }
        if self.feature_enabled(io, Feature::BOOKMARK_WRITTEN)? {
            b.flags = FLAG_SNAPSHOT_EXISTS | FLAG_HAS_FBN;
            b.referenced = [ds.referenced_bytes, ds.compressed_bytes, ds.uncompressed_bytes];
            let next = self.dataset(io, ds.next_snap_obj)?;
            b.freed_before_next = unsigned(self.deadlist_space(io, next.deadlist_obj)?);
        }
        Ok(b)
    }

    /// `dsl_bookmark_node_add`.
    fn bookmark_add(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        short: &str,
        b: &BookmarkPhys,
    ) -> Result<()> {
        if b.has_freed_before_next() {
            self.feature_incr(io, Feature::BOOKMARK_WRITTEN)?;
        }
        let mut table = self.bookmark_table(io, head)?;
        if table == 0 {
            table = self.zap_new_folded(io, OTN_ZAP_METADATA)?;
            self.feature_incr(io, Feature::BOOKMARKS)?;
            self.zapify(io, head)?;
            self.zap_put_u64(io, head, FIELD, table)?;
        }
        let long = b.ivset_guid != 0 || b.has_freed_before_next() || b.redaction_obj != 0;
        let words = if long && self.feature_enabled(io, Feature::BOOKMARK_V2)? {
            self.feature_incr(io, Feature::BOOKMARK_V2)?;
            WORDS_V2
        } else {
            WORDS_V1
        };
        self.zap_put(io, table, short, &b.words(words))
    }

    /// Destroys bookmark `pool/fs#mark` (`dsl_bookmark_destroy_sync`).
    pub fn bookmark_destroy(&mut self, io: &mut dyn BlockWriter, full: &str) -> Result<()> {
        let Found::Bookmark { head, name, phys } = self.lookup(io, full)? else {
            return Err(DslError::Name(format!("'{full}' is not a bookmark name")));
        };
        if phys.has_freed_before_next() {
            let others = self
                .bookmarks_of(io, head.obj)?
                .iter()
                .any(|(n, b)| *n != name && b.creation_txg == phys.creation_txg && b.has_freed_before_next());
            let ds = self.dataset(io, head.obj)?;
            let orphan = phys.flags & FLAG_SNAPSHOT_EXISTS == 0;
            if orphan && !others && phys.creation_txg < ds.prev_snap_txg {
                self.remove_clones_key(io, head.dir, phys.creation_txg)?;
                self.deadlist_remove_key(io, ds.deadlist_obj, phys.creation_txg)?;
            }
        }
        self.redaction_list_free(io, &phys)?;
        self.bookmark_take_out(io, head.obj, &name, &phys)
    }

    /// Bookmarks up to `txg` go from one head to another, as the snapshots they were made of
    /// (`dsl_dataset_promote_sync`).
    pub(crate) fn bookmarks_move(
        &mut self,
        io: &mut dyn BlockWriter,
        from: u64,
        to: u64,
        txg: u64,
    ) -> Result<()> {
        for (name, mark) in self.bookmarks_of(io, from)? {
            if mark.creation_txg <= txg {
                self.bookmark_take_out(io, from, &name, &mark)?;
                self.bookmark_add(io, to, &name, &mark)?;
            }
        }
        Ok(())
    }

    /// Takes a bookmark out of its table; the table goes with the last one.
    fn bookmark_take_out(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        name: &str,
        mark: &BookmarkPhys,
    ) -> Result<()> {
        let table = self.bookmark_table(io, head)?;
        if let Some(ZapValue::U64(w)) = self.zap_get(io, table, name)?
            && w.len() > WORDS_V1
        {
            self.feature_decr(io, Feature::BOOKMARK_V2)?;
        }
        if mark.has_freed_before_next() {
            self.feature_decr(io, Feature::BOOKMARK_WRITTEN)?;
        }
        self.zap_del(io, table, name)?;
        if self.zap_count(io, table)? == 0 {
            self.free_obj(io, table)?;
            self.feature_decr(io, Feature::BOOKMARKS)?;
            self.zap_del(io, head, FIELD)?;
        }
        Ok(())
    }

    fn redaction_list_free(&mut self, io: &mut dyn BlockWriter, b: &BookmarkPhys) -> Result<()> {
        if b.redaction_obj == 0 {
            return Ok(());
        }
        if self.mos.dnode(io, ObjectId(b.redaction_obj))?.has_spill() {
            self.feature_decr(io, Feature::REDACTION_LIST_SPILL)?;
        }
        self.free_obj(io, b.redaction_obj)?;
        self.feature_decr(io, Feature::REDACTION_BOOKMARKS)
    }

    /// All bookmarks of a head that is being destroyed.
    pub(crate) fn bookmarks_destroy_all(&mut self, io: &mut dyn BlockWriter, head: u64) -> Result<()> {
        let table = self.bookmark_table(io, head)?;
        if table == 0 {
            return Ok(());
        }
        for (name, v) in self.zap_list(io, table)? {
            let b = BookmarkPhys::parse(&name, &v)?;
            if matches!(&v, ZapValue::U64(w) if w.len() > WORDS_V1) {
                self.feature_decr(io, Feature::BOOKMARK_V2)?;
            }
            self.redaction_list_free(io, &b)?;
            if b.has_freed_before_next() {
                self.feature_decr(io, Feature::BOOKMARK_WRITTEN)?;
            }
        }
        self.free_obj(io, table)?;
        self.feature_decr(io, Feature::BOOKMARKS)
    }

    /// A head was snapshotted: bookmarks newer than the snapshot before keep their key in the new deadlist
    /// (`dsl_bookmark_snapshotted`). `prev_txg` is the previous snapshot's.
    pub(crate) fn bookmarks_snapshotted(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        deadlist: u64,
        prev_txg: u64,
    ) -> Result<()> {
        let mut keys: Vec<u64> = self
            .bookmarks_of(io, head)?
            .iter()
            .filter(|(_, b)| b.has_freed_before_next() && b.creation_txg > prev_txg)
            .map(|(_, b)| b.creation_txg)
            .collect();
        keys.dedup();
        for key in keys {
            self.deadlist_add_key(io, deadlist, key)?;
        }
        Ok(())
    }

    /// A snapshot is about to go: bookmarks before it take over what it shielded, its own lose the flag.
    /// True if any bookmark still needs its txg as a deadlist key (`dsl_bookmark_ds_destroyed`).
    pub(crate) fn bookmarks_snapshot_destroyed(
        &mut self,
        io: &mut dyn BlockWriter,
        snap: u64,
    ) -> Result<bool> {
        let ds = self.dataset(io, snap)?;
        let head = self.dir(io, ds.dir_obj)?.head_dataset_obj;
        let next = self.dataset(io, ds.next_snap_obj)?;
        let mut kept = false;
        for (name, mut b) in self.bookmarks_of(io, head)? {
            if !b.has_freed_before_next() {
                continue;
            }
            if b.creation_txg >= ds.prev_snap_txg && b.creation_txg < ds.creation_txg {
                let freed = unsigned(self.deadlist_space_range(io, next.deadlist_obj, 0, b.creation_txg)?);
                for (sum, f) in b.freed_before_next.iter_mut().zip(freed) {
                    *sum = sum.saturating_add(f);
                }
                self.bookmark_store(io, head, &name, &b)?;
            } else if b.creation_txg == ds.creation_txg {
                b.flags &= !FLAG_SNAPSHOT_EXISTS;
                self.bookmark_store(io, head, &name, &b)?;
                kept = true;
            }
        }
        Ok(kept)
    }

    /// The dataset after the snapshot `origin` was swapped: bookmarks of it count anew
    /// (`dsl_bookmark_next_changed`).
    pub(crate) fn bookmarks_next_changed(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        origin: DatasetRef,
    ) -> Result<()> {
        let o = self.dataset(io, origin.obj)?;
        for (name, b) in self.bookmarks_of(io, head)? {
            if b.creation_txg == o.creation_txg && b.has_freed_before_next() {
                let fresh = BookmarkPhys { redaction_obj: b.redaction_obj, ..self.bookmark_of(io, origin)? };
                self.bookmark_store(io, head, &name, &fresh)?;
            }
        }
        Ok(())
    }

    /// Blocks left a head: bookmarks at or after the last snapshot count those they reference
    /// (`dsl_bookmark_block_killed`).
    pub(crate) fn bookmarks_blocks_killed(
        &mut self,
        io: &mut dyn BlockWriter,
        head: u64,
        prev_txg: u64,
        killed: &[Blkptr],
    ) -> Result<()> {
        for (name, mut b) in self.bookmarks_of(io, head)? {
            if !b.has_freed_before_next() || b.creation_txg < prev_txg {
                continue;
            }
            let mut sum = Space::default();
            for bp in killed.iter().filter(|bp| bp.alloc_birth().0 <= b.creation_txg) {
                sum.add(Space::of(bp));
            }
            if sum == Space::default() {
                continue;
            }
            for (w, f) in b.freed_before_next.iter_mut().zip(unsigned(sum)) {
                *w = w.saturating_add(f);
            }
            self.bookmark_store(io, head, &name, &b)?;
        }
        Ok(())
    }

    /// Creation txg of the newest bookmark of a head, 0 if it has none (`dsl_bookmark_latest_txg`).
    pub(crate) fn bookmark_latest_txg(&self, io: &dyn BlockStore, head: u64) -> Result<u64> {
        Ok(self.bookmarks_of(io, head)?.last().map_or(0, |(_, b)| b.creation_txg))
    }
}

fn unsigned(s: Space) -> [u64; 3] {
    [s.used, s.compressed, s.uncompressed].map(|n| u64::try_from(n).unwrap_or(0))
}
