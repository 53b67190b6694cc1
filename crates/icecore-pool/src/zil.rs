//! Reading the intent log of a dataset: what was promised to be on disk before power went, and is not yet in its objset.
//!
//! Facts: `zil_parse`, `zil_read_log_block` (zil.c).
//!
//! Invariants:
//! 1. The chain ends at the first block that does not verify, does not link on, or (once claimed) has a higher sequence
//!    number than was claimed: that is how every log ends, and no error.
//! 2. No block is read twice, whatever the pointers say: sequence numbers rise by one, and the chain is bounded by
//!    [`BLOCKS_MAX`].
//! 3. Reads only. Nothing here claims or replays.

use crate::error::Result;
use crate::pool::Pool;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_format::objset::ObjsetPhys;
use icecore_format::zil::record::{LogRecord, block, records};
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
    let ds = pool.dsl.dataset(&pool.io, objset)?;
    if ds.bp.is_hole() {
        return Ok(None);
    }
    let bytes = pool.io.read(&ds.bp, &Bookmark::root(objset), Want::NoKey)?;
    let phys = ObjsetPhys::parse(&bytes).map_err(ReadError::from)?;
    Ok(Some(ZilHeaderPhys::parse(phys.zil_header()).map_err(ReadError::from)?))
}

/// Walks the log of the head `objset` and hands every record not yet replayed to `each`, in order; stops when that says
/// no.
///
/// # Errors
/// Where the header cannot be read. A block that cannot be read is the log's end.
pub fn walk(pool: &Pool, objset: u64, each: &mut dyn FnMut(&LogRecord<'_>) -> bool) -> Result<Walked> {
    let mut walked = Walked::default();
    let Some(head) = header(pool, objset)? else { return Ok(walked) };
    let claimed = head.claim_txg.get() != 0;
    let last_block = if claimed { head.claim_blk_seq.get() } else { u64::MAX };
    let known = claimed && head.flags.get() & FLAG_CLAIM_LR_SEQ_VALID != 0;
    let last_record = if known { head.claim_lr_seq.get() } else { u64::MAX };
    let mut next = head.log;
    while !next.is_hole() && walked.blocks < BLOCKS_MAX {
        let [.., seq] = next.cksum();
        if seq > last_block {
            break;
        }
        let (bytes, locked) = match read(pool, objset, &next) {
            Ok(read) => read,
            Err(_) => break,
        };
        let Ok(frame) = block(&next, &bytes) else { break };
        walked.blocks += 1;
        walked.locked |= locked;
        for record in records(frame.records).map_while(Result::ok).take_while(|_| !locked) {
            if record.seq > last_record {
                return Ok(walked);
            }
            if record.seq > head.replay_seq.get() {
                walked.records += 1;
                if !each(&record) {
                    return Ok(walked);
                }
            }
        }
        next = frame.next;
    }
    Ok(walked)
}

/// A block, decrypted if the key is there; else as it is stored, which is enough to follow the chain.
fn read(pool: &Pool, objset: u64, bp: &Blkptr) -> Result<(Arc<[u8]>, bool), ReadError> {
    let [.., seq] = bp.cksum();
    let at = Bookmark { objset, object: ObjectId(0), level: LEVEL, blkid: seq };
    match pool.io.read(bp, &at, Want::Logical) {
        Err(ReadError::KeyUnavailable { .. }) => Ok((pool.io.read(bp, &at, Want::Stored)?, true)),
        read => Ok((read?, false)),
    }
}
