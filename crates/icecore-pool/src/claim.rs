//! Intent logs of a pool that is opened for writing: their blocks are kept, their records replayed, and they are let go.
//!
//! Facts: `zil_claim`, `zil_claim_log_block`, `zil_claim_write`, `zil_replay`, `zil_destroy_sync` (zil.c).
//!
//! A log's blocks were written after the last commit, so its space maps call them free. Opening claims them: they count as
//! allocated from the first txg on. What is replayed in that txg never gets into the space maps at all; what waits (for a
//! key) is written as claimed with the first commit, as OpenZFS does at import.
//!
//! Invariants:
//! 1. No block of a log is handed out before the commit that no longer has that log, nor in the two txgs after.
//! 2. A replay and the end of its log are one commit. After an error the open txg is abandoned, and the logs are as
//!    they were.
//! 3. A record that is not replayed is an error with its name, never passed over, but for those that OpenZFS passes over too.

use crate::error::{PoolError, Result};
use crate::io::Io;
use crate::pool::Pool;
use crate::zil::{self, Step};
use icecore_dmu::{BlockStore, Objset, ReadError, Want};
use icecore_format::zil::record::{LogRecord, block, heads, kind_name, records};
use icecore_format::zil::{FLAG_CLAIM_LR_SEQ_VALID, FLAG_REPLAY_NEEDED, ZilHeaderPhys};
use icecore_format::{Blkptr, Corrupt, Dva};
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Bytes that a replay keeps in memory before it writes them out.
const DIRTY_MAX: u64 = 64 << 20;

/// Applies one record to an objset; the error says why it cannot.
pub type Apply<'a> = &'a mut dyn FnMut(&mut Objset, &mut Io, &LogRecord<'_>) -> Result<(), String>;

/// A log that waits to be replayed.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    header: ZilHeaderPhys,
    chain: Vec<Blkptr>,
    /// Records in it, those that are in the objset already counted too.
    records: u64,
    /// Its blocks, as far as the last commit calls them free.
    fresh: Vec<Dva>,
    /// The others.
    old: Vec<Dva>,
}

/// What of a log must be claimed.
#[derive(Default)]
struct Survey {
    chain: Vec<Blkptr>,
    /// Blocks that records lead to, each once.
    pointers: Vec<Blkptr>,
    records: u64,
    last_record: u64,
    clones: bool,
}

fn survey(io: &Io, objset: u64, header: &ZilHeaderPhys, first: u64) -> Survey {
    let mut found = Survey::default();
    let mut seen = BTreeSet::new();
    let claimed = header.claim_txg.get();
    let since = if claimed != 0 { claimed } else { first };
    let last = zil::last_record(header);
    zil::follow(io, objset, header, Want::Stored, &mut |step| {
        let bytes = match step {
            Step::Block(bp) => {
                found.chain.push(*bp);
                return true;
            }
            Step::Records { bytes, .. } => bytes,
        };
        for head in heads(bytes) {
            let Ok(head) = head else { return false };
            if head.seq > last {
                return false;
            }
            if let Some(bp) = head.pointer.filter(|bp| bp.birth().0 >= since) {
                // Written before what it leads to, and that never was: nobody was told that it is on disk.
                let lost = || io.read(&bp, &zil::place(objset, &bp), Want::Stored).is_err();
                if claimed == 0 && lost() {
                    return false;
                }
                if bp.dvas().first().is_some_and(|d| seen.insert((d.vdev(), d.offset()))) {
                    found.pointers.push(bp);
                }
            }
            found.clones |= head.clones();
            found.records += 1;
            found.last_record = head.seq;
        }
        true
    });
    found
}

impl Pool {
    /// Claims the logs of all heads in the open txg. What stands against it, in words.
    pub(crate) fn claim_logs(&mut self) -> Result<Vec<String>> {
        let first = self.uberblock.txg().0.saturating_add(1);
        let mut why = Vec::new();
        for name in self.dsl.descendants(&self.io, self.name())? {
            let Ok(head) = self.dsl.lookup_head(&self.io, &name) else { continue };
            // A head that cannot be read has no log that could be; half received ones have none.
            let Ok(Some(header)) = zil::header_of(&self.dsl, &self.io, head.obj) else { continue };
            if header.is_empty() || self.dsl.dataset(&self.io, head.obj)?.is_inconsistent() {
                continue;
            }
            match self.claim_log(head.obj, header, first) {
                Ok(()) => {}
                Err(PoolError::Invalid(reason)) => why.push(format!("the intent log of {name} {reason}")),
                Err(e) => why.push(format!("the intent log of {name} cannot be claimed: {e}")),
            }
        }
        Ok(why)
    }

    fn claim_log(&mut self, objset: u64, mut header: ZilHeaderPhys, first: u64) -> Result<()> {
        if !header.log.is_little_endian() {
            return Err(PoolError::Invalid("was written by a big-endian machine: replay it there".into()));
        }
        let found = survey(&self.io, objset, &header, first);
        let claimed = header.claim_txg.get() != 0;
        let mut log =
            Log { header, chain: Vec::new(), records: found.records, fresh: Vec::new(), old: Vec::new() };
        let dir = self.dsl.dataset(&self.io, objset)?.dir_obj;
        let encrypted = self.dsl.encryption_root(&self.io, dir)?.is_some();
        if found.clones && encrypted && !claimed {
            let why = "holds TX_CLONE_RANGE of an encrypted dataset, which cannot be claimed here";
            return Err(PoolError::Invalid(why.into()));
        }
        let blocks = found.chain.len();
        let all = found.chain.iter().chain(&found.pointers).enumerate();
        for (i, bp) in all {
            // The block allocated ahead may be ganged, and its header not written: then it ends before.
            let places = match self.io.places(bp) {
                Ok(places) => places,
                Err(_) if i + 1 == blocks => continue,
                Err(e) => return Err(e.into()),
            };
            if claimed || bp.birth().0 < first {
                log.old.extend(places);
            } else {
                for dva in places {
                    self.io.claim(&dva)?;
                    log.fresh.push(dva);
                }
                // Frees come in later txgs than what they free.
                self.io.txg.0 = self.io.txg.0.max(bp.birth().0);
            }
            if i < blocks {
                log.chain.push(*bp);
            }
        }
        if log.records == 0 {
            self.put_log_header(objset, &ZilHeaderPhys::default())?;
            return self.let_go(&log);
        }
        if !claimed {
            header.claim_txg = U64::new(first);
            header.claim_blk_seq = U64::new(log.chain.last().map_or(0, |bp| bp.cksum()[3]));
            header.claim_lr_seq = U64::new(found.last_record);
            header.flags = U64::new(header.flags.get() | FLAG_CLAIM_LR_SEQ_VALID | FLAG_REPLAY_NEEDED);
            log.header = header;
            self.put_log_header(objset, &header)?;
        }
        self.dsl.set_unreplayed(objset, true);
        self.logs.insert(objset, log);
        Ok(())
    }

    /// The header is under no MAC: an encrypted objset needs no key for it.
    fn put_log_header(&mut self, objset: u64, header: &ZilHeaderPhys) -> Result<()> {
        let (io, dsl) = self.parts();
        let os = dsl.open_dataset(io, objset)?;
        os.phys_mut().zil_header_mut().copy_from_slice(header.as_bytes());
        Ok(())
    }

    /// The log's blocks are free once this txg is committed, and used again later.
    fn let_go(&mut self, log: &Log) -> Result<()> {
        for dva in &log.fresh {
            self.io.alloc.unclaim(dva)?;
        }
        for dva in &log.old {
            self.io.release(dva)?;
        }
        self.io.forget_blocks();
        Ok(())
    }

    /// The heads whose logs wait to be replayed, and how many records they have.
    #[must_use]
    pub fn logs(&self) -> BTreeMap<u64, u64> {
        self.logs.iter().map(|(objset, log)| (*objset, log.records)).collect()
    }

    /// After a commit: what was claimed is allocated on disk.
    pub(crate) fn logs_committed(&mut self) {
        for log in self.logs.values_mut() {
            log.old.append(&mut log.fresh);
        }
    }

    /// Replays the log of the head `objset` in the open txg and lets it go; how many records were applied. The caller
    /// commits, or after an error abandons the txg.
    ///
    /// # Errors
    /// The key is not loaded; a record cannot be applied, which is named; writing fails.
    pub fn replay_log(&mut self, objset: u64, apply: Apply<'_>) -> Result<u64> {
        let Some(log) = self.logs.get(&objset).cloned() else { return Ok(0) };
        let dir = self.dsl.dataset(&self.io, objset)?.dir_obj;
        if !self.dsl.key_loaded(&self.io, dir)? {
            return Err(PoolError::Read(ReadError::KeyUnavailable { objset }));
        }
        if self.dsl.opened(objset).is_some_and(|os| os.is_raw() && os.is_dirty()) {
            // The header of the claim, written without the key, which came since: it is not needed any more.
            self.dsl.forget(objset);
        }
        let applied = self.apply_log(objset, &log, apply)?;
        self.put_log_header(objset, &ZilHeaderPhys::default())?;
        self.let_go(&log)?;
        self.logs.remove(&objset);
        self.dsl.set_unreplayed(objset, false);
        Ok(applied)
    }

    fn apply_log(&mut self, objset: u64, log: &Log, apply: Apply<'_>) -> Result<u64> {
        let (last, mut applied, mut seen) = (zil::last_record(&log.header), 0, 0);
        let (claim, replayed) = (log.header.claim_txg.get(), log.header.replay_seq.get());
        let (io, dsl) = self.parts();
        for bp in &log.chain {
            let bytes = match io.read(bp, &zil::place(objset, bp), Want::Logical) {
                Ok(bytes) => bytes,
                Err(ReadError::KeyUnavailable { objset }) => {
                    return Err(PoolError::Read(ReadError::KeyUnavailable { objset }));
                }
                Err(_) => break,
            };
            let Ok(frame) = block(bp, &bytes) else { break };
            for record in records(frame.records) {
                let record = record?;
                if record.seq > last {
                    break;
                }
                seen += 1;
                // In the objset by now, or known to be.
                if record.seq <= replayed || record.txg < claim {
                    continue;
                }
                let os = dsl.open_dataset(io, objset)?;
                apply(os, io, &record).map_err(|why| {
                    let kind = kind_name(record.kind).map_or(format!("type {}", record.kind), str::to_owned);
                    PoolError::Invalid(format!("record {} of the intent log, {kind}: {why}", record.seq))
                })?;
                applied += 1;
                if dsl.opened(objset).is_some_and(|os| os.dirty_bytes() > DIRTY_MAX) {
                    dsl.sync_dataset(io, objset)?;
                }
            }
        }
        // All of them were read when the log was claimed.
        if seen != log.records {
            let why = format!("{seen} of {} records can be read", log.records);
            return Err(Corrupt::new("intent log", why).into());
        }
        Ok(applied)
    }
}
