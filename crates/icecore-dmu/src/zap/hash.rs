//! The hash of a name: CRC-64 (ECMA, reflected) over the salt and the folded name, cut to 28 bits from the
//! top (`zap_hash`, zap_impl.c).

const POLY: u64 = 0xC96C_5795_D787_0F42;

const TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLY } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

const FLAG_HASH64: u64 = 1;

/// The hash of `name` in a ZAP with this salt, normalization and flags; `None` where folding is beyond us.
pub(super) fn of_name(name: &[u8], salt: u64, norm: u64, flags: u64) -> Option<u64> {
    if norm & !super::NORM_TOUPPER != 0 && !name.is_ascii() || norm != 0 && !name.is_ascii() {
        return None;
    }
    if norm != 0 && norm != super::NORM_TOUPPER {
        return None;
    }
    let mut h = salt;
    for byte in name {
        let byte = if norm == super::NORM_TOUPPER { byte.to_ascii_uppercase() } else { *byte };
        h = (h >> 8) ^ TABLE[((h ^ u64::from(byte)) & 0xff) as usize];
    }
    let bits = if flags & FLAG_HASH64 != 0 { 48 } else { 28 };
    Some(h & !((1_u64 << (64 - bits)) - 1))
}

/// A bijective scramble (the finalizer of splitmix64), for salts.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
