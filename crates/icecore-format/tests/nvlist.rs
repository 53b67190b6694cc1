//! Name-value lists written by libnvpair and by the kernel, read and written again byte for byte.
#![allow(clippy::unwrap_used, missing_docs)]

use icecore_format::{NvList, NvValue};

const LABEL: &[u8] = include_bytes!("data/label-raidz2.nvlist");
const PACKAGE: &[u8] = include_bytes!("data/package-header.nvlist");
const KEYDATA: &[u8] = include_bytes!("data/crypt-keydata.nvlist");
const EVERY_XDR: &[u8] = include_bytes!("data/every-type.xdr.nvlist");
const EVERY_NATIVE: &[u8] = include_bytes!("data/every-type.native.nvlist");

/// Encodes again and compares up to zero padding.
fn same_again(bytes: &[u8]) -> NvList {
    let (list, used) = NvList::decode(bytes).unwrap();
    let packed = if bytes[0] == 1 { list.encode_xdr() } else { list.encode_native() };
    assert!(packed.len() >= used);
    let common = packed.len().min(bytes.len());
    assert_eq!(packed[..common], bytes[..common]);
    assert!(packed[common..].iter().chain(&bytes[common..]).all(|b| *b == 0));
    list
}

#[test]
fn label_config() {
    let label = same_again(LABEL);
    assert_eq!((label.str("name"), label.u64("version")), (Some("rz2"), Some(5000)));
    let tree = label.list("vdev_tree").unwrap();
    assert_eq!((tree.str("type"), tree.u64("nparity")), (Some("raidz"), Some(2)));
    assert_eq!(tree.list_array("children").unwrap().len(), 4);
    let features = label.list("features_for_read").unwrap();
    assert!(features.flag("com.delphix:hole_birth") && !features.flag("no.such:feature"));
}

#[test]
fn package_header() {
    let head = same_again(PACKAGE);
    assert_eq!((head.str("fromsnap"), head.str("tosnap")), (Some("root"), Some("newsnapshot")));
    assert!(head.flag("raw"));
    assert!(!head.list("fss").unwrap().is_empty());
}

#[test]
fn wrapped_keys() {
    let begin = same_again(KEYDATA);
    let keys = begin.list("crypt_keydata").unwrap();
    assert_eq!(keys.u8_array("DSL_CRYPTO_MASTER_KEY_1").unwrap().len(), 32);
    assert_eq!(keys.u8_array("DSL_CRYPTO_MAC").unwrap().len(), 16);
}

/// User space XDR sign-extends small numbers where the kernel zero-extends; all else is the same.
#[test]
fn every_type() {
    let (list, used) = NvList::decode(EVERY_XDR).unwrap();
    assert_eq!(used + 4, EVERY_XDR.len());
    assert_eq!(list.get("u8"), Some(&NvValue::U8(200)));
    let ours = list.encode_xdr();
    assert_eq!(ours.len(), EVERY_XDR.len());
    for (at, (a, b)) in ours.iter().zip(EVERY_XDR).enumerate() {
        assert!(a == b || (*a, *b) == (0, 0xff), "byte {at}: {a} and not {b}");
    }
    let (native, used) = NvList::decode(EVERY_NATIVE).unwrap();
    assert_eq!((&native, used), (&list, EVERY_NATIVE.len()));
    assert_eq!(list.encode_native(), EVERY_NATIVE);
}

/// No flipped bit or cut makes decoding panic; a cut is always an error.
#[test]
fn damage() {
    for original in [LABEL, KEYDATA, EVERY_XDR, EVERY_NATIVE] {
        let (_, used) = NvList::decode(original).unwrap();
        for cut in 0..used {
            NvList::decode(&original[..cut]).unwrap_err();
        }
        let mut bytes = original.to_vec();
        for bit in 0..used * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = NvList::decode(&bytes).map(|(list, _)| list.encode_xdr());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
