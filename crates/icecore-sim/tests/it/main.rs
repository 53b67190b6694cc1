//! The simulated disk itself: what it promises, and that a sweep over it can fail.

mod promises;
mod toy_protocol;
