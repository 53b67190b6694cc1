//! The sharp edges of OpenZFS: a test for each known bug of its send and receive that touches what we have.
//!
//! Stubs follow.

#[path = "sharp_edges/disks.rs"]
mod disks;
#[path = "sharp_edges/features.rs"]
mod features;
#[path = "sharp_edges/iv.rs"]
mod iv;
#[path = "sharp_edges/keys.rs"]
mod keys;
#[path = "receive/make.rs"]
#[allow(dead_code)]
mod make;
#[path = "sharp_edges/resume.rs"]
mod resume;
#[path = "sharp_edges/streams.rs"]
mod streams;
#[path = "sharp_edges/structure.rs"]
mod structure;
#[path = "receive/support.rs"]
#[allow(dead_code)]
mod support;
#[path = "sharp_edges/world.rs"]
mod world;

use icecore_stream::receive::{ReceiveError, ReceiveSpec};
use support::SimPool;

/// Receives, expects a refusal, and that nothing has changed by it, now or after opening the pool again.
fn refused(pool: &mut SimPool, stream: &[u8], spec: &ReceiveSpec) -> ReceiveError {
    let before = pool.state();
    let got = pool.receive(stream, spec).unwrap_err();
    assert_eq!(pool.state(), before, "{got:?}");
    pool.commit_and_reopen();
    assert_eq!(pool.state(), before, "{got:?}, opened again");
    got
}

macro_rules! is {
    ($got:expr, $want:pat) => {{
        let got = $got;
        assert!(matches!(got, $want), "{got:?}");
    }};
}
pub(crate) use is;
