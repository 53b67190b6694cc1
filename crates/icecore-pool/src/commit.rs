//! The one place where a txg becomes the state of the pool (`vdev_config_sync`, vdev_label.c).
//!
//! What if power goes at each step; U is the uberblock of the last commit, V the new one:
//! 1. During the txg and its sync: only space that U calls free was written. U opens.
//! 2. Flush. Now everything V refers to is durable. U opens.
//! 3. Even labels (0 and 2), if the configuration changed. Torn or whole: their txg is newer than U's, so an
//!    import by U passes over them and takes the odd ones. U opens.
//! 4. Flush. The even labels are durable. U opens.
//! 5. Uberblocks, in the ring slot of the oldest txg: U's own slot is not touched. If none lands, U opens with
//!    the odd labels; if one lands whole, V opens with the even ones; a torn one has no checksum.
//! 6. Flush. V is durable: the commit has happened. Only now may the caller be told.
//! 7. Odd labels, flush. Torn: V opens with the even ones; the next commit of a changed configuration comes
//!    only after this flush, so never are all four torn.
//!
//! After a failed write or flush nothing more is written: the pool is suspended (see `io`). V may or may not
//! have landed; both are consistent. A side of a mirror that fails is left behind instead; power lost between
//! its failure in steps 2 to 7 and the second commit leaves it without a time log: what it lacks fails its
//! checksum there and is read from the other side.

use crate::error::{PoolError, Result};
use crate::pool::Pool;
use icecore_dmu::WriteError;
use icecore_format::uberblock::UberblockPhys;
use icecore_format::{Blkptr, Txg};
use icecore_vdev::{LabelSet, Leaf, PoolState};
use zerocopy::little_endian::U64;

impl Pool {
    /// Commits the open txg. The txg that is now durable: the same as before if nothing had changed. After an
    /// error the pool is suspended; open it again to see which of the two txgs it is at.
    pub fn commit(&mut self) -> Result<Txg> {
        self.io.check_writable()?;
        if !self.is_dirty() {
            return Ok(self.synced());
        }
        // A side of a mirror that fails when the txg's own time logs are written already goes into those of a
        // second one, at once.
        let done = match self.commit_dirty() {
            Ok(_) if !self.io.lost.is_empty() => self.commit_dirty(),
            other => other,
        };
        match done {
            Ok(txg) => Ok(txg),
            Err(PoolError::Write { error, .. }) => Err(self.failed(error)),
            Err(other) => {
                let _ = self.failed(WriteError::Invalid(other.to_string()));
                Err(other)
            }
        }
    }

    fn commit_dirty(&mut self) -> Result<Txg> {
        if let Some((command, uid)) = self.note.take() {
            // A record that cannot be had is left out (history.rs).
            let _ = self.log_command(&command, uid);
        }
        self.sync_scan()?;
        let txg = self.io.txg;
        self.config_dirty |= std::mem::take(&mut self.announce);
        let root = self.sync_txg()?;
        let new = self.next_uberblock(root)?;
        self.io.flush()?; // 2
        if self.config_dirty {
            self.write_labels(LabelSet::Even)?; // 3, 4
        }
        self.write_uberblock(&new)?; // 5, 6
        self.uberblock = new;
        if self.config_dirty {
            self.write_labels(LabelSet::Odd)?; // 7
        }
        self.config_dirty = false;
        self.io.mos_root = root;
        self.io.alloc.synced(txg.0).map_err(crate::metaslab::alloc::conflict)?;
        self.io.txg = Txg(txg.0 + 1);
        self.logs_committed();
        self.scan_committed();
        let space = self.io.space();
        (self.dsl.info.usable, self.dsl.info.at_once) = (space.usable(), space.at_once());
        Ok(txg)
    }

    fn next_uberblock(&self, root: Blkptr) -> Result<UberblockPhys> {
        let tree = self.config.vdev_tree.as_ref();
        let tree = tree.ok_or_else(|| PoolError::Invalid("the configuration has no vdevs".into()))?;
        let mut new = self.uberblock;
        new.magic = U64::new(icecore_format::uberblock::MAGIC);
        new.txg = U64::new(self.io.txg.0);
        new.guid_sum = U64::new(tree.guid_sum());
        new.timestamp = U64::new(self.io.env.clock.now());
        new.rootbp = root;
        new.software_version = U64::new(icecore_format::uberblock::VERSION_FEATURES);
        new.checkpoint_txg = U64::new(0);
        new.set_mmp_off();
        assert!(new.txg() > self.uberblock.txg(), "txgs only grow");
        Ok(new)
    }

    fn write_uberblock(&mut self, new: &UberblockPhys) -> Result<(), WriteError> {
        let written = self.io.vdevs.write_uberblock(new, false);
        self.io.outcome(written)?;
        self.flush_labels()
    }

    fn write_labels(&mut self, set: LabelSet) -> Result<(), WriteError> {
        let (config, features) = (&self.config, &self.label_features);
        let make = |leaf: &Leaf| config.label_for(leaf.guid, features).map(|c| c.to_nvlist());
        let written = self.io.vdevs.write_labels(set, &make);
        self.io.outcome(written)?;
        self.flush_labels()
    }

    fn flush_labels(&mut self) -> Result<(), WriteError> {
        self.io.unflushed_writes = true;
        self.io.flush()
    }

    /// Leaves the pool so that any system can import it: commits, then marks it exported on all labels. A
    /// pool opened read-only, or already exported and unchanged, is simply let go.
    pub fn export(mut self) -> Result<Txg> {
        self.mark_exported()
    }

    /// [`Pool::export`] of a pool that somebody else owns. It must not be used any more afterwards.
    pub fn mark_exported(&mut self) -> Result<Txg> {
        self.mark_left(PoolState::EXPORTED)
    }

    /// The same for a pool that is destroyed: its labels say so, and nothing else of it changes (`spa_destroy`,
    /// `spa_export_common`, spa.c). OpenZFS still imports it with `zpool import -D`.
    pub fn mark_destroyed(&mut self) -> Result<Txg> {
        self.mark_left(PoolState::DESTROYED)
    }

    fn mark_left(&mut self, state: PoolState) -> Result<Txg> {
        if !self.io.writable {
            return Ok(self.synced());
        }
        self.resilver_cancel();
        let clean = !self.is_dirty() && self.config.pool_state() == state;
        if !clean {
            self.config.state = Some(state.0);
            self.config_dirty = true;
            self.stage_scan()?;
        }
        self.commit()
    }
}
