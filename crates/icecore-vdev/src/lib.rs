//! The vdev tree, labels, and probing devices for import.
//!
//! A pool is a root of top-level vdevs; each is a leaf device or made of leaves. This crate finds the
//! leaves ([`probe`]), reads and writes what each says about its pool ([`label`], [`config`]), and turns
//! `(top-level vdev, offset)` into device I/O ([`tree`]). It knows no block pointer beyond its DVA and no
//! checksum but the label's own: callers say whether what was read is right.
//!
//! Invariants:
//! 1. Nothing a device holds makes a function here panic, loop without end or allocate without bound.
//! 2. Labels are written only by [`label`], and only where the caller asked.
#![forbid(unsafe_code)]

pub mod config;
pub mod create;
mod draid;
mod draid_maps;
pub mod error;
pub mod gpt;
pub mod indirect;
pub mod label;
pub mod probe;
pub mod raidz;
pub mod size;
pub mod tree;

pub use config::{PoolConfig, PoolState, VdevConfig, VdevKind};
pub use error::VdevError;
pub use label::{FoundUberblock, LabelFault, LabelSet, Labels};
pub use size::{SPA_MINDEVSIZE, metaslab_geometry, psize_to_asize};
pub use tree::{BadCopy, Leaf, Read, Top, VdevSet};
