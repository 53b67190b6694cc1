//! Workloads, models and checkers run on simulated disks, and the ways to real OpenZFS that tests share.

pub mod fixture;
pub mod zdb;
