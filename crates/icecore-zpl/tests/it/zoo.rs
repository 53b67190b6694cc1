//! Every dataset and snapshot of every image: its manifest must be the one OpenZFS's mount gave.

use icecore_check::{fixture, zoo};

#[test]
fn the_cold_pool() {
    let mut pool = zoo::open(&[fixture::fixture("cold/main.img")]).unwrap();
    let folder = fixture::tests_data();
    zoo::load_keys(&mut pool, &folder);
    let manifests = zoo::compare_manifests(&pool, &folder.join("cold/main.expected"));
    assert_eq!(manifests.len(), 24);
    for (name, outcome) in manifests {
        assert_eq!(outcome, Ok(()), "{name}");
    }
}

/// One wrong digit or letter in what is expected, wherever it is, and the comparison fails.
#[test]
fn the_comparison_can_fail() {
    let mut pool = zoo::open(&[fixture::fixture("cold/main.img")]).unwrap();
    zoo::load_keys(&mut pool, &fixture::tests_data());
    let folder = std::env::temp_dir().join(format!("icecore-canary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let name = "main%encrypted%photos@root.manifest";
    let good = std::fs::read(fixture::tests_data().join("cold/main.expected").join(name)).unwrap();
    let differs = |text: &[u8]| {
        std::fs::write(folder.join(name), text).unwrap();
        let compared = zoo::compare_manifests(&pool, &folder);
        assert_eq!(compared.len(), 1);
        compared[0].1.is_err()
    };
    assert!(!differs(&good));
    // A digit of a mode, of a time, of a sum; a letter of a name; a byte of an attribute.
    let text = String::from_utf8(good.clone()).unwrap();
    for part in [" 644 ", "0 1 ./", "  ./IMG", "./sparse.raw", "user.comment=0x67"] {
        let mut bad = good.clone();
        bad[text.find(part).unwrap() + 1] ^= 1;
        assert!(differs(&bad), "{part}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// All that `cargo xtask zoo` asks, of the images that are here.
#[test]
fn every_pool_of_the_repository() {
    let cases = zoo::cases(&fixture::images(), &fixture::tests_data());
    assert!(cases.iter().filter(|c| c.expected.is_some()).count() > 6, "{cases:?}");
    for case in cases {
        let v = zoo::judge(&case);
        let words = [v.list.clone(), v.get.clone(), v.bad_blocks.clone(), v.degraded.clone()].concat();
        assert!(v.is_green(), "{}: {:?} {:?}", case.pool, v.faults(), words);
        eprintln!("{}: {} blocks, {} sets of missing devices", case.pool, v.blocks, v.sets);
    }
}

#[test]
fn every_image() {
    let Some((images, expected)) = zoo::folders() else {
        eprintln!("SKIPPED: ICECORE_ZOO does not name a folder of unpacked images");
        return;
    };
    let mut seen = 0;
    for image in zoo::IMAGES {
        let Some(case) = zoo::Case::of(image, &images, &expected) else {
            panic!("{}: not all of its files are in {}", image.pool, images.display());
        };
        let verdict = zoo::judge(&case);
        let faults = verdict.faults();
        assert!(faults.is_empty(), "{}: {} faults\n{}", image.pool, faults.len(), faults.join("\n"));
        let (equal, all) = verdict.equal();
        eprintln!("{}: {equal} of {all} manifests equal", image.pool);
        seen += equal;
    }
    assert!(seen > 150, "only {seen} manifests");
}

/// What OpenZFS received from its own streams: raw, and decrypted into a pool without encryption.
#[test]
fn received_copies() {
    let Some((images, expected)) = zoo::folders() else {
        eprintln!("SKIPPED: ICECORE_ZOO does not name a folder of unpacked images");
        return;
    };
    let folder = zoo::find(&expected, "main.expected").unwrap();
    let mut compared = 0;
    for (image, copy, original) in [
        ("backup-a.img", "backup-a/main", "main"),
        ("plain-backup.img", "plain/docs", "main/encrypted/docs"),
        ("plain-backup.img", "plain/plain", "main/plain"),
    ] {
        let mut pool = zoo::open(&[zoo::find(&images, image).unwrap()]).unwrap();
        zoo::load_keys(&mut pool, &expected);
        for (name, outcome) in zoo::compare_received(&pool, &folder, copy, original).unwrap() {
            assert_eq!(outcome, Ok(()), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared} snapshots");
}
