//! Bit rot on a drive without redundancy: named by file, and fetched back from the backup.

use crate::support::{Desk, stream};
use icecore_check::files;
use icecore_check::fixture::fixture_copy;
use icecore_sim::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Flips a bit in one of `every` sectors that hold something, beyond the labels; where.
fn rot(image: &Path, every: usize) -> Vec<u64> {
    let file = fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
    let len = file.metadata().unwrap().len();
    let (mut seen, mut flipped) = (0, Vec::new());
    let mut sector = [0_u8; 4096];
    for at in (5 << 20..len - (1 << 20)).step_by(4096) {
        file.read_exact_at(&mut sector, at).unwrap();
        if sector.iter().all(|b| *b == 0) {
            continue;
        }
        seen += 1;
        if seen % every == 0 {
            file.write_all_at(&[sector[77] ^ 8], at + 77).unwrap();
            flipped.push(at + 77);
        }
    }
    flipped
}

#[test]
fn rot_is_named_and_the_backup_gives_it_back() {
    let desk = Desk::new();
    fs::create_dir(desk.path("main")).unwrap();
    let image = desk.path("main/main.img");
    fixture_copy("cold/main.img", &image);
    desk.ok("zpool import -f -d main main");
    desk.pool("backup", 192);
    desk.piped("zfs send -w -R main@newsnapshot", "zfs receive -F backup");
    let sound = desk.ok("zpool scrub -w main");
    assert!(sound.contains("repaired 0B, 0 errors"), "{sound}");
    let notes = desk.bytes("icecore cat main/plain@newsnapshot:/notes.txt");

    assert!(rot(&image, 150).len() > 10);
    let before = fs::read(&image).unwrap();
    let look = desk.run("zpool scrub -n main");
    assert_eq!(look.status, 1);
    assert!(look.text().contains("Permanent errors have been detected"), "{}", look.text());
    assert!(look.text().contains("main/plain@root:/"), "{}", look.text());
    assert_eq!(fs::read(&image).unwrap(), before, "-n wrote something");

    // What is lost stays known, in every snapshot that has it, and is told until a scrub finds it whole.
    assert!(desk.ok("zpool status -v main").contains("errors: No known data errors"));
    // That something is lost is no failure of the command, as with OpenZFS.
    let found = desk.run("zpool scrub -w main");
    assert_eq!(found.status, 0);
    let status = desk.ok("zpool status -x main");
    assert!(status.contains(" data errors, use '-v' for a list\n"), "{status}");
    assert!(status.contains("   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-8A\n"), "{status}");
    let list = desk.ok("zpool status -v main");
    let listed = list.split("in the following files:\n\n").nth(1).unwrap();
    for place in found.text().lines().filter(|l| l.starts_with("        main/plain@") && l.contains(":/")) {
        assert!(listed.lines().any(|l| l == place), "{place}\n{listed}");
    }
    for snap in ["main/plain@root:/", "main/plain@newsnapshot:/", "main/plain:/"] {
        assert!(listed.contains(&format!("        {snap}")), "{listed}");
    }

    let healed = desk.ok("zpool scrub --from backup main");
    assert!(healed.contains("blocks were fetched from backup"), "{healed}");
    let again = desk.ok("zpool scrub -w main");
    assert!(again.contains("repaired 0B, 0 errors"), "{again}");
    assert_eq!(desk.bytes("icecore cat main/plain@newsnapshot:/notes.txt"), notes);
    let status = desk.ok("zpool status main");
    assert!(status.contains("errors: No known data errors"), "{status}");
    assert!(status.contains("scan: scrub repaired 0B in") && status.contains("with 0 errors on"), "{status}");
    assert!(desk.ok("icecore inspect blocks main").contains("no leaks"));
    desk.export_and_judge("main");
    desk.refused("zpool scrub nowhere", 1, &["cannot open 'nowhere': no such pool"]);
    desk.refused("zpool scrub", 2, &["missing pool name argument"]);
}

/// One bit after another in files without a second copy: each scrub names the files that were hit, by their paths, and no
/// others.
#[test]
fn each_flip_names_its_file() {
    let desk = Desk::new();
    let image = desk.pool("tank", 128);
    desk.ok("zfs create tank/fs");
    let mut rng = Rng::new(2026);
    let folder = desk.path("tree");
    let mut files = Vec::new();
    for i in 0..24 {
        let path = format!("d{}/sub/file {i}", i % 5);
        // Whole records only: a last one with zeros behind it would be compressed.
        let len = if i % 2 == 0 { 3000 + rng.below(100_000) } else { (1 + rng.below(3)) << 17 };
        let mut bytes = vec![0; len as usize];
        rng.fill(&mut bytes);
        fs::create_dir_all(folder.join(&path).parent().unwrap()).unwrap();
        fs::write(folder.join(&path), &bytes).unwrap();
        files.push((path, bytes));
    }
    desk.ok("icecore import-tree tree tank/fs");
    let whole = fs::read(&image).unwrap();
    // Noise is stored as it is, so the image tells where each record lies.
    let record = |bytes: &[u8], at: usize| {
        let head = &bytes[at..bytes.len().min(at + 512)];
        (0..whole.len()).step_by(4096).find(|place| whole[*place..].starts_with(head)).unwrap()
    };
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    for round in 0..25 {
        let mut hit: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for _ in 0..=rng.below(3) {
            let (path, bytes) = &files[rng.below(files.len() as u64) as usize];
            let at = rng.below(bytes.len() as u64) as usize;
            let first = at / (128 << 10) * (128 << 10);
            let place = record(bytes, first) + (at - first);
            file.write_all_at(&[whole[place] ^ 1 << rng.below(8)], place as u64).unwrap();
            hit.entry(format!("        tank/fs:/{path}")).or_default().push(place);
        }
        let found = desk.run("zpool scrub -n tank");
        assert_eq!(found.status, 1, "round {round}: {}", found.text());
        let text = found.text();
        let named: Vec<&str> = text.lines().filter(|l| l.starts_with("        tank")).collect();
        assert_eq!(named, hit.keys().collect::<Vec<_>>(), "round {round}: {text}");
        for place in hit.values().flatten() {
            file.write_all_at(&whole[*place..=*place], *place as u64).unwrap();
        }
    }
    let sound = desk.ok("zpool scrub -n tank");
    assert!(sound.contains("repaired 0B, 0 errors"), "{sound}");
}

/// What a side of a mirror missed while it was away is no damage, and is told apart from what rotted on it.
#[test]
fn a_stale_side_is_not_damaged() {
    let desk = Desk::new();
    let [a, b] = ["a", "b"].map(|side| desk.drive(&format!("tank/{side}.img"), 128));
    let (a, b) = (a.display().to_string(), b.display().to_string());
    desk.ok(&format!("zpool create -o ashift=12 -m none tank mirror {a} {b}"));
    desk.feed("zfs receive tank/early", &stream("plain@newsnapshot.Lecp.zfs"));
    desk.ok("zpool export tank");
    fs::rename(&b, desk.path("away")).unwrap();
    desk.import("tank");
    desk.feed("zfs receive tank/late", &stream("plain@newsnapshot.Lecp.zfs"));
    desk.ok("zpool export tank");
    fs::rename(desk.path("away"), &b).unwrap();
    desk.ok("zpool import -o readonly=on -d tank tank");
    let look = desk.ok("zpool scrub -n tank");
    let told = "it is brought up to date when the pool is imported for writing";
    assert!(look.contains(told) && look.contains(&format!("\t{b} missed txgs ")), "{look}");
    assert!(look.contains(" blocks wait for that on it, and are not damaged"), "{look}");
    assert!(!look.contains("damaged, with good copies left"), "{look}");
    assert!(look.contains("repaired 0B, 0 errors"), "{look}");
    desk.ok("zpool export tank");
    // Rot on the stale side, in what it has.
    assert!(rot(Path::new(&b), 60).len() > 5);
    desk.ok("zpool import -o readonly=on -d tank tank");
    let look = desk.ok("zpool scrub -n tank");
    assert!(look.contains(told) && look.contains("damaged, with good copies left"), "{look}");
    desk.ok("zpool export tank");
    desk.import("tank");
    desk.ok(&format!("zpool online tank {b}"));
    desk.ok("zpool scrub -w tank");
    desk.ok("zpool export tank");
    desk.ok("zpool import -o readonly=on -d tank tank");
    let look = desk.ok("zpool scrub -n tank");
    assert!(!look.contains("missed txgs") && !look.contains("damaged"), "{look}");
    desk.ok("zpool export tank");
    desk.judge("tank");
}

/// The service is killed in the middle of a scrub: the next one goes on with it, and it ends as if nothing had been.
#[test]
fn a_scrub_survives_the_end_of_the_service() {
    let desk = Desk::new();
    let image = desk.pool("tank", 768);
    desk.ok("zfs create tank/fs");
    desk.ok("zpool export tank");
    let noise = |i: usize| {
        let mut bytes = vec![0; 8 << 20];
        Rng::new(i as u64).fill(&mut bytes);
        bytes
    };
    files::fill(&image, "tank/fs", 32, noise).unwrap();
    let flipped = rot(&image, 4000);
    assert!(flipped.len() > 10);
    desk.import("tank");
    let whole = desk.run("zpool scrub -w tank");
    assert_eq!(whole.status, 0, "{}", whole.text());
    let errors = |status: &str| {
        let (_, rest) = status.split_once(" with ").unwrap();
        rest.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let expected = errors(&desk.ok("zpool status tank"));
    assert!(expected > 0 && expected <= flipped.len() as u64);
    // It may be over before it is killed: until it is not.
    let mut cut = 0;
    for wait in 0..40 {
        desk.ok("zpool scrub tank");
        std::thread::sleep(Duration::from_millis(5 * wait));
        let killed = Command::new("kill").args(["-9", &desk.service().unwrap().to_string()]).status();
        assert!(killed.unwrap().success());
        let status = desk.ok("zpool status tank");
        cut += u32::from(status.contains("scan: scrub in progress since "));
        desk.ok("zpool wait -t scrub tank");
        let status = desk.ok("zpool status tank");
        assert!(status.contains("scan: scrub repaired 0B in "), "{status}");
        assert_eq!(errors(&status), expected, "{status}");
        if cut == 3 {
            break;
        }
    }
    assert_eq!(cut, 3);
    assert!(desk.ok("zpool status -v tank").contains("        tank/fs:/file-"));
    desk.ok("zpool export tank");
    let file = fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
    for at in flipped {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    }
    desk.judge("tank");
}

/// It goes on behind the commands, can be paused, survives an export and the end of the service, and is told as OpenZFS tells it.
#[test]
fn a_scrub_goes_on_behind_the_commands() {
    let desk = Desk::new();
    fs::create_dir(desk.path("main")).unwrap();
    let image = desk.path("main/main.img");
    fixture_copy("cold/main.img", &image);
    desk.ok("zpool import -f -d main main");
    assert_eq!(desk.ok("zpool scrub -p main"), "", "nothing to pause");
    desk.refused("zpool scrub -s main", 1, &["cannot cancel scrubbing main: there is no active scrub"]);
    desk.refused("zpool scrub -sp main", 2, &["-s and -p are mutually exclusive"]);
    desk.refused("zpool scrub -wp main", 2, &["-w cannot be used with -p or -s"]);
    // It may be over before it can be paused: until it is not.
    let mut paused = false;
    for _ in 0..50 {
        assert_eq!(desk.ok("zpool scrub main"), "");
        desk.ok("zpool scrub -p main");
        paused = desk.ok("zpool status main").contains("scan: scrub paused since ");
        if paused {
            break;
        }
        desk.ok("zpool wait -t scrub main");
    }
    assert!(paused);
    desk.refused(
        "zpool scrub -p main",
        1,
        &["cannot pause scrubbing main: scrub is paused; use 'zpool scrub' to resume"],
    );
    let status = desk.ok("zpool status main");
    for line in ["\tscrub started on ", " scanned, ", " issued\n", " repaired, ", "% done\n"] {
        assert!(status.contains(line), "{status}");
    }
    desk.ok("zpool wait main");
    desk.ok("zfs snapshot main/plain@meanwhile");
    desk.ok("zpool export main");
    desk.judge("main");
    desk.ok("zpool import -d main main");
    assert!(desk.ok("zpool status main").contains("scan: scrub paused since "));
    desk.ok("icecore service stop");
    assert!(desk.ok("zpool status main").contains("scan: scrub paused since "));
    desk.ok("zfs destroy main/plain@root");
    let done = desk.ok("zpool scrub -w main");
    assert!(done.contains(" 0 errors"), "{done}");
    let status = desk.ok("zpool status main");
    assert!(
        status.contains("scan: scrub repaired 0B in ") && status.contains("     0     0     0"),
        "{status}"
    );
    // Errors are counted by device until they are cleared.
    assert!(rot(&image, 100).len() > 5);
    desk.ok("zpool scrub main");
    desk.ok("zpool wait main");
    let counted = |status: &str| {
        let line = status.lines().find(|l| l.contains("main.img")).unwrap();
        line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    assert!(counted(&desk.ok("zpool status main")) > 5);
    desk.refused("zpool clear main nothing", 1, &["cannot clear errors for nothing: no such device in pool"]);
    desk.ok("zpool clear main");
    assert_eq!(counted(&desk.ok("zpool status main")), 0);
    desk.ok("zpool export main");
}

#[test]
fn labels_and_uberblocks_are_shown() {
    let desk = Desk::with_pool("tank");
    desk.ok("icecore service stop"); // which has it open still
    let label = desk.ok("icecore inspect label tank/drive.img");
    assert!(label.contains("name = tank") && label.contains("the same as label 0"), "{label}");
    let found: serde_json::Value =
        serde_json::from_str(&desk.ok("icecore inspect uberblocks --json tank/drive.img")).unwrap();
    assert!(found["uberblocks"].as_array().unwrap().len() >= 4);
    assert!(desk.ok("icecore inspect config tank").contains("name = tank"));
    let json: serde_json::Value =
        serde_json::from_str(&desk.ok("icecore inspect blocks --json tank")).unwrap();
    assert_eq!(json["space_maps"], json["pointers"]);
    desk.refused("icecore inspect label state", 1, &[]);
    desk.refused("icecore inspect blocks nowhere", 1, &["no pool 'nowhere' is imported here"]);
}

/// Destroys the newest root of the pool's metadata in all its copies; its txg.
fn without_last_root(desk: &Desk, image: &Path) -> u64 {
    let json = desk.ok(&format!("icecore inspect uberblocks --json {}", image.display()));
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    let all = found["uberblocks"].as_array().unwrap();
    let newest = all.iter().max_by_key(|u| u["txg"].as_u64()).unwrap();
    let root = newest["rootbp"].as_str().unwrap();
    let copies: Vec<u64> = root
        .split("dva=[")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap()
        .split(", ")
        .map(|dva| u64::from_str_radix(dva.split(':').nth(1).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(copies.len(), 3, "{root}");
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    for at in copies {
        file.write_all_at(&[0xff; 4096], (4 << 20) + at).unwrap();
    }
    newest["txg"].as_u64().unwrap()
}

/// What was before is still there to be read.
#[test]
fn a_pool_without_its_last_root_is_read_as_it_was_before() {
    let desk = Desk::new();
    fs::create_dir(desk.path("main")).unwrap();
    let image = desk.path("main/main.img");
    fixture_copy("cold/main.img", &image);
    let newest = without_last_root(&desk, &image);
    let before = fs::read(&image).unwrap();
    desk.refused("zpool import -f -d main main", 1, &["cannot import 'main'", "checksum"]);
    let said = desk.ok("zpool import -f -FnX -d main main");
    assert!(said.starts_with("Would be able to return main to its state as of "), "{said}");
    assert_eq!(desk.ok("zpool list -H -o name"), "", "a dry run imported it");
    let done = desk.run("zpool import -f -F -d main main");
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("is shown as it was at") && done.err.contains(&format!("up to txg {newest}")));
    assert!(desk.ok("icecore ls main/plain@newsnapshot").contains("notes.txt"));
    desk.refused("zfs snapshot main@more", 1, &["read-only"]);
    desk.ok("zpool export main");
    let back = newest - 1;
    let done = desk.run(&format!("zpool import -f -T {back} -d main main"));
    assert!(done.status == 0 && done.err.contains("for reading only"), "{}", done.err);
    desk.ok("zpool export main");
    assert_eq!(fs::read(&image).unwrap(), before, "reading wrote something");
    desk.refused("zpool import -T 1 -d main main", 1, &["cannot import 'main'"]);
    desk.refused("zpool import -T new -d main main", 2, &["invalid txg value"]);
}

/// The same of a pool that was in use when it happened.
#[test]
fn clear_takes_a_pool_back_that_does_not_open() {
    let desk = Desk::new();
    let image = desk.pool("tank", 128);
    desk.ok("zfs create tank/early");
    desk.ok("zpool sync");
    desk.ok("zfs create tank/late");
    let healthy = desk.ok("zpool clear -F tank");
    assert_eq!(healthy, "", "of a sound pool nothing is said");
    desk.ok("icecore service stop");
    without_last_root(&desk, &image);
    let before = fs::read(&image).unwrap();
    desk.refused("zpool clear tank", 1, &["cannot clear errors for tank: "]);
    let said = desk.ok("zpool clear -Fn tank");
    assert!(said.starts_with("Would be able to return tank to its state as of "), "{said}");
    desk.refused("zfs list tank", 1, &["checksum"]);
    desk.ok("zpool clear -FX tank");
    assert!(desk.names("-r tank").contains(&"tank/early".into()));
    desk.refused("zfs create tank/more", 1, &["read-only"]);
    desk.ok("zpool export tank");
    assert_eq!(fs::read(&image).unwrap(), before, "something was written");
}

/// `-C` looks at what came after the last scrub only; `-e` at what that one found only.
#[test]
fn parts_of_a_pool_are_scrubbed() {
    let desk = Desk::new();
    let image = desk.pool("tank", 128);
    let noise = |seed: u64| {
        let mut bytes = vec![0; 128 << 10];
        Rng::new(seed).fill(&mut bytes);
        bytes
    };
    let [old, new] = [noise(1), noise(2)];
    desk.ok("zfs create tank/fs");
    fs::write(desk.path("old"), &old).unwrap();
    fs::write(desk.path("new"), &new).unwrap();
    desk.ok("icecore cp old tank/fs:old");
    let whole = desk.ok("zpool scrub -w tank");
    desk.ok("icecore cp new tank/fs:new");
    desk.ok("icecore service stop");
    let bytes = fs::read(&image).unwrap();
    let at = |what: &[u8]| bytes.windows(512).position(|w| w == &what[..512]).unwrap() as u64;
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    let places = [at(&old), at(&new)];
    for place in places {
        file.write_all_at(b"rot", place).unwrap();
    }
    let examined = |said: &str| {
        let blocks = said.split_once(": ").and_then(|(_, rest)| rest.split_once(" blocks")).unwrap().0;
        blocks.parse::<u64>().unwrap()
    };
    let part = desk.ok("zpool scrub -C -w tank");
    assert!(part.contains(" 1 errors") && part.contains("tank/fs:/new"), "{part}");
    assert!(!part.contains("tank/fs:/old") && examined(&part) < examined(&whole), "{part}\n{whole}");
    let found = desk.ok("zpool scrub -w tank");
    assert!(found.contains(" 2 errors"), "{found}");

    // One of them is made whole behind the pool's back.
    desk.ok("icecore service stop");
    file.write_all_at(&old[..512], places[0]).unwrap();
    let again = desk.ok("zpool scrub -e tank");
    assert!(examined(&again) == 2 && again.contains("tank/fs:/new"), "{again}");
    let status = desk.ok("zpool status -v tank");
    assert!(status.contains("tank/fs:/new") && !status.contains("tank/fs:/old"), "{status}");
    desk.ok("icecore service stop");
    file.write_all_at(&new[..512], places[1]).unwrap();
    desk.ok("zpool scrub -e tank");
    let status = desk.ok("zpool status -v tank");
    assert!(status.contains("errors: No known data errors"), "{status}");
    assert_eq!(desk.ok("zpool scrub -e tank"), "", "there is nothing to look at");
    desk.export_and_judge("tank");
}

/// What power left in the intent logs of a pool of OpenZFS is told; a pool at rest has nothing there.
#[test]
fn intent_logs_are_shown() {
    let desk = Desk::with_main();
    assert_eq!(desk.ok("icecore inspect log main"), "main: no intent log holds anything\n");
    let Some(image) = icecore_check::fixture::zoo("dirty.img") else { return };
    desk.ok(&format!("zpool import -f -o readonly=on -d {} dirty", image.display()));
    let shown = desk.ok("icecore inspect log -v dirty");
    for line in [
        "dirty/data: 97 records in ",
        " blocks, not claimed\n",
        "\tTX_RENAME txg 24, seq 81: from 34 to 4: committed => moved\n",
        "\tTX_SYMLINK txg 24, seq 96: object 131 in 34: link -> fsynced\n",
        "\tTX_WRITE             91\n",
        "the records are encrypted\n",
    ] {
        assert!(shown.contains(line), "{shown}\nand not: {line}");
    }
}
