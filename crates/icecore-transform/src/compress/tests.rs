use super::*;
use proptest::prelude::*;

const KINDS: [Compress; 12] = [
    Compress::LZJB,
    Compress(5),
    Compress(6),
    Compress(7),
    Compress(8),
    Compress(9),
    Compress(10),
    Compress(11),
    Compress(12),
    Compress(13),
    Compress::ZLE,
    Compress::LZ4,
];

fn mixed() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        (any::<u8>(), 1..600_usize).prop_map(|(b, n)| vec![b; n]),
        (1..600_usize).prop_map(|n| vec![0; n]),
        prop::collection::vec(0..4_u8, 0..400),
    ];
    prop::collection::vec(piece, 1..20).prop_map(|p| p.concat())
}

fn round_trip(kind: Compress, level: u8, data: &[u8]) {
    if let Some(packed) = compress(kind, level, data, 2 * data.len() + 600) {
        let mut padded = packed.clone();
        padded.resize(packed.len() + 700, 0);
        assert_eq!(decompress(kind, &padded, data.len()).as_deref(), Ok(data), "{kind:?} {level}");
        if !data.is_empty() {
            assert!(decompress(kind, &packed, data.len() + 1).is_err(), "{kind:?} gave more than it had");
        }
    } else {
        assert!(data.is_empty(), "{kind:?} {level} found no room");
    }
    if let Some(packed) = compress(kind, level, data, data.len() / 2) {
        assert!(packed.len() <= data.len() / 2);
    }
}

proptest! {
    #[test]
    fn round_trips(data in mixed()) {
        for kind in KINDS {
            round_trip(kind, 0, &data);
        }
        for level in [1, 3, 9, 19, 103, 122, 123] {
            round_trip(Compress::ZSTD, level, &data);
        }
    }

    #[test]
    fn rubbish_never_panics(data in prop::collection::vec(any::<u8>(), 0..300), lsize in 0..5000_usize) {
        for kind in 0..20 {
            let _ = decompress(Compress(kind), &data, lsize);
        }
    }

    #[test]
    fn damage_never_panics(data in mixed(), at: prop::sample::Index, bit in 0..8_u32) {
        for kind in KINDS.into_iter().chain([Compress::ZSTD]) {
            let Some(mut packed) = compress(kind, 3, &data, 2 * data.len() + 600) else { continue };
            if packed.is_empty() { continue }
            let at = at.index(packed.len());
            packed[at] ^= 1_u8 << bit;
            let _ = decompress(kind, &packed, data.len());
            let _ = decompress(kind, &packed[..at], data.len());
        }
    }
}

#[test]
fn zstd_levels() {
    assert_eq!(zstd::level_to_zstd(19), Some(19));
    assert_eq!(zstd::level_to_zstd(20), None);
    assert_eq!(zstd::level_to_zstd(102), None);
    assert_eq!(zstd::level_to_zstd(103), Some(-1));
    assert_eq!(zstd::level_to_zstd(123), Some(-1000));
    assert_eq!(zstd::level_to_zstd(124), None);
    assert_eq!(zstd::level_from_zstd(-100), Some(121));
    assert_eq!(zstd::level_from_zstd(-11), None);
}

#[test]
fn how_blocks_are_stored() {
    let sector = AllocSizes::uniform(4096);
    let pack = |kind, data: &[u8], embed| compress_block(kind, 0, data, sector, embed);
    let zeros = vec![0; 131_072];
    let mut sparse = zeros.clone();
    sparse[77] = 7;
    let noise: Vec<u8> =
        (0..131_072_u32).map(|i| (i.wrapping_mul(i).wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let mut half = noise.clone();
    half[60_000..].fill(0);

    assert_eq!(pack(Compress::LZ4, &zeros, Embed::Never), Compressed::Hole);
    assert_eq!(pack(Compress::EMPTY, &zeros, Embed::Never), Compressed::Hole);
    assert_eq!(pack(Compress::OFF, &zeros, Embed::Never), Compressed::Stored);
    assert_eq!(pack(Compress::EMPTY, &half, Embed::Never), Compressed::Stored);
    assert!(
        matches!(pack(Compress::ZSTD, &sparse, Embed::Allowed), Compressed::Embedded(p) if p.len() < 112)
    );
    assert!(matches!(pack(Compress::ZSTD, &sparse, Embed::Never), Compressed::Packed(p) if p.len() == 4096));
    let Compressed::Packed(packed) = pack(Compress::ZLE, &half, Embed::Allowed) else { panic!() };
    assert_eq!(packed.len() % 4096, 0);
    assert_eq!(decompress(Compress::ZLE, &packed, half.len()), Ok(half));
    // A 512-byte block can only be embedded where a sector is larger than it.
    assert_eq!(pack(Compress::LZ4, &sparse[..512], Embed::Never), Compressed::Stored);
    assert!(matches!(pack(Compress::LZ4, &sparse[..512], Embed::Allowed), Compressed::Embedded(_)));
    assert_eq!(sector.packed_max(Compress::LZ4, 131_072), 114_688);
    assert_eq!(sector.packed_max(Compress::LZ4, 4096), EMBEDDED_MAX);
}
