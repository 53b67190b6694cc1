//! fletcher4 as plain arithmetic: the definition that faster kernels are tested against, and the algebra of
//! joining sums (`fletcher_4_*`, zfs_fletcher.c).

/// The four running sums over 32-bit words.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fletcher4 {
    /// Sum of the words.
    pub a: u64,
    /// Sum of the `a`s.
    pub b: u64,
    /// Sum of the `b`s.
    pub c: u64,
    /// Sum of the `c`s.
    pub d: u64,
}

/// A function that gives the fletcher4 of a whole slice of little-endian words; a tail of less than four
/// bytes does not count.
pub type HashFn = fn(&[u8]) -> Fletcher4;

impl Fletcher4 {
    /// The sum of nothing.
    pub const ZERO: Self = Self { a: 0, b: 0, c: 0, d: 0 };

    /// The fletcher4 of `bytes`. A [`HashFn`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::ZERO;
        sum.update(bytes);
        sum
    }
    /// From the words as a checksum field holds them.
    #[must_use]
    pub fn from_words([a, b, c, d]: [u64; 4]) -> Self {
        Self { a, b, c, d }
    }
    /// The words as a checksum field holds them.
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        [self.a, self.b, self.c, self.d]
    }
    /// Whether all words are zero: in a stream record, «no checksum».
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
    /// Adds little-endian words. A tail of less than four bytes does not count, as in OpenZFS.
    pub fn update(&mut self, bytes: &[u8]) {
        for word in bytes.as_chunks::<4>().0 {
            self.add(u32::from_le_bytes(*word));
        }
    }
    /// Adds big-endian words (streams of big-endian senders).
    pub fn update_swapped(&mut self, bytes: &[u8]) {
        for word in bytes.as_chunks::<4>().0 {
            self.add(u32::from_be_bytes(*word));
        }
    }
    fn add(&mut self, word: u32) {
        self.a = self.a.wrapping_add(u64::from(word));
        self.b = self.b.wrapping_add(self.a);
        self.c = self.c.wrapping_add(self.b);
        self.d = self.d.wrapping_add(self.c);
    }
    /// The sum over what `self` covers followed by the `len` bytes that `next` covers.
    #[must_use]
    pub fn combine(&self, next: &Self, len: u64) -> Self {
        let n = len >> 2;
        // How often an old word, a word's sum, … is counted again over n more words: n, n(n+1)/2, n(n+1)(n+2)/6.
        let (n2, n3) = (triangular(n), tetrahedral(n));
        let sum = |terms: &[u64]| terms.iter().fold(0_u64, |s, t| s.wrapping_add(*t));
        let mul = u64::wrapping_mul;
        Self {
            a: sum(&[self.a, next.a]),
            b: sum(&[self.b, next.b, mul(n, self.a)]),
            c: sum(&[self.c, next.c, mul(n, self.b), mul(n2, self.a)]),
            d: sum(&[self.d, next.d, mul(n, self.c), mul(n2, self.b), mul(n3, self.a)]),
        }
    }
}

/// The product of `factors` modulo 2^64, after dividing the first that allows it by each of `divisors`.
fn product_over(mut factors: [u64; 3], divisors: &[u64]) -> u64 {
    for divisor in divisors {
        if let Some(f) = factors.iter_mut().find(|f| f.checked_rem(*divisor) == Some(0)) {
            *f = f.checked_div(*divisor).unwrap_or(0);
        }
    }
    factors.iter().fold(1, |p, f| p.wrapping_mul(*f))
}
fn triangular(n: u64) -> u64 {
    product_over([n, n.wrapping_add(1), 1], &[2])
}
fn tetrahedral(n: u64) -> u64 {
    product_over([n, n.wrapping_add(1), n.wrapping_add(2)], &[2, 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combining_is_concatenation() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = Fletcher4::of(&bytes);
        for cut in [0, 4, 8, 280, 312, 4096, 39_996, 40_000] {
            let (a, b) = bytes.split_at(cut);
            let joined = Fletcher4::of(a).combine(&Fletcher4::of(b), b.len() as u64);
            assert_eq!(joined, whole, "cut at {cut}");
        }
    }

    #[test]
    fn combining_is_associative_at_any_length() {
        let (x, y, z) = (Fletcher4::of(b"abcdefgh"), Fletcher4::of(b"ijkl"), Fletcher4::of(b"mnopqrst"));
        let far = 1_u64 << 50;
        let left = x.combine(&y, far).combine(&z, 8);
        let right = x.combine(&y.combine(&z, 8), far + 8);
        assert_eq!(left, right);
    }

    #[test]
    fn swapped_words() {
        let mut sum = Fletcher4::ZERO;
        sum.update_swapped(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(sum, Fletcher4::of(&[4, 3, 2, 1, 8, 7, 6, 5]));
    }
}
