//! Blocks made by OpenZFS, and what this crate makes of them.
mod blocks;
mod crypt;
