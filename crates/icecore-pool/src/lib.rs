//! The storage pool: block I/O, allocation, transaction groups, commit, import.
#![forbid(unsafe_code)]

pub mod claim;
mod commit;
mod create;
mod dtl;
mod errata;
pub mod error;
pub mod features;
mod grow;
pub mod heal;
mod history;
pub mod io;
pub mod leaks;
pub mod metaslab;
mod mirror;
pub mod open;
pub mod pool;
pub mod props;
pub mod range_tree;
pub mod resilver;
pub mod scan;
pub mod scrub;
pub mod shared;
pub mod space_map;
mod sync;
pub mod walk;
pub mod zil;

pub use create::{CreateSpec, TXG_INITIAL};
pub use error::{PoolError, Result};
pub use io::Io;
pub use metaslab::Space;
pub use open::{Candidate, Mode, OpenSpec, find};
pub use pool::{Host, Pool};
pub use resilver::Watch;
pub use shared::Shared;
