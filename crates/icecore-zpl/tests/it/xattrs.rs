//! Extended attributes and POSIX access control lists as we write them: against a model, read back by our readers after
//! each commit, judged by zdb, in file systems that account for their users.

use crate::write::{Bench, Dice};
use icecore_check::accounts;
use icecore_format::ObjectId;
use icecore_zpl::write::{
    Change, New, Options, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, What, XattrFlags, XattrForm,
};
use icecore_zpl::{FileKind, Xattr, ZplError};
use std::collections::BTreeMap;

type All = BTreeMap<Vec<u8>, Vec<u8>>;

fn set(
    b: &mut Bench,
    id: ObjectId,
    name: &[u8],
    value: Option<&[u8]>,
    flags: XattrFlags,
) -> Result<(), ZplError> {
    b.op(|w, os, io, now| w.set_xattr(os, io, id, name, value, flags, now))
}
fn any() -> XattrFlags {
    XattrFlags::default()
}
fn listed(list: Vec<Xattr>) -> All {
    list.into_iter().map(|x| (x.linux_name().unwrap(), x.value)).collect()
}
fn in_memory(b: &mut Bench, id: ObjectId) -> All {
    listed(b.op(|w, os, io, _| w.list_xattrs(os, io, id)).unwrap())
}
fn committed(b: &Bench, id: ObjectId) -> All {
    let (fs, io) = (b.fs(), b.pool.io());
    listed(fs.xattrs(io, &fs.znode(io, id).unwrap()).unwrap())
}

/// Sets, replaces and removes attributes of a file and a directory in changing forms.
fn walk(name: &str, dataset: &str, dnode_slots: u8, seed: u64) {
    let mut b = Bench::counted(name, dataset);
    let mut dice = Dice(seed);
    let forms = [XattrForm::Sa, XattrForm::Dir];
    let mut options = Options { dnode_slots, ..Options::default() };
    b.writer.set_options(options);
    if dnode_slots > 1 {
        b.pool.dsl.activate_feature_later(b.dataset, icecore_dsl::feature::Feature::LARGE_DNODE);
    }
    let file = b.create(b.root(), "file", What::Regular).unwrap();
    let dir = b.create(b.root(), "dir", What::Directory).unwrap();
    let mut model: BTreeMap<ObjectId, All> = [(file, All::new()), (dir, All::new())].into();
    for n in 0..200 {
        if dice.roll(8) == 0 {
            options.xattrs = forms[dice.roll(2) as usize];
            b.writer.set_options(options);
        }
        let id = if dice.roll(2) == 0 { file } else { dir };
        let key = format!("{}.{}", ["user", "trusted", "security"][dice.roll(3) as usize], dice.roll(6));
        let all = model.get_mut(&id).unwrap();
        let there = all.contains_key(key.as_bytes());
        if dice.roll(3) == 0 {
            let flags = XattrFlags { replace: true, ..any() };
            let done = set(&mut b, id, key.as_bytes(), None, flags);
            assert_eq!(done.is_ok(), there, "{done:?}");
            assert!(there || matches!(done, Err(ZplError::NoAttribute(_))));
            all.remove(key.as_bytes());
        } else {
            let most = [20, 300, 5000, 40_000, 70_000][dice.roll(5) as usize];
            let len = dice.roll(most) as usize;
            let value: Vec<u8> = (0..len).map(|_| dice.roll(256) as u8).collect();
            let flags = XattrFlags { create: dice.roll(4) == 0, ..any() };
            let done = set(&mut b, id, key.as_bytes(), Some(&value), flags);
            if flags.create && there {
                assert!(matches!(done, Err(ZplError::Exists(_))), "{done:?}");
            } else {
                done.unwrap();
                all.insert(key.into_bytes(), value);
            }
        }
        let all = &model[&id];
        assert_eq!(&in_memory(&mut b, id), all, "step {n}");
        if n % 20 == 19 {
            b.pool.commit().unwrap();
            model.iter().for_each(|(id, all)| assert_eq!(&committed(&b, *id), all));
            accounts::check(b.pool.io(), &b.fs()).unwrap();
        }
    }
    // What is removed takes its attributes with it.
    let root = b.root();
    b.op(|w, os, io, now| w.unlink(os, io, root, b"file", now)).unwrap();
    b.op(|w, os, io, now| w.rmdir(os, io, root, b"dir", now)).unwrap();
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    b.judge();
}

#[test]
fn any_order_of_attributes() {
    walk("xattrs", "main/plain", 1, 5);
}

#[test]
fn any_order_of_attributes_in_large_heads() {
    walk("xattrs-large", "main/plain", 2, 6);
}

#[test]
fn any_order_of_attributes_encrypted() {
    walk("xattrs-crypt", "main/encrypted/docs", 1, 7);
}

#[test]
fn names_and_forms() {
    let mut b = Bench::new("xnames", "main/new", &[], 128 << 10);
    let file = b.create(b.root(), "file", What::Regular).unwrap();
    // What FreeBSD and Solaris wrote, without a name space.
    b.writer.set_options(Options { xattrs: XattrForm::Dir, ..Options::default() });
    set(&mut b, file, b"mime", Some(b"text/plain"), any()).unwrap();
    let get = |b: &mut Bench, name: &[u8]| b.op(|w, os, io, _| w.get_xattr(os, io, file, name)).unwrap();
    assert_eq!(get(&mut b, b"user.mime").as_deref(), Some(&b"text/plain"[..]));
    let create = XattrFlags { create: true, ..any() };
    assert!(matches!(set(&mut b, file, b"user.mime", Some(b"x"), create), Err(ZplError::Exists(_))));
    let replace = XattrFlags { replace: true, ..any() };
    set(&mut b, file, b"user.mime", Some(b"text/html"), replace).unwrap();
    assert_eq!(in_memory(&mut b, file), [(b"user.mime".to_vec(), b"text/html".to_vec())].into());
    b.pool.commit().unwrap();
    // From the hidden directory into the attributes, when it is written again.
    b.writer.set_options(Options::default());
    set(&mut b, file, b"user.mime", Some(b"text/css"), any()).unwrap();
    b.pool.commit().unwrap();
    assert_eq!(committed(&b, file), [(b"user.mime".to_vec(), b"text/css".to_vec())].into());
    for (name, value) in [(&b""[..], Some(&b"x"[..])), (b"user.\xff", Some(b"x")), (b"user.a\0b", None)] {
        assert!(set(&mut b, file, name, value, any()).is_err(), "{name:?}");
    }
    let long = [b"user.".to_vec(), vec![b'x'; 251]].concat();
    assert!(matches!(set(&mut b, file, &long, Some(b"x"), any()), Err(ZplError::NameTooLong(_))));
    assert!(!b.pool.dsl.is_dirty(), "nothing is to be written");
    b.writer.set_options(Options { xattrs: XattrForm::Off, ..Options::default() });
    assert!(matches!(set(&mut b, file, b"user.a", Some(b"x"), any()), Err(ZplError::Unsupported(_))));
    set(&mut b, file, b"security.selinux", Some(b"x"), any()).unwrap();
    b.judge();
}

/// A list of (tag, permissions, number) as setxattr(2) takes it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, perm, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}
const NONE: u32 = u32::MAX;

#[test]
fn access_control_lists_and_modes() {
    let mut b = Bench::counted("acls", "main/plain");
    let root = b.root();
    let file = b.create(root, "file", What::Regular).unwrap();
    let named = acl(&[(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (16, 7, NONE), (32, 4, NONE)]);
    let refused = set(&mut b, file, POSIX_ACL_ACCESS, Some(&named), any());
    assert!(matches!(refused, Err(ZplError::Unsupported(_))), "acltype is off: {refused:?}");
    b.writer.set_options(Options { posix_acls: true, ..Options::default() });
    set(&mut b, file, POSIX_ACL_ACCESS, Some(&named), any()).unwrap();
    let mode = |b: &mut Bench, id: ObjectId| b.op(|w, os, io, _| w.attributes(os, io, id)).unwrap().mode;
    let get = |b: &mut Bench, id: ObjectId, name: &[u8]| {
        b.op(|w, os, io, _| w.get_xattr(os, io, id, name)).unwrap()
    };
    assert_eq!(mode(&mut b, file), 0o774);
    // A change of mode is a change of mask; the named user keeps what it had.
    let change = Change { mode: Some(0o640), ..Change::default() };
    b.op(|w, os, io, now| w.set_attributes(os, io, file, &change, now)).unwrap();
    let masked = acl(&[(1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 4, NONE), (32, 0, NONE)]);
    assert_eq!(get(&mut b, file, POSIX_ACL_ACCESS), Some(masked));
    // A list that says no more than a mode becomes the mode.
    let plain = acl(&[(1, 6, NONE), (4, 4, NONE), (32, 4, NONE)]);
    set(&mut b, file, POSIX_ACL_ACCESS, Some(&plain), any()).unwrap();
    assert_eq!((get(&mut b, file, POSIX_ACL_ACCESS), mode(&mut b, file)), (None, 0o644));
    for bad in [&named[..7], b"", &acl(&[(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (32, 4, NONE)])] {
        let refused = set(&mut b, file, POSIX_ACL_ACCESS, Some(bad), any());
        assert!(matches!(refused, Err(ZplError::NotPossible(_))), "{bad:?}: {refused:?}");
    }
    assert!(matches!(
        set(&mut b, file, POSIX_ACL_DEFAULT, Some(&named), any()),
        Err(ZplError::NotPossible(_))
    ));
    // A directory hands on its default list: to files as theirs, to directories as both.
    let dir = b.create(root, "dir", What::Directory).unwrap();
    set(&mut b, dir, POSIX_ACL_DEFAULT, Some(&named), any()).unwrap();
    let make = |b: &mut Bench, name: &str, what: What, mode: u32| {
        b.op(|w, os, io, now| {
            w.create(os, io, dir, name.as_bytes(), &New { what, mode, uid: 1000, gid: 100, now })
        })
        .unwrap()
    };
    let below = make(&mut b, "below", What::Regular, 0o666);
    let inner = make(&mut b, "inner", What::Directory, 0o777);
    let link = make(&mut b, "link", What::Symlink(b"below".to_vec()), 0o777);
    let of_file = acl(&[(1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 6, NONE), (32, 4, NONE)]);
    assert_eq!((get(&mut b, below, POSIX_ACL_ACCESS), mode(&mut b, below)), (Some(of_file), 0o664));
    assert_eq!(get(&mut b, below, POSIX_ACL_DEFAULT), None);
    assert_eq!(get(&mut b, inner, POSIX_ACL_DEFAULT), Some(named.clone()));
    assert_eq!((get(&mut b, inner, POSIX_ACL_ACCESS), mode(&mut b, inner)), (Some(named), 0o774));
    assert_eq!(get(&mut b, link, POSIX_ACL_ACCESS), None);
    b.pool.commit().unwrap();
    let (fs, io) = (b.fs(), b.pool.io());
    let z = fs.znode(io, below).unwrap();
    assert_eq!((z.kind, z.mode), (FileKind::Regular, 0o100_664));
    assert_eq!(fs.xattrs(io, &z).unwrap().len(), 1);
    accounts::check(io, &fs).unwrap();
    b.judge();
}

/// Quotas of users as OpenZFS keeps them: who has reached one writes nothing more.
#[test]
fn quotas_of_users() {
    use icecore_dmu::zap::{self, ZapValue};
    use icecore_zpl::write::Writer;
    let mut b = Bench::counted("userquota", "main/plain");
    b.op(|_, os, io, _| {
        for (name, number) in [("userquota@", 400_000), ("userobjquota@", 3)] {
            let quotas = zap::create(os, io, icecore_format::ObjectType::USERGROUP_QUOTA, None, 0)?;
            zap::update(os, io, quotas, "3e8", &ZapValue::u64(number))?;
            zap::update(os, io, ObjectId(1), name, &ZapValue::u64(quotas.0))?;
        }
        Ok(())
    })
    .unwrap();
    b.pool.commit().unwrap();
    b.writer = b.op(|_, os, io, _| Writer::open(io, os, 128 << 10)).unwrap();
    let root = b.root();
    let file = b.create(root, "one", What::Regular).unwrap();
    let mut dice = Dice(8);
    let noise: Vec<u8> = (0..500_000).map(|_| dice.roll(256) as u8).collect();
    let write = |b: &mut Bench, at: u64| b.op(|w, os, io, now| w.write(os, io, file, at, &noise, now));
    write(&mut b, 0).unwrap();
    b.pool.commit().unwrap();
    let refused = write(&mut b, 500_000).unwrap_err();
    assert_eq!(refused.to_string(), "disk quota exceeded");
    assert!(b.create(root, "two", What::Regular).is_err());
    // Who frees may write again; and may make files up to their number.
    b.op(|w, os, io, now| w.truncate(os, io, file, 10, now)).unwrap();
    b.pool.commit().unwrap();
    write(&mut b, 0).unwrap();
    b.op(|w, os, io, now| w.truncate(os, io, file, 10, now)).unwrap();
    for name in ["two", "three"] {
        b.create(root, name, What::Regular).unwrap();
        b.pool.commit().unwrap();
    }
    assert_eq!(b.create(root, "four", What::Regular).unwrap_err().to_string(), "disk quota exceeded");
    let other = New { what: What::Regular, mode: 0o644, uid: 7, gid: 7, now: b.time() };
    let other = b.op(|w, os, io, _| w.create(os, io, root, b"another's", &other)).unwrap();
    let give = Change { uid: Some(1000), ..Change::default() };
    assert!(b.op(|w, os, io, now| w.set_attributes(os, io, other, &give, now)).is_err());
    b.pool.commit().unwrap();
    accounts::check(b.pool.io(), &b.fs()).unwrap();
    b.judge();
}
