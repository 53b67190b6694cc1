//! The act "day": files that icecore wrote into datasets, in the hands of real OpenZFS, and back.
//!
//! A folder of awkward files (`interop/day-lib.sh`) is put into an encrypted and a plain dataset of a mirror that
//! has seen an attach, an offline, an online and a replace. OpenZFS compares all of it, goes on writing, rolls back,
//! sends and scrubs (`interop/day.sh`); then zdb judges, and icecore reads what became of it and writes on into the
//! datasets that OpenZFS had mounted; which OpenZFS, in turn, compares and accounts for (`interop/day-two.sh`).

use std::fs::{self, File};
use std::path::PathBuf;

use icecore_check::fixture::repo_root;
use icecore_check::zdb;

use super::Stage;
use crate::shell::{Outcome, program, run as shell};

/// Bytes of each side of the mirror.
const SIDE: u64 = 512 << 20;

impl Stage {
    pub(super) fn day(&self) -> Outcome {
        self.day_files()?;
        self.day_judged()?;
        let out = self.guest(
            "day.sh",
            &["day-lib.sh", "one.tree", "two.tree", "key"],
            &["day/a.img", "day/c.img"],
        )?;
        self.day_judged()?;
        self.day_again(&out)?;
        self.guest(
            "day-two.sh",
            &["day-lib.sh", "enc.three", "plain.three", "key"],
            &["day/a.img", "day/c.img"],
        )?;
        self.day_judged()
    }

    fn day_files(&self) -> Outcome {
        let made = || -> std::io::Result<()> {
            fs::create_dir_all(self.dir.join("day"))?;
            for side in ["a", "b", "c"] {
                File::create(self.dir.join("day").join(format!("{side}.img")))?.set_len(SIDE)?;
            }
            fs::write(self.dir.join("key"), [0x5a; 32])?;
            fs::copy(repo_root().join("interop/day-lib.sh"), self.dir.join("day-lib.sh")).map(drop)
        };
        made().map_err(|e| format!("{}: {e}", self.dir.display()))?;
        let [a, b, c] = ["a", "b", "c"].map(|side| self.path(&format!("day/{side}.img")));
        let source = self.path("source");
        self.day_shell("make_tree source; tree source > one.tree")?;

        self.icecore(&["zpool", "create", "-m", "/day", "-O", "compression=lz4", "day", &a])?;
        let location = format!("keylocation=file://{}", self.path("key"));
        let enc = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", &location, "-o", "recordsize=4K"];
        self.icecore(&[&["zfs", "create"], &enc[..], &["day/enc"]].concat())?;
        for name in ["plain", "back", "was"] {
            self.icecore(&["zfs", "create", "-o", "recordsize=4K", &format!("day/{name}")])?;
        }
        for name in ["enc", "plain", "back", "was"] {
            self.icecore(&["import-tree", &source, &format!("day/{name}")])?;
        }
        self.icecore(&["zfs", "snapshot", "day/enc@one", "day/plain@one", "day/back@one", "day/was@base"])?;
        self.icecore(&["zfs", "clone", "day/was@base", "day/clone"])?;

        // A second side; what it misses while it is away; one that takes its place.
        self.icecore(&["zpool", "attach", "day", &a, &b])?;
        self.icecore(&["zpool", "offline", "day", &b])?;
        for name in ["enc", "plain"] {
            let at = |path: &str| format!("day/{name}:{path}");
            self.icecore(&["rm", "-r", &at("deep/level1/level2"), &at("odd/two"), &at("odd/link")])?;
            self.icecore(&["mkdir", "-p", &at("new/er")])?;
            self.icecore(&["cp", &self.path("source/big/text"), &at("new/copy")])?;
        }
        self.icecore(&["zpool", "online", "day", &b])?;
        self.icecore(&["zpool", "replace", "day", &b, &c])?;
        fs::remove_file(&b).map_err(|e| format!("{b}: {e}"))?;

        self.day_shell(
            "ls -U source/many | grep '3[.]txt$' > many.gone; change_tree source; tree source > two.tree",
        )?;
        let gone = fs::read_to_string(self.dir.join("many.gone")).map_err(|e| e.to_string())?;
        for name in ["enc", "plain", "clone"] {
            let names: Vec<String> = gone.lines().map(|file| format!("day/{name}:many/{file}")).collect();
            let names = names.iter().map(String::as_str);
            self.icecore_quietly(&["rm"].into_iter().chain(names).collect::<Vec<_>>())?;
        }
        self.icecore(&[
            "rm",
            "-r",
            "day/clone:deep/level1/level2",
            "day/clone:odd/two",
            "day/clone:odd/link",
        ])?;
        for name in ["enc", "plain", "clone", "back"] {
            self.icecore(&["import-tree", &source, &format!("day/{name}")])?;
        }
        self.icecore(&["zfs", "snapshot", "day/enc@two", "day/plain@two"])?;
        self.icecore(&["zfs", "promote", "day/clone"])?;
        self.icecore(&["zfs", "create", "-V", "32M", "day/vol"])?;
        self.icecore(&["zfs", "create", "-s", "-V", "1G", "day/thin"])?;

        self.icecore(&["zfs", "create", "-p", "day/gone/below"])?;
        self.icecore(&["import-tree", &self.path("source/owners"), "day/gone/below"])?;
        self.icecore(&["zfs", "snapshot", "-r", "day/gone@s"])?;
        self.icecore(&["zfs", "clone", "day/gone/below@s", "day/gone-clone"])?;
        self.icecore(&["zfs", "destroy", "-R", "day/gone"])?;
        self.icecore(&["zpool", "status", "day"])?;
        self.icecore(&["zfs", "list", "-r", "-t", "all", "day"])?;
        self.icecore(&["zpool", "export", "day"])
    }

    /// What OpenZFS left is read, and written to.
    fn day_again(&self, out: &std::path::Path) -> Outcome {
        let folder = self.path("day");
        self.icecore(&["zpool", "import", "-N", "-d", &folder, "day"])?;
        self.icecore(&["zpool", "scrub", "-w", "day"])?;
        self.icecore(&["zpool", "status", "day"])?;
        self.icecore(&["zfs", "load-key", "day/enc"])?;
        for name in ["enc", "plain"] {
            let back = self.path(&format!("{name}.back"));
            self.icecore(&["cp", "-rp", &format!("day/{name}"), &back])?;
            let want = out.join(format!("{name}.tree"));
            self.day_shell(&format!("tree {name}.back > {name}.got; diff {} {name}.got", want.display()))?;
            // Into what OpenZFS has mounted and accounts for.
            for gone in ["moved", "odd/four"] {
                self.icecore(&["rm", "-r", &format!("day/{name}:{gone}")])?;
            }
            let of_guest = (1..=400).filter(|n| n % 10 == 7);
            let names: Vec<String> = of_guest.map(|n| format!("day/{name}:many/of the guest {n}")).collect();
            let names = names.iter().map(String::as_str);
            self.icecore_quietly(&["rm"].into_iter().chain(names).collect::<Vec<_>>())?;
            self.day_shell(&format!("change_again {name}.back; tree {name}.back > {name}.three"))?;
            self.icecore(&["import-tree", &back, &format!("day/{name}")])?;
        }
        self.icecore(&["zfs", "destroy", "-r", "day/copy"])?;
        self.icecore(&["zfs", "snapshot", "day/plain@after"])?;
        self.icecore(&["zpool", "export", "day"])?;
        self.day_judged()
    }

    fn day_judged(&self) -> Outcome {
        zdb::zdb_clean(&self.dir.join("day"), "day")?;
        eprintln!("zdb: day is clean");
        Ok(())
    }

    /// Commands of bash with the functions of `day-lib.sh`, in the stage's folder.
    pub(super) fn day_shell(&self, commands: &str) -> Outcome {
        let lib: PathBuf = repo_root().join("tests-data/recipes/lib.sh");
        let script = format!("set -e; . '{}'; . ./day-lib.sh; {commands}", lib.display());
        shell(program("bash").args(["-c", &script]).current_dir(&self.dir))
    }

    /// As [`Stage::icecore`], for operands that are too many to be shown.
    fn icecore_quietly(&self, args: &[&str]) -> Outcome {
        eprintln!("$ icecore {} … ({} operands)", args[0], args.len() - 1);
        let status = self.command().args(args).status().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("icecore {}: {status}", args[0])) }
    }
}
