//! fletcher4 in four AVX2 lanes: lane i sums every fourth word, beginning with word i. The one file of this
//! crate with unsafe code; the compiler reaches a third of this speed by itself.
//!
//! How lanes become sums: the word k iterations before the end in lane i stands m = 4k - i words before the
//! end, and a word m from the end counts 1, m, m(m+1)/2, m(m+1)(m+2)/6 times in the four sums. Written in
//! the lane's own weights 1, k, k(k+1)/2, k(k+1)(k+2)/6 this gives the coefficients in `join`.

/// Sums the whole 16-byte groups of `data`; the words and how many bytes they cover. `None` where the
/// machine has no AVX2.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "calling a function compiled for AVX2 after asking the CPU for it")]
pub(super) fn blocks(data: &[u8], little_endian: bool) -> Option<([u64; 4], usize)> {
    if data.len() < 64 || !std::arch::is_x86_feature_detected!("avx2") {
        return None;
    }
    // SAFETY: the CPU has AVX2, asked on the line above.
    let lanes = unsafe { x86::lanes(data, little_endian) };
    Some((join(lanes), data.len() & !15))
}

/// No kernel for this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn blocks(_data: &[u8], _little_endian: bool) -> Option<([u64; 4], usize)> {
    None
}

#[cfg(target_arch = "x86_64")]
fn join([la, lb, lc, ld]: [[u64; 4]; 4]) -> [u64; 4] {
    let mut sum = [0_u64; 4];
    for (i, (((a, b), c), d)) in la.into_iter().zip(lb).zip(lc).zip(ld).enumerate() {
        let i = i as u64;
        let minus = |x: u64, factor: u64| x.wrapping_mul(factor).wrapping_neg();
        let parts = [
            a,
            b.wrapping_mul(4).wrapping_add(minus(a, i)),
            c.wrapping_mul(16)
                .wrapping_add(minus(b, 6 + 4 * i))
                .wrapping_add(a.wrapping_mul(i * i.saturating_sub(1) / 2)),
            d.wrapping_mul(64)
                .wrapping_add(minus(c, 48 + 16 * i))
                .wrapping_add(b.wrapping_mul(4 + 4 * i + 2 * i * i))
                .wrapping_add(minus(a, i * i.saturating_sub(1) * i.saturating_sub(2) / 6)),
        ];
        for (total, part) in sum.iter_mut().zip(parts) {
            *total = total.wrapping_add(part);
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "unaligned vector loads and stores take raw pointers")]
    pub(super) fn lanes(data: &[u8], little_endian: bool) -> [[u64; 4]; 4] {
        let mut sums = [_mm256_setzero_si256(); 4];
        let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        for group in data.chunks_exact(16) {
            // SAFETY: `group` is exactly the 16 bytes that are read; the load needs no alignment.
            let mut words = unsafe { _mm_loadu_si128(group.as_ptr().cast()) };
            if !little_endian {
                words = _mm_shuffle_epi8(words, swap);
            }
            sums[0] = _mm256_add_epi64(sums[0], _mm256_cvtepu32_epi64(words));
            sums[1] = _mm256_add_epi64(sums[1], sums[0]);
            sums[2] = _mm256_add_epi64(sums[2], sums[1]);
            sums[3] = _mm256_add_epi64(sums[3], sums[2]);
        }
        sums.map(|lane| {
            let mut out = [0_u64; 4];
            // SAFETY: `out` is exactly the 32 bytes that are written; the store needs no alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), lane) };
            out
        })
    }
}
