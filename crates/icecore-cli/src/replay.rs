//! Replaying the intent logs that power left: before anything else is done to a pool that is opened for writing, and to
//! encrypted datasets once their key is there (OpenZFS does so when it mounts them).

use crate::fail::{Fail, Outcome};
use crate::session::{self, For};
use icecore_dsl::{DatasetRef, Feature};
use icecore_format::units::OLD_MAX_BLOCK;
use icecore_format::zil::record::Body;
use icecore_pool::{Pool, PoolError};
use icecore_zpl::Time;
use icecore_zpl::write::Replay;

/// Replays every log whose key is loaded or not needed, in the open txg: the caller commits. The number of records.
///
/// # Errors
/// One of them cannot be replayed: the open txg is to be abandoned, and with it all of it.
pub fn all(pool: &mut Pool) -> icecore_pool::Result<u64> {
    let mut records = 0;
    for objset in pool.logs().into_keys() {
        let head = pool.dsl.by_object(pool.io(), objset).map_err(PoolError::Dsl)?;
        if pool.dsl.key_loaded(pool.io(), head.dir).map_err(PoolError::Dsl)? {
            records += one(pool, head)?;
        }
    }
    Ok(records)
}

/// What [`all`] does, committed.
pub fn now(pool: &mut Pool) -> icecore_pool::Result<()> {
    if !pool.logs().is_empty() || pool.is_dirty() {
        all(pool)?;
        pool.commit()?;
    }
    Ok(())
}

/// After a key was loaded: replays what waited for it in the pool of `name`.
pub fn with_new_key(name: &str) -> Outcome {
    if session::open(name, For::Read)?.logs().is_empty() {
        return Ok(());
    }
    let mut pool = session::open(name, For::Write)?;
    now(&mut pool).map_err(|e| Fail::new(format!("the key is loaded, but {e}")))
}

fn one(pool: &mut Pool, head: DatasetRef) -> icecore_pool::Result<u64> {
    let name = pool.dsl.dir_name(pool.io(), head.dir).map_err(PoolError::Dsl)?;
    let fail = |why: &dyn std::fmt::Display| PoolError::Invalid(format!("{name} cannot be replayed: {why}"));
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Time { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() };
    pool.lend_keys(head.dir)?;
    let mut record = pool.dsl.prop_number(pool.io(), head, "recordsize").unwrap_or(OLD_MAX_BLOCK);
    let (io, dsl) = pool.parts();
    if let Some(f) = icecore_dsl::block_size_feature(record) {
        if dsl.feature_enabled(io, f).map_err(|e| fail(&e))? {
            dsl.activate_feature_later(head.obj, f);
        } else {
            record = OLD_MAX_BLOCK;
        }
    }
    let mut replay: Option<Replay> = None;
    let mut large_dnodes = false;
    let records = pool
        .replay_log(head.obj, &mut |os, io, r| {
            let new = match &r.body {
                Body::Create { new, .. } => Some(*new),
                Body::Rename { whiteout, .. } => whiteout.map(|w| w.new),
                _ => None,
            };
            large_dnodes |= new.is_some_and(|new| new.slots > 1);
            if replay.is_none() {
                replay = Some(Replay::open(io, os, record, now).map_err(|e| e.to_string())?);
            }
            match &mut replay {
                Some(replay) => replay.apply(os, io, r).map_err(|e| e.to_string()),
                None => Ok(()),
            }
        })
        .map_err(|e| fail(&e))?;
    if large_dnodes {
        let (io, dsl) = pool.parts();
        dsl.activate_feature(io, head.obj, Feature::LARGE_DNODE).map_err(|e| fail(&e))?;
    }
    Ok(records)
}
