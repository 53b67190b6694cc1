//! Sending, against the streams OpenZFS sent from the same pools: the same bytes.
#[allow(dead_code)]
#[path = "../receive/support.rs"]
mod sim;

mod back;
mod costs;
mod damage;
mod oracle;
mod refusals;
mod support;
mod zdb;
mod zoo;
