//! Receiving as a whole: into pools on simulated disks. Streams made by OpenZFS are received,
//! more of them where `ICECORE_ZOO` names their folder; with `ICECORE_ZDB=1`, `zdb` judges the pools.

mod begin;
mod damage;
mod endian;
#[allow(dead_code)]
mod make;
mod power;
mod progress;
mod refusals;
mod rules;
mod space;
#[allow(dead_code)]
mod support;
mod zoo;
