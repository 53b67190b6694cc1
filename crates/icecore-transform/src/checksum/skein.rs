//! Skein-512 with 256 bits of output, keyed (Skein 1.3 specification; ZFS keys it with the pool salt,
//! skein_zfs.c). Written here because no crate offers the keyed mode.
//!
//! A chain of UBI stages, each a sequence of Threefish-512 calls: the key, a fixed configuration, the
//! message, the output counter. Every block is tweaked with its stage, its position and whether it is the
//! first or last of its stage.
#![expect(clippy::indexing_slicing, reason = "every index comes from a constant table or a loop over it")]

const STAGE_KEY: u64 = 0;
const STAGE_CONFIG: u64 = 4;
const STAGE_MESSAGE: u64 = 48;
const STAGE_OUTPUT: u64 = 63;
const FIRST: u64 = 1 << 62;
const FINAL: u64 = 1 << 63;

const BLOCK: usize = 64;
const KEY_PARITY: u64 = 0x1bd1_1bda_a9fc_1a22;
/// Rotations of the four mixes of each round, repeating every eight rounds.
const ROTATIONS: [[u32; 4]; 8] = [
    [46, 36, 19, 37],
    [33, 27, 14, 42],
    [17, 49, 36, 39],
    [44, 9, 54, 56],
    [39, 30, 34, 24],
    [13, 50, 10, 17],
    [25, 29, 39, 43],
    [8, 35, 56, 22],
];

type State = [u64; 8];

/// The 32-byte Skein-512 MAC of `data` under `key`.
#[must_use]
pub fn skein_512_256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut config = [0_u8; 32];
    // "SHA3", version 1, 256 bits of output, no tree.
    config[..5].copy_from_slice(b"SHA3\x01");
    config[8..10].copy_from_slice(&256_u16.to_le_bytes());
    let keyed = if key.is_empty() { [0; 8] } else { stage([0; 8], STAGE_KEY, key) };
    let ready = stage(keyed, STAGE_CONFIG, &config);
    let message = stage(ready, STAGE_MESSAGE, data);
    let output = stage(message, STAGE_OUTPUT, &[0; 8]);
    let mut digest = [0; 32];
    for (to, word) in digest.chunks_exact_mut(8).zip(output) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// One UBI stage over `input`, which is padded with zeros to whole blocks, at least one.
fn stage(mut chain: State, kind: u64, input: &[u8]) -> State {
    let blocks = input.len().div_ceil(BLOCK).max(1);
    for index in 0..blocks {
        let rest = input.get(index * BLOCK..).unwrap_or(&[]);
        let taken = rest.get(..BLOCK).unwrap_or(rest);
        let mut padded = [0_u8; BLOCK];
        padded[..taken.len()].copy_from_slice(taken);
        let mut words: State = [0; 8];
        for (word, bytes) in words.iter_mut().zip(padded.chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        let position = (index * BLOCK + taken.len()) as u64;
        let first = if index == 0 { FIRST } else { 0 };
        let last = if index + 1 == blocks { FINAL } else { 0 };
        let sealed = threefish(&chain, [position, kind << 56 | first | last], &words);
        for ((c, s), w) in chain.iter_mut().zip(sealed).zip(words) {
            *c = s ^ w;
        }
    }
    chain
}

/// Threefish-512: 72 rounds, a subkey before every fourth and one at the end.
#[inline]
fn threefish(key: &State, tweak: [u64; 2], plain: &State) -> State {
    let mut schedule = [0_u64; 9];
    schedule[..8].copy_from_slice(key);
    schedule[8] = key.iter().fold(KEY_PARITY, |parity, word| parity ^ word);
    let tweaks = [tweak[0], tweak[1], tweak[0] ^ tweak[1]];
    let subkey = |x: &mut State, s: usize| {
        for (i, word) in x.iter_mut().enumerate() {
            *word = word.wrapping_add(schedule[(s + i) % 9]);
        }
        x[5] = x[5].wrapping_add(tweaks[s % 3]);
        x[6] = x[6].wrapping_add(tweaks[(s + 1) % 3]);
        x[7] = x[7].wrapping_add(s as u64);
    };
    let mut x = *plain;
    for quarter in 0..18 {
        subkey(&mut x, quarter);
        for round in 0..4 {
            let rotations = &ROTATIONS[quarter % 2 * 4 + round];
            let mut mixed = [0_u64; 8];
            for pair in 0..4 {
                let sum = x[2 * pair].wrapping_add(x[2 * pair + 1]);
                mixed[2 * pair] = sum;
                mixed[2 * pair + 1] = x[2 * pair + 1].rotate_left(rotations[pair]) ^ sum;
            }
            x = [mixed[2], mixed[1], mixed[4], mixed[7], mixed[6], mixed[5], mixed[0], mixed[3]];
        }
    }
    subkey(&mut x, 18);
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration stage alone must give the initial chaining value the specification prints for
    /// Skein-512-256 (appendix B).
    #[test]
    fn initial_value() {
        let mut config = [0_u8; 32];
        config[..5].copy_from_slice(b"SHA3\x01");
        config[8..10].copy_from_slice(&256_u16.to_le_bytes());
        let iv = stage([0; 8], STAGE_CONFIG, &config);
        assert_eq!(iv[0], 0xccd0_44a1_2fdb_3e13);
        assert_eq!(iv[7], 0x3eed_ba18_33ed_fc13);
    }
}
