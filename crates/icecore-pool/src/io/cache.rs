//! A cache of metadata blocks in their logical form, least recently used first out, bounded in bytes.
//!
//! The lowest pointers to a file's data have a small share of their own. A send or receive passes them once from end to end,
//! and there is a block of them for every 128 MiB: its memory must not grow with what passes through. Who reads a file
//! piece by piece comes back to the same block for each piece.
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
    lowest: bool,
}

impl Key {
    /// The key of a cacheable block: metadata with a checksum, in logical form.
    pub(crate) fn of(bp: &Blkptr, at: &Bookmark, want: Want) -> Option<Self> {
        let lowest = bp.level() == 1 && !bp.kind().is_metadata();
        let meta = bp.level() > 0 || bp.kind().is_metadata();
        if !meta
            || matches!(want, Want::Stored | Want::Compressed)
            || bp.is_embedded()
            || bp.cksum() == [0; 4]
        {
            return None;
        }
        let dva = bp.dva.first()?.words();
        // What needs no key is the same for all who have the block: a head and its snapshots.
        let objset = if bp.uses_crypt() { at.objset } else { 0 };
        Some(Self { dva, birth: bp.birth().0, cksum: bp.cksum(), objset, want, lowest })
    }
}

/// The cache.
#[derive(Default)]
pub(crate) struct Cache {
    common: Lru,
    lowest: Lru,
}

impl Cache {
    /// A cache of at most `limit` bytes, and `lowest` more for the lowest pointers.
    pub(crate) fn new(limit: usize, lowest: usize) -> Self {
        Self { common: Lru::new(limit), lowest: Lru::new(lowest) }
    }
    /// The block, if it is here.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Arc<[u8]>> {
        self.share(key).get(key)
    }
    /// Keeps a block, dropping the ones not used for longest.
    pub(crate) fn put(&mut self, key: Key, block: &Arc<[u8]>) {
        self.share(&key).put(key, block);
    }
    /// Forgets everything read with the key of `objset`.
    pub(crate) fn forget_objset(&mut self, objset: u64) {
        self.common.forget_objset(objset);
        self.lowest.forget_objset(objset);
    }
    /// Forgets what lay at `place`: it was freed, or something else was written there.
    pub(crate) fn forget_place(&mut self, place: &Dva) {
        self.common.forget_place(place);
        self.lowest.forget_place(place);
    }
    fn share(&mut self, key: &Key) -> &mut Lru {
        if key.lowest { &mut self.lowest } else { &mut self.common }
    }
}

#[derive(Default)]
struct Lru {
    blocks: BTreeMap<Key, (Arc<[u8]>, u64)>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

impl Lru {
    fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }
    fn get(&mut self, key: &Key) -> Option<Arc<[u8]>> {
        let (block, used) = self.blocks.get_mut(key)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(block.clone())
    }
    fn put(&mut self, key: Key, block: &Arc<[u8]>) {
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
    fn forget_objset(&mut self, objset: u64) {
        let keys: Vec<Key> = self.blocks.keys().filter(|k| k.objset == objset).copied().collect();
        self.remove(&keys);
    }
    fn forget_place(&mut self, place: &Dva) {
        let dva = place.words();
        let first = Key { dva, birth: 0, cksum: [0; 4], objset: 0, want: Want::Logical, lowest: false };
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
        Key { dva: [1, place], birth, cksum: [7; 4], objset: 3, want, lowest: false }
    }

    #[test]
    fn pointers_that_pass_by_take_their_share_and_push_nothing_out() {
        let mut cache = Cache::new(1 << 20, 64 << 10);
        let block: Arc<[u8]> = vec![0; 4096].into();
        let lowest = |place| Key { lowest: true, ..key(place, 1, Want::Logical) };
        cache.put(key(0, 1, Want::Logical), &block);
        (1..=1000).for_each(|place| cache.put(lowest(place), &block));
        assert_eq!((1..=1000).filter(|place| cache.get(&lowest(*place)).is_some()).count(), 16);
        assert!(cache.get(&lowest(1000)).is_some());
        assert!(cache.get(&key(0, 1, Want::Logical)).is_some());
        cache.forget_place(&Dva::from_words([1, 1000]));
        assert!(cache.get(&lowest(1000)).is_none());
        cache.forget_objset(3);
        assert_eq!((cache.lowest.bytes, cache.common.bytes), (0, 0));
    }

    #[test]
    fn a_freed_place_is_forgotten_in_all_its_versions_and_no_other_is() {
        let mut cache = Cache::new(1 << 20, 0);
        let block: Arc<[u8]> = vec![0; 4096].into();
        let there = [key(8, 1, Want::Logical), key(8, 2, Want::Logical), key(8, 2, Want::NoKey)];
        let others = [key(7, 9, Want::NoKey), key(9, 0, Want::Logical)];
        for key in there.iter().chain(&others) {
            cache.put(*key, &block);
        }
        cache.forget_place(&Dva::from_words([1, 8]));
        assert!(there.iter().all(|key| cache.get(key).is_none()));
        assert!(others.iter().all(|key| cache.get(key).is_some()));
        assert_eq!((cache.common.bytes, cache.common.by_use.len()), (2 * 4096, 2));
    }
}
