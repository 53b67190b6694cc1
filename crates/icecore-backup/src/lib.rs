//! The backup procedure: inventory, plan, execution, verification.
//!
//! `plan` is pure: what both sides have goes in, what to do and why comes out. Showing a plan is not
//! executing it; a restart plans anew from what is there.
#![forbid(unsafe_code)]

pub mod inventory;
pub mod plan;

pub use inventory::{Dataset, Mark, Partial, Tree};
pub use plan::{Base, Conflict, Plan, Step, Task, plan};
