//! Sets of disjoint byte ranges: free space, allocations and frees of a txg.
//!
//! Invariants:
//! 1. Ranges never overlap and never touch: neighbours are merged.
//! 2. `space` is the sum of all lengths; `by_size` holds exactly the ranges of `by_start`.
//! 3. Iteration is by offset, so everything made from a tree is a function of its contents.
//!
//! Adding what is there, or removing what is not, is refused and changes nothing: the ranges come from disks.

use std::collections::{BTreeMap, BTreeSet};

/// A range that was already present, or was not wholly there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// First byte of the range asked for.
    pub start: u64,
    /// Its length.
    pub len: u64,
}

/// A set of disjoint ranges, searchable by offset and by size.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RangeTree {
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    space: u64,
}

impl RangeTree {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// One range.
    #[must_use]
    pub fn of(start: u64, len: u64) -> Self {
        let mut tree = Self::new();
        if len > 0 {
            tree.put(start, start.saturating_add(len));
        }
        tree
    }
    /// Bytes in the set.
    #[must_use]
    pub fn space(&self) -> u64 {
        self.space
    }
    /// Number of ranges.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_start.len()
    }
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }
    /// Length of the largest range.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.by_size.last().map_or(0, |&(len, _)| len)
    }
    /// Ranges as (start, length), by offset.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_start.iter().map(|(&start, &end)| (start, end.saturating_sub(start)))
    }
    /// The parts of the set that lie within a range, as (start, length), from the last to the first.
    pub fn within(&self, start: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start.saturating_add(len);
        let overlapping = self.by_start.range(..end).rev().take_while(move |&(_, &e)| e > start);
        overlapping.map(move |(&s, &e)| (s.max(start), e.min(end) - s.max(start)))
    }
    /// Empties the set.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn put(&mut self, start: u64, end: u64) {
        self.by_start.insert(start, end);
        self.by_size.insert((end - start, start));
        self.space += end - start;
    }
    fn take(&mut self, start: u64, end: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(end - start, start));
        self.space -= end - start;
    }
    /// The range that holds byte `at`.
    fn holding(&self, at: u64) -> Option<(u64, u64)> {
        self.by_start.range(..=at).next_back().map(|(&s, &e)| (s, e)).filter(|&(_, e)| e > at)
    }

    /// Whether any byte of the range is in the set.
    #[must_use]
    pub fn touches(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.by_start.range(..end).next_back().is_some_and(|(_, &e)| e > start) && len > 0
    }
    /// Whether the whole range is in the set.
    #[must_use]
    pub fn contains(&self, start: u64, len: u64) -> bool {
        len == 0 || self.holding(start).is_some_and(|(_, e)| e >= start.saturating_add(len))
    }

    /// Adds a range none of which may be present.
    pub fn add(&mut self, start: u64, len: u64) -> Result<(), Conflict> {
        let Some(end) = start.checked_add(len) else { return Err(Conflict { start, len }) };
        if len == 0 {
            return Ok(());
        }
        if self.touches(start, len) {
            return Err(Conflict { start, len });
        }
        let (mut from, mut to) = (start, end);
        if let Some((&s, &e)) = self.by_start.range(..start).next_back()
            && e == start
        {
            self.take(s, e);
            from = s;
        }
        if let Some(&e) = self.by_start.get(&end) {
            self.take(end, e);
            to = e;
        }
        self.put(from, to);
        Ok(())
    }

    /// Removes a range all of which must be present.
    pub fn remove(&mut self, start: u64, len: u64) -> Result<(), Conflict> {
        let Some(end) = start.checked_add(len) else { return Err(Conflict { start, len }) };
        if len == 0 {
            return Ok(());
        }
        let Some((s, e)) = self.holding(start).filter(|&(_, e)| e >= end) else {
            return Err(Conflict { start, len });
        };
        self.take(s, e);
        if s < start {
            self.put(s, start);
        }
        if end < e {
            self.put(end, e);
        }
        Ok(())
    }

    /// Removes whatever part of the range is present.
    pub fn clip(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        while let Some((s, e)) = self.first_overlap(start, end).filter(|_| len > 0) {
            self.take(s, e);
            if s < start {
                self.put(s, start);
            }
            if end < e {
                self.put(end, e);
            }
        }
    }
    fn first_overlap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        self.by_start.range(..end).next_back().map(|(&s, &e)| (s, e)).filter(|&(_, e)| e > start)
    }

    /// Adds whatever part of the range is absent.
    pub fn cover(&mut self, start: u64, len: u64) {
        self.clip(start, len);
        let added = self.add(start, len);
        debug_assert!(added.is_ok() || start.checked_add(len).is_none());
    }

    /// A range is taken out of `from` where it is there, and put into `self` where it is not: how a log of
    /// allocations and frees folds into two disjoint sets (`range_tree_remove_xor_add`, range_tree.c).
    pub fn xor_add(&mut self, start: u64, len: u64, from: &mut Self) -> Result<(), Conflict> {
        let end = start.checked_add(len).ok_or(Conflict { start, len })?;
        let mut at = start;
        while at < end {
            if let Some((_, e)) = from.holding(at) {
                let to = e.min(end);
                from.remove(at, to - at)?;
                at = to;
            } else {
                let to = from.by_start.range(at..end).next().map_or(end, |(&s, _)| s);
                self.add(at, to - at)?;
                at = to;
            }
        }
        Ok(())
    }

    /// Adds all ranges of another set, which must be disjoint from this one.
    pub fn add_all(&mut self, other: &Self) -> Result<(), Conflict> {
        other.iter().try_for_each(|(start, len)| self.add(start, len))
    }

    /// The first place for `len` bytes at or after `cursor` among at most `tries` ranges, else the tightest
    /// place anywhere.
    #[must_use]
    pub fn find(&self, len: u64, cursor: u64, tries: usize) -> Option<u64> {
        if self.largest() < len || len == 0 {
            return None;
        }
        if let Some((_, e)) = self.holding(cursor)
            && e - cursor >= len
        {
            return Some(cursor);
        }
        let near = self.by_start.range(cursor..).take(tries).find(|&(&s, &e)| e - s >= len);
        near.map(|(&s, _)| s).or_else(|| self.by_size.range((len, 0)..).next().map(|&(_, s)| s))
    }

    /// How many ranges have a length of 2^i to 2^(i+1)-1, for each i.
    #[must_use]
    pub fn histogram(&self) -> [u64; 64] {
        let mut counts = [0; 64];
        for &(len, _) in &self.by_size {
            if let Some(c) = len.checked_ilog2().and_then(|i| counts.get_mut(i as usize)) {
                *c += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_and_splits() {
        let mut t = RangeTree::of(0, 100);
        t.remove(10, 10).unwrap();
        t.remove(50, 50).unwrap();
        assert_eq!(t.iter().collect::<Vec<_>>(), [(0, 10), (20, 30)]);
        t.add(10, 10).unwrap();
        assert_eq!((t.iter().collect::<Vec<_>>(), t.space(), t.largest()), (vec![(0, 50)], 50, 50));
    }

    #[test]
    fn refuses_conflicts_unchanged() {
        let mut t = RangeTree::of(10, 10);
        let before = t.clone();
        assert!(t.add(5, 6).is_err() && t.add(19, 5).is_err() && t.add(u64::MAX, 5).is_err());
        assert!(t.remove(5, 6).is_err() && t.remove(15, 6).is_err() && t.remove(0, 1).is_err());
        assert_eq!(t, before);
    }

    #[test]
    fn xor_folds_a_log() {
        let (mut allocs, mut frees) = (RangeTree::new(), RangeTree::of(0, 10));
        allocs.xor_add(5, 10, &mut frees).unwrap();
        assert_eq!(allocs.iter().collect::<Vec<_>>(), [(10, 5)]);
        assert_eq!(frees.iter().collect::<Vec<_>>(), [(0, 5)]);
    }

    #[test]
    fn agrees_with_a_bitmap() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut rand = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        let (mut t, mut bits) = (RangeTree::new(), [false; 256]);
        for _ in 0..20_000 {
            let (s, l) = (rand(200), rand(40));
            let at = s as usize..(s + l) as usize;
            match rand(4) {
                0 => assert_eq!(t.add(s, l).is_ok(), bits[at.clone()].iter().all(|b| !b)),
                1 => assert_eq!(t.remove(s, l).is_ok(), bits[at.clone()].iter().all(|b| *b)),
                2 => t.clip(s, l),
                _ => t.cover(s, l),
            }
            for i in 0..256 {
                bits[i as usize] = t.contains(i, 1);
            }
            let mut model = RangeTree::new();
            (0..256).filter(|i| bits[*i as usize]).for_each(|i| model.add(i, 1).unwrap());
            assert_eq!(t, model);
            if let Some(at) = t.find(3, rand(250), 2) {
                assert!(t.contains(at, 3));
            }
        }
    }
}
