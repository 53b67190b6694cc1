//! `zfs receive`: its flags, its words, going on after a cut, and pools that a refusal leaves as they were.

use crate::support::{Desk, stream};

#[test]
fn names_and_properties_follow_the_flags() {
    let desk = Desk::with_pool("tank");
    let plain = stream("plain@newsnapshot.R.zfs");
    desk.ok("zfs create tank/d");
    desk.ok("zfs create tank/e");
    desk.feed("zfs receive -d tank/d", &plain);
    desk.feed("zfs receive -e tank/e", &plain);
    desk.feed("zfs receive -u -x compression -o org.example:kept=yes tank/o", &plain);
    let heads = desk.names("-r tank");
    assert_eq!(heads, ["tank", "tank/d", "tank/d/plain", "tank/e", "tank/e/plain", "tank/o"]);
    assert_eq!(desk.ok("zfs get -H -o value,source compression tank/d/plain"), "lz4\treceived\n");
    assert!(!desk.ok("zfs get -H -o source compression tank/o").contains("received"));
    assert_eq!(desk.ok("zfs get -H -o value,source org.example:kept tank/o"), "yes\tlocal\n");
    // A dry run reads all and changes nothing.
    let before = desk.seen("tank");
    let said = desk.feed("zfs receive -n -v tank/dry", &plain);
    assert!(said.contains("would receive full stream of main/plain@root into tank/dry@root"), "{said}");
    assert!(
        said.contains("would receive incremental stream of main/plain@newsnapshot into tank/dry@newsnapshot"),
        "{said}"
    );
    assert_eq!(desk.seen("tank"), before);
    // A full stream never takes the place of something without -F, nor of snapshots with it.
    desk.feed_refused(
        "zfs receive tank/e",
        &stream("plain@newsnapshot.Lecp.zfs"),
        &[
            "cannot receive new filesystem stream: destination 'tank/e' exists",
            "must specify -F to overwrite it",
        ],
    );
    desk.feed_refused(
        "zfs receive -F tank/o@fresh",
        &stream("docs@root.decrypted.zfs"),
        &["destination has snapshots", "must destroy them to overwrite"],
    );
    assert_eq!(desk.seen("tank"), before);
    desk.ok("zfs create tank/f");
    desk.feed("zfs receive -F tank/f", &stream("plain@newsnapshot.Lecp.zfs"));
    assert_eq!(desk.names("-t snapshot tank/f"), ["tank/f@newsnapshot"]);
    desk.export_and_judge("tank");
}

/// -F gives up what came after the base; without it that is a refusal which names it.
/// What the user sets is set on the dataset that the receive is for; those below inherit it. What is left out is still known.
#[test]
fn what_the_user_asks_for_is_for_the_top_of_a_package() {
    let desk = Desk::new();
    desk.pool("tank", 128);
    for line in ["zfs create tank/s", "zfs create tank/s/sub", "zfs snapshot -r tank/s@a"] {
        desk.ok(line);
    }
    desk.piped("zfs send -R tank/s@a", "zfs receive tank/d");
    for line in [
        "zfs set copies=2 compression=gzip org.example:mine=yes refquota=40M quota=45M tank/s",
        "zfs set checksum=sha256 exec=off devices=on tank/s",
        "zfs set checksum=blake3 quota=60M tank/d",
        "zfs set atime=on tank/s/sub",
        "zfs set org.example:of=snapshot tank/s@a",
        "zfs snapshot -r tank/s@b",
    ] {
        desk.ok(line);
    }
    let ask = "zfs receive -F -o atime=off -o org.example:asked=yes -o reservation=1M -x compress -x copies -x checksum -x quota -x refquota tank/d";
    desk.piped("zfs send -R -i @a tank/s@b", ask);
    let row = |prop: &str, name: &str| desk.ok(&format!("zfs get -H -o value,received,source {prop} {name}"));
    assert_eq!(row("atime", "tank/d"), "off\t-\tlocal\n");
    assert_eq!(row("atime", "tank/d/sub"), "off\ton\tinherited from tank/d\n");
    assert_eq!(row("org.example:asked", "tank/d/sub"), "yes\t-\tinherited from tank/d\n");
    assert_eq!(row("reservation", "tank/d/sub"), "none\t-\tdefault\n");
    // What is set here stays; what cannot be inherited is not taken at all.
    assert_eq!(row("checksum", "tank/d"), "blake3\tsha256\tlocal\n");
    assert_eq!(row("quota", "tank/d"), "60M\t45M\tlocal\n");
    assert_eq!(row("refquota", "tank/d"), "none\t-\tdefault\n");
    // A stream may forbid, not allow.
    assert_eq!(row("exec", "tank/d"), "off\toff\treceived\n");
    assert_eq!(row("devices", "tank/d"), "on\ton\tdefault\n");
    assert_eq!(row("copies", "tank/d"), "1\t2\tdefault\n");
    assert_eq!(row("compression", "tank/d"), "on\tgzip\tdefault\n");
    assert_eq!(row("org.example:mine", "tank/d"), "yes\tyes\treceived\n");
    // Also of a snapshot that was here.
    assert_eq!(row("org.example:of", "tank/d@a"), "snapshot\tsnapshot\treceived\n");
    desk.export_and_judge("tank");
}

#[test]
fn a_destination_that_went_on() {
    let desk = Desk::with_main();
    desk.pool("tank", 128);
    desk.piped("zfs send main/plain@root", "zfs receive tank/plain");
    let increment = desk.bytes("zfs send -i @root main/plain@newsnapshot");
    desk.feed("zfs receive tank/plain", &increment);
    // What came stays in the dataset when its snapshot goes: the dataset is no longer as @root was.
    desk.ok("zfs destroy tank/plain@newsnapshot");
    desk.feed_refused(
        "zfs receive tank/plain",
        &increment,
        &["has been modified", "zfs rollback tank/plain@root"],
    );
    desk.ok("zfs snapshot tank/plain@mine");
    let before = desk.seen("tank");
    desk.feed_refused(
        "zfs receive tank/plain",
        &increment,
        &["cannot receive incremental stream: destination tank/plain has been modified\nsince most recent snapshot", "mine"],
    );
    assert_eq!(desk.seen("tank"), before);
    desk.feed("zfs receive -F tank/plain", &increment);
    assert_eq!(desk.names("-t snapshot tank/plain"), ["tank/plain@root", "tank/plain@newsnapshot"]);
    let said = desk.feed("zfs receive -v tank/plain", &increment);
    assert!(said.contains("snap tank/plain@newsnapshot already exists; ignoring"), "{said}");
    // No base here at all.
    desk.ok("zfs create tank/other");
    desk.ok("zfs snapshot tank/other@x");
    desk.feed_refused(
        "zfs receive tank/other",
        &increment,
        &["most recent snapshot of tank/other does not\nmatch incremental source", "\n\tx (0x"],
    );
    desk.feed_refused("zfs receive tank/none", &increment, &["tank/none", "does not exist"]);
    // Raw on plain, and -F over what is encrypted.
    let raw = stream("docs-kept-newsnapshot.raw-i.zfs");
    desk.feed_refused(
        "zfs receive tank/plain@other",
        &raw,
        &["cannot perform raw receive on top of existing unencrypted dataset"],
    );
    desk.piped("zfs send -w main/encrypted/docs@root", "zfs receive tank/docs");
    desk.feed_refused(
        "zfs receive -F tank/docs",
        &desk.bytes("zfs send -w main/encrypted/docs@newsnapshot"),
        &["destination has snapshots"],
    );
    desk.export_and_judge("tank");
}

/// A cut stream leaves a token with -s, which `zfs send -t` goes on from; -A drops it; without -s nothing is left.
#[test]
fn a_cut_stream_goes_on_or_is_dropped() {
    let desk = Desk::with_main();
    desk.pool("tank", 128);
    for line in ["zfs send -w main/encrypted/photos@root", "zfs send -Lec main/plain@root"] {
        let whole = desk.bytes(line);
        for part in [2, 3, 10] {
            let cut = &whole[..whole.len() * (part - 1) / part + 7];
            let before = desk.seen("tank");
            let done = desk.feed_refused(
                "zfs receive tank/part",
                cut,
                &["cannot receive new filesystem stream: incomplete stream"],
            );
            assert!(!done.err.contains("zfs send -t"), "{}", done.err);
            assert_eq!(desk.seen("tank"), before, "nothing is left without -s");

            let done = desk.feed_refused(
                "zfs receive -s tank/part",
                cut,
                &["Partially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t 1-"],
            );
            let token = desk.get("receive_resume_token", "tank/part");
            assert!(done.err.trim_end().ends_with(&token), "{}", done.err);
            desk.feed_refused(
                "zfs receive tank/part",
                &whole,
                &["destination 'tank/part' exists", "it holds what came of a stream that was cut off"],
            );
            if part == 3 {
                desk.ok("zfs receive -A tank/part");
                assert_eq!(desk.names("-r -t all tank"), ["tank"]);
                continue;
            }
            let said = desk.ok(&format!("zfs send -nvt {token}"));
            assert!(said.starts_with("resume token contents:\nnvlist version: 0\n\t"), "{said}");
            assert!(said.contains("\ttoname = main/") && said.contains("total estimated size is "), "{said}");
            let said = desk.ok(&format!("zfs send -nP -t {token}"));
            assert!(said.lines().last().unwrap().starts_with("size\t"), "{said}");
            desk.piped(&format!("zfs send -t {token}"), "zfs receive -s tank/part");
            assert_eq!(desk.get("receive_resume_token", "tank/part"), "-");
            let sent = line.rsplit_once(' ').unwrap().1;
            let guid = |name: &str| desk.get("guid", name);
            assert_eq!(guid("tank/part@root"), guid(sent));
            desk.ok("zfs destroy -r tank/part");
        }
    }
    desk.refused("zfs receive -A tank", 1, &["'tank' does not have any resumable receive state to abort"]);
    desk.export_and_judge("tank");
}

/// What fits of a stream is kept with -s, be it the pool that is full or a quota, and the stream goes on from there.
#[test]
fn what_fits_is_kept() {
    let desk = Desk::new();
    desk.pool("from", 256);
    desk.ok("zfs create -o compression=off from/fs");
    let mut bytes = vec![0; 40 << 20];
    icecore_sim::Rng::new(3).fill(&mut bytes);
    std::fs::write(desk.path("bytes"), &bytes).unwrap();
    std::fs::write(desk.path("filler"), &bytes).unwrap();
    desk.ok("icecore cp bytes from/fs:bytes");
    desk.ok("zfs snapshot from/fs@s");
    let whole = desk.bytes("zfs send from/fs@s");
    desk.pool("tank", 128);
    let came = |token: &str| -> u64 {
        let said = desk.ok(&format!("zfs send -nvt {token}"));
        let bytes = said.lines().find_map(|l| l.trim().strip_prefix("bytes = 0x")).unwrap();
        u64::from_str_radix(bytes, 16).unwrap()
    };
    for (full, room, why) in [
        ("icecore cp filler tank/filler:f", "zfs destroy -r tank/filler", "out of space"),
        ("zfs set quota=30M tank", "zfs set quota=none tank", "space quota exceeded"),
    ] {
        desk.ok("zfs create -o compression=off tank/filler");
        desk.ok(full);
        let before = desk.names("-r tank");
        desk.feed_refused("zfs receive tank/fs", &whole, &[why]);
        assert_eq!(desk.names("-r tank"), before, "nothing is left without -s");
        let done = desk.feed_refused("zfs receive -s tank/fs", &whole, &[why]);
        let token = desk.get("receive_resume_token", "tank/fs");
        assert!(token.starts_with("1-"), "{token}\n{}", done.err);
        // All that fits beside what is kept back: no batch of records is lost.
        let number = |prop: &str| desk.get(prop, "tank/fs").parse::<u64>().unwrap();
        let (used, left) = (number("used"), number("available"));
        assert!(left < 1 << 20 && used > 10 << 20, "{why}: {used} are used, {left} are left");
        assert!(came(&token) + (1 << 20) > used, "{why}: {} of {used}", came(&token));
        // What still does not fit leaves it as it is, or a little further.
        let rest = desk.bytes(&format!("zfs send -t {token}"));
        desk.feed_refused("zfs receive -s tank/fs", &rest, &[why]);
        let token = desk.get("receive_resume_token", "tank/fs");
        desk.ok("icecore service stop");
        assert_eq!(desk.get("receive_resume_token", "tank/fs"), token);
        desk.ok(room);
        desk.piped(&format!("zfs send -t {token}"), "zfs receive -s tank/fs");
        assert!(desk.bytes("icecore cat tank/fs:bytes") == bytes);
        assert_eq!(desk.get("guid", "tank/fs@s"), desk.get("guid", "from/fs@s"));
        desk.ok("zfs destroy -r tank/fs");
        let _ = desk.run("zfs destroy -r tank/filler");
    }
    desk.export_and_judge("tank");
}

#[test]
fn what_is_no_stream_changes_nothing() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    let whole = stream("plain@newsnapshot.Lecp.zfs");
    let noise: Vec<u8> = (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let check = |input: &[u8], words: &[&str]| {
        desk.feed_refused("zfs receive tank/x", input, words);
        assert_eq!(desk.seen("tank"), before);
    };
    check(b"", &["cannot receive: failed to read from stream"]);
    check(b"hello", &["failed to read from stream"]);
    check(&noise, &["invalid stream (bad magic number)"]);
    check(&[0; 4096], &["invalid stream (bad magic number)"]);
    check(&whole[..100], &["incomplete stream"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    check(&flipped, &["checksum mismatch"]);
    // As above, but to be kept as far as it was right.
    desk.feed_refused("zfs receive -s tank/x", &flipped, &["Partially received snapshot is saved."]);
    desk.ok("zfs receive -A tank/x");
    assert_eq!(desk.names("-r -t all tank"), ["tank"]);
    let before = desk.seen("tank");
    desk.feed_refused("zfs receive tank/no/such", &whole, &["tank/no"]);
    desk.feed_refused("zfs receive none/x", &whole, &["cannot open 'none': dataset does not exist"]);
    desk.feed_refused("zfs receive tank/b@d!name", &whole, &["cannot receive"]);
    assert_eq!(desk.seen("tank"), before);
    desk.export_and_judge("tank");
}

/// One pool, two commands: the second says what holds it, and the first is not disturbed.
#[test]
fn two_commands_on_one_pool() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs receive tank/plain", &stream("plain@newsnapshot.Lecp.zfs"));
    desk.piped("zfs send -Lec tank/plain@newsnapshot", "zfs receive tank/copy");
    assert_eq!(desk.names("-r tank"), ["tank", "tank/copy", "tank/plain"]);
    let sent = |name: &str| desk.bytes(&format!("zfs send -Lec {name}@newsnapshot")).len();
    assert_eq!(sent("tank/copy"), sent("tank/plain"));
    assert_eq!(desk.get("guid", "tank/copy@newsnapshot"), desk.get("guid", "tank/plain@newsnapshot"));
    desk.export_and_judge("tank");
}

/// What was asked to be encrypted is encrypted, or not stored at all.
#[test]
fn encryption_asked_for_is_not_passed_over() {
    let desk = Desk::with_main();
    desk.pool("tank", 128);
    let before = desk.seen("tank");
    let plain = desk.bytes("zfs send main/plain@root");
    let package = stream("plain@newsnapshot.R.zfs");
    for (o, word) in [
        ("-o encryption=on", "Keyformat required for new encryption root."),
        ("-o keyformat=raw", "Encryption must be turned on to set encryption properties."),
        (
            "-o encryption=on -o keyformat=passphrase",
            "Cannot use 'prompt' keylocation because stdin is in use.",
        ),
        ("-o encryption=rot13", "'encryption' must be one of"),
    ] {
        for input in [&plain, &package] {
            for n in ["", "-n "] {
                desk.feed_refused(&format!("zfs receive {n}{o} tank/x"), input, &["cannot receive", word]);
                assert_eq!(desk.seen("tank"), before);
            }
        }
    }
    let raw = desk.bytes("zfs send -w main/encrypted/docs@root");
    for o in ["-o encryption=off", "-x encryption", "-o keyformat=raw", "-x pbkdf2iters"] {
        let line = format!("zfs receive {o} tank/x");
        desk.feed_refused(&line, &raw, &["cannot be set or excluded for raw streams."]);
        assert_eq!(desk.seen("tank"), before);
    }
    desk.feed("zfs receive -o encryption=off tank/x", &plain);
    assert_eq!(desk.get("encryption", "tank/x"), "off");
    let next = desk.bytes("zfs send -i @root main/plain@newsnapshot");
    desk.feed_refused(
        "zfs receive -o encryption=on tank/x",
        &next,
        &["encryption property 'encryption' cannot be set for incremental streams."],
    );
    // A whole stream once more: not without a word, since nothing of it is stored.
    desk.feed_refused(
        "zfs receive tank/x",
        &plain,
        &["cannot receive new filesystem stream: destination 'tank/x' exists\nmust specify -F to overwrite it"],
    );
    desk.feed_refused("zfs receive -F tank/x", &plain, &["destination has snapshots (eg. tank/x@root)"]);
    // What is cut is called what it is.
    desk.feed_refused(
        "zfs receive tank/x",
        &next[..next.len() / 2],
        &["cannot receive incremental stream: incomplete stream"],
    );
    desk.export_and_judge("tank");
}

/// A stream that is not raw is encrypted as it comes in: with a key of its own, or under its parent's.
#[test]
fn plain_streams_into_encrypted_datasets() {
    let desk = Desk::with_main();
    desk.pool("tank", 128);
    let key = desk.key_file("key", b"a passphrase of some length");
    let new = format!("-o encryption=on -o keyformat=passphrase -o keylocation={key} -o pbkdf2iters=100000");
    let plain = desk.bytes("zfs send -L main/plain@root");
    let embedded = desk.bytes("zfs send -Le main/plain@root");
    desk.feed_refused(
        &format!("zfs receive {new} tank/x"),
        &embedded,
        &["incompatible embedded data stream feature with encrypted receive."],
    );
    desk.feed(&format!("zfs receive {new} tank/x"), &plain);
    assert_eq!(desk.get("encryption", "tank/x"), "aes-256-gcm");
    assert_eq!(desk.get("encryptionroot", "tank/x"), "tank/x");
    assert_eq!(desk.get("keylocation", "tank/x"), key);
    let package = stream("plain@newsnapshot.R.zfs");
    desk.feed("zfs receive -x encryption tank/x/below", &package);
    assert_eq!(desk.get("encryptionroot", "tank/x/below"), "tank/x");
    // With its properties a stream says that its dataset was plain; it may then hold embedded blocks, and needs no key.
    let said = desk.with_input("zfs receive tank/x/open", &package);
    assert_eq!((said.status, desk.get("encryption", "tank/x/open").as_str()), (0, "off"));
    assert!(
        said.err.contains("tank/x/open is not encrypted, as it was sent, although tank/x is"),
        "{said:?}"
    );
    desk.feed("zfs receive tank/x/open2", &desk.bytes("zfs send -Lep main/plain@root"));
    assert_eq!(desk.get("encryption", "tank/x/open2"), "off");
    desk.feed("zfs receive -o encryption=aes-128-ccm tank/x/other", &plain);
    assert_eq!(desk.get("encryption", "tank/x/other"), "aes-128-ccm");
    desk.feed("zfs receive -o encryption=off tank/x/off", &plain);
    assert_eq!(desk.get("encryption", "tank/x/off"), "off");
    let next = desk.bytes("zfs send -L -i @root main/plain@newsnapshot");
    desk.feed("zfs receive tank/x", &next);
    // Without the key nothing new comes below it.
    desk.ok("zfs unload-key tank/x");
    desk.feed_refused("zfs receive tank/x/locked", &plain, &["encryption key not loaded"]);
    desk.feed_refused("zfs receive -x encryption tank/x/locked", &package, &["encryption key not loaded"]);
    desk.feed("zfs receive tank/x/open3", &package);
    desk.export_and_judge("tank");
    desk.ok(&format!("zpool import -N -d {} tank", desk.path("tank").display()));
    desk.ok("zfs load-key tank/x");
    // Times are of the files, but folders are written anew by cp: contents are compared.
    let contents = |name: &str| {
        let to = desk.path(&format!("out-{}", name.replace('/', "-")));
        desk.ok(&format!("icecore cp -r {name} {}", to.display()));
        let text = String::from_utf8(icecore_check::manifest::of_folder(&to).unwrap()).unwrap();
        text.split_once("# sha256").unwrap().1.to_string()
    };
    let (root, new) = (contents("main/plain@root"), contents("main/plain@newsnapshot"));
    assert!(root.contains("  ./") && new.contains("  ./") && root != new, "{root}{new}");
    assert_eq!(contents("tank/x@root"), root);
    assert_eq!(contents("tank/x/other@root"), root);
    assert_eq!(contents("tank/x@newsnapshot"), new);
    assert_eq!(contents("tank/x/below@newsnapshot"), new);
    desk.ok("zpool scrub -w tank");
}

#[test]
fn options_that_make_no_sense_store_nothing() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    let plain = stream("plain@newsnapshot.Lecp.zfs");
    for (flags, status, word) in [
        ("-d -e", 2, "-d and -e are mutually exclusive"),
        ("-o atime=off -o atime=on", 2, "property 'atime' specified multiple times"),
        ("-o atime=off -x atime", 2, "property 'atime' specified multiple times"),
        ("-x atime=off", 2, "invalid character '=' in property argument"),
        ("-A -n", 2, "invalid option"),
        ("-x bad", 1, "cannot receive: invalid property 'bad'"),
        ("-o bad=1", 1, "cannot receive: invalid property 'bad'"),
        ("-o type=volume", 1, "cannot receive: invalid property 'type'"),
        ("-o mountpoint=rel", 1, "'mountpoint' must be an absolute path, 'none', or 'legacy'"),
        ("-o atime=maybe", 1, "'atime' must be one of 'on | off'"),
    ] {
        let line = format!("zfs receive {flags} tank/x");
        let done = desk.with_input(&line, &plain);
        assert_eq!(done.status, status, "{line}\n{}", done.err);
        assert!(done.err.contains(word), "{line}\n{}", done.err);
        assert_eq!(desk.seen("tank"), before, "{line}");
    }
    desk.refused("zfs receive tank/x tank/y", 2, &["too many arguments"]);
    // What is measured is the stream, not what came before it.
    let said = desk.feed("zfs receive -v -o mountpoint=none tank/x", &plain);
    let sizes: Vec<&str> = said.lines().filter(|l| l.starts_with("received ")).collect();
    assert!(sizes.len() == 1 && !sizes[0].starts_with("received 0B"), "{said}");
    desk.export_and_judge("tank");
}

/// A full stream received as a clone of what it was sent from keeps the blocks of that, where their checksum tells contents
/// (`zio_nop_write`, zio.c); it takes their space where not.
#[test]
fn a_clone_keeps_what_a_stream_repeats() {
    let desk = Desk::with_pool("tank");
    let folder = desk.path("files");
    std::fs::create_dir(&folder).unwrap();
    let mut word = 9_u64;
    let mut bytes = Vec::new();
    while bytes.len() < 8 << 20 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(word >> 16).to_le_bytes()[..6]);
    }
    std::fs::write(folder.join("noise"), &bytes).unwrap();
    std::fs::write(folder.join("text"), "the same line\n".repeat(100_000)).unwrap();
    for (name, props, kept) in [
        ("sum", "-o checksum=sha256 -o compression=lz4", true),
        ("keyed", "-o checksum=blake3 -o compression=zstd", true),
        ("weak", "-o checksum=fletcher4 -o compression=lz4", false),
        ("plain", "-o checksum=sha256 -o compression=off", false),
    ] {
        desk.ok(&format!("zfs create {props} tank/{name}"));
        desk.ok(&format!("icecore import-tree {} tank/{name}", folder.display()));
        desk.ok(&format!("zfs snapshot tank/{name}@s"));
        for flags in ["-p", "-pc"] {
            let stream = desk.bytes(&format!("zfs send {flags} tank/{name}@s"));
            desk.feed(&format!("zfs receive -o origin=tank/{name}@s tank/copy"), &stream);
            let (used, whole): (u64, u64) = (
                desk.get("used", "tank/copy").parse().unwrap(),
                desk.get("used", &format!("tank/{name}")).parse().unwrap(),
            );
            assert_eq!(used < whole / 10, kept, "{name} {flags}: {used} of {whole}");
            assert_eq!(desk.bytes("icecore cat tank/copy:noise"), bytes);
            assert_eq!(desk.get("referenced", "tank/copy"), desk.get("referenced", &format!("tank/{name}")));
            desk.ok("zfs destroy -r tank/copy");
        }
    }
    // Of another origin nothing is kept that differs.
    let stream = desk.bytes("zfs send tank/sum@s");
    desk.ok("zfs create -o checksum=sha256 -o compression=lz4 tank/other");
    bytes.reverse();
    std::fs::write(folder.join("noise"), &bytes).unwrap();
    desk.ok(&format!("icecore import-tree {} tank/other", folder.display()));
    desk.ok("zfs snapshot tank/other@s");
    desk.feed("zfs receive -o origin=tank/other@s tank/copy", &stream);
    bytes.reverse();
    assert_eq!(desk.bytes("icecore cat tank/copy:noise"), bytes);
    desk.export_and_judge("tank");
}
