//! `icecore ls`, `cat`, `cp`, `find` and `du` as they are typed, on the pool in the repository.
#![allow(clippy::unwrap_used)]

use icecore_check::fixture::{fixture_copy, tests_data};
use icecore_check::manifest::sha256_of;
use icecore_check::{files, zdb};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PASSPHRASE: &str = "correct horse battery staple\n";

/// A folder with the pool, imported read-only.
struct Bench {
    dir: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn empty(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("icecore-files-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("pool")).unwrap();
        fs::create_dir_all(dir.join("out")).unwrap();
        Self { dir }
    }
    fn new(name: &str) -> Self {
        let bench = Self::empty(name);
        fixture_copy("cold/main.img", &bench.dir.join("pool/main.img"));
        bench.import("main");
        bench
    }
    fn import(&self, pool: &str) {
        let dir = self.dir.join("pool").display().to_string();
        self.ok(&["zpool", "import", "-N", "-o", "readonly=on", "-d", &dir, pool]);
    }
    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }
    fn run(&self, input: &str, args: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(args)
            .env("ICECORE_STATE_DIR", self.dir.join("state"))
            .env("ICECORE_MOUNT", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that asks for nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
    /// Standard output of a command that must succeed, with the passphrase at hand.
    fn ok(&self, args: &[&str]) -> Vec<u8> {
        let run = self.run(PASSPHRASE, args);
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
        run.stdout
    }
    fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.ok(args)).unwrap()
    }
    /// Status and complaint of a command that must fail.
    fn fails(&self, input: &str, args: &[&str]) -> (i32, String) {
        let run = self.run(input, args);
        assert!(!run.status.success(), "{args:?} succeeded");
        (run.status.code().unwrap(), String::from_utf8(run.stderr).unwrap())
    }
}

/// Compares a folder with a manifest of the same tree: all but the sizes of directories, and owners only for root.
fn same_as_manifest(folder: &Path, manifest: &str) {
    let text = fs::read_to_string(tests_data().join("cold/main.expected").join(manifest)).unwrap();
    let (entries, rest) = text.split_once("# sha256\n").unwrap();
    let (sums, _) = rest.split_once("# xattr\n").unwrap();
    assert!(entries.lines().count() > 1, "{manifest} says little");
    for line in entries.lines() {
        let (head, target) = line.split_once('\t').unwrap();
        let f: Vec<&str> = head.splitn(8, ' ').collect();
        let path = folder.join(f[7]);
        let meta = path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let kind = match f[0] {
            "f" => meta.is_file(),
            "d" => meta.is_dir(),
            "l" => meta.is_symlink(),
            other => panic!("{other} in {manifest}"),
        };
        assert!(kind, "{line}");
        if f[0] == "l" {
            assert_eq!(fs::read_link(&path).unwrap().to_str(), Some(target));
        } else {
            assert_eq!(format!("{:o}", meta.permissions().mode() & 0o7777), f[1], "{line}");
        }
        if f[0] == "f" {
            assert_eq!(
                (meta.size().to_string().as_str(), meta.nlink().to_string().as_str()),
                (f[4], f[6]),
                "{line}"
            );
        }
        assert_eq!(format!("{}.{:09}0", meta.mtime(), meta.mtime_nsec()), f[5], "{line}");
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            assert_eq!(
                (meta.uid().to_string().as_str(), meta.gid().to_string().as_str()),
                (f[2], f[3]),
                "{line}"
            );
        }
    }
    for line in sums.lines() {
        let (sum, path) = line.split_once("  ").unwrap();
        assert_eq!(sha256_of(&fs::read(folder.join(path)).unwrap()), sum, "{path}");
    }
}

#[test]
fn copies_are_what_was_there() {
    let b = Bench::new("cp");
    let out = b.out().display().to_string();
    for (dataset, name, manifest) in [
        ("main/encrypted/docs@root", "docs", "main%encrypted%docs@root.manifest"),
        ("main/encrypted/photos@newsnapshot", "photos", "main%encrypted%photos@newsnapshot.manifest"),
        ("main/plain@root:/", "plain", "main%plain@root.manifest"),
    ] {
        b.ok(&["cp", "-rp", dataset, &out]);
        same_as_manifest(&b.out().join(name), manifest);
    }
    let sparse = b.out().join("photos/sparse.raw").metadata().unwrap();
    assert!(sparse.size() == 40 << 20 && sparse.blocks() * 512 < 2 << 20, "holes were written out");
    // One file under a new name, and without -p with the mode the mask leaves.
    let one = b.out().join("one").display().to_string();
    b.ok(&["cp", "main/encrypted/docs@root:deep/link", &one]);
    assert_eq!(fs::read(&one).unwrap(), fs::read(b.out().join("docs/letter-1.txt")).unwrap());
    // The volume as one file.
    b.ok(&["cp", "main/encrypted/vol@newsnapshot", &out]);
    let sum = fs::read_to_string(tests_data().join("cold/main.expected/vol.sha256")).unwrap();
    assert_eq!(Some(sha256_of(&fs::read(b.out().join("vol")).unwrap()).as_str()), sum.split(' ').next());
}

/// A link that lies in the destination leads nowhere for us, whatever is to be written under its name.
#[test]
fn nothing_is_written_through_links_in_the_destination() {
    let b = Bench::new("links");
    let outside = b.dir.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("target"), "mine").unwrap();
    fs::create_dir(b.out().join("docs")).unwrap();
    symlink(&outside, b.out().join("docs/deep")).unwrap();
    symlink(outside.join("target"), b.out().join("docs/letter-1.txt")).unwrap();
    let out = b.out().display().to_string();
    let (status, why) = b.fails(PASSPHRASE, &["cp", "-r", "main/encrypted/docs@root", &out]);
    assert_eq!(status, 1);
    assert!(why.contains("docs/deep"), "{why}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("target")).unwrap(), "mine");
    let letter = b.out().join("docs/letter-1.txt").symlink_metadata().unwrap();
    assert!(letter.is_file() && letter.size() > 4);
}

#[test]
fn listings() {
    let b = Bench::new("ls");
    assert_eq!(b.text(&["ls", "main/plain@root"]), "blob\nnotes.txt\n");
    assert_eq!(b.text(&["ls", "main/encrypted/docs@root:deep"]), "er\nhard\nlink\n");
    let long = b.text(&["ls", "-l", "main/encrypted/docs@root:deep/"]);
    assert!(long.contains("lrwxrwxrwx") && long.contains("link -> ../letter-1.txt"), "{long}");
    let tree = b.text(&["ls", "-R", "main/encrypted/docs@root:deep"]);
    assert!(tree.contains("\n\nmain/encrypted/docs@root:deep/er/still:\nledger.csv\n"), "{tree}");
    let json = b.text(&["ls", "-l", "--json", "main/encrypted/photos@root:IMG_0001.jpg"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["size"].as_u64(), json["mode"].as_str()), (Some(150_001), Some("0644")));
    assert_eq!(json["xattrs_hex"]["user.comment"], "6772616e646d612c2031393734");
    assert_eq!(json["acl"].as_array().unwrap().len(), 3);
    let found = b.text(&["find", "main/encrypted/docs@root", "-type", "f", "-name", "l*r.csv"]);
    assert_eq!(found, "main/encrypted/docs@root:deep/er/still/ledger.csv\n");
    let found = b.text(&["find", "main/encrypted/docs@root:deep", "-type", "d,l"]);
    assert_eq!(found.lines().count(), 4, "{found}");
    let sum: u64 = (1..=6).map(|i| i * 150_001).sum::<u64>() + (40 << 20);
    let du = b.text(&["du", "-bs", "main/encrypted/photos@root"]);
    assert_eq!(du, format!("{sum}\tmain/encrypted/photos@root\n"));
}

#[test]
fn what_cannot_be_read_is_named() {
    let b = Bench::new("fail");
    // (input, arguments, status, a part of the complaint)
    let cases: [(&str, &[&str], i32, &str); 14] = [
        ("", &["ls", "main/none"], 1, "cannot open 'main/none': dataset does not exist"),
        ("", &["ls", "nopool/x"], 1, "no pool 'nopool' is imported here"),
        ("", &["ls", "main/plain:none/x"], 1, "main/plain:none/x: none: no such file or directory"),
        ("", &["cat", "main/plain@root:blob/x"], 1, "blob: not a directory"),
        ("", &["cat", "main/plain@root:"], 1, "is a directory"),
        ("", &["cp", "main/plain@root:", "/"], 1, "-r copies directories"),
        ("", &["cp", "main/plain@root:blob", "/none/none"], 1, "cannot copy to '/none/none'"),
        ("not the passphrase\n", &["ls", "main/encrypted"], 1, "Incorrect key provided"),
        ("", &["ls", "main/encrypted"], 1, "there is no key to read"),
        ("short\n", &["ls", "main/encrypted"], 1, "Incorrect key provided"),
        (PASSPHRASE, &["ls", "main/encrypted/vol"], 1, "is a volume"),
        ("", &["ls"], 2, "usage"),
        ("", &["find", "main/plain", "-type", "x"], 2, "unknown argument to -type"),
        ("", &["du", "-z", "main"], 2, "invalid option"),
    ];
    for (input, args, status, part) in cases {
        let (got, why) = b.fails(input, args);
        assert!(got == status && why.contains(part), "{args:?}: {got} {why}");
        assert!(!why.contains("correct horse"), "{why}");
    }
}

/// Ten thousand small files come out whole.
#[test]
fn ten_thousand_small_files() {
    const COUNT: usize = 10_000;
    let b = Bench::empty("many");
    let image = b.dir.join("pool/many.img");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    b.ok(&["zpool", "create", "-m", "none", "many", image.to_str().unwrap()]);
    b.ok(&["zfs", "create", "many/small"]);
    b.ok(&["zpool", "export", "many"]);
    let data = |i: usize| format!("file {i} ").repeat(10 + i % 300).into_bytes();
    files::fill(&image, "many/small", COUNT, data).unwrap();
    b.import("many");
    let out = b.out().join("copy").display().to_string();
    b.ok(&["cp", "-r", "many/small", &out]);
    for i in 0..COUNT {
        assert_eq!(fs::read(b.out().join(format!("copy/file-{i}"))).unwrap(), data(i), "file {i}");
    }
    assert_eq!(fs::read_dir(b.out().join("copy")).unwrap().count(), COUNT);
    assert_eq!(b.text(&["ls", "many/small"]).lines().count(), COUNT);
    if !zdb::zdb_available() {
        return;
    }
    // The files were made by code of ours: OpenZFS reads them too.
    let one = b.out().join("one");
    fs::create_dir(&one).unwrap();
    let mut zdb = zdb::command();
    zdb.args(["-e", "-p"])
        .arg(b.dir.join("pool"))
        .args(["-r", "many/small", "file-7"])
        .arg(one.join("file-7"));
    let run = zdb.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(fs::read(one.join("file-7")).unwrap(), data(7));
}

#[test]
fn mounted_by_command() {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if !root || device.is_err() {
        eprintln!("SKIPPED: /dev/fuse cannot be used by root here: NOTHING WAS MOUNTED");
        return;
    }
    let bench = Bench::new("mount");
    let dir = bench.dir.join("mnt");
    fs::create_dir(&dir).unwrap();
    let at = dir.display().to_string();
    let (status, why) = bench.fails("wrong\n", &["mount", "main/encrypted/docs", &at]);
    assert_eq!(status, 1, "{why}");
    assert!(why.starts_with("cannot mount 'main/encrypted/docs': "), "{why}");
    assert_eq!(
        bench.fails("", &["unmount", &at]),
        (1, format!("cannot unmount '{at}': not currently mounted\n"))
    );
    bench.ok(&["mount", "main/encrypted/docs", &at]);
    let copied = fs::read(dir.join("diary.txt")).unwrap();
    assert_eq!(copied, bench.ok(&["cat", "main/encrypted/docs:diary.txt"]), "others read meanwhile");
    let inside = fs::File::open(dir.join("diary.txt")).unwrap();
    assert_eq!(
        bench.fails("", &["unmount", &at]).1,
        format!("cannot unmount '{at}': pool or dataset is busy\n")
    );
    drop(inside);
    bench.ok(&["unmount", &at]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

/// What a folder holds: kind, mode, size of files, links, time, target and contents of each path.
fn listed(folder: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let text = match meta.file_type() {
                t if t.is_dir() => {
                    folders.push(path.clone());
                    String::new()
                }
                t if t.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                _ => format!("{} {} {}", meta.nlink(), meta.len(), sha256_of(&fs::read(&path).unwrap())),
            };
            let time = if meta.is_symlink() { 0 } else { meta.mtime() };
            out.push(format!("{name} {:o} {time} {text}", meta.mode()));
        }
    }
    out.sort();
    out
}

#[test]
fn into_a_dataset() {
    let bench = Bench::empty("into");
    let image = bench.dir.join("pool/disk.img");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    bench.ok(&["zpool", "create", "-f", "tank", &image.display().to_string()]);
    bench.ok(&["zfs", "create", "-o", "compression=lz4", "tank/home"]);
    let from = bench.dir.join("from");
    fs::create_dir_all(from.join("deep/er")).unwrap();
    for n in 0..300_u32 {
        fs::write(
            from.join(format!("deep/a file of a rather long name, as people have them {n}")),
            n.to_string(),
        )
        .unwrap();
    }
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(from.join("deep/er/big"), &big).unwrap();
    fs::write(from.join("one"), "first").unwrap();
    fs::hard_link(from.join("one"), from.join("deep/two")).unwrap();
    symlink("deep/er/big", from.join("link")).unwrap();
    fs::set_permissions(from.join("deep"), fs::Permissions::from_mode(0o750)).unwrap();
    let source = from.display().to_string();
    bench.ok(&["import-tree", &source, "tank/home"]);
    let compare = |name: &str| {
        let out = bench.out().join(name);
        bench.ok(&["cp", "-rp", "tank/home", &out.display().to_string()]);
        assert_eq!(listed(&out), listed(&from));
    };
    compare("first");
    // Again: only what changed is written.
    bench.ok(&["zfs", "snapshot", "tank/home@one"]);
    fs::write(from.join("one"), "second, and longer").unwrap();
    fs::write(from.join("new"), "").unwrap();
    bench.ok(&["import-tree", &source, "tank/home"]);
    compare("second");
    let written: u64 =
        bench.text(&["zfs", "get", "-Hp", "-o", "value", "written", "tank/home"]).trim().parse().unwrap();
    assert!(written < 1 << 20, "{written} bytes for one changed file");
    // Single commands.
    bench.ok(&["mkdir", "-p", "tank/home:x/y/z"]);
    bench.ok(&["cp", &from.join("one").display().to_string(), "tank/home:x/y/copy"]);
    assert_eq!(bench.text(&["cat", "tank/home:x/y/copy"]), "second, and longer");
    let (status, why) = bench.fails("", &["mkdir", "tank/home:x"]);
    assert_eq!((status, why.as_str()), (1, "icecore mkdir: tank/home:x: x: file exists\n"));
    let (_, why) = bench.fails("", &["rm", "tank/home:x"]);
    assert_eq!(why, "icecore rm: tank/home:x: is a directory (-r removes directories)\n");
    assert!(bench.fails("", &["rm", "tank/home@one:one"]).1.contains("snapshots cannot be changed"));
    bench.ok(&["rm", "-r", "tank/home:x"]);
    compare("third");
    assert_eq!(bench.text(&["cat", "tank/home@one:one"]), "first");
    bench.ok(&["rm", "-r", "tank/home:deep", "tank/home:link"]);
    assert_eq!(bench.text(&["ls", "tank/home"]), "new\none\n");
    bench.ok(&["zpool", "export", "tank"]);
    if zdb::zdb_available() {
        zdb::zdb_clean(&bench.dir.join("pool"), "tank").unwrap();
    }
}

/// Extended attributes and access control lists come along; what is the same is not written again; what does not fit
/// leaves what was there.
#[test]
fn into_a_dataset_with_all_that_belongs_to_a_file() {
    use rustix::fs::{XattrFlags, lsetxattr};
    let bench = Bench::empty("belongs");
    let image = bench.dir.join("pool/disk.img");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    bench.ok(&["zpool", "create", "-f", "tank", &image.display().to_string()]);
    for (name, xattr) in [("sa", "xattr=sa"), ("dir", "xattr=dir")] {
        bench.ok(&["zfs", "create", "-o", xattr, "-o", "acltype=posix", &format!("tank/{name}")]);
    }
    let from = bench.dir.join("from");
    fs::create_dir_all(from.join("deep")).unwrap();
    fs::write(from.join("file"), "contents").unwrap();
    symlink("file", from.join("link")).unwrap();
    let wide = vec![b'w'; 2000];
    for (name, key, value) in
        [("file", "user.note", &b"one"[..]), ("file", "user.wide", &wide), ("deep", "user.dir", b"two")]
    {
        lsetxattr(from.join(name), key, value, XattrFlags::empty()).unwrap();
    }
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, u32::MAX),
        entry(2, 4, 1000),
        entry(4, 4, u32::MAX),
        entry(16, 4, u32::MAX),
        entry(32, 0, u32::MAX),
    ]
    .concat();
    let acls = lsetxattr(from.join("file"), "system.posix_acl_access", &acl, XattrFlags::empty()).is_ok();
    let source = from.display().to_string();
    let get = |path: &Path, key: &str| {
        let mut buffer = [0_u8; 4096];
        let len = rustix::fs::lgetxattr(path, key, &mut buffer[..]).unwrap_or(0);
        buffer[..len].to_vec()
    };
    for name in ["sa", "dir"] {
        let dataset = format!("tank/{name}");
        bench.ok(&["import-tree", &source, &dataset]);
        let out = bench.out().join(name);
        bench.ok(&["cp", "-rp", &dataset, &out.display().to_string()]);
        assert_eq!(listed(&out), listed(&from));
        assert_eq!(
            (get(&out.join("file"), "user.note"), get(&out.join("file"), "user.wide")),
            (b"one".to_vec(), wide.clone())
        );
        assert_eq!(get(&out.join("deep"), "user.dir"), b"two");
        assert!(!acls || get(&out.join("file"), "system.posix_acl_access") == acl, "{name}");
    }
    // Nothing changed: nothing is written.
    let written = || bench.text(&["zfs", "get", "-Hp", "-o", "value", "written", "tank/sa"]);
    bench.ok(&["zfs", "snapshot", "tank/sa@one"]);
    bench.ok(&["import-tree", &source, "tank/sa"]);
    assert_eq!(written().trim(), "0");
    // One attribute less, one mode and one link else: no contents.
    rustix::fs::lremovexattr(from.join("file"), "user.note").unwrap();
    fs::remove_file(from.join("link")).unwrap();
    symlink("deep", from.join("link")).unwrap();
    fs::set_permissions(from.join("deep"), fs::Permissions::from_mode(0o700)).unwrap();
    bench.ok(&["import-tree", &source, "tank/sa"]);
    let out = bench.out().join("again");
    bench.ok(&["cp", "-rp", "tank/sa", &out.display().to_string()]);
    assert_eq!(listed(&out), listed(&from));
    assert_eq!(get(&out.join("file"), "user.note"), b"");
    // Over the quota: the old file stays, a new one does not appear.
    bench.ok(&["zfs", "set", "refquota=2M", "tank/sa"]);
    let noise: Vec<u8> =
        (0..1_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(from.join("file"), &noise).unwrap();
    fs::write(from.join("new"), &noise).unwrap();
    let (status, why) = bench.fails("", &["import-tree", &source, "tank/sa"]);
    assert_eq!(status, 1);
    assert_eq!(why.matches("disk quota exceeded").count(), 2, "{why}");
    assert_eq!(bench.text(&["ls", "tank/sa"]), "deep\nfile\nlink\n");
    assert_eq!(bench.text(&["cat", "tank/sa:file"]), "contents");
    bench.ok(&["zpool", "export", "tank"]);
    if zdb::zdb_available() {
        zdb::zdb_clean(&bench.dir.join("pool"), "tank").unwrap();
    }
}
