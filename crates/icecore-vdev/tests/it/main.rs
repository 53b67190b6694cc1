//! Labels, probing and the vdev tree against devices made by OpenZFS and simulated ones.

mod damage;
mod fixture;
mod labels;
mod pools;
mod tree;
mod zoo;
