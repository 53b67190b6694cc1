//! Objsets, dnodes, block trees, ZAPs, bpobjs over a block store.
//!
//! This crate knows no device, no allocation, no dataset: what it needs from below stands in [`store`].
#![forbid(unsafe_code)]

pub mod bpobj;
pub mod mem;
pub mod objset;
pub mod store;
pub mod zap;

pub use objset::{DataBlock, Delta, NewObject, Objset, Policy, Room, Space};
pub use store::{
    BlockStore, BlockWriter, Fetch, Form, Look, NewBlock, Passing, RawCrypt, ReadError, Want, WriteError,
    look_each, map_each,
};
