//! The end of a receive: the snapshot gets the sender's identity, what was received becomes visible.
//!
//! Facts: `dmu_recv_end_check`, `dmu_recv_end_sync`, dmu_recv.c.
//!
//! Invariants:
//! 1. All of it happens in one txg: before its commit the dataset is as it was before the receive.
//! 2. The key of an existing dataset is replaced here and by a package's end, and nowhere else (`roots`).

use super::begin::{Receiving, newer_snapshots};
use super::error::ReceiveError;
use super::roots::{self, Renewed};
use icecore_dmu::BlockWriter;
use icecore_dsl::Dsl;

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// What the last step did besides.
#[derive(Default, Debug)]
pub(crate) struct Finished {
    /// Snapshots destroyed because `-F` was given.
    pub destroyed: Vec<String>,
    /// What became of the key.
    pub key: Renewed,
}

/// Makes the snapshot. `ds` holds all records, written or waiting.
pub(crate) fn finish(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    r: &Receiving,
    path: &str,
    snap: &str,
    begin: &icecore_format::stream::Begin,
) -> Result<Finished> {
    let mut done = Finished::default();
    let head = match r.over {
        None => {
            dsl.clear_resume_state(io, r.ds.obj)?;
            r.ds
        }
        Some(head) => {
            if let Some(from) = r.from {
                done.destroyed = newer_snapshots(dsl, io, path, from)?;
                for name in done.destroyed.iter().rev() {
                    dsl.destroy_snapshot(io, name, false)?;
                }
            }
            if let Some(k) = &r.key {
                done.key = roots::renew_key(dsl, io, head, &k.key)?;
            }
            dsl.swap_and_destroy(io, r.ds, head)?;
            head
        }
    };
    let new = dsl.snapshot_received(io, head, snap)?;
    dsl.set_snapshot_identity(io, new.obj, begin.toguid, begin.creation_time)?;
    if let Some(k) = &r.key {
        if k.to_ivset_guid != 0 {
            dsl.set_ivset_guid(io, new.obj, k.to_ivset_guid)?;
        }
        dsl.set_raw_received(io, new.obj)?;
    }
    dsl.forget(head.obj);
    Ok(done)
}
