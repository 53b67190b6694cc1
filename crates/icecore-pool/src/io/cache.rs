//! A cache of metadata blocks in their logical form, least recently used first out, bounded in bytes.
//!
//! Invariants:
//! 1. Keyed by place, birth and checksum: a block rewritten in place within a txg has another checksum, so a
//!    stale entry is never found.
//! 2. What was freed or rewritten is forgotten ([`Cache::forget_place`]): the cache holds no more than the
//!    metadata that is in use, however many commits a long receive makes.

use icecore_dmu::Want;
use icecore_format::{Blkptr, Bookmark, Dva};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which block in which form. The place comes first, so that the entries of one place lie together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    dva: [u64; 2],
    birth: u64,
    cksum: [u64; 4],
    objset: u64,
    want: Want,
}

impl Key {
    /// The key of a cacheable block: metadata with a checksum, in logical form. Not the lowest pointers to a file's
    /// data: they are passed once from end to end, and there is one for every 128 MiB, so that the memory of a send or
    /// receive would grow with what passes through.
    pub(crate) fn of(bp: &Blkptr, at: &Bookmark, want: Want) -> Option<Self> {
        let meta = bp.level() > 1 || bp.kind().is_metadata();
        if !meta
            || matches!(want, Want::Stored | Want::Compressed)
            || bp.is_embedded()
            || bp.cksum() == [0; 4]
        {
            return None;
        }
        let dva = bp.dva.first()?.words();
        Some(Self { dva, birth: bp.birth().0, cksum: bp.cksum(), objset: at.objset, want })
    }
}

/// The cache.
#[derive(Default)]
pub(crate) struct Cache {
    blocks: BTreeMap<Key, (Arc<[u8]>, u64)>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

impl Cache {
    /// A cache of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }
    /// The block, if it is here.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Arc<[u8]>> {
        let (block, used) = self.blocks.get_mut(key)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(block.clone())
    }
    /// Keeps a block, dropping the ones not used for longest.
    pub(crate) fn put(&mut self, key: Key, block: &Arc<[u8]>) {
        if block.len() > self.limit / 8 || self.blocks.contains_key(&key) {
            return;
        }
        self.clock += 1;
        self.bytes += block.len();
        self.blocks.insert(key, (block.clone(), self.clock));
        self.by_use.insert(self.clock, key);
        while self.bytes > self.limit {
            let Some((_, old)) = self.by_use.pop_first() else { break };
            if let Some((gone, _)) = self.blocks.remove(&old) {
                self.bytes -= gone.len();
            }
        }
    }
    /// Forgets everything read with the key of `objset`.
    pub(crate) fn forget_objset(&mut self, objset: u64) {
        let keys: Vec<Key> = self.blocks.keys().filter(|k| k.objset == objset).copied().collect();
        self.remove(&keys);
    }
    /// Forgets what lay at `place`: it was freed, or something else was written there.
    pub(crate) fn forget_place(&mut self, place: &Dva) {
        let dva = place.words();
        let first = Key { dva, birth: 0, cksum: [0; 4], objset: 0, want: Want::Logical };
        let from_there = self.blocks.range(first..).map(|(key, _)| *key);
        let keys: Vec<Key> = from_there.take_while(|key| key.dva == dva).collect();
        self.remove(&keys);
    }
    fn remove(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some((gone, used)) = self.blocks.remove(key) {
                self.by_use.remove(&used);
                self.bytes -= gone.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(place: u64, birth: u64, want: Want) -> Key {
        Key { dva: [1, place], birth, cksum: [7; 4], objset: 3, want }
    }

    #[test]
    fn a_freed_place_is_forgotten_in_all_its_versions_and_no_other_is() {
        let mut cache = Cache::new(1 << 20);
        let block: Arc<[u8]> = vec![0; 4096].into();
        let there = [key(8, 1, Want::Logical), key(8, 2, Want::Logical), key(8, 2, Want::NoKey)];
        let others = [key(7, 9, Want::NoKey), key(9, 0, Want::Logical)];
        for key in there.iter().chain(&others) {
            cache.put(*key, &block);
        }
        cache.forget_place(&Dva::from_words([1, 8]));
        assert!(there.iter().all(|key| cache.get(key).is_none()));
        assert!(others.iter().all(|key| cache.get(key).is_some()));
        assert_eq!((cache.bytes, cache.by_use.len()), (2 * 4096, 2));
    }
}
