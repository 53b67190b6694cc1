//! A device's label parts as OpenZFS 2.3.2 wrote them, kept as (offset, bytes) pieces of `main.img`.

use icecore_sim::SimDisk;

/// Size of `main.img`.
pub const MAIN_SIZE: u64 = 256 << 20;

/// The nonzero 512-byte sectors of all four labels of `main.img`: each an 8-byte little-endian sector
/// number and the sector, the whole squeezed by runs of zeros.
const MAIN_LABELS: &[u8] = include_bytes!("../main.labels");

/// A disk with the labels of `main.img` and nothing else.
pub fn main_labels() -> SimDisk {
    let disk = SimDisk::new("main.img", MAIN_SIZE);
    let pieces = unsqueeze(MAIN_LABELS);
    for piece in pieces.chunks_exact(520) {
        let sector = u64::from_le_bytes(piece[..8].try_into().unwrap());
        disk.poke(sector * 512, &piece[8..]);
    }
    disk
}

/// Zero bytes are stored as 0 and their number less one (up to 255).
fn unsqueeze(squeezed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = squeezed.iter();
    while let Some(b) = bytes.next() {
        if *b == 0 {
            let run = usize::from(*bytes.next().unwrap()) + 1;
            out.resize(out.len() + run, 0);
        } else {
            out.push(*b);
        }
    }
    out
}
