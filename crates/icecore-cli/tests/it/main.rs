//! Types the commands: every test has a folder with links `zfs` and `zpool` to the built program, a state of
//! its own and drives that are files. What is checked is what a user or a tool sees, the bytes OpenZFS wrote, and
//! `zdb`'s verdict on every pool that was written.

mod datasets;
mod diff;
mod encrypted_root;
mod flags;
mod heal;
mod images;
mod imports;
mod inspect;
mod keys;
mod mirrors;
mod mount_trouble;
mod mounts;
mod owners;
mod peers;
mod props;
mod receive;
mod replay;
mod salvage;
mod scrub;
mod secrets;
mod send;
mod service;
mod space;
mod story;
mod streams;
mod support;
mod sync;
mod volumes;
mod wrong;
mod zpool;
