//! Every on-disk and on-wire byte of OpenZFS: plain data, no I/O, no unsafe.
//!
//! Invariants of this crate:
//! 1. No input makes a function here panic, loop without end, or allocate more than a small multiple of
//!    the bytes it was given.
//! 2. In memory everything is little-endian; a foreign byte order is swapped once, by [`byteswap`], in the
//!    read pipeline. Only `nvlist` and the stream records know other orders.
//! 3. Types ending in `Phys` are raw bytes under a layout: any bit pattern is legal, unknown bits survive a
//!    rewrite. Checked values are made by functions that return [`Corrupt`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod blkptr;
pub mod bookmark;
pub mod bookmark_phys;
pub mod bpobj;
pub mod byteswap;
pub mod corrupt;
pub mod crypt;
pub mod dnode;
pub mod dsl;
pub mod feature;
pub mod fletcher;
pub mod gang;
pub mod indirect;
pub mod label;
pub mod nvlist;
pub mod object_type;
pub mod objset;
pub mod reader;
pub mod space_map;
pub mod stream;
pub mod uberblock;
pub mod units;
pub mod zap;
pub mod zil;

pub use blkptr::{Blkptr, Dva};
pub use bookmark::Bookmark;
pub use corrupt::Corrupt;
pub use dnode::Dnode;
pub use fletcher::Fletcher4;
pub use nvlist::{NvList, NvStr, NvValue};
pub use object_type::ObjectType;
pub use units::{Checksum, Compress, Guid, ObjectId, Txg};
