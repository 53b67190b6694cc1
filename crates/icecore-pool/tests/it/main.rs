//! Pools as a whole. Images made by OpenZFS are read, more of them where `ICECORE_ZOO` names their folder; with
//! `ICECORE_ZDB=1`, `zdb` judges what is written here.

mod churn;
mod create;
mod cuts;
mod damage;
mod datasets;
mod errlog;
mod grow;
mod layouts;
mod mirror;
mod moved;
mod old;
mod promote;
mod rot;
mod scan;
mod scrub;
mod support;
mod walk;
mod zoo;
