//! Reading the intent log of a dataset: what was promised to be on disk before power went, and is not yet in its objset.
//!
//! Facts: `zil_parse`, `zil_read_log_block` (zil.c).
//!
//! Invariants:
//! 1. The chain ends at the first block that does not verify, does not link on, or (once claimed) has a higher sequence
//!    number than was claimed: that is how every log ends, and no error. That last block was allocated ahead: it is part
//!    of the chain, though nothing was written into it.
//! 2. No block is read twice, whatever the pointers say: sequence numbers rise by one, and the chain is bounded by
//!    [`BLOCKS_MAX`].
//! 3. Reads only. Claiming is in [`crate::claim`].

use crate::error::Result;
use crate::io::Io;
use crate::pool::Pool;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_dsl::Dsl;
use icecore_format::objset::ObjsetPhys;
use icecore_format::zil::record::{LogRecord, block, heads, records};
use icecore_format::zil::{FLAG_CLAIM_LR_SEQ_VALID, ZilHeaderPhys};
use icecore_format::{Blkptr, Bookmark, ObjectId};
use std::sync::Arc;

/// Blocks of a log that are followed at most: far more than any log between two txgs has.
const BLOCKS_MAX: u64 = 1 << 20;
/// Object and level that stand for the intent log (`ZB_ZIL_OBJECT`, `ZB_ZIL_LEVEL`).
const LEVEL: i8 = -2;

/// What a walk over a log found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Walked {
    /// Blocks that verified.
    pub blocks: u64,
    /// Records in them, those that are replayed already not counted.
    pub records: u64,
    /// They are encrypted, and the key is not loaded: records were not looked into.
    pub locked: bool,
}

/// The log's header of the head `objset`; `None` where there is no objset.
///
/// # Errors
/// Where dataset or objset cannot be read.
pub fn header(pool: &Pool, objset: u64) -> Result<Option<ZilHeaderPhys>> {
    header_of(&pool.dsl, &pool.io, objset)
}

pub(crate) fn header_of(dsl: &Dsl, io: &Io, objset: u64) -> Result<Option<ZilHeaderPhys>> {
    let ds = dsl.dataset(io, objset)?;
    if ds.bp.is_hole() {
        return Ok(None);
    }
    let bytes = io.read(&ds.bp, &Bookmark::root(objset), Want::NoKey)?;
    let phys = ObjsetPhys::parse(&bytes).map_err(ReadError::from)?;
    Ok(Some(ZilHeaderPhys::parse(phys.zil_header()).map_err(ReadError::from)?))
}

/// A step along a log.
pub(crate) enum Step<'a> {
    /// This block comes next; it may turn out not to be written.
    Block(&'a Blkptr),
    /// It was: its records, as they are stored if the key is missing.
    Records { bytes: &'a [u8], locked: bool },
}

/// The highest sequence number of a record that belongs to the log.
pub(crate) fn last_record(head: &ZilHeaderPhys) -> u64 {
    let known = head.claim_txg.get() != 0 && head.flags.get() & FLAG_CLAIM_LR_SEQ_VALID != 0;
    if known { head.claim_lr_seq.get() } else { u64::MAX }
}

/// Follows the chain of a log until `each` says no.
pub(crate) fn follow(
    io: &Io,
    objset: u64,
    head: &ZilHeaderPhys,
    want: Want,
    each: &mut dyn FnMut(Step<'_>) -> bool,
) {
    let last = if head.claim_txg.get() != 0 { head.claim_blk_seq.get() } else { u64::MAX };
    let mut next = head.log;
    for _ in 0..BLOCKS_MAX {
        let [.., seq] = next.cksum();
        if next.is_hole() || seq > last || !each(Step::Block(&next)) {
            return;
        }
        let Ok((bytes, locked)) = read(io, objset, &next, want) else { return };
        let Ok(frame) = block(&next, &bytes) else { return };
        if !each(Step::Records { bytes: frame.records, locked }) {
            return;
        }
        next = frame.next;
    }
}

/// Every block that the log of a head takes, if it is claimed: those of the chain, and those that its records lead to.
/// Of one that is not claimed only what earlier txgs than `next` allocated.
pub(crate) fn blocks(io: &Io, objset: u64, head: &ZilHeaderPhys, next: u64, tell: &mut dyn FnMut(&Blkptr)) {
    let claim = head.claim_txg.get();
    let last = last_record(head);
    follow(io, objset, head, Want::Stored, &mut |step| {
        match step {
            Step::Block(bp) if claim != 0 || bp.birth().0 < next => tell(bp),
            Step::Records { bytes, .. } if claim != 0 => {
                for head in heads(bytes).map_while(Result::ok).take_while(|h| h.seq <= last) {
                    if let Some(bp) = head.pointer.filter(|bp| bp.birth().0 >= claim) {
                        tell(&bp);
                    }
                }
            }
            _ => {}
        }
        true
    });
}

/// Walks the log of the head `objset` and hands every record not yet replayed to `each`, in order; stops when that says
/// no.
///
/// # Errors
/// Where the header cannot be read. A block that cannot be read is the log's end.
pub fn walk(pool: &Pool, objset: u64, each: &mut dyn FnMut(&LogRecord<'_>) -> bool) -> Result<Walked> {
    let mut walked = Walked::default();
    let Some(head) = header(pool, objset)? else { return Ok(walked) };
    let last = last_record(&head);
    follow(&pool.io, objset, &head, Want::Logical, &mut |step| {
        let Step::Records { bytes, locked } = step else { return true };
        walked.blocks += 1;
        walked.locked |= locked;
        for record in records(bytes).map_while(Result::ok).take_while(|_| !locked) {
            if record.seq > last {
                return false;
            }
            if record.seq > head.replay_seq.get() {
                walked.records += 1;
                if !each(&record) {
                    return false;
                }
            }
        }
        true
    });
    Ok(walked)
}

/// Where a block of a log belongs.
pub(crate) fn place(objset: u64, bp: &Blkptr) -> Bookmark {
    let [.., seq] = bp.cksum();
    Bookmark { objset, object: ObjectId(0), level: LEVEL, blkid: seq }
}

/// A block, decrypted if that is wanted and the key is there; else as it is stored, which is enough to follow the chain.
fn read(io: &Io, objset: u64, bp: &Blkptr, want: Want) -> Result<(Arc<[u8]>, bool), ReadError> {
    let at = place(objset, bp);
    if want == Want::Stored {
        return Ok((io.read(bp, &at, want)?, bp.is_encrypted()));
    }
    match io.read(bp, &at, want) {
        Err(ReadError::KeyUnavailable { .. }) => Ok((io.read(bp, &at, Want::Stored)?, true)),
        read => Ok((read?, false)),
    }
}
