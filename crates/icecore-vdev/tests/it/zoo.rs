//! Devices made by real OpenZFS, in a folder of decompressed images that `ICECORE_ZOO` names. Without it
//! these tests say so and do nothing.

use std::path::{Path, PathBuf};

use icecore_env::{Access, OsWorkers, scan};
use icecore_vdev::PoolState;
use icecore_vdev::probe::{FoundPool, Unused, assemble, probe};
use icecore_vdev::tree::Health;

fn zoo() -> Option<PathBuf> {
    let dir = std::env::var_os("ICECORE_ZOO").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("SKIPPED: ICECORE_ZOO does not name a folder of decompressed zoo images");
    }
    dir
}

/// An image in the folder or one therein.
fn locate(dir: &Path, file: &str) -> PathBuf {
    let mut places = folders(dir).into_iter().map(|d| d.join(file));
    places
        .find(|p| p.exists())
        .unwrap_or_else(|| panic!("no {file} in {} or a folder therein", dir.display()))
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let below = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    std::iter::once(dir.to_path_buf()).chain(below).collect()
}

fn found(names: &[&str]) -> Option<Vec<FoundPool>> {
    let dir = zoo()?;
    let paths: Vec<PathBuf> = names.iter().map(|n| locate(&dir, &format!("{n}.img"))).collect();
    let probe = probe(&paths, &OsWorkers::default());
    assert!(probe.unreadable.is_empty());
    Some(assemble(&probe.candidates).0)
}

#[test]
fn every_image_parses_and_serialises_to_the_same_nvlist() {
    let Some(dir) = zoo() else { return };
    let paths = scan::candidates(&folders(&dir));
    let images: Vec<PathBuf> =
        paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "img")).collect();
    let probe = probe(&images, &OsWorkers::default());
    assert!(probe.candidates.len() >= images.len() - 1 && probe.candidates.len() > 30);
    for c in &probe.candidates {
        assert_eq!(c.labels.good().count(), 4, "{}", c.name());
        for (_, config) in c.labels.good() {
            assert_eq!(config.to_nvlist(), *config.raw(), "{}", c.name());
            let packed = config.to_nvlist().encode_xdr();
            assert!(!packed.is_empty());
        }
        assert!(c.uberblock.is_some(), "{}", c.name());
    }
}

#[test]
fn every_pool_of_the_zoo_is_put_together() {
    let Some(dir) = zoo() else { return };
    let probe = probe(&scan::candidates(&folders(&dir)), &OsWorkers::default());
    let (pools, aux) = assemble(&probe.candidates);
    assert!(aux.is_empty());
    for p in &pools {
        eprintln!(
            "{} {} {} {} txg {:?} devices {} absent {} left over {} stale {} complete {}",
            p.name,
            p.guid,
            p.state,
            p.health(),
            p.uberblock,
            p.devices.len(),
            p.absent.len(),
            p.left_over.len(),
            p.stale.len(),
            p.complete,
        );
        assert!(p.devices.len() + p.absent.len() > 0);
    }
    let names: Vec<&str> = pools.iter().map(|p| p.name.as_str()).collect();
    for name in
        ["main", "v28", "rz1", "rz2", "rz3", "dr", "special", "removed", "expanded", "mir3", "gptdisk"]
    {
        assert!(names.contains(&name), "{name} is among {names:?}");
    }
}

#[test]
fn mirrors_are_whole_and_a_stale_side_is_known() {
    let Some(pools) = found(&["m3-2", "m3-0", "m3-1"]) else { return };
    let [pool] = pools.as_slice() else { panic!() };
    assert_eq!(pool.name, "mir3");
    assert_eq!(
        pool.uberblock.unwrap().uberblock.guid_sum.get(),
        pool.config.vdev_tree.as_ref().unwrap().guid_sum()
    );
    assert!(pool.complete);
    // m3-2 was taken offline: it is named as such and not read from.
    assert_eq!(pool.health(), Health::Degraded);
    assert_eq!(pool.absent.len(), 1);
    assert_eq!(pool.absent[0].why, "taken out of service");
    assert_eq!(pool.stale.len(), 1);
}

#[test]
fn a_partitioned_disk_is_looked_into() {
    let Some(pools) = found(&["gptdisk"]) else { return };
    let pool = &pools[0];
    assert_eq!((pool.name.as_str(), pool.health()), ("gptdisk", Health::Online));
    let source = pool.devices.values().next().unwrap().source.clone().unwrap();
    assert_eq!(source.window.unwrap().0, 2048 * 512);
    assert_eq!(pool.state, PoolState::EXPORTED);
    let again = pool.reopen(Access::ReadOnly).unwrap();
    assert_eq!(again.uberblocks()[0].txg(), pool.uberblock.unwrap().txg());
}

#[test]
fn a_power_cut_leaves_the_pool_active() {
    let Some(pools) = found(&["dirty"]) else { return };
    assert_eq!(pools[0].state, PoolState::ACTIVE);
    assert_eq!(pools[0].other_host(1).map(|h| h.1), Some("vmhost"));
    assert_eq!(pools[0].other_host(1_072_962), None);
}

#[test]
fn a_pool_without_one_of_its_stripes_says_which() {
    let Some(pools) = found(&["sp-1", "sp-2"]) else { return };
    let pool = &pools[0];
    assert_eq!(pool.health(), Health::Unavail);
    assert!(!pool.complete);
    assert_eq!(pool.vdevs.tops().len(), 3);
}

#[test]
fn raidz_degrades_and_a_copy_is_a_duplicate() {
    let Some(pools) = found(&["rz2-0", "rz2-1"]) else { return };
    assert_eq!(pools[0].health(), Health::Degraded);
    assert_eq!(pools[0].absent.len(), 2);
    let Some(pools) = found(&["main", "main"]) else { return };
    assert_eq!(pools[0].left_over[0].why, Unused::Duplicate);
    assert_eq!(pools[0].health(), Health::Online);
}

/// Reads the MOS of a pool by all of its pointer's DVAs with some devices left out.
fn read_mos(names: &[&str]) -> Option<()> {
    for pool in found(names)? {
        let bp = pool.uberblock.unwrap().uberblock.rootbp;
        assert_eq!(bp.dvas().len(), 3, "{}", pool.name);
        for dva in bp.dvas() {
            let verify = &mut |b: &[u8]| icecore_transform::checksum::verify(&bp, b, None).is_ok();
            let read = pool.vdevs.read(dva, bp.psize(), verify).unwrap_or_else(|e| panic!("{names:?}: {e}"));
            assert!(read.bad.is_empty());
            let read = pool.vdevs.scrub(dva, bp.psize(), None, verify).unwrap();
            assert!(read.bad.is_empty(), "parity by OpenZFS equals ours: {:?}", read.bad);
        }
    }
    Some(())
}

#[test]
fn the_mos_of_every_layout_reads_with_as_many_devices_gone_as_it_allows() {
    for set in [
        &["main"][..],
        &["v28"],
        &["dirty"],
        &["m-0", "m-1"],
        &["m-0"],
        &["m-1"],
        &["m3-1", "m3-2"],
        &["st-0", "st-1"],
        &["sp-0", "sp-1", "sp-2"],
        &["rz1-0", "rz1-1", "rz1-2"],
        &["rz1-1", "rz1-2"],
        &["rz1-0", "rz1-2"],
        &["rz1-0", "rz1-1"],
        &["rz2-0", "rz2-1", "rz2-2", "rz2-3"],
        &["rz2-0", "rz2-1"],
        &["rz2-2", "rz2-3"],
        &["rz2-0", "rz2-3"],
        &["rz3-0", "rz3-1", "rz3-2", "rz3-3", "rz3-4"],
        &["rz3-0", "rz3-1"],
        &["rz3-3", "rz3-4"],
        &["rz3-1", "rz3-3"],
        &["ex-0", "ex-1", "ex-2", "ex-3"],
        &["ex-1", "ex-2", "ex-3"],
        &["ex-0", "ex-1", "ex-2"],
        &["dr-0", "dr-1", "dr-2", "dr-3", "dr-4"],
        &["dr-1", "dr-2", "dr-3", "dr-4"],
        &["dr-0", "dr-1", "dr-2", "dr-3"],
        &["dr-0", "dr-1", "dr-3", "dr-4"],
    ] {
        if read_mos(set).is_none() {
            return;
        }
    }
}

#[test]
fn blocks_born_before_a_raidz_expansion_read_in_their_old_shape() {
    // (offset, physical size, fletcher4) of file blocks of expanded/data as zdb prints them; born in txg 9,
    // the expansion was in txg 40.
    let blocks: [(u64, u64, [u64; 4]); 5] = [
        (
            0xbe000,
            0x10000,
            [0x878_ae64_efd6, 0x0123_d8a5_a24f_1322, 0x93e3_d889_fd3a_4132, 0x6379_0e94_f339_cb49],
        ),
        (
            0xd6000,
            0xd000,
            [0x6e7_334e_314d, 0x00b8_5412_0e2c_6d67, 0x827e_11e0_cebb_9418, 0xcec3_d960_721b_4ee7],
        ),
        (
            0x11c000,
            0x20000,
            [0x400b_e699_6518, 0x1008_712e_1391_cefb, 0x17c4_0350_ce3b_470c, 0x8779_13c9_f74b_7943],
        ),
        (
            0x1ac000,
            0x20000,
            [0x4065_ca81_e5c4, 0x100b_7eec_e79c_5f45, 0xe9aa_c98a_b445_a599, 0x5057_fb1f_d0a7_3d96],
        ),
        (
            0x20c000,
            0x20000,
            [0x3ffd_3967_1f02, 0x1009_040f_2277_2db7, 0xb8b8_aab8_aecb_f01c, 0x35fe_52e2_9542_225c],
        ),
    ];
    for names in [
        &["ex-0", "ex-1", "ex-2", "ex-3"][..],
        &["ex-1", "ex-2", "ex-3"],
        &["ex-0", "ex-2", "ex-3"],
        &["ex-0", "ex-1", "ex-3"],
        &["ex-0", "ex-1", "ex-2"],
    ] {
        let Some(pools) = found(names) else { return };
        for (offset, psize, sum) in blocks {
            let verify = &mut |b: &[u8]| icecore_transform::checksum::fletcher::fletcher4(b, true) == sum;
            let dva = icecore_format::Dva::new(0, offset, 0x2000, false);
            let read = pools[0].vdevs.read(&dva, psize, verify).unwrap();
            assert!(read.bad.is_empty());
            let scrub = pools[0].vdevs.scrub(&dva, psize, None, verify).unwrap();
            assert!(scrub.bad.is_empty(), "{:?}", scrub.bad);
        }
    }
}
