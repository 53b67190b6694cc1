//! Where keys are in the memory of the service: while they are loaded only in pages that are locked and left out of core
//! files, after `zfs unload-key` nowhere. Looked for in all the memory the process has, as another process sees it.

use crate::support::Desk;
use icecore_check::zoo;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Passphrases and what comes of them.
struct Sought {
    what: &'static str,
    bytes: Vec<u8>,
}

/// Where a secret was found, and whether that is a place for secrets.
struct Find {
    what: &'static str,
    mapping: String,
    fit: bool,
}

/// The process's mappings: addresses, name, and whether they are locked and not dumped (proc_pid_smaps(5)).
fn mappings(pid: u32) -> Vec<(u64, u64, String, bool)> {
    let mut out: Vec<(u64, u64, String, bool)> = Vec::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
            out.last_mut().unwrap().3 = has("lo") && has("dd");
            continue;
        }
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else {
            continue;
        };
        if let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) {
            out.push((from, to, line.to_string(), false));
        }
    }
    out
}

fn search(pid: u32, sought: &[Sought]) -> Vec<Find> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    for (from, to, mapping, fit) in mappings(pid) {
        let readable = mapping.split(' ').nth(1).is_some_and(|p| p.starts_with('r'));
        if !readable || mapping.contains("[vvar") || mapping.contains("[vsyscall") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for secret in sought {
            // Sixteen bytes are enough to tell: half a copy is too much too.
            let part = &secret.bytes[..16];
            for at in memchr(&bytes, part) {
                let mapping = format!("{mapping} at {:x}", from + at as u64);
                found.push(Find { what: secret.what, mapping, fit });
            }
        }
    }
    found
}

/// Where `part` begins in `bytes`.
fn memchr<'a>(bytes: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = part[0];
    bytes
        .iter()
        .enumerate()
        .filter(move |(_, b)| **b == first)
        .map(|(i, _)| i)
        .filter(move |i| bytes[*i..].starts_with(part))
}

fn locked(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// All secrets behind the datasets of an exported pool, derived apart from the service.
fn secrets_of(desk: &Desk, pool: &str, keys: &[(&str, &'static str, &[u8])]) -> Vec<Sought> {
    let mut pool = zoo::open(&[desk.path(&format!("{pool}/drive.img"))]).unwrap();
    let mut sought = Vec::new();
    for (root, what, material) in keys {
        sought.push(Sought { what, bytes: material.to_vec() });
        let (io, dsl) = pool.parts();
        let wrapping = dsl.check_key(io, root, material).unwrap();
        sought.push(Sought { what: "a wrapping key", bytes: wrapping.expose().to_vec() });
        for (_, keys) in dsl.load_key(io, root, material).unwrap() {
            let (master, hmac) = keys.expose();
            sought.push(Sought { what: "a master key", bytes: master.to_vec() });
            sought.push(Sought { what: "an HMAC key", bytes: hmac.to_vec() });
        }
    }
    sought
}

const PASSPHRASE: &[u8] = b"a long passphrase that nothing else has";
const HEX: &[u8] = b"9f3c71d2a5b8460e1f7d92c3b4a5968778695a4b3c2d1e0f0123456789abcdef";

#[test]
fn keys_are_in_locked_memory_and_gone_when_unloaded() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/pass", PASSPHRASE);
    desk.feed("zfs create -o encryption=aes-128-ccm -o keyformat=hex tank/hex", HEX);
    desk.ok("zfs create tank/pass/child");
    std::fs::write(desk.path("file"), vec![7; 300_000]).unwrap();
    desk.ok("zpool export tank");
    let keys: [(&str, &'static str, &[u8]); 2] =
        [("tank/pass", "the passphrase", PASSPHRASE), ("tank/hex", "the hex key", HEX)];
    let sought = secrets_of(&desk, "tank", &keys);
    // A pool with nothing in it keeps the service, and nothing else does.
    desk.pool("other", 128);
    desk.import("tank");
    let pid = desk.service().unwrap();
    let before = search(pid, &sought);
    assert!(before.is_empty(), "{} is there before it was loaded: {}", before[0].what, before[0].mapping);
    desk.feed("zfs load-key tank/pass", PASSPHRASE);
    desk.feed("zfs load-key tank/hex", HEX);
    // Everything that takes keys into use.
    for fs in ["pass/child", "hex"] {
        desk.ok(&format!("icecore cp file tank/{fs}:/file"));
        desk.ok(&format!("zfs snapshot tank/{fs}@s"));
        desk.bytes(&format!("icecore cat tank/{fs}@s:/file"));
    }
    desk.piped("zfs send tank/pass/child@s", "zfs receive tank/hex/copy");
    desk.ok("zfs create tank/pass/more");
    desk.feed("zfs change-key -o keyformat=passphrase -o pbkdf2iters=100000 tank/pass", PASSPHRASE);
    let loaded = search(pid, &sought);
    let spilled: Vec<String> =
        loaded.iter().filter(|f| !f.fit).map(|f| format!("{} in {}", f.what, f.mapping)).collect();
    assert!(spilled.is_empty(), "not only in locked memory:\n{}", spilled.join("\n"));
    assert!(
        loaded.iter().any(|f| f.what == "a master key"),
        "the search finds nothing, so it proves nothing"
    );
    assert!(locked(pid) > 0);
    let said = desk.ok("icecore service status");
    assert!(said.contains("keys: in locked memory"), "{said}");
    desk.ok("zfs unload-key -a");
    let after = search(pid, &sought);
    assert!(after.is_empty(), "{} is still there: {}", after[0].what, after[0].mapping);
    desk.export_and_judge("tank");
}

/// What fails leaves no more behind than what works.
#[test]
fn wrong_keys_and_failed_commands_leave_nothing() {
    let desk = Desk::with_pool("tank");
    desk.feed("zfs create -o encryption=on -o keyformat=passphrase tank/pass", PASSPHRASE);
    desk.ok("zpool export tank");
    let mut sought = secrets_of(&desk, "tank", &[("tank/pass", "the passphrase", PASSPHRASE)]);
    sought.push(Sought { what: "the wrong passphrase", bytes: b"somebody else's words altogether".to_vec() });
    desk.pool("other", 128);
    desk.import("tank");
    let pid = desk.service().unwrap();
    desk.feed_refused("zfs load-key tank/pass", b"somebody else's words altogether\n", &["Incorrect key"]);
    desk.feed("zfs load-key -n tank/pass", PASSPHRASE);
    desk.feed("zfs load-key tank/pass", PASSPHRASE);
    desk.feed_refused(
        "zfs create -o encryption=on -o keyformat=passphrase tank/pass",
        PASSPHRASE,
        &["exists"],
    );
    desk.ok("zfs create tank/pass/child");
    desk.ok("zpool export tank");
    let after = search(pid, &sought);
    assert!(after.is_empty(), "{} is still there: {}", after[0].what, after[0].mapping);
}
