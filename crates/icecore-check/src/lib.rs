//! Workloads, models and checkers run on simulated disks, and the ways to real OpenZFS that tests share.

pub mod accounts;
pub mod blocks;
pub mod files;
pub mod fixture;
pub mod fuzz;
pub mod manifest;
pub mod walk;
pub mod zdb;
pub mod zoo;
