//! Receiving as a whole: into pools on simulated disks. With `ICECORE_ZOO` set to a folder of streams made
//! by OpenZFS, those are received; with `ICECORE_ZDB=1`, `zdb` judges the pools.

mod damage;
mod endian;
mod make;
mod power;
mod refusals;
mod rules;
mod support;
mod zoo;
