//! Send and receive: snapshots to streams and back, byte for byte as OpenZFS does.
//!
//! `send` and `receive` are twins: the records of one end are the other's input. What both must agree on
//! beyond the records (lists in BEGIN, packages, resume tokens) is in `package` and `token`.
#![forbid(unsafe_code)]

pub mod dump;
pub mod package;
pub mod receive;
pub mod send;
pub mod token;
pub mod verify;

use icecore_format::fletcher::Fletcher4;

/// Sums payloads with the widest instructions there are: what to give to a reader or writer of records.
#[must_use]
pub fn payload_sum(bytes: &[u8]) -> Fletcher4 {
    Fletcher4::from_words(icecore_transform::checksum::fletcher::fletcher4(bytes, true))
}
