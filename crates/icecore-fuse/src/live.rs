//! The head at the top of a mount, open for change.
//!
//! Invariants:
//! 1. What is known of it is good for one epoch of the pool ([`icecore_pool::Shared::epoch`]): whenever a command may have
//!    changed anything, the next request looks anew.
//! 2. A head that is gone, another's by now, without its key or with a log to be replayed is not opened: its mount answers
//!    `ESTALE`, and comes back with the head.

use crate::views::{Facts, facts};
use icecore_dsl::DslError;
use icecore_pool::Pool;
use icecore_zpl::write::Writer;
use icecore_zpl::{Result, ZplError};

/// When reading a file sets its time of reading (properties `atime`, `relatime`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Atime {
    Never,
    /// Where it is not later than the last change, or a day old.
    Relative,
    Always,
}

/// What fsync waits for (property `sync`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sync {
    Standard,
    /// Every change is durable at once.
    Always,
    /// None is waited for.
    Disabled,
}

/// A head, open for change.
pub(crate) struct Live {
    pub writer: Writer,
    pub facts: Facts,
    pub atime: Atime,
    pub sync: Sync,
    pub epoch: u64,
}

impl Live {
    /// Opens head `object`, which must be the dataset of this guid still.
    pub fn open(pool: &mut Pool, (object, guid): (u64, u64), epoch: u64) -> Result<Self> {
        let (io, dsl) = pool.parts();
        if dsl.dataset(io, object)?.guid != guid {
            return Err(DslError::NotFound("the dataset of the mount".into()).into());
        }
        let head = dsl.by_object(io, object)?;
        if !dsl.key_loaded(io, head.dir)? {
            return Err(ZplError::KeyNotLoaded(String::new()));
        }
        if dsl.is_unreplayed(object) {
            return Err(DslError::Busy("its intent log is to be replayed first".into()).into());
        }
        let number = |name: &str| dsl.prop_number(io, head, name);
        let atime = match (number("atime")?, number("relatime")?) {
            (0, _) => Atime::Never,
            (_, 0) => Atime::Always,
            _ => Atime::Relative,
        };
        let sync = match number("sync")? {
            1 => Sync::Always,
            2 => Sync::Disabled,
            _ => Sync::Standard,
        };
        pool.lend_keys(head.dir).map_err(|e| ZplError::Unsupported(e.to_string()))?;
        let (io, dsl) = pool.parts();
        let writer = Writer::of_head(dsl, io, head)?;
        Ok(Self { writer, facts: facts(pool, head)?, atime, sync, epoch })
    }
}
