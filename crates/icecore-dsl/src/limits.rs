//! How many file systems and snapshots there are below a dataset, and how many there may be (`dsl_fs_ss_limit_check`,
//! `dsl_fs_ss_count_adjust`, `dsl_dir_init_fs_ss_count`, dsl_dir.c).
//!
//! Counts are kept in a directory's ZAP from the first limit on that is set on it or above it: of all that is below, however
//! deep, without itself.
//!
//! Invariants:
//! 1. Where a directory has counts, all below it have: so a change that meets one without counts on its way up is done.
//! 2. Counts are of what is there: every way a directory or snapshot comes, goes or moves adjusts them in the same txg.
//! 3. A limit bounds what comes from now on, and only who could not lift it: [`Who`](crate::Who).

use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::lookup::DatasetRef;
use crate::{Dsl, name};
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_format::Corrupt;

/// Directories on the way up at most: those of the longest name, and hidden ones.
const DEPTH_MAX: usize = name::NESTING_MAX + 8;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counted {
    Filesystems,
    Snapshots,
}

impl Counted {
    fn limit(self) -> &'static str {
        match self {
            Self::Filesystems => "filesystem_limit",
            Self::Snapshots => "snapshot_limit",
        }
    }
    fn field(self) -> &'static str {
        match self {
            Self::Filesystems => "com.joyent:filesystem_count",
            Self::Snapshots => "com.joyent:snapshot_count",
        }
    }
}

impl Dsl {
    /// Whether `more` of them may come into directory `dir`; the directory `stop` and what is above it gain nothing.
    pub(crate) fn limit_check(
        &self,
        io: &dyn BlockStore,
        dir: u64,
        counted: Counted,
        more: u64,
        stop: u64,
    ) -> Result<()> {
        if self.who.is_root() || more == 0 {
            return Ok(());
        }
        let mut obj = dir;
        for _ in 0..DEPTH_MAX {
            if obj == 0 || obj == stop {
                break;
            }
            let Some(there) = self.field_u64(io, obj, counted.field())? else { break };
            let dd = self.dir(io, obj)?;
            let head = DatasetRef { obj: dd.head_dataset_obj, dir: obj, snapshot: false };
            if there.saturating_add(more) > self.prop_number(io, head, counted.limit())? {
                return Err(DslError::Quota);
            }
            obj = dd.parent_obj;
        }
        Ok(())
    }

    /// The same of snapshots about to be taken together, one for each directory of `dirs`: each directory on the way
    /// up gains as many as there are below it.
    pub(crate) fn snapshots_limit_check(&self, io: &dyn BlockStore, dirs: &[u64]) -> Result<()> {
        if self.who.is_root() || !self.feature_active(io, Feature::FS_SS_LIMIT)? {
            return Ok(());
        }
        let mut gains = std::collections::BTreeMap::<u64, u64>::new();
        for dir in dirs {
            for above in self.dirs_up(io, *dir)? {
                *gains.entry(above).or_default() += 1;
            }
        }
        gains.into_iter().try_for_each(|(dir, n)| self.limit_check(io, dir, Counted::Snapshots, n, 0))
    }

    /// Whether what goes from directory `from` may come into `to`: nothing changes for what is above both.
    pub(crate) fn transfer_limit_check(
        &self,
        io: &dyn BlockStore,
        (from, to): (u64, u64),
        filesystems: u64,
        snapshots: u64,
    ) -> Result<()> {
        let own = self.dirs_up(io, from)?;
        let common = self.dirs_up(io, to)?.into_iter().find(|d| own.contains(d)).unwrap_or(0);
        self.limit_check(io, to, Counted::Filesystems, filesystems, common)?;
        self.limit_check(io, to, Counted::Snapshots, snapshots, common)
    }

    /// Moves the counts of a directory and all below it from one parent to another, where limits let them.
    pub(crate) fn move_counts(
        &mut self,
        io: &mut dyn BlockWriter,
        dir: u64,
        from: u64,
        to: u64,
    ) -> Result<()> {
        if !self.feature_active(io, Feature::FS_SS_LIMIT)? {
            return Ok(());
        }
        // Where it comes to there may be counts that it has none for yet.
        let (below, snapshots) = self.begin_counts(io, dir, 0)?;
        let filesystems = below.saturating_add(1);
        self.transfer_limit_check(io, (from, to), filesystems, snapshots)?;
        for (counted, n) in [(Counted::Filesystems, filesystems), (Counted::Snapshots, snapshots)] {
            let n = i64::try_from(n).unwrap_or(0);
            self.count_adjust(io, from, counted, -n)?;
            self.count_adjust(io, to, counted, n)?;
        }
        Ok(())
    }

    /// A directory and those above it.
    fn dirs_up(&self, io: &dyn BlockStore, dir: u64) -> Result<Vec<u64>> {
        let (mut out, mut obj) = (Vec::new(), dir);
        while obj != 0 {
            if out.len() >= DEPTH_MAX {
                return Err(Corrupt::new("DSL directory", "parents without end").into());
            }
            out.push(obj);
            obj = self.dir(io, obj)?.parent_obj;
        }
        Ok(out)
    }

    /// One more or less in a directory and all above it that have counts.
    pub(crate) fn count_adjust(
        &mut self,
        io: &mut dyn BlockWriter,
        dir: u64,
        counted: Counted,
        delta: i64,
    ) -> Result<()> {
        let mut obj = dir;
        for _ in 0..DEPTH_MAX {
            if obj == 0 || delta == 0 {
                break;
            }
            let Some(n) = self.field_u64(io, obj, counted.field())? else { break };
            self.zap_put_u64(io, obj, counted.field(), crate::space::add(n, delta))?;
            obj = self.dir(io, obj)?.parent_obj;
        }
        Ok(())
    }

    /// A limit is about to be set on `dir`: from now on there are counts (`dsl_dir_actv_fs_ss_limit_sync`).
    pub(crate) fn limit_activate(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        if !self.feature_enabled(io, Feature::FS_SS_LIMIT)? {
            let why = "pool and or dataset must be upgraded to set this property or value";
            return Err(DslError::Unsupported(why.into()));
        }
        if !self.feature_active(io, Feature::FS_SS_LIMIT)? {
            self.feature_incr(io, Feature::FS_SS_LIMIT)?;
        }
        self.begin_counts(io, dir, 0)?;
        Ok(())
    }

    /// Counts what is there below `dir`, as far as it is not counted; file systems and snapshots.
    fn begin_counts(&mut self, io: &mut dyn BlockWriter, dir: u64, depth: usize) -> Result<(u64, u64)> {
        if depth > DEPTH_MAX {
            return Err(Corrupt::new("DSL directory", "children without end").into());
        }
        let (fs, snap) = (Counted::Filesystems.field(), Counted::Snapshots.field());
        if let Some(n) = self.field_u64(io, dir, fs)? {
            return Ok((n, self.field_u64(io, dir, snap)?.unwrap_or(0)));
        }
        let (mut filesystems, mut snapshots) = (0_u64, 0_u64);
        let dd = self.dir(io, dir)?;
        for (child, obj) in self.zap_list_u64(io, dd.child_dir_zapobj)? {
            if child.starts_with('$') {
                continue;
            }
            let (f, s) = self.begin_counts(io, obj, depth + 1)?;
            filesystems += f + 1;
            snapshots += s;
        }
        let names = self.dataset(io, dd.head_dataset_obj)?.snapnames_zapobj;
        let own = self.zap_list_u64(io, names)?;
        snapshots += own.iter().filter(|(name, _)| !name.starts_with('%')).count() as u64;
        self.put_counts(io, dir, filesystems, snapshots)?;
        Ok((filesystems, snapshots))
    }

    /// A new directory has counts where any has.
    pub(crate) fn begin_counts_of_new(&mut self, io: &mut dyn BlockWriter, dir: u64) -> Result<()> {
        if self.feature_active(io, Feature::FS_SS_LIMIT)? { self.put_counts(io, dir, 0, 0) } else { Ok(()) }
    }

    fn put_counts(&mut self, io: &mut dyn BlockWriter, dir: u64, fs: u64, snaps: u64) -> Result<()> {
        self.zapify(io, dir)?;
        self.zap_put_u64(io, dir, Counted::Filesystems.field(), fs)?;
        self.zap_put_u64(io, dir, Counted::Snapshots.field(), snaps)
    }
}
