//! The disk does what its documentation says.

use icecore_env::{Device, What};
use icecore_sim::SimDisk;

fn byte(d: &SimDisk, at: u64) -> u8 {
    let mut b = [0];
    d.read_at(at, &mut b).unwrap();
    b[0]
}

#[test]
fn reads_see_unflushed_writes_of_any_alignment() {
    let d = SimDisk::new("d", 4096);
    d.write_at(1000, &[7; 600]).unwrap();
    let mut all = vec![9; 4096];
    d.read_at(0, &mut all).unwrap();
    assert!(all.iter().enumerate().all(|(i, b)| *b == if (1000..1600).contains(&i) { 7 } else { 0 }));
    assert_eq!(d.to_bytes(), all);
    assert_eq!(SimDisk::from_bytes("e", &all).fingerprint(), d.fingerprint());
    assert_eq!(d.read_at(4095, &mut [0; 2]).unwrap_err().what, What::OutOfRange);
}

#[test]
fn forks_do_not_see_each_other() {
    let a = SimDisk::new("d", 4096);
    a.write_at(0, &[1; 512]).unwrap();
    let b = a.fork();
    b.write_at(0, &[2; 512]).unwrap();
    assert_eq!((byte(&a, 0), byte(&b, 0)), (1, 2));
}

#[test]
fn a_crash_keeps_the_flushed_and_any_subset_of_the_rest() {
    let d = SimDisk::new("d", 4096);
    d.write_at(0, &[1; 512]).unwrap();
    d.flush().unwrap();
    d.write_at(0, &[2; 1536]).unwrap();
    d.write_at(0, &[3; 512]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let after = d.crash(seed);
        seen.insert((byte(&after, 0), byte(&after, 512), byte(&after, 1024)));
    }
    assert_eq!(seen.len(), 3 * 2 * 2, "every outcome, torn ones too: {seen:?}");
    assert!(seen.iter().all(|s| (1..=3).contains(&s.0)));
    assert_eq!(byte(&d.crash_losing_all(), 0), 1);
    assert_eq!(byte(&d.crash_losing_nothing(), 0), 3);
}

#[test]
fn power_ends_where_told() {
    let d = SimDisk::new("d", 4096);
    d.cut_after(2);
    d.write_at(0, &[1; 512]).unwrap();
    d.flush().unwrap();
    assert_eq!(d.write_at(0, &[2; 512]).unwrap_err().what, What::Gone);
    assert_eq!(d.flush().unwrap_err().what, What::Gone);
    assert_eq!(d.read_at(0, &mut [0]).unwrap_err().what, What::Gone);
    assert_eq!(byte(&d.crash_losing_all(), 0), 1);
    assert_eq!(d.stats().ops, 3);
}

#[test]
fn faults_happen_where_planned() {
    let d = SimDisk::new("d", 8192);
    d.plan(|f| {
        f.unreadable.push(1024..1536);
        f.lost_writes.insert(0);
        f.misdirected_writes.insert(1, 512);
        f.unwritable.push(4096..4608);
        f.sectors_max = Some(2);
        f.failing_flushes.insert(0);
    });
    d.write_at(0, &[1; 512]).unwrap();
    assert_eq!(byte(&d, 0), 0, "lost");
    d.write_at(0, &[2; 512]).unwrap();
    assert_eq!((byte(&d, 0), byte(&d, 512)), (0, 2), "misdirected");
    assert_eq!(d.read_at(1000, &mut [0; 100]).unwrap_err().what, What::Read);
    assert_eq!(d.write_at(4000, &[0; 100]).unwrap_err().what, What::Write);
    assert_eq!(d.write_at(5120, &[0; 1024]).unwrap_err().what, What::NoSpace);
    d.write_at(512, &[3; 512]).unwrap();
    assert_eq!(d.flush().unwrap_err().what, What::Flush);
    assert_eq!(byte(&d.crash_losing_all(), 512), 0);
    d.flush().unwrap();
    d.flip(512, 7);
    assert_eq!(byte(&d.crash_losing_all(), 512), 3 ^ 0x80);
}

#[test]
fn images_go_to_files_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let d = SimDisk::new("d", 1 << 20);
    d.write_at(70_000, b"hello").unwrap();
    let path = dir.path().join("image");
    d.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    assert_eq!(SimDisk::load(&path).unwrap().fingerprint(), d.fingerprint());
}
