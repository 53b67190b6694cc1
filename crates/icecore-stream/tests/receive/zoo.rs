//! Streams made by OpenZFS.

use crate::support::{SimPool, force, to, zoo};

/// The one that matters most: a whole encrypted pool, seeded and brought forward.
#[test]
fn seed_of_a_pool_and_what_came_after() {
    let (Some(seed), Some(next)) = (zoo("main@root.raw-R.zfs"), zoo("main@root-newsnapshot.raw-R-I.zfs"))
    else {
        return;
    };
    let mut pool = SimPool::new("backup");
    let got = pool.receive(&seed, &force("backup")).unwrap();
    println!("{got:#?}");
    pool.judge();
    let got = pool.receive(&next, &force("backup")).unwrap();
    println!("{got:#?}");
    pool.judge();
    pool.reopen();
    println!("{:#?}", pool.snapshots());
}

fn each(name: &str, streams: &[&str], target: &str) {
    let mut pool = SimPool::new(name);
    for s in streams {
        let Some(stream) = zoo(s) else { return };
        let got = pool.receive(&stream, &to(&format!("{name}/{target}")));
        println!("{s}: {got:#?}");
        got.unwrap();
        pool.judge();
    }
}

#[test]
fn raw_passphrase() {
    each("rawpass", &["crypt-pass@two.raw-R.zfs"], "x");
}
#[test]
fn decrypted() {
    each("decr", &["crypt-child@two.decrypted.zfs"], "x");
}
#[test]
fn docs_incremental() {
    each("docs", &["docs@root.decrypted.zfs", "docs@root-newsnapshot.decrypted.zfs"], "docs");
}
#[test]
fn plain_package() {
    each("plainr", &["plain@newsnapshot.R.zfs"], "plain");
}
#[test]
fn plain_compressed_embedded() {
    each("plainlecp", &["plain@newsnapshot.Lecp.zfs"], "plain");
}
#[test]
fn main_later_full() {
    let Some(s) = zoo("main@newsnapshot.raw-R.zfs") else { return };
    let mut pool = SimPool::new("later");
    println!("{:#?}", pool.receive(&s, &force("later")).unwrap());
    pool.judge();
}
#[test]
fn shapes() {
    each("kinds", &["shapes-kinds@second.R-Lec.zfs"], "kinds");
    each("kindsb", &["shapes-kinds@first.phb.zfs"], "kinds");
    each("dedup", &["shapes-dedup.zfs"], "dedup");
    each("deep", &["shapes-deep.Lec.zfs"], "deep");
    each("promoted", &["shapes-promoted.R.zfs"], "promoted");
    each("sparse", &["shapes-sparse.zfs"], "sparse");
    each("redacted", &["shapes-kinds.redacted.zfs"], "redacted");
    each("veryold", &["v28-data@s.R.zfs"], "old");
}
