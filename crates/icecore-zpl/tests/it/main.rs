//! Files of pools that real OpenZFS made (with `ICECORE_ZOO` set, all of that folder), and file systems made by hand
//! that it never would make.
#![allow(clippy::unwrap_used)]

mod accounts;
mod cold;
mod diff;
mod made;
mod orphans;
mod salvage;
mod write;
mod xattrs;
mod zoo;
