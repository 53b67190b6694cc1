//! Files: directories, attributes and contents of the file systems and volumes in a pool (OpenZFS's ZPL, and zvols).
//!
//! A [`Filesystem`] is one objset seen as files. Its methods take the [`icecore_dmu::BlockStore`] they read from, as
//! those of the layers below do, so that the same object can serve a pool that is being written. What changes files is
//! in [`write`].
//!
//! Invariants:
//! 1. Everything read is foreign. No name, length, count or object number is used before it is checked; nothing
//!    recurses over directories; a tree is walked once, however its entries are tied together.
//! 2. Memory is bounded by what is asked for: directories come a leaf at a time, contents a window at a time.
//! 3. A file's answer does not depend on what was asked before: caches hold verified blocks only, and are passed by
//!    while the objset has changes in memory.
//! 4. Names are bytes. What may not be the name of a file on any system ([`is_safe_name`]) is told, never hidden and
//!    never handed on as a path.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod acl;
mod content;
mod dataset;
mod diff;
mod dir;
mod error;
mod filesystem;
mod fuid;
mod name;
mod nameless;
mod newer;
mod path;
mod sa;
pub mod space;
mod symlink;
mod walk;
mod whereis;
pub mod write;
mod xattr;
mod znode;

pub use content::{Content, Extent};
pub use dataset::{Dataset, Volume, open, open_object};
pub use diff::{Change, Difference, Finding, diff};
pub use dir::{DirCursor, DirEntry};
pub use error::{Result, ZplError};
pub use filesystem::{Case, Files, Filesystem};
pub use name::is_safe_name;
pub use path::{Follow, Resolved};
pub use walk::{Step, Walk};
pub use xattr::{VALUE_MAX, Xattr};
pub use znode::{FileKind, Flags, Time, Znode};
