//! The end of a receive: the snapshot gets the sender's identity, what was received becomes visible.
//!
//! Facts: `dmu_recv_end_check`, `dmu_recv_end_sync`, dmu_recv.c; `dsl_crypto_recv_raw_key_sync`,
//! dsl_crypt.c.
//!
//! Invariants:
//! 1. All of it happens in one txg: before its commit the dataset is as it was before the receive.
//! 2. The key of an existing dataset is replaced here and nowhere else, and only if it still is wrapped as
//!    the last stream left it. A key that was wrapped anew here (`change-key`) stays: the data keys are
//!    the same, and the passphrase that opened it yesterday opens it tomorrow.

use super::begin::{Receiving, newer_snapshots};
use super::error::ReceiveError;
use super::keydata::WrappedKey;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter};
use icecore_dsl::crypt::{KEY_VERSION, KeyObject};
use icecore_dsl::{DatasetRef, Dsl};
use icecore_format::ObjectId;

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// Entry of an encrypted dataset's directory: IV of the wrapping its last stream carried. Ours; others
/// leave it alone.
const RECEIVED_WRAPPING: &str = "org.icecore:received_wrapping";

/// What the last step did besides.
#[derive(Default, Debug)]
pub(crate) struct Finished {
    /// Snapshots destroyed because `-F` was given.
    pub destroyed: Vec<String>,
    /// The key stayed wrapped as it was here.
    pub kept_wrapping: bool,
}

fn key_object(k: &WrappedKey) -> KeyObject {
    KeyObject {
        suite: k.suite,
        guid: k.guid,
        version: KEY_VERSION,
        master: k.master,
        hmac: k.hmac,
        iv: k.iv,
        mac: k.mac,
        keyformat: k.keyformat,
        salt: k.salt,
        iters: k.iters,
    }
}

/// Stores a stream's key, and remembers which wrapping it was.
pub(crate) fn store_key(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ds: DatasetRef,
    key: &WrappedKey,
) -> Result<()> {
    dsl.raw_key_store(io, ds, &key_object(key))?;
    let iv = ZapValue::U8(key.iv.to_vec());
    zap::update(&mut dsl.mos, io, ObjectId(ds.dir), RECEIVED_WRAPPING, &iv)?;
    Ok(())
}

/// Whether the key of `head` is still wrapped as its last stream left it.
fn wrapping_untouched(dsl: &Dsl, io: &dyn BlockStore, head: DatasetRef, own: &KeyObject) -> Result<bool> {
    let noted = zap::lookup(&dsl.mos, io, ObjectId(head.dir), RECEIVED_WRAPPING)?;
    Ok(noted == Some(ZapValue::U8(own.iv.to_vec())))
}

/// Replaces the key of an existing dataset if the stream's is wrapped differently. True if it was kept.
fn renew_key(dsl: &mut Dsl, io: &mut dyn BlockWriter, head: DatasetRef, key: &WrappedKey) -> Result<bool> {
    let Some(own) = dsl.key_object(io, head.dir)? else { return Ok(false) };
    if own == key_object(key) {
        return Ok(false);
    }
    if !wrapping_untouched(dsl, io, head, &own)? {
        return Ok(true);
    }
    store_key(dsl, io, head, key)?;
    Ok(false)
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
                done.kept_wrapping = renew_key(dsl, io, head, &k.key)?;
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
