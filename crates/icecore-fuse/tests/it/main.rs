//! Pools of OpenZFS's, mounted and walked as any program would.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod manifests;
mod reads;
mod support;
