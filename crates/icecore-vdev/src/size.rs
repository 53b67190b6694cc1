//! Sizes: what of a device is allocatable, and how it is cut into metaslabs. Pure functions.
//!
//! Facts: `vdev_open`, `vdev_metaslab_set_size`, `vdev_ashift_optimize` (vdev.c), `vdev_mirror_open`,
//! `vdev_raidz_open`, `vdev_raidz_psize_to_asize` (vdev_raidz.c), label sizes from vdev_impl.h.

pub use icecore_format::label::{
    END_SIZE, LABEL_SIZE, MIN_DEVICE as SPA_MINDEVSIZE, START_SIZE, usable_size,
};

/// Smallest and largest ashift (`ASHIFT_MIN`, `ASHIFT_MAX`).
pub const ASHIFT_MIN: u64 = 9;
/// See [`ASHIFT_MIN`].
pub const ASHIFT_MAX: u64 = 16;

/// Allocatable bytes of a leaf device of the given size; `None` below [`SPA_MINDEVSIZE`].
#[must_use]
pub fn leaf_asize(device_size: u64) -> Option<u64> {
    let psize = usable_size(device_size);
    (psize >= SPA_MINDEVSIZE).then(|| psize - START_SIZE - END_SIZE)
}

/// Allocatable bytes of a mirror whose children have these: the least.
#[must_use]
pub fn mirror_asize(children: impl IntoIterator<Item = u64>) -> Option<u64> {
    children.into_iter().min().map(|a| a - a % LABEL_SIZE)
}

/// Allocatable bytes of a raidz whose children have these: the least, times their number; parity is
/// counted in the allocations.
#[must_use]
pub fn raidz_asize(children: &[u64]) -> Option<u64> {
    let total = children.iter().min()?.checked_mul(children.len() as u64)?;
    Some(total - total % LABEL_SIZE)
}

/// What a block of `psize` bytes takes of a plain leaf or mirror.
#[must_use]
pub fn psize_to_asize(psize: u64, ashift: u64) -> u64 {
    round_up(psize, 1 << ashift)
}

/// What a block of `psize` bytes takes of a raidz of `width` children: data sectors, a parity sector for
/// each row and parity device, and padding to a multiple of `nparity + 1` sectors.
#[must_use]
pub fn raidz_psize_to_asize(psize: u64, ashift: u64, width: u64, nparity: u64) -> u64 {
    assert!(nparity > 0 && width > nparity, "a raidz has data and parity");
    let data = psize_to_asize(psize, ashift) >> ashift;
    let parity = nparity * data.div_ceil(width - nparity);
    (data + parity).next_multiple_of(nparity + 1) << ashift
}

/// log2 of the metaslab size, and how many whole ones there are, for a new top-level vdev.
#[must_use]
pub fn metaslab_geometry(asize: u64) -> (u64, u64) {
    const COUNT_MIN: u64 = 16;
    const COUNT_DEFAULT: u64 = 200;
    const COUNT_MAX: u64 = 1 << 17;
    const SHIFT_MIN: u64 = 24; // the largest block must fit (SPA_MAXBLOCKSHIFT)
    const SHIFT_DEFAULT: u64 = 29;
    const SHIFT_MAX: u64 = 34;
    let count = asize >> SHIFT_DEFAULT;
    let mut shift = if count < COUNT_MIN {
        bits(asize / COUNT_MIN)
    } else if count > COUNT_DEFAULT {
        bits(asize / COUNT_DEFAULT)
    } else {
        SHIFT_DEFAULT
    };
    if shift < SHIFT_MIN {
        shift = SHIFT_MIN;
    } else if shift > SHIFT_MAX {
        shift = SHIFT_MAX;
        if asize >> shift > COUNT_MAX {
            shift = bits(asize / COUNT_MAX);
        }
    }
    (shift, asize >> shift)
}

/// The ashift of a new top-level vdev from the sector sizes of its leaves (logical, physical), unless asked
/// for: the largest logical one, raised to the physical one where that is at most 14.
#[must_use]
pub fn choose_ashift(sectors: &[(u32, u32)], asked: Option<u64>) -> u64 {
    let log2 = |bytes: u32| u64::from(bytes.max(1).ilog2());
    let logical = sectors.iter().map(|s| log2(s.0)).max().unwrap_or(ASHIFT_MIN).max(ASHIFT_MIN);
    // Of physical sizes beyond 16 KiB (flash erase blocks) we want nothing.
    let physical = sectors.iter().map(|s| log2(s.1)).filter(|p| *p <= 14).max().unwrap_or(logical);
    match asked {
        Some(a) if a >= logical => a,
        _ => logical.max(physical),
    }
}

/// Number of significant bits (`highbit64`).
fn bits(n: u64) -> u64 {
    u64::from(u64::BITS - n.leading_zeros())
}

fn round_up(n: u64, to: u64) -> u64 {
    n.checked_add(to - 1).map_or(u64::MAX - (to - 1), |n| n - n % to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_openzfs_wrote_into_labels() {
        // (file size, asize) of main.img and rz1-0.img of the zoo
        assert_eq!(leaf_asize(268_435_456), Some(263_716_864));
        assert_eq!(leaf_asize(83_886_080), Some(79_167_488));
        assert_eq!(leaf_asize((64 << 20) - 1), None);
        assert_eq!(raidz_asize(&[79_167_488; 3]), Some(237_502_464));
        assert_eq!(mirror_asize([79_167_488, 263_716_864]), Some(79_167_488));
    }

    #[test]
    fn metaslabs_are_cut_as_openzfs_does() {
        assert_eq!(metaslab_geometry(263_716_864), (24, 15));
        assert_eq!(metaslab_geometry(79_167_488), (24, 4));
        // The table in vdev_metaslab_set_size's comment: 8 GiB to 100 GiB one per 512 MiB, then about 200.
        assert_eq!(metaslab_geometry(64 << 30), (29, 128));
        assert_eq!(metaslab_geometry(1 << 40), (33, 128));
        assert_eq!(metaslab_geometry(1 << 50), (34, 1 << 16));
        assert_eq!(metaslab_geometry(1 << 53), (37, 1 << 16));
    }

    #[test]
    fn raidz_allocations_are_padded() {
        assert_eq!(raidz_psize_to_asize(4096, 12, 3, 1), 8192);
        assert_eq!(raidz_psize_to_asize(8192, 12, 3, 1), 4 * 4096);
        assert_eq!(raidz_psize_to_asize(131_072, 12, 3, 1), 48 * 4096);
        assert_eq!(raidz_psize_to_asize(512, 9, 4, 2), 3 * 512);
    }

    #[test]
    fn ashift_follows_the_largest_sector() {
        assert_eq!(choose_ashift(&[(512, 512)], None), 9);
        assert_eq!(choose_ashift(&[(512, 4096), (512, 512)], None), 12);
        assert_eq!(choose_ashift(&[(512, 1 << 20)], None), 9);
        assert_eq!(choose_ashift(&[(512, 512)], Some(12)), 12);
        assert_eq!(choose_ashift(&[(4096, 4096)], Some(9)), 12);
    }
}
