//! Groups of OpenZFS's own test suite (Debian's `zfs-test`).
//!
//! A test counts only if it called our commands, and if it does not pass with commands that do nothing
//! (`interop/peers/zts-vacuous.txt`). One that fails and whose script itself asks for what only a kernel has is not
//! applicable, with what that is.

use std::fs;
use std::path::Path;

use icecore_check::fixture::repo_root;

use super::Stage;
use super::class::Class;
use super::report::{Case, Verdict};
use crate::shell::Outcome;

/// Where Debian installs the tests.
const TESTS: &str = "/usr/share/zfs/zfs-tests/tests/functional";

/// The groups that issue a whole day's work here.
const GROUPS: &[&str] = &[
    "zfs_load-key",
    "zfs_unload-key",
    "zfs_change-key",
    "zfs_create",
    "zfs_snapshot",
    "zfs_send",
    "zfs_receive",
    "zfs_rollback",
    "zfs_destroy",
    "zfs_clone",
    "zfs_promote",
    "zfs_rename",
    "zfs_set",
    "zfs_get",
    "zfs_inherit",
    "zfs_mount",
    "zfs_unmount",
    "zfs_bookmark",
    "rsend",
];

/// Words in a script, and what only a kernel's OpenZFS has that they stand for.
const HARD: &[(&str, &str)] = &[
    ("set_tunable", "tunables of the kernel module"),
    ("get_tunable", "tunables of the kernel module"),
    ("ZVOL_DEVDIR", "device nodes of volumes"),
    ("ZVOL_RDEVDIR", "device nodes of volumes"),
    ("zvol/", "device nodes of volumes"),
    ("block_device_wait", "device nodes of volumes"),
    ("zinject", "zinject"),
    ("zhack", "zhack"),
    ("zfs program", "channel programs"),
    ("raidz", "raidz"),
    ("draid", "draid"),
    ("kstat", "kernel statistics"),
    ("sharenfs", "sharing"),
    ("sharesmb", "sharing"),
    ("share_nfs", "sharing"),
    ("zpool remove", "removal of devices"),
    ("zpool checkpoint", "checkpoints"),
    ("dedup", "deduplication"),
    ("mkfs", "device nodes of volumes"),
    ("NEWFS", "device nodes of volumes"),
];

/// Runs the groups asked for, or all of them; what fails in its group is given a second chance alone, since one test may
/// spoil the pools of the next.
pub fn run(stage: &Stage, groups: &[&str]) -> Outcome<Vec<Case>> {
    let groups = if groups.is_empty() { GROUPS } else { groups };
    let mut cases = together(stage, groups)?;
    let again: Vec<String> = cases
        .iter()
        .filter(|c| c.verdict == Verdict::Fail && is_test(&c.name))
        .map(|c| c.name.clone())
        .collect();
    // What was named alone has been alone.
    if !again.is_empty() && !groups.iter().any(|g| g.contains('/')) {
        let names: Vec<&str> = again.iter().map(String::as_str).collect();
        let alone = together(stage, &names)?;
        for case in cases.iter_mut().filter(|c| again.contains(&c.name)) {
            if let Some(found) = alone.iter().find(|a| a.name == case.name) {
                *case = found.clone();
                if case.verdict == Verdict::Pass {
                    case.why = "alone".into();
                }
            }
        }
    }
    Ok(cases.into_iter().map(judged).collect())
}

fn is_test(name: &str) -> bool {
    name.contains('/') && !name.ends_with("/setup") && !name.ends_with("/cleanup")
}

/// One run of the suite for each of these.
fn together(stage: &Stage, groups: &[&str]) -> Outcome<Vec<Case>> {
    let mut words = vec!["/peers/scripts/zts.sh"];
    words.extend(groups);
    stage.sandbox(&words)?;
    let vacuous = repo_root().join("interop/peers/zts-vacuous.txt");
    let vacuous = fs::read_to_string(&vacuous).map_err(|e| format!("{}: {e}", vacuous.display()))?;
    let calls = stage.calls()?;
    let called = |case: &str| calls.iter().any(|c| c.case == case);
    let mut cases = Vec::new();
    for group in groups {
        let log = stage.out(&format!("zts.{}.log", group.replace('/', "_")));
        let text = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let found: Vec<Case> = text.lines().filter_map(verdict).collect();
        if found.is_empty() {
            let last = text.lines().last().unwrap_or_default();
            let why = format!("the suite ran nothing: {last}");
            let name = (*group).into();
            cases.push(Case { peer: "zts".into(), name, verdict: Verdict::Fail, why, class: None });
        }
        let full = fs::read(log.with_extension("full")).unwrap_or_default();
        let full = String::from_utf8_lossy(&full);
        let counted = found.into_iter().filter(|c| !vacuous.lines().any(|v| v == c.name));
        cases.extend(counted.map(|c| stumbled(c, &full)));
    }
    Ok(cases.into_iter().map(|c| c.unless_called(called)).collect())
}

/// `Test: …/tests/functional/GROUP/TEST (run as root) [00:01] [PASS]`; setups and cleanups count only where they fail.
fn verdict(line: &str) -> Option<Case> {
    let (_, rest) = line.strip_prefix("Test: ")?.split_once("/tests/functional/")?;
    let (name, rest) = rest.split_once(' ')?;
    let word = rest.rsplit_once('[')?.1.trim_end().trim_end_matches(']');
    let name = name.trim_end_matches(".ksh").to_string();
    let around = name.ends_with("/setup") || name.ends_with("/cleanup");
    let (verdict, why) = match word {
        "PASS" if around => return None,
        "SKIP" if around => return None,
        "PASS" => (Verdict::Pass, ""),
        "SKIP" => (Verdict::Nothing, "skipped by the suite"),
        "KILLED" => (Verdict::Fail, "took too long"),
        _ => (Verdict::Fail, ""),
    };
    Some(Case { peer: "zts".into(), name, verdict, why: why.into(), class: None })
}

/// With its class; a failure for want of what a kernel has is told as that.
fn judged(mut case: Case) -> Case {
    let script = Path::new(TESTS).join(format!("{}.ksh", case.name));
    let Ok(text) = fs::read_to_string(script) else { return case };
    if is_test(&case.name) {
        case.class = Some(Class::of(&text));
    }
    if case.verdict != Verdict::Fail {
        return case;
    }
    let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
    let mut needs: Vec<&str> = Vec::new();
    for (word, what) in HARD {
        if code.iter().any(|l| l.contains(word)) && !needs.contains(what) {
            needs.push(what);
        }
    }
    if !needs.is_empty() {
        case.verdict = Verdict::NotApplicable;
        case.why = format!("needs {}", needs.join(", "));
    }
    case
}

/// What a failed test stumbled over, from its part of the log: the first error. What only a kernel has is told as that also
/// where a group's shared scripts ask for it.
fn stumbled(mut case: Case, full: &str) -> Case {
    if case.verdict != Verdict::Fail {
        return case;
    }
    let lines = full.lines().skip_while(|l| verdict(l).is_none_or(|c| c.name != case.name));
    let mut before = "";
    let error = lines.skip(1).take_while(|l| !l.starts_with("Test: ")).find(|l| {
        let found = l.contains("ERROR: ") || l.contains("/sys/module/zfs/parameters/");
        if !found && !l.contains("SUCCESS: ") {
            before = l;
        }
        found
    });
    let Some(error) = error else { return case };
    let told = |l: &str| l.split_once(' ').map_or(l, |(_, rest)| rest).trim().to_string();
    let kernel: &[(&str, &str)] =
        &[("/dev/zvol/", "device nodes of volumes"), ("/sys/module/zfs/", "tunables of the kernel module")];
    match kernel.iter().find(|(word, _)| error.contains(word)) {
        Some((_, what)) => {
            case.verdict = Verdict::NotApplicable;
            case.why = format!("needs {what}");
        }
        None if case.why.is_empty() => {
            let why = format!("{}: {}", told(error).trim_start_matches("ERROR: "), told(before));
            case.why = why.chars().take(200).collect();
        }
        None => {}
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_what_it_stumbled_over() {
        let full = "Test: /usr/share/x/tests/functional/rsend/a (run as root) [00:01] [FAIL]\n\
                    1.00 SUCCESS: zfs create p/a\n1.01 cannot open 'p/b'\n1.02 ERROR: zfs list p/b exited 1\n\
                    Test: /usr/share/x/tests/functional/rsend/b (run as root) [00:01] [FAIL]\n\
                    1.00 ERROR: new_fs /dev/zvol/p/v exited 1\n";
        let case = |name: &str| Case::parse("zts", &format!("FAIL\t{name}")).unwrap();
        let a = stumbled(case("rsend/a"), full);
        assert_eq!((a.verdict, a.why.as_str()), (Verdict::Fail, "zfs list p/b exited 1: cannot open 'p/b'"));
        let b = stumbled(case("rsend/b"), full);
        assert_eq!((b.verdict, b.why.as_str()), (Verdict::NotApplicable, "needs device nodes of volumes"));
    }

    #[test]
    fn verdicts_are_read_off_the_suites_lines() {
        let line = |name: &str, word: &str| {
            format!("Test: /usr/share/zfs/zfs-tests/tests/functional/{name} (run as root) [00:01] [{word}]")
        };
        let pass = verdict(&line("cli_root/zfs_get/zfs_get_001_pos.ksh", "PASS")).unwrap();
        assert_eq!((pass.name.as_str(), pass.verdict), ("cli_root/zfs_get/zfs_get_001_pos", Verdict::Pass));
        assert_eq!(verdict(&line("rsend/x", "KILLED")).unwrap().verdict, Verdict::Fail);
        assert_eq!(verdict(&line("rsend/x", "SKIP")).unwrap().verdict, Verdict::Nothing);
        assert_eq!(verdict(&line("rsend/setup", "FAIL")).unwrap().verdict, Verdict::Fail);
        assert!(verdict(&line("rsend/setup", "PASS")).is_none());
        assert!(verdict("anything else").is_none());
    }
}
