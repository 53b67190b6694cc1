//! raidz: which sector of a block lies on which child, its parity, and reading with up to `nparity` children
//! absent or wrong; also after expansions, and in the middle of one.
//!
//! Facts: the map of a block `vdev_raidz_map_alloc`, after an expansion and during it
//! `vdev_raidz_map_alloc_expanded`, parity by Horner's rule over GF(2^8) with polynomial 0x11d and generators 1, 2, 4
//! `vdev_raidz_generate_parity_*` (vdev_raidz.c).
//!
//! Words: a *stripe* is a set of columns with parity of its own. A block is one stripe of long columns, or,
//! if it was born when the raidz had fewer children, many stripes of one sector each: the expansion moved its
//! sectors to other children row by row. In the middle of an expansion the rows that end below the *reflow
//! offset* have moved; the others lie as if the new child were not there.
//!
//! Invariants:
//! 1. Children's offsets stay below `asize / children` when the block lies below `asize`.
//! 2. What is returned passed the check; guesses at wrong children are bounded by [`GUESSES_MAX`].

use std::collections::BTreeSet;

use crate::tree::{Bad, BadCopy};

/// Most combinations of suspects tried for one block.
pub const GUESSES_MAX: usize = 4096;

/// The children of a raidz or draid as a block sees them.
pub(crate) trait Children {
    /// Reads of a child at an offset of its allocatable space.
    fn read(&self, child: usize, offset: u64, out: &mut [u8]) -> Result<(), Bad>;
    /// What a bad copy there is reported as.
    fn bad(&self, child: usize, offset: u64, why: Bad) -> BadCopy;
}

/// What of a raidz the map of a block needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Children now.
    pub width: usize,
    /// Children when the block was born.
    pub born: usize,
    pub nparity: usize,
    pub ashift: u64,
    /// How far an expansion has come that is not complete.
    pub reflow: Option<Reflow>,
}

/// An expansion under way, as an uberblock tells of it (`ub_raidz_reflow_info`, uberblock_impl.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflow {
    /// Bytes of the raidz that have moved.
    pub offset: u64,
    /// What has moved is in the boot area still, in front of where it belongs (`RRSS_SCRATCH_VALID`).
    pub scratch: bool,
}

/// The boot area, between the labels at the front and what can be allocated (`VDEV_BOOT_SIZE`, vdev_impl.h).
const BOOT_SIZE: u64 = 7 << 19;

/// One child's part of a stripe. The first `nparity` columns are parity. Empty past the end of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub child: usize,
    /// Within its allocatable space; what is in front of it wraps around 0.
    pub offset: u64,
    pub len: usize,
    /// Where its bytes are in the block; of no meaning for parity.
    pub at: usize,
}

pub(crate) type Stripe = Vec<Column>;
/// A column of a block: stripe, column.
type Place = (usize, usize);

/// Where all of a block is.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub stripes: Vec<Stripe>,
    pub nparity: usize,
    /// Bytes of the block; its columns are whole sectors.
    pub len: usize,
}

/// The map of a block on a raidz.
pub(crate) fn map(shape: Shape, offset: u64, len: u64) -> Map {
    Map { stripes: stripes(shape, offset, len), nparity: shape.nparity, len: len as usize }
}

fn stripes(shape: Shape, offset: u64, len: u64) -> Vec<Stripe> {
    let Shape { width, born, nparity, ashift, reflow } = shape;
    assert!(nparity > 0 && born > nparity && width >= born, "a raidz has data and parity");
    let (born, parity) = (born as u64, nparity as u64);
    let (start, sectors) = (offset >> ashift, len.div_ceil(1 << ashift));
    let (full, rest) = (sectors / (born - parity), sectors % (born - parity));
    let big = if rest == 0 { 0 } else { rest + parity };
    let rows = full + u64::from(rest > 0);
    let used = if full == 0 { big } else { born };
    // Sectors of the block before column c: columns are filled one after the other, the big ones first.
    let before = |c: u64| (c - parity) * full + (c - parity).min(rest);
    let whole = width as u64 == born;
    let stripes = if whole { 1 } else { rows };
    // Children that a row is spread over, and how far in front of its place it lies.
    let spread = |row: u64| match reflow {
        Some(r) if start + row * born + used > r.offset >> ashift => (width as u64 - 1, 0),
        Some(r) if r.scratch => (width as u64, BOOT_SIZE),
        _ => (width as u64, 0),
    };
    let column = |row: u64, c: u64| {
        let place = start + row * born + c;
        let (width, ahead) = spread(row);
        let height = full + u64::from(c < big);
        let sectors = if whole { height } else { u64::from(row < height) };
        Column {
            child: (place % width) as usize,
            offset: (place / width * (1 << ashift)).wrapping_sub(ahead),
            len: (sectors << ashift) as usize,
            at: if c < parity { 0 } else { ((before(c) + row) << ashift) as usize },
        }
    };
    let mut map: Vec<Stripe> = (0..stripes).map(|row| (0..used).map(|c| column(row, c)).collect()).collect();
    // Single parity changes sides every MiB of offset; kept for ever as part of the format.
    if nparity == 1 && offset >> 20 & 1 == 1 {
        for stripe in &mut map {
            let [a, b, ..] = stripe.as_mut_slice() else { unreachable!("a parity and a data column") };
            std::mem::swap(&mut a.child, &mut b.child);
            std::mem::swap(&mut a.offset, &mut b.offset);
        }
    }
    map
}

/// The writes that store a block of whole sectors: child, offset within it, bytes.
pub(crate) fn columns(shape: Shape, offset: u64, data: &[u8]) -> Vec<(usize, u64, Vec<u8>)> {
    columns_of(&map(shape, offset, data.len() as u64), data)
}

/// The same by a map. Data that ends before the last sector does is filled up with zeros.
pub(crate) fn columns_of(map: &Map, data: &[u8]) -> Vec<(usize, u64, Vec<u8>)> {
    let mut out = Vec::new();
    for (stripe, parts) in map.stripes.iter().zip(parts_of(map, data)) {
        let filled = stripe.iter().zip(parts).filter(|(c, _)| c.len > 0);
        out.extend(filled.map(|(c, bytes)| (c.child, c.offset, bytes)));
    }
    out
}

/// What the columns of a block hold, stripe by stripe.
fn parts_of(map: &Map, data: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let part = |i: usize, c: &Column| {
        if i < map.nparity {
            return vec![0; c.len];
        }
        let from = data.get(c.at.min(data.len())..).unwrap_or_default();
        let mut part = from.get(..c.len.min(from.len())).unwrap_or_default().to_vec();
        part.resize(c.len, 0);
        part
    };
    let stripe = |stripe: &Stripe| {
        let mut parts: Vec<Vec<u8>> = stripe.iter().enumerate().map(|(i, c)| part(i, c)).collect();
        generate(&mut parts, map.nparity);
        parts
    };
    map.stripes.iter().map(stripe).collect()
}

fn generate(parts: &mut [Vec<u8>], nparity: usize) {
    let (parity, data) = parts.split_at_mut(nparity);
    for (p, column) in parity.iter_mut().enumerate() {
        *column = parity_of(data, p, column.len());
    }
}

/// Parity row `p` of the data columns: Horner's rule with generator 2^p; short columns end in zeros.
fn parity_of(data: &[Vec<u8>], p: usize, len: usize) -> Vec<u8> {
    let mut sum = vec![0; len];
    for column in data {
        match p {
            0 => {}
            1 => sum.iter_mut().for_each(|b| *b = double(*b)),
            _ => sum.iter_mut().for_each(|b| *b = double(double(*b))),
        }
        sum.iter_mut().zip(column).for_each(|(s, d)| *s ^= d);
    }
    sum
}

/// The data columns of a block as they are, if all can be read and pass the check.
pub(crate) fn read_plain(
    children: &dyn Children,
    map: &Map,
    check: &mut dyn FnMut(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let mut block = Block::new(children, map);
    block.fetch(Part::Data, &mut Vec::new());
    block.joined().filter(|data| check(data))
}

/// The block by any combination of columns that passes the check, with all columns read: what of them is
/// unreadable or wrong is added to `bad`.
pub(crate) fn read_all(
    children: &dyn Children,
    map: &Map,
    check: &mut dyn FnMut(&[u8]) -> bool,
    bad: &mut Vec<BadCopy>,
) -> Option<Vec<u8>> {
    let mut block = Block::new(children, map);
    block.fetch(Part::Data, bad);
    block.fetch(Part::Parity, bad);
    let (data, wrong) = block.guess(check)?;
    for (s, i) in wrong {
        let c = map.stripes[s][i];
        bad.push(children.bad(c.child, c.offset, Bad::Checksum));
    }
    Some(data)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Parity,
}

/// A block being read: its map, and what of it has been read.
struct Block<'a> {
    children: &'a dyn Children,
    map: &'a Map,
    /// Stripe by stripe, column by column; `None` for what was not or could not be read.
    parts: Vec<Vec<Option<Vec<u8>>>>,
}

impl<'a> Block<'a> {
    fn new(children: &'a dyn Children, map: &'a Map) -> Self {
        Self { children, map, parts: map.stripes.iter().map(|s| vec![None; s.len()]).collect() }
    }

    fn fetch(&mut self, part: Part, bad: &mut Vec<BadCopy>) {
        for (stripe, parts) in self.map.stripes.iter().zip(&mut self.parts) {
            for (i, (c, slot)) in stripe.iter().zip(parts).enumerate() {
                if (i < self.map.nparity) != (part == Part::Parity) {
                    continue;
                }
                let mut buf = vec![0; c.len];
                let got = if c.len == 0 { Ok(()) } else { self.children.read(c.child, c.offset, &mut buf) };
                match got {
                    Ok(()) => *slot = Some(buf),
                    Err(why) => bad.push(self.children.bad(c.child, c.offset, why)),
                }
            }
        }
    }

    /// The block, if every data column was read.
    fn joined(&self) -> Option<Vec<u8>> {
        let mut out = vec![0; self.padded_len()];
        for (stripe, parts) in self.map.stripes.iter().zip(&self.parts) {
            for (c, part) in stripe.iter().zip(parts).skip(self.map.nparity) {
                out[c.at..c.at + c.len].copy_from_slice(part.as_ref()?);
            }
        }
        out.truncate(self.map.len);
        Some(out)
    }

    fn padded_len(&self) -> usize {
        let data = self.map.stripes.iter().flat_map(|s| s.iter().skip(self.map.nparity));
        data.map(|c| c.len).sum()
    }

    /// Tries ever more children as wrong beside what was unread; the block, and the columns (stripe,
    /// column) that were read but turned out wrong.
    fn guess(&self, check: &mut dyn FnMut(&[u8]) -> bool) -> Option<(Vec<u8>, Vec<Place>)> {
        let children: BTreeSet<usize> = self.map.stripes.iter().flatten().map(|c| c.child).collect();
        let children: Vec<usize> = children.into_iter().collect();
        let mut tries = 0;
        for suspects in 0..=self.map.nparity {
            for set in combinations(&children, suspects) {
                tries += 1;
                if tries > GUESSES_MAX {
                    return None;
                }
                let Some(all) = self.reconstruct(&set) else { continue };
                let mut data = vec![0; self.padded_len()];
                for (stripe, parts) in self.map.stripes.iter().zip(&all) {
                    for (c, part) in stripe.iter().zip(parts).skip(self.map.nparity) {
                        data[c.at..c.at + c.len].copy_from_slice(part);
                    }
                }
                data.truncate(self.map.len);
                if check(&data) {
                    // Against the block as it was written: what fills its last sector up belongs to its parity.
                    let wrong = self.wrong(&parts_of(self.map, &data));
                    return Some((data, wrong));
                }
            }
        }
        None
    }

    /// All columns with those of `suspects` made from the others; `None` if too little is left.
    fn reconstruct(&self, suspects: &[usize]) -> Option<Vec<Vec<Vec<u8>>>> {
        let gone = |s: usize| -> Vec<bool> {
            let columns = self.map.stripes[s].iter().zip(&self.parts[s]);
            columns.map(|(c, p)| p.is_none() || c.len > 0 && suspects.contains(&c.child)).collect()
        };
        let gone: Vec<Vec<bool>> = (0..self.map.stripes.len()).map(gone).collect();
        if gone.iter().any(|g| g.iter().filter(|x| **x).count() > self.map.nparity) {
            return None;
        }
        (0..self.map.stripes.len()).map(|s| self.reconstruct_stripe(s, &gone[s])).collect()
    }

    fn reconstruct_stripe(&self, s: usize, gone: &[bool]) -> Option<Vec<Vec<u8>>> {
        let (stripe, parts) = (&self.map.stripes[s], &self.parts[s]);
        let lost: Vec<usize> = (self.map.nparity..stripe.len()).filter(|i| gone[*i]).collect();
        let rows: Vec<usize> = (0..self.map.nparity).filter(|i| !gone[*i]).take(lost.len()).collect();
        if rows.len() < lost.len() {
            return None;
        }
        let known = |i: usize| match &parts[i] {
            Some(part) if !gone[i] => part.clone(),
            _ => vec![0; stripe[i].len],
        };
        let mut all: Vec<Vec<u8>> = (0..stripe.len()).map(known).collect();
        if !lost.is_empty() {
            self.solve(&mut all, parts, &lost, &rows)?;
        }
        generate(&mut all, self.map.nparity);
        Some(all)
    }

    /// Solves for the lost data columns of a stripe: each parity row in `rows` is one equation.
    fn solve(
        &self,
        all: &mut [Vec<u8>],
        parts: &[Option<Vec<u8>>],
        lost: &[usize],
        rows: &[usize],
    ) -> Option<()> {
        let width = all[0].len();
        let ndata = all.len() - self.map.nparity;
        // What the lost columns must add to each parity row.
        let mut sums: Vec<Vec<u8>> = Vec::with_capacity(rows.len());
        for row in rows {
            let mut sum = parity_of(&all[self.map.nparity..], *row, width);
            sum.iter_mut().zip(parts[*row].as_ref()?).for_each(|(s, p)| *s ^= p);
            sums.push(sum);
        }
        let power = |row: usize, column: usize| exp2(row * (ndata - 1 - (column - self.map.nparity)));
        let matrix = rows.iter().map(|r| lost.iter().map(|c| power(*r, *c)).collect()).collect();
        let inverse = invert(matrix)?;
        for (weights, column) in inverse.iter().zip(lost) {
            let len = all[*column].len();
            let mut out = vec![0; width];
            for (weight, sum) in weights.iter().zip(&sums) {
                let table = mul_table(*weight);
                out.iter_mut().zip(sum).for_each(|(o, s)| *o ^= table[*s as usize]);
            }
            out.truncate(len);
            all[*column] = out;
        }
        Some(())
    }

    fn wrong(&self, all: &[Vec<Vec<u8>>]) -> Vec<Place> {
        let mut out = Vec::new();
        for (s, (parts, right)) in self.parts.iter().zip(all).enumerate() {
            let differs = |i: &usize| parts[*i].as_ref().is_some_and(|p| *p != right[*i]);
            out.extend((0..parts.len()).filter(differs).map(|i| (s, i)));
        }
        out
    }
}

/// All subsets of `of` with `n` members, in order.
fn combinations(of: &[usize], n: usize) -> Box<dyn Iterator<Item = Vec<usize>> + '_> {
    if n == 0 {
        return Box::new(std::iter::once(Vec::new()));
    }
    Box::new((0..of.len()).flat_map(move |i| {
        combinations(&of[i + 1..], n - 1).map(move |mut rest| {
            rest.insert(0, of[i]);
            rest
        })
    }))
}

/// Times 2 in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1.
fn double(b: u8) -> u8 {
    b << 1 ^ if b & 0x80 != 0 { 0x1d } else { 0 }
}

fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut out) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            out ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    out
}

fn mul_table(by: u8) -> [u8; 256] {
    std::array::from_fn(|i| mul(by, i as u8))
}

/// 2 to the `n`.
fn exp2(n: usize) -> u8 {
    (0..n % 255).fold(1, |b, _| double(b))
}

fn inverse(b: u8) -> u8 {
    // b^254, by squares: the group has 255 elements.
    let (mut out, mut square) = (1, b);
    for _ in 0..7 {
        square = mul(square, square);
        out = mul(out, square);
    }
    out
}

/// Inverse of a small square matrix, or `None` if there is none.
fn invert(mut m: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let n = m.len();
    let mut out: Vec<Vec<u8>> = (0..n).map(|i| (0..n).map(|j| u8::from(i == j)).collect()).collect();
    for i in 0..n {
        let pivot = (i..n).find(|r| m[*r][i] != 0)?;
        m.swap(i, pivot);
        out.swap(i, pivot);
        let scale = inverse(m[i][i]);
        for j in 0..n {
            m[i][j] = mul(m[i][j], scale);
            out[i][j] = mul(out[i][j], scale);
        }
        for r in (0..n).filter(|r| *r != i) {
            let by = m[r][i];
            for j in 0..n {
                m[r][j] ^= mul(by, m[i][j]);
                out[r][j] ^= mul(by, out[i][j]);
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Children of a block whose columns the test fills in itself.
    struct Nowhere;
    impl Children for Nowhere {
        fn read(&self, _: usize, _: u64, _: &mut [u8]) -> Result<(), Bad> {
            Err(Bad::Absent)
        }
        fn bad(&self, _: usize, offset: u64, why: Bad) -> BadCopy {
            BadCopy { guid: icecore_format::Guid(0), device: String::new(), offset, why }
        }
    }

    #[test]
    fn the_field_is_a_field() {
        for b in 1..=255 {
            assert_eq!(mul(b, inverse(b)), 1);
        }
        assert_eq!(exp2(255), 1);
        assert_eq!(exp2(8), 0x1d);
    }

    #[test]
    fn every_pattern_of_losses_within_parity_is_recovered() {
        for (width, born, nparity, sectors) in [
            (3, 3, 1, 5),
            (4, 4, 2, 7),
            (6, 6, 3, 1),
            (6, 6, 3, 11),
            (5, 5, 3, 2),
            (5, 5, 2, 9),
            (5, 3, 1, 7),
            (6, 5, 2, 8),
            (4, 3, 2, 5),
        ] {
            let shape = Shape { width, born, nparity, ashift: 9, reflow: None };
            let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
            let data: Vec<u8> = (0..sectors * 512_u32).map(byte).collect();
            for offset in [0, 512 * 7, (1 << 20) + 512] {
                let map = map(shape, offset, data.len() as u64);
                let mut block = Block::new(&Nowhere, &map);
                assert_eq!(block.padded_len(), data.len());
                let writes = columns(shape, offset, &data);
                let places: BTreeSet<(usize, u64)> = writes.iter().map(|w| (w.0, w.1)).collect();
                assert_eq!(places.len(), writes.len(), "no two columns share a place");
                let stored = |c: &Column| {
                    let hit = writes.iter().find(|w| (w.0, w.1) == (c.child, c.offset) && c.len > 0);
                    Some(hit.map_or(Vec::new(), |w| w.2.clone()))
                };
                let parts: Vec<Vec<Option<Vec<u8>>>> =
                    map.stripes.iter().map(|s| s.iter().map(stored).collect()).collect();
                let children: Vec<usize> = (0..width).collect();
                for lost in (0..=nparity).flat_map(|n| combinations(&children, n)) {
                    block.parts = parts.clone();
                    let mut hit = Vec::new();
                    for (s, stripe) in map.stripes.iter().enumerate() {
                        for (i, c) in stripe.iter().enumerate().filter(|(_, c)| c.len > 0) {
                            if lost.contains(&c.child) {
                                block.parts[s][i] = None;
                                hit.push((s, i));
                            }
                        }
                    }
                    let (found, _) = block.guess(&mut |b| b == data).expect("enough is left");
                    assert_eq!(found, data, "{shape:?} lost {lost:?}");

                    // The same columns silently wrong instead of unread.
                    block.parts = parts.clone();
                    hit.iter().for_each(|(s, i)| block.parts[*s][*i].as_mut().unwrap()[3] ^= 0x40);
                    let (found, wrong) = block.guess(&mut |b| b == data).expect("found by guessing");
                    assert_eq!(found, data);
                    assert_eq!(wrong, hit);
                }
            }
        }
    }
}
