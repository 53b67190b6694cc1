//! Data blocks that were read, for the requests to come: least recently used first out, bounded in bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes kept.
const BYTES_MAX: usize = 64 << 20;
/// What an entry costs besides its bytes.
const ENTRY_COST: usize = 256;

/// What tells a block: what its pointer says.
pub(crate) type Key = [u64; 7];
pub(crate) type Block = Arc<[u8]>;

#[derive(Default)]
pub(crate) struct Blocks {
    blocks: BTreeMap<Key, (Block, u64)>,
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

fn cost(block: &Block) -> usize {
    ENTRY_COST + block.len()
}

impl Blocks {
    /// The block, if it is here.
    pub fn get(&mut self, key: Key) -> Option<Block> {
        self.clock += 1;
        let (block, used) = self.blocks.get_mut(&key)?;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, key);
        Some(block.clone())
    }
    /// Whether it is here; that is no use of it.
    pub fn has(&self, key: &Key) -> bool {
        self.blocks.contains_key(key)
    }
    /// Keeps a block.
    pub fn put(&mut self, key: Key, block: Block) {
        self.clock += 1;
        self.bytes += cost(&block);
        self.by_use.insert(self.clock, key);
        if let Some((old, used)) = self.blocks.insert(key, (block, self.clock)) {
            self.bytes -= cost(&old);
            self.by_use.remove(&used);
        }
        while self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((old, _)) = self.blocks.remove(&oldest) {
                self.bytes -= cost(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut b = Blocks::default();
        let key = |n| [0, 1, 1, n, 0, 0, 0];
        let big = || Arc::from(vec![0_u8; 1 << 20]);
        b.put(key(0), big());
        for i in 1..60 {
            b.put(key(i), big());
        }
        assert!(b.get(key(0)).is_some());
        for i in 60..100 {
            b.put(key(i), big());
        }
        assert!(b.get(key(0)).is_some());
        assert!(b.get(key(1)).is_none());
        assert!(b.bytes <= BYTES_MAX);
        b.put(key(0), Arc::from([7]));
        assert_eq!(b.get(key(0)).as_deref(), Some(&[7][..]));
        assert_eq!(b.blocks.len(), b.by_use.len());
    }
}
