//! Keys: read from files and lines, asked for on a terminal, checked, changed; never shown and never kept.

use crate::support::{Desk, Done, stream};
use icecore_check::zdb::zdb_available;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Of the fixtures (tests-data/README.md).
const PASSPHRASE: &[u8] = b"correct horse battery staple\n";

#[test]
fn decrypted_streams_are_openzfs_own() {
    let desk = Desk::with_main();
    let key = desk.key_file("key", PASSPHRASE);
    for (line, fixture) in [
        ("main/encrypted/docs@root", "docs@root.decrypted.zfs"),
        ("-i @root main/encrypted/docs@newsnapshot", "docs@root-newsnapshot.decrypted.zfs"),
    ] {
        let from_file = desk.bytes(&format!("zfs send --keylocation {key} {line}"));
        assert!(from_file == stream(fixture), "{fixture}");
        let from_input = desk.with_input(&format!("zfs send --keylocation prompt {line}"), PASSPHRASE);
        assert!(from_input.status == 0 && from_input.out == stream(fixture), "{}", from_input.err);
    }
    // A tree goes decrypted only if that is said.
    desk.pool("tank", 256);
    desk.piped(&format!("zfs send -R -U --keylocation {key} main/encrypted@root"), "zfs receive tank/plain");
    assert_eq!(desk.get("encryption", "tank/plain/docs"), "off");
    desk.export_and_judge("tank");
    let wrong = desk.key_file("wrong", b"correct horse battery stable\n");
    for (key, words) in [
        (wrong.as_str(), "Incorrect key provided for 'main/encrypted'"),
        ("file:///nothing/there", "Failed to open key material file"),
        ("https://localhost:1/key", "Failed to connect to https://localhost:1/key"),
        ("correct", "never is the key itself"),
    ] {
        let line = format!("zfs send --keylocation {key} main/encrypted/docs@root");
        let locked = "warning: cannot send 'main/encrypted/docs@root': dataset key must be loaded";
        let done = desk.refused(&line, 1, &[locked, words]);
        assert!(done.out.is_empty());
    }
    // A raw stream needs no key, and asks for none.
    desk.bytes("zfs send -w --keylocation file:///nothing/there main/encrypted/docs@root");
}

#[test]
fn keys_are_checked_and_never_kept() {
    let desk = Desk::with_main();
    let key = desk.key_file("key", PASSPHRASE);
    let said = desk.ok(&format!("zfs load-key -n -L {key} main/encrypted"));
    assert_eq!(said, "1 / 1 key(s) successfully verified\n");
    assert_eq!(desk.feed("zfs load-key -n main/encrypted", PASSPHRASE), said);
    assert_eq!(desk.feed("zfs load-key -n -r main", PASSPHRASE), said);
    assert_eq!(desk.feed("zfs load-key -n -a", PASSPHRASE), said);
    let done = desk.feed_refused(
        "zfs load-key -n main/encrypted",
        b"something else\n",
        &["Key load error: Incorrect key provided for 'main/encrypted'."],
    );
    assert_eq!(done.text(), "0 / 1 key(s) successfully verified\n");
    desk.feed_refused("zfs load-key -n main/encrypted", b"", &["empty"]);
    desk.refused("zfs load-key -n main/plain", 255, &["'main/plain' is not encrypted."]);
    desk.refused(
        "zfs load-key -n main/encrypted/docs",
        255,
        &["Keys must be loaded for encryption root of 'main/encrypted/docs' (main/encrypted)."],
    );
    let load = format!("zfs load-key -L {key} main/encrypted");
    let alone: Done = desk.command(&load).env("ICECORE_SERVICE", "off").output().unwrap().into();
    assert!(alone.err.contains("nothing can stay loaded") && alone.err.contains("load-key -n"), "{alone:?}");
    assert_eq!(alone.status, 255);
    desk.refused("zfs unload-key main/encrypted", 255, &["Key already unloaded for 'main/encrypted'."]);
    assert_eq!(desk.ok("zfs unload-key -a"), "", "nothing to do, nothing to count");
    assert_eq!(desk.ok("zfs load-key -r main/plain"), "");
    desk.refused("zfs load-key -r main/none", 1, &["cannot open 'main/none': dataset does not exist"]);
    let two = desk.refused("zfs load-key -n main/none main/plain", 255, &["'main/plain' is not encrypted."]);
    assert_eq!(two.text(), "0 / 1 key(s) successfully verified\n");
    let many = "warning: cannot send 'main/encrypted/docs@newsnapshot': source key must be loaded";
    desk.refused("zfs send -I @root main/encrypted/docs@newsnapshot", 1, &[many]);
    assert_eq!(desk.get("keystatus", "main/encrypted/docs"), "unavailable");
}

/// Every form of key makes a dataset that OpenZFS's zdb unlocks too.
#[test]
fn encrypted_datasets_of_every_form() {
    let desk = Desk::with_pool("vault");
    let raw: Vec<u8> = (0..32_u8).map(|b| b.wrapping_mul(37).wrapping_add(11)).collect();
    let hex = "00112233445566778899aabbccddeeff0123456789ABCDEF0123456789abcdef";
    let (raw_file, hex_file) = (desk.key_file("raw", &raw), desk.key_file("hex", hex.as_bytes()));
    desk.ok(&format!("zfs create -o encryption=on -o keyformat=raw -o keylocation={raw_file} vault/raw"));
    desk.ok(&format!(
        "zfs create -o encryption=aes-128-ccm -o keyformat=hex -o keylocation={hex_file} -o compression=zstd vault/hex"
    ));
    desk.feed(
        "zfs create -o encryption=aes-192-gcm -o keyformat=passphrase -o pbkdf2iters=100000 vault/pass",
        b"open sesame please\n",
    );
    for (name, suite, format, location, iters) in [
        ("vault/raw", "aes-256-gcm", "raw", raw_file.as_str(), "0"),
        ("vault/hex", "aes-128-ccm", "hex", &hex_file, "0"),
        ("vault/pass", "aes-192-gcm", "passphrase", "prompt", "100000"),
    ] {
        assert_eq!(desk.get("encryption", name), suite);
        assert_eq!(desk.get("keyformat", name), format);
        assert_eq!(desk.get("keylocation", name), location);
        assert_eq!(desk.get("pbkdf2iters", name), iters);
        assert_eq!(desk.get("encryptionroot", name), name);
        assert_eq!(desk.get("keystatus", name), "available");
    }
    assert_eq!(desk.ok("zfs unload-key -a"), "3 / 3 key(s) successfully unloaded\n");
    assert_eq!(desk.get("keystatus", "vault/raw"), "unavailable");
    // A child takes its parent's key, read from where the parent says, or from elsewhere.
    desk.ok("zfs create vault/raw/child");
    desk.ok("zfs create -p vault/hex/a/b");
    desk.feed("zfs create vault/pass/child", b"open sesame please\n");
    assert_eq!(desk.get("encryptionroot", "vault/hex/a/b"), "vault/hex");
    let before = desk.seen("vault");
    desk.feed_refused(
        "zfs create vault/pass/other",
        b"open barley please\n",
        &["Incorrect key provided for 'vault/pass'"],
    );
    desk.refused("zfs create vault/pass/other", 1, &["encryption root's key is not loaded or provided"]);
    assert_eq!(desk.seen("vault"), before);
    // Plain sends of what was made: the file key is found without being told.
    desk.ok("zfs snapshot -r vault@s");
    assert!(!desk.bytes("zfs send vault/raw/child@s").is_empty());
    let sent = desk.with_input("zfs send --keylocation prompt vault/pass/child@s", b"open sesame please\n");
    assert_eq!(sent.status, 0, "{}", sent.err);
    // And raw ones, to where the key still opens them.
    desk.pool("copy", 128);
    desk.piped("zfs send -w -R vault/raw@s", "zfs receive copy/raw");
    assert_eq!(desk.get("encryptionroot", "copy/raw/child"), "copy/raw");
    desk.ok(&format!("zfs load-key -n -L {raw_file} copy/raw"));
    desk.export_and_judge("vault");
    desk.export_and_judge("copy");
    openzfs_unlocks(&desk, "vault/hex/a/b", hex);
    openzfs_unlocks(&desk, "vault/pass/child", "open sesame please");
}

/// Lets `zdb` derive the key itself and list the dataset's objects with it.
fn openzfs_unlocks(desk: &Desk, dataset: &str, key: &str) {
    if !zdb_available() {
        return;
    }
    let zdb = |key: &str| {
        let mut c = icecore_check::zdb::command();
        c.args(["-e", "-p"]).arg(desk.path("vault")).args(["-K", key, "-ddddd", dataset, "4"]);
        let done = c.output().unwrap();
        (
            done.status.success(),
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)),
        )
    };
    let (right, said) = zdb(key);
    assert!(right && !said.contains("(encrypted)") && !said.contains("object encrypted"), "{said}");
    let mut wrong = key.to_string();
    wrong.replace_range(0..1, "7");
    assert!(!zdb(&wrong).0, "the judge takes any key");
}

#[test]
fn what_cannot_be_a_key_makes_no_dataset() {
    let desk = Desk::with_pool("tank");
    let before = desk.seen("tank");
    let short = desk.key_file("short", &[7; 31]);
    let create = "zfs create -o encryption=on";
    let pass = format!("{create} -o keyformat=passphrase tank/e");
    for (line, input, words) in [
        (pass.as_str(), &b"seven77\n"[..], "Passphrase too short (min 8)."),
        (&pass, &[b'x'; 513], "Passphrase too long (max 512)."),
        (&pass, b"", "empty"),
        (&format!("{create} -o keyformat=hex tank/e"), &[b'g'; 64], "Invalid hex character detected."),
        (&format!("{create} -o keyformat=hex tank/e"), b"abc\n", "Hex key too short (expected 64)."),
        (
            &format!("{create} -o keyformat=raw -o keylocation={short} tank/e"),
            b"",
            "Raw key too short (expected 32).",
        ),
        (&format!("{create} -o keyformat=raw tank/e"), &[1; 33], "Raw key too long (expected 32)."),
        (&format!("{create} tank/e"), b"", "Keyformat required for new encryption root."),
        (
            &format!("{create} -o keylocation=prompt tank/e"),
            b"",
            "Keyformat required for new encryption root.",
        ),
        ("zfs create -o keyformat=passphrase tank/e", b"", "Encryption must be turned on"),
        ("zfs create -o encryption=rot13 tank/e", b"", "'encryption' must be one of 'on | off | aes-128-ccm"),
        (
            &format!("{create} -o keyformat=pin tank/e"),
            b"",
            "'keyformat' must be one of 'none | raw | hex | passphrase'",
        ),
        (&format!("{pass} -o pbkdf2iters=1000"), b"", "minimum pbkdf2 iterations is 100000"),
        (
            &format!("{create} -o keyformat=hex -o pbkdf2iters=100000 tank/e"),
            b"",
            "Cannot specify pbkdf2iters with a non-passphrase keyformat.",
        ),
        (&format!("{pass} -o keylocation=ftp://host/key"), b"", "keylocation"),
        (&pass.replace("tank/e", "tank/no/e"), b"long enough\n", "parent does not exist"),
    ] {
        desk.feed_refused(line, input, &[words]);
        assert_eq!(desk.seen("tank"), before, "{line}");
    }
}

#[test]
fn keys_are_changed() {
    let desk = Desk::with_pool("tank");
    let raw = desk.key_file("raw", &[42; 32]);
    desk.ok(&format!("zfs create -o encryption=on -o keyformat=raw -o keylocation={raw} tank/e"));
    desk.ok("zfs create tank/e/child");
    desk.ok("zfs snapshot -r tank/e@s");
    desk.ok("zfs unload-key tank/e");
    // From the file to a passphrase; the old key is found in its file, the new one is on the line.
    desk.feed(
        "zfs change-key -l -o keyformat=passphrase -o keylocation=prompt -o pbkdf2iters=100000 tank/e",
        b"the second key\n",
    );
    assert_eq!(desk.get("keyformat", "tank/e/child"), "passphrase");
    assert_eq!(desk.get("keystatus", "tank/e/child"), "available");
    desk.ok("zfs unload-key tank/e");
    desk.refused(&format!("zfs load-key -n -L {raw} tank/e"), 255, &["Incorrect key"]);
    // Old on the first line, new on the second; what is not said stays.
    desk.feed("zfs change-key -o pbkdf2iters=100000 tank/e", b"the second key\nthe third key\n");
    assert_eq!(desk.get("keyformat", "tank/e"), "passphrase");
    // A child gets a key of its own, and gives it up again.
    let hex = desk.key_file("hex", &[b'5'; 64]);
    let own = format!("zfs change-key -o keyformat=hex -o keylocation={hex} tank/e/child");
    desk.feed(&own, b"the third key\n");
    assert_eq!(desk.get("encryptionroot", "tank/e/child"), "tank/e/child");
    desk.ok("zfs load-key -n tank/e/child");
    let before = desk.seen("tank");
    desk.feed_refused(
        "zfs change-key -i tank/e/child",
        b"the second key\n",
        &["Key change error", "Incorrect key"],
    );
    desk.refused("zfs change-key -i tank/e", 255, &["Key change error"]);
    desk.feed_refused(
        "zfs change-key tank/e",
        b"wrong key here\nthe fourth key\n",
        &["Incorrect key provided for 'tank/e'"],
    );
    desk.feed_refused("zfs change-key tank/e", b"the third key\nshort\n", &["Passphrase too short (min 8)."]);
    desk.feed_refused(
        "zfs change-key -o encryption=on tank/e",
        b"",
        &["Only keyformat, keylocation and pbkdf2iters may be set with this command."],
    );
    for (line, status, words) in [
        ("-i -o org.example:a=c tank/e/child", 2, "Properties not allowed for inheriting"),
        ("tank/none", 2, "cannot open 'tank/none': dataset does not exist\nusage:"),
        ("-o keyformat tank/e", 1, "missing '=' for property=value argument"),
        ("-o a:b=c -o a:b=d tank/e", 1, "property 'a:b' specified multiple times"),
    ] {
        desk.refused(&format!("zfs change-key {line}"), status, &[words]);
    }
    desk.refused("zfs change-key tank", 255, &["Dataset not encrypted."]);
    assert_eq!(desk.seen("tank"), before);
    desk.feed("zfs load-key -n tank/e", b"the third key\n");
    desk.feed("zfs change-key -i tank/e/child", b"the third key\n");
    assert_eq!(desk.get("encryptionroot", "tank/e/child"), "tank/e");
    let sent = desk.with_input("zfs send --keylocation prompt tank/e/child@s", b"the third key\n");
    assert_eq!(sent.status, 0, "{}", sent.err);
    desk.export_and_judge("tank");
}

/// A terminal of its own for one command, as a person has it.
struct Terminal {
    line: File,
    child: std::process::Child,
    shown: String,
}

impl Terminal {
    fn open(desk: &Desk, line: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let typed = desk.command(line);
        let mut c = Command::new("setsid");
        c.args(["--ctty", "--wait"]).arg(typed.get_program()).args(typed.get_args());
        c.env("ICECORE_STATE_DIR", desk.path("state"));
        c.stdin(Stdio::from(side.try_clone().unwrap())).stdout(side.try_clone().unwrap()).stderr(side);
        Self { child: c.spawn().unwrap(), line: File::from(master), shown: String::new() }
    }
    /// Reads until the command asks this.
    fn asked(&mut self, prompt: &str) {
        let mut bytes = [0; 256];
        while !self.shown.ends_with(prompt) {
            let n = self.line.read(&mut bytes).unwrap_or(0);
            assert!(n > 0, "the command ended and never asked «{prompt}»: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    }
    fn types(&mut self, text: &[u8]) {
        self.line.write_all(text).unwrap();
    }
    /// Waits for the end; the status and all that was shown.
    fn end(mut self) -> (i32, String) {
        let mut rest = Vec::new();
        // The last reader of a terminal gets an error at its end.
        let _ = self.line.read_to_end(&mut rest);
        self.shown.push_str(&String::from_utf8_lossy(&rest));
        (self.child.wait().unwrap().code().unwrap_or(-1), self.shown)
    }
}

#[test]
fn a_person_is_asked_twice_and_nothing_shows() {
    let desk = Desk::with_pool("tank");
    let create = "zfs create -o encryption=on -o keyformat=passphrase -o pbkdf2iters=100000 tank/e";
    let mut t = Terminal::open(&desk, create);
    t.asked("Enter new passphrase for 'tank/e': ");
    t.types(b"my sekret wurds\x15my secret worxx\x7f\x7fds\n");
    t.asked("Re-enter new passphrase for 'tank/e': ");
    t.types(b"my secret words\n");
    let (status, shown) = t.end();
    assert_eq!(status, 0, "{shown}");
    assert!(!shown.contains("sec") && !shown.contains("sek"), "{shown}");
    desk.feed("zfs load-key -n tank/e", b"my secret words\n");

    let before = desk.seen("tank");
    let mut t = Terminal::open(&desk, &create.replace("tank/e", "tank/f"));
    t.asked("Enter new passphrase for 'tank/f': ");
    t.types(b"my secret words\n");
    t.asked("Re-enter new passphrase for 'tank/f': ");
    t.types(b"my other words\n");
    let (status, shown) = t.end();
    assert!(status == 1 && shown.contains("Provided keys do not match."), "{shown}");

    // Interrupted: nothing happens, and the terminal shows again what is typed.
    let mut t = Terminal::open(&desk, &create.replace("tank/e", "tank/f"));
    t.asked("Enter new passphrase for 'tank/f': ");
    t.types(b"my sec\x03");
    let (status, shown) = t.end();
    assert!(status == 1 && shown.contains("interrupted"), "{shown}");
    assert_eq!(desk.seen("tank"), before);

    // Three attempts at a key that exists.
    let mut t = Terminal::open(&desk, "zfs load-key -n tank/e");
    for attempt in ["wrong one\n", "wrong again\n", "my secret words\n"] {
        t.asked("Enter passphrase for 'tank/e': ");
        t.shown.clear();
        t.types(attempt.as_bytes());
    }
    let (status, shown) = t.end();
    assert!(status == 0 && shown.contains("1 / 1 key(s) successfully verified"), "{shown}");
}

/// A server that gives `key` at /key and nothing elsewhere; its address.
fn key_server(key: &'static [u8]) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let asked = lines.next().unwrap_or_default();
            lines.take_while(|l| !l.is_empty()).for_each(drop);
            let (status, body) =
                if asked.starts_with("GET /key ") { ("200 OK", key) } else { ("404 None", &b""[..]) };
            let head = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    address
}

#[test]
fn keys_come_from_servers() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no curl: NO KEY WAS FETCHED HERE");
        return;
    }
    let desk = Desk::new();
    desk.pool("tank", 128);
    let server = key_server(PASSPHRASE);
    let encrypted = "zfs create -o encryption=on -o keyformat=passphrase";
    desk.ok(&format!("{encrypted} -o keylocation={server}/key tank/enc"));
    assert_eq!(desk.get("keylocation", "tank/enc"), format!("{server}/key"));
    assert_eq!(desk.ok("zfs load-key -n tank/enc"), "1 / 1 key(s) successfully verified\n");
    desk.refused(
        &format!("zfs load-key -n -L {server}/other tank/enc"),
        255,
        &["Failed to connect to ", "404"],
    );
    desk.refused("zfs load-key -n -L http://127.0.0.1:1/key tank/enc", 255, &["Failed to connect to "]);
    let other = key_server(b"something else\n");
    desk.refused(&format!("zfs load-key -n -L {other}/key tank/enc"), 255, &["Incorrect key provided"]);
    desk.export_and_judge("tank");
}
