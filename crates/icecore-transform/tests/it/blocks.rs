//! Checksums and compression against blocks copied from the disk of a pool made by OpenZFS.

use icecore_format::{Blkptr, Checksum, Compress};
use icecore_transform::checksum::{self, PoolSalt, VerifyError, embedded};
use icecore_transform::compress;
use sha2::{Digest, Sha256};

/// `org.illumos:checksum_salt` of that pool.
const SALT: &str = "e4d25c8ae6eeb528054f1fef88feff85fa277e1bcee5ac795ace1593c120b9a5";

struct Block {
    name: &'static str,
    bp: Blkptr,
    data: Vec<u8>,
    level: u8,
    plain_sha256: &'static str,
}

fn salt() -> PoolSalt {
    PoolSalt(hex(SALT).try_into().unwrap())
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn blocks() -> Vec<Block> {
    include_str!("../fixtures/blocks.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|line| {
            let field: Vec<&str> = line.split(' ').collect();
            let [name, packing, sum, lsize, psize, words, plain_sha256] = field[..] else { panic!("{line}") };
            let (packing, level) = compression(packing);
            let mut bp = Blkptr::default();
            bp.dva[0] = icecore_format::Dva::new(0, 0, 4096, false);
            bp.set_little_endian(true);
            bp.set_compress(packing);
            bp.set_checksum(summing(sum));
            bp.set_lsize(lsize.parse().unwrap());
            bp.set_psize(psize.parse().unwrap());
            let words: Vec<u64> = words.split(':').map(|w| u64::from_str_radix(w, 16).unwrap()).collect();
            bp.set_cksum(words.try_into().unwrap());
            let path = format!("{}/tests/fixtures/{name}.bin", env!("CARGO_MANIFEST_DIR"));
            let data = std::fs::read(path).unwrap();
            assert_eq!(data.len() as u64, bp.psize());
            Block { name, bp, data, level, plain_sha256 }
        })
        .collect()
}

fn compression(name: &str) -> (Compress, u8) {
    match name {
        "lzjb" => (Compress::LZJB, 0),
        "zle" => (Compress::ZLE, 0),
        "lz4" => (Compress::LZ4, 0),
        _ => {
            if let Some(n) = name.strip_prefix("gzip-") {
                (Compress(Compress::GZIP_1.0 - 1 + n.parse::<u8>().unwrap()), 0)
            } else if let Some(n) = name.strip_prefix("zstd-fast-") {
                let level = compress::zstd::level_from_zstd(-n.parse::<i32>().unwrap()).unwrap();
                (Compress::ZSTD, level)
            } else {
                (Compress::ZSTD, name.strip_prefix("zstd-").unwrap().parse().unwrap())
            }
        }
    }
}

fn summing(name: &str) -> Checksum {
    match name {
        "fletcher2" => Checksum::FLETCHER_2,
        "fletcher4" => Checksum::FLETCHER_4,
        "sha256" => Checksum::SHA256,
        "sha512" => Checksum::SHA512,
        "skein" => Checksum::SKEIN,
        "edonr" => Checksum::EDONR,
        "blake3" => Checksum::BLAKE3,
        other => panic!("{other}"),
    }
}

#[test]
fn checksums_are_those_of_openzfs() {
    let blocks = blocks();
    for kind in ["fletcher2", "fletcher4", "sha256", "sha512", "skein", "edonr", "blake3"] {
        assert!(blocks.iter().any(|b| b.bp.checksum() == summing(kind)), "no {kind} block");
    }
    for mut b in blocks {
        let name = b.name;
        let salt = salt();
        assert_eq!(checksum::verify(&b.bp, &b.data, Some(&salt)), Ok(()), "{name} {:?}", b.bp.checksum());
        let before = b.bp.cksum();
        b.bp.set_cksum([0; 4]);
        checksum::seal(&mut b.bp, &b.data, Some(&salt)).unwrap();
        assert_eq!(b.bp.cksum(), before);
        b.data[1000] ^= 4;
        let got = checksum::verify(&b.bp, &b.data, Some(&salt));
        assert!(matches!(got, Err(VerifyError::Mismatch { .. })), "{name}");
    }
}

#[test]
fn openzfs_blocks_decompress() {
    for b in blocks() {
        let lsize = b.bp.lsize() as usize;
        let plain = compress::decompress(b.bp.compress(), &b.data, lsize).unwrap();
        if b.plain_sha256 != "-" {
            assert_eq!(Sha256::digest(&plain).to_vec(), hex(b.plain_sha256), "{}", b.name);
        }
        // LZJB has neither length nor end: its padding reads as zeros.
        if b.bp.compress() != Compress::LZJB {
            assert!(compress::decompress(b.bp.compress(), &b.data, lsize + 512).is_err(), "{}", b.name);
        }
        if b.bp.compress() == Compress::ZSTD {
            assert_eq!(compress::zstd::stored_level(&b.data), Some(b.level));
        }
    }
}

/// The same library at the same level writes the very same zstd block but for the version in its header;
/// for the rest it is enough that the size is in the same league.
#[test]
fn our_blocks_are_like_theirs() {
    let alloc = compress::AllocSizes::uniform(4096);
    for b in blocks() {
        let plain = compress::decompress(b.bp.compress(), &b.data, b.bp.lsize() as usize).unwrap();
        let ours =
            compress::compress_block(b.bp.compress(), b.level, &plain, alloc, compress::Embed::Allowed);
        let compress::Compressed::Packed(ours) = ours else { panic!("{}: {ours:?}", b.name) };
        assert!(ours.len() <= b.data.len() + 4096, "{}: {} for {}", b.name, ours.len(), b.data.len());
    }
}

#[test]
fn an_uberblock_passes_at_its_place_only() {
    let block = include_bytes!("../fixtures/uberblock-163840.bin").to_vec();
    assert_eq!(embedded::label_verify(&block, 163_840), Ok(()));
    assert!(embedded::label_verify(&block, 167_936).is_err());
    let mut again = block.clone();
    again[4096 - embedded::TRAILER..].fill(0);
    assert!(embedded::label_seal(&mut again, 163_840));
    assert_eq!(again, block);
}

#[test]
fn a_gang_header_passes_at_its_place_and_time_only() {
    let header = include_bytes!("../fixtures/gang-header.bin").to_vec();
    let mut bp = Blkptr::default();
    bp.dva[0] = icecore_format::Dva::new(0, 0x7_e000, 0x1_6000, true);
    bp.set_birth(icecore_format::Txg(11));
    assert_eq!(embedded::gang_verify(&bp, &header), Ok(()));
    let mut again = header.clone();
    again[512 - embedded::TRAILER..].fill(0);
    assert!(embedded::gang_seal(&bp, &mut again));
    assert_eq!(again, header);
    bp.set_birth(icecore_format::Txg(12));
    assert!(embedded::gang_verify(&bp, &header).is_err());
}

/// The header of an indirect block of an encrypted dataset, written by `ztest` of OpenZFS 2.3.2.
#[test]
fn a_gang_header_of_an_encrypted_block_has_half_a_sum() {
    let header = include_bytes!("../fixtures/gang-header-crypt.bin").to_vec();
    let mut bp = Blkptr::default();
    bp.dva[0] = icecore_format::Dva::new(4, 0x219_7a00, 0x600, true);
    bp.set_birth(icecore_format::Txg(2667));
    bp.set_type(icecore_format::ObjectType::DNODE);
    bp.set_level(5);
    assert!(embedded::gang_verify(&bp, &header).is_err());
    bp.set_crypt(true);
    assert_eq!(embedded::gang_verify(&bp, &header), Ok(()));
    let mut again = header.clone();
    again[512 - embedded::TRAILER..].fill(0);
    assert!(embedded::gang_seal(&bp, &mut again));
    assert_eq!(again, header);
    bp.set_birth(icecore_format::Txg(2668));
    assert!(embedded::gang_verify(&bp, &header).is_err());
}
