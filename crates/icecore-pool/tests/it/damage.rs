//! Damage: rot anywhere is found or repaired, never believed and never a panic; going back in time works.

use crate::support::{create, disks, env, host, judge, open};
use icecore_dmu::BlockStore;
use icecore_env::Device;
use icecore_format::{ObjectId, Txg};
use icecore_pool::{Host, Mode, OpenSpec, Pool, PoolError};
use icecore_sim::{Rng, SimDisk};
use icecore_vdev::create::NewKind;
use std::sync::Arc;

fn made(disks: &[Arc<SimDisk>], kind: NewKind, commits: u32) -> Pool {
    let mut pool = create(env(1), "rot", disks, kind, 12);
    for _ in 0..commits {
        let path = format!("rot/fs{}", pool.io().txg());
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, &path, &[]).unwrap();
        pool.commit().unwrap();
    }
    pool
}

/// Reads the whole MOS; the number of objects, or the first error.
fn read_all(pool: &Pool) -> Result<u64, String> {
    let (mos, io): (_, &dyn BlockStore) = (&pool.dsl.mos, pool.io());
    let (mut at, mut count) = (ObjectId(0), 0);
    while let Some(object) = mos.next_object(io, at).map_err(|e| e.to_string())? {
        at = object;
        count += 1;
        let dn = mos.dnode(io, object).map_err(|e| e.to_string())?;
        for blkid in 0..=dn.maxblkid() {
            mos.block(io, object, &dn, blkid).map_err(|e| e.to_string())?;
        }
    }
    Ok(count)
}

#[test]
fn one_rotten_side_of_a_mirror_is_repaired() {
    let disks = disks(2, 80 << 20);
    let count = read_all(&made(&disks, NewKind::Mirror, 4)).unwrap();
    let mut rng = Rng::new(4);
    for _ in 0..20_000 {
        disks[1].flip((4 << 20) + rng.below(40 << 20), rng.below(8) as u8);
    }
    let pool = open(env(2), &disks, Mode::ReadOnly).unwrap();
    assert_eq!(read_all(&pool), Ok(count));
}

#[test]
fn rot_without_redundancy_never_panics() {
    let disks = disks(1, 80 << 20);
    drop(made(&disks, NewKind::Single, 4));
    let (mut opened, mut whole) = (0, 0);
    for seed in 0..60 {
        let rotten = vec![Arc::new(disks[0].fork())];
        let mut rng = Rng::new(seed);
        for _ in 0..1 << (seed % 12) {
            rotten[0].flip(rng.below(12 << 20), rng.below(8) as u8);
        }
        let Ok(mut pool) = open(env(2), &rotten, Mode::Write) else { continue };
        opened += 1;
        whole += u32::from(read_all(&pool).is_ok());
        let (io, dsl) = pool.parts();
        let _ = dsl.create_filesystem(io, "rot/more", &[]);
        let _ = pool.commit();
    }
    assert!(opened > 10 && whole > 10, "{opened} opened, {whole} whole");
}

#[test]
fn going_back_and_on() {
    let disks = disks(1, 80 << 20);
    let last = made(&disks, NewKind::Single, 5).synced();
    let spec = |max_txg| OpenSpec {
        devices: disks.iter().map(|d| d.clone() as Arc<dyn Device>).collect(),
        pool: Some("rot".into()),
        mode: Mode::Write,
        force: false,
        host: host(),
        max_txg,
    };
    let mut pool = Pool::open(env(3), spec(Some(Txg(last.0 - 1)))).unwrap();
    assert_eq!(pool.synced().0, last.0 - 1);
    let (io, dsl) = pool.parts();
    assert!(dsl.lookup_dataset(io, &format!("rot/fs{last}")).is_err());
    dsl.create_filesystem(io, "rot/instead", &[]).unwrap();
    assert!(pool.commit().unwrap() > last);
    drop(pool);
    let mut pool = Pool::open(env(3), spec(None)).unwrap();
    let (io, dsl) = pool.parts();
    assert!(dsl.lookup_dataset(io, "rot/instead").is_ok());
    judge("rot", &disks);
}

#[test]
fn another_hosts_pool_needs_force() {
    let disks = disks(1, 80 << 20);
    drop(made(&disks, NewKind::Single, 1));
    let spec = |force| OpenSpec {
        devices: vec![disks[0].clone() as Arc<dyn Device>],
        pool: None,
        mode: Mode::Write,
        force,
        host: Host { id: 99, name: "other".into() },
        max_txg: None,
    };
    assert!(matches!(Pool::open(env(3), spec(false)), Err(PoolError::InUse { hostid: 0x1234, .. })));
    Pool::open(env(3), spec(true)).unwrap().export().unwrap();
    open(env(4), &disks, Mode::Write).unwrap();
}

/// Half a mirror is written to; the other half's time log says what it missed, and it is left alone when it
/// comes back.
#[test]
fn half_a_mirror() {
    let disks = disks(2, 80 << 20);
    drop(made(&disks, NewKind::Mirror, 2));
    let add = |pool: &mut Pool, name: &str| {
        let (io, dsl) = pool.parts();
        dsl.create_filesystem(io, name, &[]).unwrap();
        pool.commit().unwrap().0
    };
    let before = disks[1].fingerprint();
    let mut pool = open(env(5), &disks[..1], Mode::Write).unwrap();
    assert_eq!(pool.missing().len(), 1);
    let first = add(&mut pool, "rot/without");
    add(&mut pool, "rot/without2");
    drop(pool);
    let mut pool = open(env(6), &disks, Mode::Write).unwrap();
    assert_eq!(pool.missing().len(), 1);
    let last = add(&mut pool, "rot/still");
    assert_eq!(disks[1].fingerprint(), before);
    let leaf = *pool.missing().first().unwrap();
    let dtl = pool.config().vdev_tree.as_ref().unwrap().find(leaf).unwrap().dtl.unwrap();
    let (io, mos): (&dyn BlockStore, _) = (pool.io(), &pool.dsl.mos);
    let phys = icecore_pool::space_map::Phys::parse(&mos.bonus(io, ObjectId(dtl)).unwrap()).unwrap();
    assert_eq!(phys.alloc().cast_unsigned(), last - first + 1);
    drop(pool);
    judge("rot", &disks);
    let pool = open(env(7), &disks, Mode::ReadOnly).unwrap();
    read_all(&pool).unwrap();
}
