//! Single facts of the pool in the repository.

use icecore_check::{fixture, zoo};
use icecore_dmu::BlockStore;
use icecore_pool::Pool;
use icecore_zpl::{Dataset, Follow, ZplError};

fn locked() -> Pool {
    zoo::open(&[fixture::fixture("cold/main.img")]).unwrap()
}

#[test]
fn without_its_key_a_dataset_says_so() {
    let mut pool = locked();
    for name in ["main/encrypted", "main/encrypted/docs@root", "main/encrypted/vol"] {
        let opened = icecore_zpl::open(pool.io(), &pool.dsl, name).map(|_| ());
        assert!(matches!(opened, Err(ZplError::KeyNotLoaded(n)) if n == name), "{name}");
    }
    assert!(icecore_zpl::open(pool.io(), &pool.dsl, "main/plain").is_ok());
    zoo::load_keys(&mut pool, &fixture::tests_data());
    assert!(icecore_zpl::open(pool.io(), &pool.dsl, "main/encrypted/docs@root").is_ok());
}

#[test]
fn a_volume_reads_as_one_file() {
    let mut pool = locked();
    zoo::load_keys(&mut pool, &fixture::tests_data());
    let opened = icecore_zpl::open(pool.io(), &pool.dsl, "main/encrypted/vol").unwrap();
    let Dataset::Volume(volume) = opened else { panic!("a volume") };
    assert_eq!(volume.size(), 8 << 20);
    let mut sum = icecore_check::manifest::Hasher::default();
    let mut content = volume.content();
    loop {
        let window = content.next_window(volume.objset(), pool.io()).unwrap();
        if window.is_empty() {
            break;
        }
        window.iter().for_each(|e| sum.extent(e));
    }
    let expected = fixture::tests_data().join("cold/main.expected/vol.sha256");
    let expected = std::fs::read_to_string(expected).unwrap();
    assert_eq!(Some(sum.finish(volume.size()).as_str()), expected.split_whitespace().next());
}

#[test]
fn holes_are_no_extents() {
    let mut pool = locked();
    zoo::load_keys(&mut pool, &fixture::tests_data());
    let io: &dyn BlockStore = pool.io();
    let Dataset::Filesystem(fs) = icecore_zpl::open(io, &pool.dsl, "main/encrypted/photos@root").unwrap()
    else {
        panic!("a file system")
    };
    let z = fs.resolve(io, b"sparse.raw", Follow::Never).unwrap().znode;
    let mut content = fs.content(&z).unwrap();
    let extents = content.next_window(fs.objset(), io).unwrap();
    assert_eq!((content.size(), extents.len(), extents[0].offset), (40 << 20, 1, 17 << 20));
    assert!(content.next_window(fs.objset(), io).unwrap().is_empty());
}
