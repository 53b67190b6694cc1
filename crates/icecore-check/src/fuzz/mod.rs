//! Fuzz targets: what takes bytes from a disk, a stream or a person, as functions that anything can call.
//!
//! `fuzz/` hands them to libFuzzer (`cargo xtask fuzz`), the tests below feed each of them its seeds and a few thousand
//! changed ones, so that they compile and run wherever the tests do. Invariants:
//!
//! 1. A target returns whatever it is given. It panics only where the code under it, or a law that it states, is broken.
//! 2. It is a function of its input: time stands still, chance is a sequence, devices are memory.
//! 3. One input is milliseconds: walks, sends and allocations that an input can stretch have an end here.

mod bytes;
mod reading;
mod receiving;
mod rotten;
mod seeds;
mod tampered;
mod world;

/// A target and where its inputs start from.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Inputs that are sound, or nearly.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "nvlist", run: bytes::nvlist, seeds: seeds::nvlist },
    Target { name: "stream", run: bytes::stream, seeds: seeds::stream },
    Target { name: "label", run: bytes::label, seeds: seeds::label },
    Target { name: "uberblock", run: bytes::uberblock, seeds: seeds::blocks },
    Target { name: "dnode", run: bytes::dnode, seeds: seeds::blocks },
    Target { name: "zap", run: bytes::zap, seeds: seeds::zap },
    Target { name: "space_map", run: bytes::space_map, seeds: seeds::blocks },
    Target { name: "embedded", run: bytes::embedded, seeds: seeds::blocks },
    Target { name: "byteswap", run: bytes::byteswap, seeds: seeds::blocks },
    Target { name: "zil", run: bytes::zil, seeds: seeds::blocks },
    Target { name: "frames", run: bytes::frames, seeds: seeds::frames },
    Target { name: "sums", run: bytes::sums, seeds: seeds::blocks },
    Target { name: "text", run: bytes::text, seeds: seeds::text },
    Target { name: "files", run: reading::files, seeds: seeds::edits },
    Target { name: "send", run: reading::send, seeds: seeds::edits },
    Target { name: "records", run: receiving::records, seeds: seeds::edits },
    Target { name: "receive", run: receiving::receive, seeds: seeds::edits },
    Target { name: "rotten", run: rotten::rotten, seeds: seeds::paths },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

#[cfg(test)]
mod tests;
