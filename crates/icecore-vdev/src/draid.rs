//! draid: which sector of a block lies on which child, and where a distributed spare has its bytes.
//!
//! Facts (vdev_draid.c): the map of a block `vdev_draid_map_alloc_row`, its place on the children
//! `vdev_draid_logical_to_physical`, the order of the children `vdev_draid_generate_perms` with the generator
//! of vdev_draid_rand.c, spares `vdev_draid_spare_get_child`. Parity is that of [`crate::raidz`].
//!
//! Words: a *row* is 16 MiB of every child at the same offset. A *group* is `ndata + nparity` neighbours in
//! the order of children, which may go on in the next row. `ngroups` of them fill some rows whole: a *slice*.
//! Each slice has an order of children of its own, whose last `nspares` are the spares.
//!
//! Invariants:
//! 1. The order of children is used only if its table has the sum that the format names.
//! 2. Addresses of children stay below [`Draid::child_asize`] when the block lies below `asize`.
//!
//! Does not do: writing (but repairs); pools with failure domains (`draid_nchildren`), which are refused.

use std::sync::Arc;

use icecore_format::Corrupt;
use icecore_transform::checksum::fletcher::fletcher4;

use crate::config::VdevConfig;
use crate::draid_maps::{CHILDREN_MAX, CHILDREN_MIN, SEEDS};
use crate::raidz::{Column, Map, Stripe};

/// Bytes of a row on each child (`VDEV_DRAID_ROWHEIGHT`): the largest block fits one group.
const ROW: u64 = 16 << 20;
/// First half of the generator's state (`VDEV_DRAID_SEED`).
const SEED: u64 = 0xd_7a1d_5eed;
/// Most distributed spares (`vdev_draid_init`).
const SPARES_MAX: u64 = 100;

/// The layout of one draid.
#[derive(Clone)]
pub(crate) struct Draid {
    /// Parity columns of a group.
    pub nparity: usize,
    ndata: u64,
    nspares: u64,
    ngroups: u64,
    children: u64,
    ashift: u64,
    /// Orders of the children, one after the other.
    orders: Arc<[u8]>,
}

impl Draid {
    /// The layout that a configuration describes.
    pub fn new(config: &VdevConfig, ashift: u64) -> Result<Self, Corrupt> {
        let bad = |why: String| Corrupt::new("draid config", format!("{why} of {}", config.guid));
        let children = config.children.len() as u64;
        let field = |v: Option<u64>, name: &str| v.ok_or_else(|| bad(format!("no {name}")));
        let nparity = field(config.nparity, "nparity")?;
        let ndata = field(config.draid_ndata, "draid_ndata")?;
        let nspares = field(config.draid_nspares, "draid_nspares")?;
        let ngroups = field(config.draid_ngroups, "draid_ngroups")?;
        if config.draid_nchildren.is_some_and(|n| n != children) {
            return Err(bad("failure domains are not supported: draid_nchildren".into()));
        }
        if !(CHILDREN_MIN..=CHILDREN_MAX).contains(&children) {
            return Err(bad(format!("{children} children")));
        }
        let sane = (1..=3).contains(&nparity)
            && (1..=CHILDREN_MAX).contains(&ndata)
            && nspares <= SPARES_MAX
            && (1..=CHILDREN_MAX).contains(&ngroups);
        if !sane || ndata + nparity + nspares > children {
            return Err(bad(format!("{nparity} parity, {ndata} data, {nspares} spares, {ngroups} groups")));
        }
        if !((ndata + nparity) * ngroups).is_multiple_of(children - nspares) {
            return Err(bad(format!("{ngroups} groups do not fill rows")));
        }
        let orders = orders(children).ok_or_else(|| bad("the order of children".into()))?;
        Ok(Self {
            nparity: nparity as usize,
            ndata,
            nspares,
            ngroups,
            children,
            ashift,
            orders: orders.into(),
        })
    }

    /// Columns of a group.
    fn width(&self) -> u64 {
        self.ndata + self.nparity as u64
    }
    /// Children of a slice that are not its spares.
    fn disks(&self) -> u64 {
        self.children - self.nspares
    }
    fn rows_per_slice(&self) -> u64 {
        self.width() * self.ngroups / self.disks()
    }
    /// Address space of a group.
    fn group_size(&self) -> u64 {
        self.width() * ROW
    }
    /// What one stripe of single sectors takes: allocations are multiples of it, at multiples of it.
    pub fn unit(&self) -> u64 {
        self.width() << self.ashift
    }
    /// What a block of `psize` bytes takes: whole stripes.
    pub fn psize_to_asize(&self, psize: u64) -> u64 {
        psize.div_ceil(self.ndata << self.ashift) * self.unit()
    }
    /// What of each child the addresses below `asize` reach.
    pub fn child_asize(&self, asize: u64) -> u64 {
        let groups = asize.div_ceil(self.group_size());
        (groups.saturating_mul(self.width())).div_ceil(self.disks()).saturating_mul(ROW)
    }

    /// Which child is at `place` in the order of a slice.
    fn child_at(&self, slice: u64, place: u64) -> usize {
        // Every order serves as many slices as there are children, each time moved on by one.
        let orders = self.orders.len() as u64 / self.children;
        let turn = slice % (orders * self.children);
        let at = turn / self.children * self.children + place;
        let base = self.orders.get(at as usize).copied().unwrap_or(0);
        ((u64::from(base) + turn % self.children) % self.children) as usize
    }

    /// The child that holds what the distributed spare `id` has at `offset`.
    pub fn spare_child(&self, id: u64, offset: u64) -> Option<usize> {
        let slice = offset / (self.rows_per_slice() * ROW);
        (id < self.nspares).then(|| self.child_at(slice, self.children - 1 - id))
    }

    /// Where the sectors of a block are. `None` if no block can begin there.
    pub fn map(&self, offset: u64, len: u64) -> Option<Map> {
        if !offset.is_multiple_of(self.unit()) {
            return None;
        }
        let sectors = len.div_ceil(1 << self.ashift);
        let group = offset / self.group_size();
        let gone = offset % self.group_size() / self.unit();
        let here = sectors.min(((ROW >> self.ashift) - gone) * self.ndata);
        let mut stripes = vec![self.stripe(group, gone, here, 0)];
        if here < sectors {
            stripes.push(self.stripe(group + 1, 0, sectors - here, here));
        }
        Some(Map { stripes, nparity: self.nparity, len: len as usize })
    }

    /// The part of a block in one group: `sectors` data sectors from stripe `gone` of the group on, `before` of
    /// the block's sectors being elsewhere.
    fn stripe(&self, group: u64, gone: u64, sectors: u64, before: u64) -> Stripe {
        let (slice, first) = (group / self.ngroups, group % self.ngroups * self.width());
        let (row, start) = (first / self.disks(), first % self.disks());
        let offset = (slice * self.rows_per_slice() + row) * ROW + (gone << self.ashift);
        let (full, rest) = (sectors / self.ndata, sectors % self.ndata);
        let big = if rest == 0 { 0 } else { rest + self.nparity as u64 };
        let mut at = before;
        let column = |i: u64| {
            let height = full + u64::from(i < big);
            let place = start + i;
            let wrapped = place / self.disks();
            let column = Column {
                child: self.child_at(slice, place % self.disks()),
                offset: offset + wrapped * ROW,
                len: (height << self.ashift) as usize,
                at: (at << self.ashift) as usize,
            };
            if i >= self.nparity as u64 {
                at += height;
            }
            column
        };
        (0..self.width()).map(column).collect()
    }
}

/// The orders for a number of children, if they come out as the format says.
fn orders(children: u64) -> Option<Vec<u8>> {
    let (seed, sum) = *SEEDS.get(usize::try_from(children.checked_sub(CHILDREN_MIN)?).ok()?)?;
    let count = if children < 32 { 256 } else { 512 };
    let mut random = Xoroshiro([SEED, seed]);
    let mut order: Vec<u8> = (0..children as u8).collect();
    let mut all = Vec::with_capacity(order.len() * count);
    for _ in 0..count {
        for j in (1..order.len()).rev() {
            order.swap(j, (random.next() % (j as u64 + 1)) as usize);
        }
        all.extend_from_slice(&order);
    }
    (fletcher4(&all, true)[0] == sum).then_some(all)
}

/// Blackman's and Vigna's xoroshiro128++ (`vdev_draid_rand`).
struct Xoroshiro([u64; 2]);

impl Xoroshiro {
    fn next(&mut self) -> u64 {
        let [a, b] = self.0;
        let mixed = a ^ b;
        self.0 = [a.rotate_left(49) ^ mixed ^ (mixed << 21), mixed.rotate_left(28)];
        a.wrapping_add(b).rotate_left(17).wrapping_add(a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VdevKind;
    use icecore_format::Guid;
    use std::collections::BTreeSet;

    fn draid(nparity: u64, ndata: u64, children: u64, nspares: u64, ashift: u64) -> Draid {
        let mut config = VdevConfig::new(VdevKind::Draid, Guid(1));
        config.nparity = Some(nparity);
        config.draid_ndata = Some(ndata);
        config.draid_nspares = Some(nspares);
        // The fewest groups that fill rows (`draid_config_generate`... any such number does).
        let (width, disks) = (ndata + nparity, children - nspares);
        config.draid_ngroups = (1..=255).find(|n| (width * n).is_multiple_of(disks));
        config.children = (0..children).map(|i| VdevConfig::new(VdevKind::File, Guid(2 + i))).collect();
        Draid::new(&config, ashift).unwrap()
    }

    #[test]
    fn every_table_has_the_sum_openzfs_names() {
        for children in CHILDREN_MIN..=CHILDREN_MAX {
            let orders = orders(children).unwrap_or_else(|| panic!("{children} children"));
            for order in orders.chunks(children as usize) {
                assert_eq!(order.iter().collect::<BTreeSet<_>>().len() as u64, children);
            }
        }
        assert!(orders(1).is_none() && orders(256).is_none());
    }

    /// Blocks one after the other over several slices: every sector of a child is used once, no block has two
    /// columns on one child, and spares lie where no column of their slice does.
    #[test]
    fn no_sector_is_used_twice() {
        for (p, d, c, s, ashift) in [(1, 2, 5, 1, 12), (2, 3, 8, 2, 12), (1, 8, 14, 2, 16), (3, 5, 9, 0, 14)]
        {
            let draid = draid(p, d, c, s, ashift);
            let slice = draid.group_size() * draid.ngroups;
            let end = slice * (c + 1);
            let mut used: BTreeSet<(usize, u64)> = BTreeSet::new();
            let mut at = 0;
            for step in 0_u64.. {
                let len = [16 << 20, 5 << ashift, (d << ashift) * 3, 1 << 20][step as usize % 4];
                let next = at + draid.psize_to_asize(len);
                if next > end {
                    break;
                }
                let map = draid.map(at, len).unwrap();
                let mut bytes = 0;
                for stripe in &map.stripes {
                    let mut children = BTreeSet::new();
                    for (i, column) in stripe.iter().enumerate() {
                        assert!(children.insert(column.child), "two columns on child {}", column.child);
                        let reach = column.offset + column.len as u64;
                        assert!(reach <= draid.child_asize(end));
                        assert_eq!(column.offset / ROW, (reach - u64::from(column.len > 0)) / ROW);
                        for sector in (column.offset..reach).step_by(1 << ashift) {
                            assert!(used.insert((column.child, sector)), "{} {sector:#x}", column.child);
                        }
                        if i >= map.nparity && column.len > 0 {
                            assert_eq!(column.at, bytes);
                            bytes += column.len;
                        }
                        for id in 0..s {
                            assert_ne!(draid.spare_child(id, column.offset), Some(column.child));
                        }
                    }
                }
                assert_eq!(bytes as u64, len);
                at = next;
            }
        }
    }

    #[test]
    fn blocks_begin_at_whole_stripes() {
        let draid = draid(1, 2, 5, 1, 12);
        assert!(draid.map(3 << 12, 4096).is_some());
        assert!(draid.map(1 << 12, 4096).is_none());
        assert!(draid.spare_child(1, 0).is_none());
    }
}
