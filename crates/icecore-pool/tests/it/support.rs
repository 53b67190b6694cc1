//! Pools on simulated disks, and `zdb` as a judge.

use icecore_env::{Clock, Device, Env};
use icecore_format::{Blkptr, Bookmark};
use icecore_pool::walk::every_block;
use icecore_pool::{CreateSpec, Host, Mode, OpenSpec, Pool, Result};
use icecore_sim::{InlineWorkers, SimClock, SimDisk, SimEntropy};
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn env(seed: u64) -> Env {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000, 1000));
    Env { clock, entropy: Arc::new(SimEntropy::new(seed)), workers: Arc::new(InlineWorkers) }
}

pub fn host() -> Host {
    Host { id: 0x1234, name: "sim".into() }
}

pub fn disks(n: usize, size: u64) -> Vec<Arc<SimDisk>> {
    (0..n).map(|i| Arc::new(SimDisk::with_sector(&format!("disk{i}"), size, 512))).collect()
}

pub fn create(env: Env, name: &str, disks: &[Arc<SimDisk>], kind: NewKind, ashift: u64) -> Pool {
    create_with(env, name, disks, kind, ashift, icecore_pool::features::of_new_pools().collect())
}

pub fn create_with(
    env: Env,
    name: &str,
    disks: &[Arc<SimDisk>],
    kind: NewKind,
    ashift: u64,
    features: Vec<icecore_dsl::Feature>,
) -> Pool {
    let leaves = disks.iter().enumerate().map(|(i, d)| NewLeaf {
        device: d.clone(),
        path: format!("/sim/{name}-{i}.img"),
        whole_disk: None,
    });
    let top = NewTop { kind, leaves: leaves.collect(), log: false, ashift: Some(ashift) };
    let tree = build(vec![top], &*env.entropy).unwrap();
    let spec = CreateSpec {
        name: name.into(),
        root: tree.root,
        devices: tree.devices,
        host: host(),
        comment: None,
        features,
    };
    Pool::create(env, spec).unwrap()
}

pub fn open(env: Env, disks: &[Arc<SimDisk>], mode: Mode) -> Result<Pool> {
    let devices = disks.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    Pool::open(env, OpenSpec { devices, pool: None, mode, force: false, host: host(), max_txg: None })
}

/// Every block of a pool, all of which can be reached.
pub fn blocks(pool: &Pool) -> Vec<(Blkptr, Bookmark)> {
    let mut all = Vec::new();
    let unseen = every_block(pool, &mut |bp, at| {
        all.push((*bp, *at));
        true
    });
    assert!(unseen.is_empty(), "{unseen:?}");
    all
}

/// Lets `zdb` verify everything, if asked for. With `ICECORE_KEEP` the images stay there, for real OpenZFS.
pub fn judge(name: &str, disks: &[Arc<SimDisk>]) {
    if let Some(dir) = std::env::var_os("ICECORE_KEEP") {
        for (i, d) in disks.iter().enumerate() {
            d.save(&Path::new(&dir).join(format!("{name}-{i}.img"))).unwrap();
        }
    }
    if std::env::var_os("ICECORE_ZDB").is_none() {
        return;
    }
    // Several tests make pools of one name, and run side by side: a folder for each judgement.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("icecore-{name}-{}-{serial}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (i, d) in disks.iter().enumerate() {
        d.save(&dir.join(format!("{name}-{i}.img"))).unwrap();
    }
    zdb(&dir, name, &["-bcc"], "No leaks");
    zdb(&dir, name, &["-dddd"], "Dataset mos");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The same for images in a folder.
pub fn judge_dir(dir: &Path, name: &str) {
    if std::env::var_os("ICECORE_ZDB").is_some() {
        zdb(dir, name, &["-bcc"], "No leaks");
        zdb(dir, name, &["-dddd"], "Dataset mos");
    }
}

fn zdb(dir: &Path, name: &str, flags: &[&str], must: &str) {
    let out =
        icecore_check::zdb::command().arg("-e").arg("-p").arg(dir).args(flags).arg(name).output().unwrap();
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let bad = [
        "leaked space",
        "leaked (",
        "block traversal",
        " error",
        "Error",
        "mismatch",
        "ASSERT",
        "not referenced",
    ];
    let names_only = |l: &&str| !l.contains("error log") && !l.contains("head_errlog");
    let mut lines = text.lines().chain(err.lines()).filter(names_only);
    let complaint = lines.find(|l| {
        // What zdb is about to do is no complaint.
        !l.contains("verify nothing leaked") && bad.iter().any(|b| l.contains(b))
    });
    assert!(out.status.success() && complaint.is_none(), "zdb {flags:?}: {complaint:?}\n{err}");
    assert!(text.contains(must), "zdb {flags:?} does not say «{must}»:\n{text}\n{err}");
}

/// Takes a pool back to its last commit.
pub fn back_to_last_commit(pool: &mut Pool) {
    let devices = pool.devices();
    let spec = OpenSpec { devices, pool: None, mode: Mode::Write, force: true, host: host(), max_txg: None };
    pool.reopen(spec).unwrap();
}
