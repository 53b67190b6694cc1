//! Inputs to start from: what real OpenZFS wrote where there is such a thing, edits of little effect elsewhere.

use super::tampered::image;
use super::world::fixture;
use icecore_dmu::Want;
use icecore_format::{Blkptr, Compress, NvList};
use icecore_sim::Rng;
use icecore_transform::compress::compress;
use std::fs::File;
use std::os::unix::fs::FileExt;
use zerocopy::IntoBytes;

/// The most of one block that makes a seed.
const SEED_MAX: usize = 4096;

pub(super) fn nvlist() -> Vec<Vec<u8>> {
    let mut seeds = label();
    seeds.iter_mut().for_each(|block| drop(block.drain(..4.min(block.len()))));
    let list = seeds.iter().find_map(|s| NvList::decode(s).ok());
    if let Some((list, _)) = list {
        seeds.extend([list.encode_native(), list.encode_xdr()]);
    }
    seeds
}

pub(super) fn stream() -> Vec<Vec<u8>> {
    let whole = fixture();
    vec![whole.clone(), whole[..312].to_vec(), whole[whole.len() - 312..].to_vec()]
}

/// Label areas of a pool made by OpenZFS.
pub(super) fn label() -> Vec<Vec<u8>> {
    const CONFIG_AT: u64 = 16 << 10;
    let file = File::open(image()).expect("the image");
    let mut block = vec![0; 112 << 10];
    file.read_exact_at(&mut block, CONFIG_AT).expect("a label");
    let used = block.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    vec![block[..used.min(SEED_MAX)].to_vec(), block]
}

/// Metadata blocks of a pool made by OpenZFS, and their pointers: dnodes, objsets, ZAPs, space maps, bonus buffers.
pub(super) fn blocks() -> Vec<Vec<u8>> {
    let pool = crate::zoo::open(&[image()]).expect("a sound pool");
    let mut found: Vec<(Blkptr, icecore_format::Bookmark)> = Vec::new();
    let mut kinds = std::collections::BTreeMap::new();
    icecore_pool::walk::every_block(&pool, &mut |bp, at| {
        let seen = kinds.entry((bp.kind(), bp.level())).or_insert(0);
        *seen += 1;
        if *seen <= 2 {
            found.push((*bp, *at));
        }
        true
    });
    let io: &dyn icecore_dmu::BlockStore = pool.io();
    let mut seeds = Vec::new();
    for (bp, at) in found {
        let Ok(block) = io.read(&bp, &at, Want::NoKey) else { continue };
        seeds.push(block[..block.len().min(SEED_MAX)].to_vec());
        seeds.push([bp.as_bytes(), &block[..block.len().min(512)]].concat());
    }
    seeds
}

pub(super) fn zap() -> Vec<Vec<u8>> {
    blocks().iter().flat_map(|block| [vec![3], vec![7]].map(|head| [&head[..], block].concat())).collect()
}

pub(super) fn frames() -> Vec<Vec<u8>> {
    let plain: Vec<u8> = b"a block of a file, ".iter().copied().cycle().take(4096).collect();
    let kinds = [Compress::LZJB, Compress::GZIP_9, Compress::ZLE, Compress::LZ4, Compress::ZSTD];
    let packed = kinds.iter().zip(0_u8..).filter_map(|(kind, choice)| {
        let packed = compress(*kind, 3, &plain, plain.len())?;
        Some([&[choice][..], &packed].concat())
    });
    packed.collect()
}

pub(super) fn text() -> Vec<Vec<u8>> {
    let mut list = NvList::new();
    list.set("object", 7_u64)
        .set("offset", 131_072_u64)
        .set("bytes", 99_u64)
        .set("toguid", 5_u64)
        .set("toname", "p/a@s");
    let token = icecore_stream::token::encode(&list.encode_native());
    let mut seeds: Vec<Vec<u8>> =
        ["tank/a b@s:1", "tank#b", "recordsize=128K", "quota=1.5G", "compression=zstd-19", "user:x=y"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    seeds.extend([token.into_bytes(), list.encode_native(), list.encode_xdr()]);
    seeds
}

/// Lists of edits.
pub(super) fn edits() -> Vec<Vec<u8>> {
    random(1 + 7 * 6)
}

/// Ways down a pool that fit [`super::rotten`].
pub(super) fn paths() -> Vec<Vec<u8>> {
    random(40)
}

fn random(len: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(7);
    (0..32).map(|_| (0..len).map(|_| rng.u64() as u8).collect()).collect()
}
