//! Simulated devices, clock, entropy and workers: a disk that can be cut, torn, forked and made to lie.
//!
//! Invariants:
//! 1. Same seed and same calls, same bytes: nothing here asks the machine for anything but memory.
//! 2. A fork shares every sector until one side writes it.
//! 3. A power cut keeps what was flushed and any subset of the 512-byte sectors that were not.
#![forbid(unsafe_code)]

pub mod disk;
pub mod env;
pub mod faults;
mod rng;

pub use disk::{SimDisk, Stats};
pub use env::{InlineWorkers, ShuffledWorkers, SimClock, SimEntropy, sim_env};
pub use faults::Faults;
pub use rng::Rng;
