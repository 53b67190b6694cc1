//! The one batch of device writes that may be under way while the next one is prepared.
//!
//! Invariants:
//! 1. Who asks for the failure of a batch has waited for it; a failure stays until it is asked for, once.
//! 2. Buffers that were written are kept for the next blocks, up to [`SPARE_BYTES`].
//! 3. When this is dropped, the batch has arrived or failed, and the devices are no longer held by it.

use icecore_env::{Pending, Workers, start};
use icecore_vdev::{VdevError, VdevSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces to be written: top-level vdev, offset, bytes.
pub(super) type Pieces = Vec<(u64, u64, Vec<u8>)>;

#[derive(Default)]
pub(super) struct Behind(Mutex<State>);

/// Bytes of buffers kept.
const SPARE_BYTES: usize = 8 << 20;

/// The buffers of a batch, and whether it arrived.
type Written = (Pieces, Result<(), VdevError>);

#[derive(Default)]
struct State {
    under_way: Option<Pending<Written>>,
    failed: Option<VdevError>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

impl State {
    fn settle(&mut self) {
        let Some((pieces, written)) = self.under_way.take().map(Pending::wait) else { return };
        if let Err(e) = written {
            self.failed.get_or_insert(e);
        }
        for (_, _, buffer) in pieces {
            if self.spare_bytes + buffer.len() <= SPARE_BYTES {
                self.spare_bytes += buffer.len();
                self.spare.push(buffer);
            }
        }
    }
}

impl Behind {
    /// Waits for what is under way: from now on reads see it.
    pub(super) fn settle(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).settle();
    }

    /// Waits likewise; why a batch did not arrive, if one did not. The caller has to deal with it.
    pub(super) fn failure(&mut self) -> Option<VdevError> {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.settle();
        state.failed.take()
    }

    /// Starts a batch, once the one before has ended.
    pub(super) fn write(&mut self, workers: &Arc<dyn Workers>, vdevs: &Arc<VdevSet>, pieces: Pieces) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.settle();
        let (helpers, vdevs) = (workers.clone(), vdevs.clone());
        state.under_way = Some(start(&**workers, move || {
            let written = vdevs.write_many(&*helpers, &pieces);
            (pieces, written)
        }));
    }

    /// A buffer that was written, if the last one kept is about `len` long.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<u8> {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        match state.spare.pop_if(|last| last.len() / 2 <= len && len / 2 <= last.len()) {
            Some(buffer) => {
                state.spare_bytes -= buffer.len();
                buffer
            }
            None => Vec::new(),
        }
    }
}
