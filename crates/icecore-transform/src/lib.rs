//! Checksums, compression, encryption: bytes to bytes.
//!
//! Invariants of this crate:
//! 1. No input makes a function here panic, loop without end, or allocate more than a small multiple of the
//!    bytes it was given or was asked to produce.
//! 2. No I/O, no clock, no randomness: salts, IVs and keys come from the caller.
//! 3. `compute` and `seal`, `compress` and `decompress`, `encrypt` and `decrypt` are inverses, and both
//!    sides are proven against blocks made by OpenZFS.
//! 4. Key material is wiped when dropped and never shows in `Debug`.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod checksum;
pub mod compress;
pub mod crypt;
