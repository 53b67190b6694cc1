//! GPT: finding ZFS partitions on a whole disk, and partitioning one the way `zpool create` does.
//!
//! Facts: the UEFI specification (GPT header, entries, CRCs); OpenZFS's layout of a whole disk from
//! `zpool_label_disk` (libzfs_pool_os.c), `efi_alloc_and_init`, `efi_write` and `write_pmbr` (rdwr_efi.c).
//!
//! Invariants:
//! 1. A table is believed only if both its CRCs hold and it says where it is; the backup stands in for a
//!    damaged primary.
//! 2. Partitions lie within the device, in whole blocks; at most [`ENTRIES_MAX`] entries are looked at.
//! 3. The table is written entries first, headers after them, the backup before the primary.

use std::sync::Arc;

use icecore_env::{Device, DeviceError, Entropy, SubDevice};

use crate::SPA_MINDEVSIZE;

/// A GUID in the byte order GPT stores it.
pub type GptGuid = [u8; 16];

/// Partition type of ZFS data (`EFI_USR`, efi_partition.h): 6A898CC3-1DD2-11B2-99A6-080020736631.
pub const TYPE_ZFS: GptGuid =
    [0xc3, 0x8c, 0x89, 0x6a, 0xd2, 0x1d, 0xb2, 0x11, 0x99, 0xa6, 0x08, 0x00, 0x20, 0x73, 0x66, 0x31];
/// Partition type of the reserved partition 9 (`EFI_RESERVED`): 6A945A3B-1DD2-11B2-99A6-080020736631.
pub const TYPE_RESERVED: GptGuid =
    [0x3b, 0x5a, 0x94, 0x6a, 0xd2, 0x1d, 0xb2, 0x11, 0x99, 0xa6, 0x08, 0x00, 0x20, 0x73, 0x66, 0x31];
/// FreeBSD's type for ZFS: 516E7CBA-6ECF-11D6-8FF8-00022D09712B.
pub const TYPE_FREEBSD_ZFS: GptGuid =
    [0xba, 0x7c, 0x6e, 0x51, 0xcf, 0x6e, 0xd6, 0x11, 0x8f, 0xf8, 0x00, 0x02, 0x2d, 0x09, 0x71, 0x2b];

/// Most entries looked at; tables of 128 are the rule.
pub const ENTRIES_MAX: u32 = 1024;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_SIZE: usize = 92;
const ENTRY_SIZE: usize = 128;
const ENTRIES: usize = 128;
const ARRAY_SIZE: usize = ENTRY_SIZE * ENTRIES;
/// First block and alignment of the data partition, and the size of the reserved one, in 512-byte blocks
/// (`NEW_START_BLOCK`, `PARTITION_END_ALIGNMENT`, `EFI_MIN_RESV_SIZE`).
const START: u64 = 2048;
const END_ALIGNMENT: u64 = 2048;
const RESERVED: u64 = 16384;

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for.
    pub kind: GptGuid,
    /// Its identity.
    pub guid: GptGuid,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Its name.
    pub name: String,
}

impl Partition {
    /// Whether its type says it holds a pool's device.
    #[must_use]
    pub fn is_zfs(&self) -> bool {
        self.kind == TYPE_ZFS || self.kind == TYPE_FREEBSD_ZFS
    }
}

/// A partition table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gpt {
    /// Block size its numbers count in.
    pub block: u32,
    /// The disk's identity.
    pub disk: GptGuid,
    /// Whether it was read from the end of the disk, the primary being damaged.
    pub from_backup: bool,
    /// In table order, unused entries left out.
    pub partitions: Vec<Partition>,
}

/// The device's partition table, if it has a sound one. A device error counts as none: probing goes on.
#[must_use]
pub fn read(device: &dyn Device) -> Option<Gpt> {
    let mut blocks = vec![device.sector(), 512, 4096];
    blocks.dedup();
    let ok = |block: &u32| *block >= 512 && device.size() / u64::from(*block) > 8;
    blocks.retain(ok);
    let primary = blocks.iter().find_map(|block| read_at(device, *block, 1));
    primary.or_else(|| {
        let backup =
            blocks.iter().find_map(|block| read_at(device, *block, device.size() / u64::from(*block) - 1));
        backup.map(|gpt| Gpt { from_backup: true, ..gpt })
    })
}

/// The ZFS partitions of a disk as devices named `DISK-partN`; empty if it has none.
#[must_use]
pub fn zfs_partitions(device: &Arc<dyn Device>) -> Vec<SubDevice> {
    let Some(gpt) = read(&**device) else { return Vec::new() };
    let zfs = gpt.partitions.iter().filter(|p| p.is_zfs());
    zfs.filter_map(|p| SubDevice::new(device.clone(), p.start, p.len, &format!("-part{}", p.number)).ok())
        .collect()
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|c| u32::from_le_bytes(*c))
}
fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..)?.first_chunk().map(|c| u64::from_le_bytes(*c))
}
fn guid_at(b: &[u8], at: usize) -> Option<GptGuid> {
    b.get(at..)?.first_chunk().copied()
}

fn read_at(device: &dyn Device, block: u32, lba: u64) -> Option<Gpt> {
    let bytes = u64::from(block);
    let mut header = vec![0; block as usize];
    device.read_at(lba.checked_mul(bytes)?, &mut header).ok()?;
    if !header.starts_with(SIGNATURE) || u64_at(&header, 24)? != lba {
        return None;
    }
    let size = u32_at(&header, 12)? as usize;
    if !(HEADER_SIZE..=header.len()).contains(&size) {
        return None;
    }
    let wanted = u32_at(&header, 16)?;
    header.get_mut(16..20)?.fill(0);
    if crc32(header.get(..size)?) != wanted {
        return None;
    }
    let (entries_lba, count, entry_size) = (u64_at(&header, 72)?, u32_at(&header, 80)?, u32_at(&header, 84)?);
    if count > ENTRIES_MAX || !(128..=4096).contains(&entry_size) || entry_size % 8 != 0 {
        return None;
    }
    let mut array = vec![0; count as usize * entry_size as usize];
    device.read_at(entries_lba.checked_mul(bytes)?, &mut array).ok()?;
    if crc32(&array) != u32_at(&header, 88)? {
        return None;
    }
    let entries = array.chunks_exact(entry_size as usize).zip(1..);
    let partitions = entries.filter_map(|(e, number)| partition(e, number, bytes, device.size()));
    Some(Gpt { block, disk: guid_at(&header, 56)?, from_backup: false, partitions: partitions.collect() })
}

fn partition(entry: &[u8], number: u32, block: u64, disk: u64) -> Option<Partition> {
    let kind = guid_at(entry, 0)?;
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    if kind == [0; 16] || last < first {
        return None;
    }
    let start = first.checked_mul(block)?;
    let end = last.checked_add(1)?.checked_mul(block)?;
    if end > disk {
        return None;
    }
    let units = entry.get(56..128)?.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c));
    let name: Vec<u16> = units.take_while(|u| *u != 0).collect();
    Some(Partition {
        number,
        kind,
        guid: guid_at(entry, 16)?,
        start,
        len: end - start,
        name: String::from_utf16_lossy(&name),
    })
}

/// Where [`write()`] would put the data partition of a disk: first byte and length. `None` if less than the
/// smallest device would be left.
#[must_use]
pub fn data_partition(size: u64, block: u32) -> Option<(u64, u64)> {
    let layout = Layout::of(size, block)?;
    Some((layout.start * layout.block, layout.len * layout.block))
}

struct Layout {
    block: u64,
    last: u64,
    first_usable: u64,
    last_usable: u64,
    start: u64,
    len: u64,
    reserved: u64,
}

impl Layout {
    fn of(size: u64, block: u32) -> Option<Self> {
        let block = u64::from(block);
        if !block.is_power_of_two() || !(512..=16384).contains(&block) {
            return None;
        }
        let array_blocks = ARRAY_SIZE as u64 / block;
        let last = (size / block).checked_sub(1)?;
        let last_usable = last.checked_sub(array_blocks + 1)?;
        let scale = block / 512;
        let (start, reserved) = (START / scale, RESERVED / scale);
        let room = (last_usable + 1).checked_sub(reserved)?.checked_sub(start)?;
        let len = room - room % END_ALIGNMENT;
        if len * block < SPA_MINDEVSIZE {
            return None;
        }
        Some(Self { block, last, first_usable: array_blocks + 2, last_usable, start, len, reserved })
    }

    fn header(&self, own: u64, other: u64, entries: u64, disk: &GptGuid, array: &[u8]) -> Vec<u8> {
        let mut h = Vec::with_capacity(self.block as usize);
        h.extend_from_slice(SIGNATURE);
        h.extend_from_slice(&0x0001_0000_u32.to_le_bytes());
        h.extend_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
        h.extend_from_slice(&[0; 8]);
        for lba in [own, other, self.first_usable, self.last_usable] {
            h.extend_from_slice(&lba.to_le_bytes());
        }
        h.extend_from_slice(disk);
        h.extend_from_slice(&entries.to_le_bytes());
        for n in [ENTRIES as u32, ENTRY_SIZE as u32, crc32(array)] {
            h.extend_from_slice(&n.to_le_bytes());
        }
        assert!(h.len() == HEADER_SIZE, "the header's fields fill it");
        let crc = crc32(&h);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h.resize(self.block as usize, 0);
        h
    }
}

/// Partitions a whole disk for ZFS: partition 1 for the pool, partition 9 of 8 MiB reserved. Everything
/// the disk held is as good as gone. Gives the data partition.
pub fn write(device: &Arc<dyn Device>, entropy: &dyn Entropy) -> Result<SubDevice, DeviceError> {
    let too_small = || {
        let why = format!("{} bytes leave no room for a partition of 64 MiB", device.size());
        DeviceError::new(icecore_env::What::NoSpace, device.name(), why)
    };
    let layout = Layout::of(device.size(), device.sector()).ok_or_else(too_small)?;
    let name = format!("zfs-{:016x}", entropy.u64());
    let mut array = vec![0; ARRAY_SIZE];
    let reserved_at = layout.start + layout.len;
    put_entry(&mut array, 0, &TYPE_ZFS, &random_guid(entropy), layout.start, layout.len, &name);
    put_entry(&mut array, 8, &TYPE_RESERVED, &random_guid(entropy), reserved_at, layout.reserved, "");
    let disk = random_guid(entropy);

    let backup_array = layout.last_usable + 1;
    let backup = layout.header(layout.last, 1, backup_array, &disk, &array);
    let primary = layout.header(1, layout.last, 2, &disk, &array);
    device.write_at(backup_array * layout.block, &array)?;
    device.write_at(layout.last * layout.block, &backup)?;
    device.write_at(2 * layout.block, &array)?;
    device.write_at(layout.block, &primary)?;
    device.write_at(0, &protective_mbr(&**device, &layout)?)?;
    device.flush()?;
    SubDevice::new(device.clone(), layout.start * layout.block, layout.len * layout.block, "-part1")
}

fn put_entry(array: &mut [u8], i: usize, kind: &GptGuid, id: &GptGuid, start: u64, len: u64, name: &str) {
    let entry = &mut array[i * ENTRY_SIZE..][..ENTRY_SIZE];
    entry[..16].copy_from_slice(kind);
    entry[16..32].copy_from_slice(id);
    entry[32..40].copy_from_slice(&start.to_le_bytes());
    entry[40..48].copy_from_slice(&(start + len - 1).to_le_bytes());
    for (unit, to) in name.encode_utf16().take(35).zip(entry[56..].as_chunks_mut::<2>().0) {
        *to = unit.to_le_bytes();
    }
}

/// A random (version 4) GUID.
fn random_guid(entropy: &dyn Entropy) -> GptGuid {
    let mut g = [0; 16];
    entropy.fill(&mut g);
    g[7] = (g[7] & 0x0f) | 0x40; // the version sits in the high byte of the third, little-endian field
    g[8] = (g[8] & 0x3f) | 0x80;
    g
}

/// Boot code of an existing MBR stays, its partitions go.
fn protective_mbr(device: &dyn Device, layout: &Layout) -> Result<Vec<u8>, DeviceError> {
    let mut mbr = vec![0; layout.block as usize];
    device.read_at(0, &mut mbr)?;
    if mbr[510..512] != [0x55, 0xaa] {
        mbr.fill(0);
        mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    }
    mbr[512..].fill(0);
    mbr[446..510].fill(0);
    let last = u32::try_from(layout.last).unwrap_or(u32::MAX);
    let entry = [0, 0xff, 0xff, 0xff, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    mbr[446..458].copy_from_slice(&entry);
    mbr[458..462].copy_from_slice(&last.to_le_bytes());
    Ok(mbr)
}

/// CRC-32 as Ethernet and GPT have it.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut bit = 0;
            while bit < 8 {
                c = if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 };
                bit += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |c: u32, b| TABLE[((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore_sim::{SimDisk, SimEntropy};

    #[test]
    fn crc_of_the_standard_example() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_disk_partitioned_here_reads_back_as_openzfs_lays_it_out() {
        for (sector, size) in [(512, 256 << 20), (4096, 300 << 20)] {
            let disk = Arc::new(SimDisk::with_sector("disk", size, sector));
            let device: Arc<dyn Device> = disk.clone();
            let data = write(&device, &SimEntropy::new(1)).unwrap();
            let gpt = read(&*device).unwrap();
            assert_eq!(gpt.block, sector);
            assert_eq!(gpt.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 9]);
            let (p1, p9) = (&gpt.partitions[0], &gpt.partitions[1]);
            assert_eq!((p1.start, p1.len), data_partition(size, sector).unwrap());
            assert_eq!((p1.start, p1.len), (1 << 20, data.size()));
            assert_eq!((p9.start, p9.len), (p1.start + p1.len, 8 << 20));
            assert!(p1.name.starts_with("zfs-") && p1.name.len() == 20);
            assert_eq!(zfs_partitions(&device).len(), 1);

            // Any damage to the primary is seen, and the backup stands in.
            for at in [u64::from(sector), u64::from(sector) + 60, 2 * u64::from(sector) + 40] {
                disk.flip(at, 3);
                let again = read(&*device).unwrap();
                assert!(again.from_backup);
                assert_eq!(again.partitions, gpt.partitions);
                disk.flip(at, 3);
            }
            disk.flip(u64::from(sector), 0);
            disk.flip(size - u64::from(sector), 0);
            assert_eq!(read(&*device), None);
        }
    }

    #[test]
    fn small_disks_are_refused() {
        let device: Arc<dyn Device> = Arc::new(SimDisk::new("disk", 70 << 20));
        assert!(write(&device, &SimEntropy::new(1)).is_err());
        assert!(
            write(&(Arc::new(SimDisk::new("disk", 1024)) as Arc<dyn Device>), &SimEntropy::new(1)).is_err()
        );
    }

    #[test]
    fn senseless_tables_with_good_checksums_do_no_harm() {
        let disk = Arc::new(SimDisk::new("disk", 256 << 20));
        let device: Arc<dyn Device> = disk.clone();
        write(&device, &SimEntropy::new(1)).unwrap();
        let (mut header, mut array) = (vec![0; 512], vec![0; ARRAY_SIZE]);
        disk.peek(512, &mut header);
        disk.peek(1024, &mut array);
        let mut rng = icecore_sim::Rng::new(5);
        let mut kept = 0;
        for _ in 0..3000 {
            let (mut h, mut a) = (header.clone(), array.clone());
            for _ in 0..=rng.below(3) {
                let value = [0, 0xff, 0x80, rng.u64() as u8][rng.below(4) as usize];
                a[rng.below(9 * 128) as usize] = value;
                if rng.one_in(2) {
                    h[24 + rng.below(68) as usize] = value;
                }
            }
            h[88..92].copy_from_slice(&crc32(&a).to_le_bytes());
            h[16..20].fill(0);
            let crc = crc32(&h[..HEADER_SIZE]);
            h[16..20].copy_from_slice(&crc.to_le_bytes());
            disk.poke(512, &h);
            disk.poke(1024, &a);
            let gpt = read(&*device).expect("the backup is sound");
            kept += usize::from(!gpt.from_backup);
            for p in &gpt.partitions {
                assert!(p.start.checked_add(p.len).is_some_and(|end| end <= device.size()) && p.len > 0);
            }
            assert!(zfs_partitions(&device).len() <= gpt.partitions.len());
        }
        assert!(kept > 500, "many of them were believed: {kept}");
    }
}
