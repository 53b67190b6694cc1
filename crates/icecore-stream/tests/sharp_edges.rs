//! The sharp edges of OpenZFS: a test for each known bug of its send and receive that touches what we have.
//!
//! `bNN` and `lNN` are numbers of our own list of OpenZFS's issues, which are named in the tables below; tests
//! are called after them, by section. `disks` and `streams` are what goes wrong around a receive: full, failing
//! and vanishing disks, cut, damaged and foreign streams.
//!
//! Bugs that are shown elsewhere:
//!
//! | bug | what | where |
//! |---|---|---|
//! | B29 (#14330 …) | sending a plain block of an encrypted dataset | `send/damage.rs`: `an_unencrypted_block_in_an_encrypted_dataset_is_named` |
//! | B34 (#9267 …) | roots and promotion | icecore-pool, `promote`: `the_encryption_root_moves_with_the_promotion` |
//! | B39 (#11679 …) | an error of the disk anywhere in a receive | `disks`: `the_only_disk_fails_at_any_record` |
//! | B48 (#18344 …) | records of the other byte order | `receive/endian.rs` |
//! | B56 (#18883) | words about a token's snapshot | also `send/refusals.rs` |
//! | L1, L3, L11 | sizes, heights and guids of records | `receive/rules.rs` |
//! | L2, L10 | the metadnode's shape, iterations without end | `receive/refusals.rs`: `keys_that_cannot_be` |
//!
//! Bugs of what we do not have:
//!
//! | bug | why there is no test |
//! |---|---|
//! | B33 (#9798), B63 (#16943 …) | no delegation: who may write to the device may do all. What B33 is about, a step left out in silence, is tested |
//! | B41 (#12649) | no export of wrapped keys yet |
//! | B47 (#11297) | we do not make redacted streams; receiving them is tested |
//! | B61 (#12580) | nothing is mounted; that reading changes nothing is tested |
//! | B64 (#10916 …), B65 (#8190) | one process holds a pool alone, so nothing is destroyed under a send, nor listed beside a receive; a destroy between two sends is tested |
//! | B43's `SWITCH_TO_LARGE_BLOCKS`, `receive -c` | refused or not there |
//! | B8's `zfs upgrade` | not there; what is read without a key is tested |

#[path = "sharp_edges/disks.rs"]
mod disks;
#[path = "sharp_edges/features.rs"]
mod features;
#[path = "sharp_edges/iv.rs"]
mod iv;
#[path = "sharp_edges/keys.rs"]
mod keys;
#[path = "sharp_edges/latent.rs"]
mod latent;
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
