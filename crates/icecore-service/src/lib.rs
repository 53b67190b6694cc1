//! The process that owns the pools, as far as it knows nothing of pools: a socket only its owner can use, typed
//! requests that bring the caller's own descriptors along, and streams that end when the caller does.
//!
//! `place` is where the socket lies, `wire` what goes over it, `server` and `client` are its two ends.

pub mod client;
pub mod place;
pub mod server;
pub mod stdio;
pub mod wire;
