//! The process that owns the pools, as far as it knows nothing of pools: a socket only its owner can use, typed
//! requests that bring the caller's own descriptors along, and streams that end when the caller does.

pub mod stdio;
