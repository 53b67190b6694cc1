//! Pools as a whole. With `ICECORE_ZOO` set to a folder of images made by OpenZFS, those are read too; with
//! `ICECORE_ZDB=1`, `zdb` judges what is written here.

mod churn;
mod create;
mod cuts;
mod damage;
mod datasets;
mod scrub;
mod support;
mod zoo;
