//! Edon-R 512 (the tweaked submission to the SHA-3 contest), keyed as ZFS does: the data is preceded by one
//! block made of the salt's hash and that hash's hash (`abd_checksum_edonr_tmpl_init`, edonr_zfs.c).
//! Written here because no crate has it.
//!
//! The hash is a double pipe of 2 × 8 words, mixed with each 128-byte block by a quasigroup operation on
//! vectors of 8 words: sums of five words, rotated, then XORs of three.
#![expect(clippy::indexing_slicing, reason = "every index comes from a constant table or a loop over it")]

const BLOCK: usize = 128;

type Vector = [u64; 8];

/// Which five words of the left operand are summed, and how far the sum is turned.
const LEFT: [([usize; 5], u32); 8] = [
    ([0, 1, 2, 4, 7], 0),
    ([0, 1, 3, 4, 7], 5),
    ([0, 1, 4, 6, 7], 15),
    ([2, 3, 5, 6, 7], 22),
    ([1, 2, 3, 5, 6], 31),
    ([0, 2, 3, 4, 5], 40),
    ([0, 1, 5, 6, 7], 50),
    ([2, 3, 4, 5, 6], 59),
];
/// The same for the right operand.
const RIGHT: [([usize; 5], u32); 8] = [
    ([0, 1, 2, 5, 7], 0),
    ([0, 1, 3, 4, 6], 10),
    ([0, 1, 2, 3, 5], 19),
    ([2, 3, 4, 6, 7], 29),
    ([0, 1, 3, 4, 5], 36),
    ([2, 4, 5, 6, 7], 44),
    ([1, 2, 5, 6, 7], 48),
    ([0, 3, 4, 6, 7], 55),
];
/// Which three turned sums of the left and of the right side are XORed, to be added for each result word.
const MIX: [([usize; 3], [usize; 3]); 8] = [
    ([0, 1, 4], [0, 1, 5]),
    ([0, 4, 7], [2, 6, 7]),
    ([1, 6, 7], [0, 1, 3]),
    ([2, 3, 4], [0, 3, 4]),
    ([0, 1, 7], [1, 2, 5]),
    ([3, 5, 6], [3, 4, 6]),
    ([2, 5, 6], [2, 5, 7]),
    ([2, 3, 5], [4, 6, 7]),
];
/// Added to the first, unturned sum; its complement on the right side.
const CONSTANT: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// The first 32 bytes of Edon-R 512 of `data`, keyed with `salt` the way ZFS does it.
#[must_use]
pub fn edonr_512_keyed(salt: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let mut key = [0; BLOCK];
    let once = edonr_512(salt);
    key[..64].copy_from_slice(&once);
    key[64..].copy_from_slice(&edonr_512(&once));
    let mut pipes = Pipes::new();
    pipes.absorb(&key);
    let full = pipes.finish(data, BLOCK);
    let mut digest = [0; 32];
    digest.copy_from_slice(&full[..32]);
    digest
}

/// Edon-R 512 of `data`.
#[must_use]
pub fn edonr_512(data: &[u8]) -> [u8; 64] {
    Pipes::new().finish(data, 0)
}

struct Pipes {
    low: Vector,
    high: Vector,
}

impl Pipes {
    /// Bytes 80, 81, 82 … ff, read as big-endian words.
    fn new() -> Self {
        let word =
            |i: usize| u64::from_be_bytes(std::array::from_fn(|b| 0x80_u8.wrapping_add((8 * i + b) as u8)));
        Self { low: std::array::from_fn(word), high: std::array::from_fn(|i| word(i + 8)) }
    }

    fn absorb(&mut self, block: &[u8; BLOCK]) {
        let word = |i: usize| {
            block.get(8 * i..8 * i + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let (front, back): (Vector, Vector) =
            (std::array::from_fn(word), std::array::from_fn(|i| word(i + 8)));

        let mut p = multiply(&reversed(&back), &front);
        let mut q = multiply(&p, &back);
        p = multiply(&self.high, &p);
        q = multiply(&p, &q);
        p = multiply(&p, &self.low);
        q = multiply(&q, &p);
        p = multiply(&reversed(&front), &p);
        q = multiply(&p, &q);

        for i in 0..8 {
            self.low[i] ^= back[i] ^ p[i];
            self.high[i] ^= front[i] ^ q[i];
        }
    }

    /// Absorbs `data` and the padding; `before` bytes have been absorbed already.
    fn finish(mut self, data: &[u8], before: usize) -> [u8; 64] {
        let (blocks, tail) = data.as_chunks::<BLOCK>();
        for block in blocks {
            self.absorb(block);
        }
        let bits = ((before + data.len()) as u64).wrapping_mul(8);
        let mut last = [0_u8; 2 * BLOCK];
        last[..tail.len()].copy_from_slice(tail);
        last[tail.len()] = 0x80;
        let end = if tail.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        last[end - 8..end].copy_from_slice(&bits.to_le_bytes());
        for block in last[..end].as_chunks::<BLOCK>().0 {
            self.absorb(block);
        }
        let mut digest = [0; 64];
        for (to, word) in digest.chunks_exact_mut(8).zip(self.high) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }
}

#[inline]
fn multiply(x: &Vector, y: &Vector) -> Vector {
    let s = turned_sums(x, &LEFT, CONSTANT);
    let t = turned_sums(y, &RIGHT, !CONSTANT);
    std::array::from_fn(|i| {
        let ([a, b, c], [d, e, f]) = MIX[i];
        (s[a] ^ s[b] ^ s[c]).wrapping_add(t[d] ^ t[e] ^ t[f])
    })
}

#[inline]
fn turned_sums(v: &Vector, table: &[([usize; 5], u32); 8], constant: u64) -> Vector {
    std::array::from_fn(|i| {
        let (picked, turn) = table[i];
        let start = if i == 0 { constant } else { 0 };
        picked.iter().fold(start, |sum, &k| sum.wrapping_add(v[k])).rotate_left(turn)
    })
}

fn reversed(v: &Vector) -> Vector {
    let mut r = *v;
    r.reverse();
    r
}
