//! Space by owner: listed, bounded, shown as properties; limits on the number of datasets; pools by other names.

use crate::support::Desk;
use std::os::unix::fs::chown;

/// A file of 1 MiB owned by user and group `id`.
fn file_of(desk: &Desk, name: &str, id: u32) {
    let path = desk.path(name);
    // Nothing that can be compressed.
    let mut x = u64::from(id) << 32 | 1;
    let mut byte = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 40) as u8
    };
    std::fs::write(&path, (0..1 << 20).map(|_| byte()).collect::<Vec<u8>>()).unwrap();
    chown(&path, Some(id), Some(id + 1)).unwrap();
}

#[test]
fn space_is_listed_by_owner_and_bounded() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: files of other users cannot be made; not looked at");
        return;
    }
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    file_of(&desk, "a", 51_234);
    file_of(&desk, "b", 51_236);
    desk.ok("icecore cp -p a tank/fs:/a");
    desk.ok("icecore cp -p b tank/fs:/b");
    desk.ok("icecore cp -p b tank/fs:/c");
    let used = |prop: &str| desk.get(prop, "tank/fs").parse::<u64>().unwrap();
    let (a, b) = (used("userused@51234"), used("userused@51236"));
    assert!(a >= 1 << 20 && (2 << 20..3 << 20).contains(&b), "{a} {b}");
    assert_eq!((used("userobjused@51236"), used("groupobjused@51237")), (2, 2));
    assert_eq!(used("groupused@51235"), a);
    assert_eq!(used("userused@51999"), 0);
    assert_eq!(desk.get("userused@nobody-of-that-name", "tank/fs"), "-");
    assert_eq!(desk.ok("zfs get -H -o value userquota@51234 tank/fs"), "none\n");
    assert_eq!(desk.ok("zfs get -H -o value,source userquota@51234 tank/fs"), "none\tlocal\n");
    let listed = desk.ok("zfs userspace -Hp -o type,name,used,quota,objused,objquota tank/fs");
    let root = format!("POSIX User\troot\t{}\t0\t{}\t0\n", used("userused@0"), used("userobjused@root"));
    assert_eq!(listed, format!("POSIX User\t51234\t{a}\t0\t1\t0\nPOSIX User\t51236\t{b}\t0\t2\t0\n{root}"));
    let by_space = desk.ok("zfs groupspace -Hpn -S used -o name tank/fs");
    assert_eq!(by_space, "51237\n51235\n0\n");
    let shown = desk.ok("zfs userspace -o name,used,quota tank/fs");
    assert!(shown.starts_with("NAME    USED  QUOTA\n51234  1.0") && shown.contains("M   none\n"), "{shown}");
    assert_eq!(desk.ok("zfs projectspace -Hp -o name,objused tank/fs").lines().count(), 1);
    // Quotas of bytes and of files.
    desk.ok("zfs set userquota@51234=1m groupobjquota@51237=2 tank/fs");
    assert_eq!(desk.ok("zfs get -H -o value userquota@51234,groupobjquota@51237 tank/fs"), "1M\n2\n");
    for (file, name) in [("a", "more"), ("b", "d")] {
        desk.refused(&format!("icecore cp -p {file} tank/fs:/{name}"), 1, &["quota exceeded"]);
    }
    desk.ok("zfs set userquota@51234=none groupobjquota@51237=none tank/fs");
    desk.ok("icecore cp -p a tank/fs:/more");
    desk.ok("zfs create -o userquota@51234=2M -o quota=8M -o refquota=4M tank/limited");
    assert_eq!(desk.get("userquota@51234,quota,refquota", "tank/limited"), "2097152\n8388608\n4194304");
    desk.refused("zfs create -o quota=4K tank/none", 1, &["cannot create 'tank/none': out of space"]);
    assert!(!desk.names("-r tank").contains(&"tank/none".to_string()), "what is over its quota goes again");
    desk.ok("zfs destroy tank/limited");
    desk.ok("zfs set userquota@51234=9M tank/fs");
    desk.ok("zfs snapshot tank/fs@s");
    assert_eq!(desk.get("userquota@51234", "tank/fs@s"), "9437184");
    assert_eq!(desk.ok("zfs userspace -Hp -o quota tank/fs@s"), "9437184\n0\n0\n");
    for (line, words) in [
        (
            "zfs set userquota@no-such-user=1m tank/fs",
            "cannot set property for 'tank/fs': 'userquota@no-such-user' has an invalid user/group name",
        ),
        ("zfs set userused@0=1m tank/fs", "'userused@0' is readonly"),
        ("zfs set userquota@0=lots tank/fs", "cannot set property for 'tank/fs': bad numeric value 'lots'"),
    ] {
        desk.refused(line, 255, &[words]);
    }
    desk.refused("zfs userspace", 2, &["missing dataset name", "usage:"]);
    desk.refused("zfs projectspace -n tank/fs", 2, &["invalid option 'n'"]);
    desk.refused("zfs userspace -o size tank/fs", 255, &["invalid type 'size' for -o option"]);
    desk.refused("zfs userspace -s size tank/fs", 2, &["invalid field 'size'"]);
    desk.ok("zfs create -V 8m tank/vol");
    desk.refused("zfs userspace tank/vol", 1, &["operation not applicable to datasets of this type"]);
    desk.export_and_judge("tank");
}

/// Encrypted ones are accounted for as well; a plain stream begins with it where it is received.
#[test]
fn encrypted_and_received_file_systems_have_their_sums() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/secret", b"open sesame please\n");
    desk.ok("zfs create tank/plain");
    std::fs::write(desk.path("file"), vec![9; 200_000]).unwrap();
    for fs in ["secret", "plain"] {
        desk.ok(&format!("icecore cp file tank/{fs}:/file"));
    }
    desk.ok("zfs set userquota@12345=1g tank/secret");
    let uid = rustix::process::geteuid().as_raw();
    let sums = |fs: &str| desk.ok(&format!("zfs userspace -Hpn -o name,used,objused {fs}"));
    // A file and the root directory, which belongs to root.
    let files = if uid == 0 { "2" } else { "1" };
    assert!(
        sums("tank/secret")
            .lines()
            .any(|l| l.starts_with(&format!("{uid}\t")) && l.ends_with(&format!("\t{files}")))
    );
    desk.ok("zfs snapshot -r tank@s");
    desk.piped("zfs send tank/plain@s", "zfs receive -u tank/copy");
    assert_eq!(sums("tank/copy"), sums("tank/plain"));
    desk.ok("zfs unload-key tank/secret");
    assert_eq!(desk.get("userused@0", "tank/secret"), "-");
    desk.export_and_judge("tank");
}

#[test]
fn a_pool_goes_by_another_name() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zpool export tank");
    let import = format!("zpool import -d {}", desk.path("tank").display());
    // For reading only here; the labels keep the old name.
    desk.ok(&format!("{import} -o readonly=on tank seen"));
    assert_eq!(desk.names("-r seen"), ["seen", "seen/fs"]);
    desk.ok("zpool export seen");
    desk.ok(&format!("{import} tank vault"));
    assert_eq!(desk.names("-r vault"), ["vault", "vault/fs"]);
    assert_eq!(desk.ok("zpool list -H -o name"), "vault\n");
    desk.ok("zfs create vault/more");
    desk.refused(&format!("{import} tank other"), 1, &["no such pool available"]);
    desk.ok("zpool export vault");
    std::fs::rename(desk.path("tank"), desk.path("vault")).unwrap();
    desk.judge("vault");
    let import = format!("zpool import -d {}", desk.path("vault").display());
    assert!(desk.ok(&import).contains("  pool: vault\n"));
    desk.refused(&format!("{import} vault mirror-one"), 1, &["cannot import 'mirror-one': name is reserved"]);
    // A destroyed pool comes back when it is asked for.
    desk.ok(&format!("{import} vault"));
    desk.ok("zpool destroy vault");
    desk.refused(&format!("{import} vault"), 1, &["cannot import 'vault': no such pool available"]);
    let listed = desk.ok(&format!("{import} -D"));
    assert!(
        listed.contains("  pool: vault\n") && listed.contains(" state: ONLINE (DESTROYED)\n"),
        "{listed}"
    );
    desk.refused(&format!("{import} -D vault"), 1, &["cannot import 'vault': the pool was destroyed"]);
    desk.ok(&format!("{import} -D -f vault"));
    assert_eq!(desk.names("-r vault"), ["vault", "vault/fs", "vault/more"]);
    desk.export_and_judge("vault");
}

/// Keys are loaded with the pool, if that is asked for.
#[test]
fn keys_come_with_the_pool() {
    let desk = Desk::with_pool("tank");
    let key = desk.key_file("key", b"open sesame please\n");
    for fs in ["a", "b"] {
        desk.ok(&format!(
            "zfs create -o encryption=on -o keyformat=passphrase -o keylocation={key} tank/{fs}"
        ));
    }
    desk.ok("zpool export tank");
    let import = format!("zpool import -d {} -l", desk.path("tank").display());
    assert_eq!(desk.ok(&format!("{import} tank")), "2 / 2 keys successfully loaded\n");
    assert_eq!(desk.get("keystatus", "tank/b"), "available");
    desk.ok("zpool export tank");
    std::fs::write(desk.path("key"), "something else\n").unwrap();
    let done = desk.run(&format!("{import} tank"));
    assert_eq!((done.status, done.text().as_str()), (1, "0 / 2 keys successfully loaded\n"), "{}", done.err);
    assert_eq!(desk.get("keystatus", "tank/b"), "unavailable");
}

/// Administrators are not bound by limits, everybody else is; OpenZFS has it so too.
#[test]
fn limits_are_for_users() {
    use std::os::unix::process::CommandExt;
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -o filesystem_limit=1 -o snapshot_limit=1 tank/fs");
    desk.ok("zfs create tank/fs/one");
    assert_eq!(desk.get("filesystem_count", "tank/fs"), "1");
    assert_eq!(desk.ok("zfs get -H -o value filesystem_count tank"), "none\n");
    if !rustix::process::geteuid().is_root() {
        desk.refused("zfs create tank/fs/two", 1, &["cannot create 'tank/fs/two': out of space"]);
        return;
    }
    desk.ok("zfs create tank/fs/two");
    assert_eq!(desk.get("filesystem_count", "tank/fs"), "2");
    desk.ok("zpool export tank");
    // The same pool in the hands of somebody else.
    let user = 65_534;
    for path in [".", "tank", "tank/drive.img", "state", "state/pools"] {
        chown(desk.path(path), Some(user), Some(user)).unwrap();
    }
    let typed = |line: &str| {
        let out = desk.command(line).uid(user).gid(user).env("ICECORE_SERVICE", "off").output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let drive = desk.path("tank").display().to_string();
    assert_eq!(typed(&format!("zpool import -d {drive} tank")).0, Some(0));
    let (status, said) = typed("zfs create tank/fs/three");
    assert_eq!((status, said.as_str()), (Some(1), "cannot create 'tank/fs/three': out of space\n"));
    assert_eq!(typed("zfs snapshot tank/fs@1"), (Some(0), String::new()));
    let (status, said) = typed("zfs snapshot -r tank/fs@2");
    assert!(status == Some(1) && said.contains("out of space"), "{said}");
    assert_eq!(typed("zfs set filesystem_limit=none tank/fs"), (Some(0), String::new()));
    assert_eq!(typed("zfs create tank/fs/three"), (Some(0), String::new()));
    assert_eq!(typed("zpool export tank"), (Some(0), String::new()));
    desk.judge("tank");
}
