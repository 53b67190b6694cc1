//! fletcher2 and fletcher4 (zfs_fletcher.c): running sums of sums over 64-bit pairs and 32-bit words.
//!
//! Invariants:
//! 1. All arithmetic is modulo 2^64.
//! 2. Every kernel gives the words of the scalar definition, for every length: a tail shorter than a word
//!    (fletcher2: than a pair) is not summed.
//! 3. `fletcher4_concat(f(x), f(y), words(y)) == f(xy)` when `x` is whole words.

use super::fletcher_avx2;

/// The four sums of fletcher4, in order.
pub type Words = [u64; 4];

/// fletcher2 of `data`.
#[must_use]
pub fn fletcher2(data: &[u8], little_endian: bool) -> Words {
    let [mut a0, mut a1, mut b0, mut b1] = [0_u64; 4];
    for pair in data.chunks_exact(16) {
        let (x, y) = pair.split_at(8);
        a0 = a0.wrapping_add(word64(x, little_endian));
        a1 = a1.wrapping_add(word64(y, little_endian));
        b0 = b0.wrapping_add(a0);
        b1 = b1.wrapping_add(a1);
    }
    [a0, a1, b0, b1]
}

/// fletcher4 of `data`.
#[must_use]
pub fn fletcher4(data: &[u8], little_endian: bool) -> Words {
    fletcher4_update([0; 4], data, little_endian)
}

/// fletcher4 continued: `state` is the sum of everything before `data` (whole words).
#[must_use]
pub fn fletcher4_update(state: Words, data: &[u8], little_endian: bool) -> Words {
    let Some((sum, done)) = fletcher_avx2::blocks(data, little_endian) else {
        return fletcher4_scalar(state, data, little_endian);
    };
    let state = fletcher4_concat(state, sum, (done / 4) as u64);
    fletcher4_scalar(state, data.get(done..).unwrap_or(&[]), little_endian)
}

/// The definition: what every other kernel must equal.
#[must_use]
pub fn fletcher4_scalar(state: Words, data: &[u8], little_endian: bool) -> Words {
    let [mut a, mut b, mut c, mut d] = state;
    for word in data.chunks_exact(4) {
        let word: [u8; 4] = word.try_into().unwrap_or([0; 4]);
        let x = if little_endian { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
        a = a.wrapping_add(u64::from(x));
        b = b.wrapping_add(a);
        c = c.wrapping_add(b);
        d = d.wrapping_add(c);
    }
    [a, b, c, d]
}

/// fletcher4 of a concatenation, from the sums of its parts; `second_words` is the length of the second
/// part in 32-bit words.
///
/// Each sum of the first part goes on growing while the second part runs: after n words, `a` has been
/// added n times to `b`, n(n+1)/2 times to `c` and n(n+1)(n+2)/6 times to `d`.
#[must_use]
pub fn fletcher4_concat(first: Words, second: Words, second_words: u64) -> Words {
    let [a, b, c, d] = first;
    let n = u128::from(second_words);
    let triangle = n * (n + 1) / 2;
    // One of the factors of triangle * (n + 2) is divisible by 3, the product itself may exceed 128 bits.
    let (t, m) = if triangle % 3 == 0 { (triangle / 3, n + 2) } else { (triangle, n.div_ceil(3)) };
    let (once, twice, thrice) = (second_words, triangle as u64, (t as u64).wrapping_mul(m as u64));
    [
        second[0].wrapping_add(a),
        second[1].wrapping_add(b).wrapping_add(once.wrapping_mul(a)),
        second[2].wrapping_add(c).wrapping_add(once.wrapping_mul(b)).wrapping_add(twice.wrapping_mul(a)),
        second[3]
            .wrapping_add(d)
            .wrapping_add(once.wrapping_mul(c))
            .wrapping_add(twice.wrapping_mul(b))
            .wrapping_add(thrice.wrapping_mul(a)),
    ]
}

fn word64(bytes: &[u8], little_endian: bool) -> u64 {
    let bytes: [u8; 8] = bytes.try_into().unwrap_or([0; 8]);
    if little_endian { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn kernels_agree(data in prop::collection::vec(any::<u8>(), 0..600), le: bool, state: [u64; 4]) {
            prop_assert_eq!(fletcher4_update(state, &data, le), fletcher4_scalar(state, &data, le));
        }
        #[test]
        fn parts_make_the_whole(x in prop::collection::vec(any::<u32>(), 0..100), y in prop::collection::vec(any::<u32>(), 0..100)) {
            let bytes = |w: &[u32]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
            let whole = fletcher4(&bytes(&[x.clone(), y.clone()].concat()), true);
            let (fx, fy) = (fletcher4(&bytes(&x), true), fletcher4(&bytes(&y), true));
            prop_assert_eq!(fletcher4_concat(fx, fy, y.len() as u64), whole);
            prop_assert_eq!(fletcher4_update(fx, &bytes(&y), true), whole);
        }
        #[test]
        fn orders_mirror(words in prop::collection::vec(any::<u64>(), 0..64)) {
            let le: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let be: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            prop_assert_eq!(fletcher2(&le, true), fletcher2(&be, false));
        }
    }

    #[test]
    fn every_word_count_and_largest_words() {
        let data = vec![0xff_u8; 4 * 300];
        for len in (0..data.len()).step_by(4) {
            for le in [true, false] {
                assert_eq!(
                    fletcher4(&data[..len], le),
                    fletcher4_scalar([0; 4], &data[..len], le),
                    "{len} bytes"
                );
            }
        }
    }

    #[test]
    fn sums_wrap_in_large_blocks() {
        let data: Vec<u8> = (0..16_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(fletcher4(&data, true), fletcher4_scalar([0; 4], &data, true));
    }
}
