//! The repository's own rules, as far as a machine can check them.
//!
//! 1. A source file has at most [`LINES_MAX`] lines, or a place in [`LONG_FILES`] with its reason.
//! 2. Nothing half done is called done: no `todo!`, no `unimplemented!`, no ignored test.
//! 3. No path of a developer's machine.
//! 4. The engine takes time, chance and threads from `icecore-env` only, so that the same seed makes the same disk.
//! 5. The edges between our crates are those of the table in ARCHITECTURE.md, no more and no fewer.
//! 6. Every third-party crate we build is in deny.toml with a reason, under a licence that is listed there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use icecore_check::fixture::repo_root;

use crate::shell::{Outcome, cargo, output, program};

const LINES_MAX: usize = 1500;

/// Files over [`LINES_MAX`], each with the reason why it is one subject.
const LONG_FILES: &[(&str, &str)] = &[];

/// Crates outside the engine: they may use the clock and threads of the machine.
const OUTSIDE: &[&str] = &["icecore-env", "icecore-service", "icecore-cli", "icecore-check", "xtask"];

pub fn run() -> Outcome {
    let files = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut faults = Vec::new();
    for path in files.lines().filter(|path| is_text(path)) {
        match fs::read_to_string(repo_root().join(path)) {
            Ok(text) => check_file(path, &text, &mut faults),
            Err(e) => faults.push(format!("{path}: {e}")),
        }
    }
    check_edges(&mut faults)?;
    check_third_party(&mut faults)?;
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults\n{}", faults.len(), faults.join("\n"))) }
}

fn is_text(path: &str) -> bool {
    let by_name = [".rs", ".toml", ".md", ".sh"].iter().any(|end| path.ends_with(end));
    (by_name || path == ".ci/run" || path == "interop/openzfs-vm") && repo_root().join(path).is_file()
}

fn check_file(path: &str, text: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    if path.ends_with(".rs") && lines > LINES_MAX && !LONG_FILES.iter().any(|(long, _)| *long == path) {
        faults.push(format!(
            "{path}: {lines} lines; which second subject moved in? (or give its reason in tidy.rs)"
        ));
    }
    let engine = path.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/"));
    let engine = engine.is_some_and(|(name, _)| !OUTSIDE.contains(&name));
    let mut in_tests = false;
    for (number, line) in text.lines().enumerate() {
        in_tests |= line.starts_with("#[cfg(test)]");
        let mut fault = |what: &str| faults.push(format!("{path}:{}: {what}", number + 1));
        if path.ends_with(".rs") && path != "xtask/src/tidy.rs" {
            for half_done in ["todo!(", "unimplemented!(", "#[ignore"] {
                if line.contains(half_done) {
                    fault(&format!("{half_done} is not done"));
                }
            }
        }
        if MACHINE_PATHS.iter().any(|place| line.contains(place)) {
            fault("a path of somebody's machine");
        }
        if engine && !in_tests && !line.trim_start().starts_with("//") {
            for door in ["SystemTime::now", "Instant::now", "thread::spawn", "HashMap", "HashSet"] {
                if line.contains(door) && !line.contains("// tidy: ") {
                    fault(&format!(
                        "{door}: the engine's time, chance and order come from icecore-env and BTreeMap"
                    ));
                }
            }
        }
    }
}

// In two parts, so that this file does not accuse itself.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp", "/zoo"), concat!("/tmp", "/w/"), concat!("/ho", "me/")];

/// `crate -> crates it may use`, from the table and from the manifests; any difference is a fault.
fn check_edges(faults: &mut Vec<String>) -> Outcome {
    let text = read("ARCHITECTURE.md")?;
    let mut planned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, _, uses, ..] = cells.as_slice() else { continue };
        let name = name.trim_matches('`');
        if name != "xtask" && !name.starts_with("icecore-") {
            continue;
        }
        let uses = uses.split(',').map(str::trim).filter(|short| !matches!(*short, "" | "–" | "-"));
        planned.insert(name.to_string(), uses.map(|short| format!("icecore-{short}")).collect());
    }
    let mut built = BTreeMap::new();
    for (name, manifest) in manifests()? {
        let ours = dependencies(&manifest).into_iter().filter(|dep| dep.starts_with("icecore-"));
        built.insert(name, ours.collect::<BTreeSet<_>>());
    }
    for name in planned.keys().chain(built.keys()).collect::<BTreeSet<_>>() {
        let (planned, built) = (planned.get(name), built.get(name));
        if planned != built {
            faults.push(format!("ARCHITECTURE.md: {name} may use {planned:?}, its manifest says {built:?}"));
        }
    }
    Ok(())
}

fn manifests() -> Outcome<Vec<(String, String)>> {
    let mut all = vec![("xtask".to_string(), read("xtask/Cargo.toml")?)];
    let folder = fs::read_dir(repo_root().join("crates")).map_err(|e| e.to_string())?;
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Ok(manifest) = read(&format!("crates/{name}/Cargo.toml")) {
            all.push((name, manifest));
        }
    }
    Ok(all)
}

/// The names under `[dependencies]`, which we write one to a line.
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', '=', ' ']).next()).filter(|name| !name.is_empty());
    names.filter(|name| !name.starts_with('#')).map(str::to_string).collect()
}

fn check_third_party(faults: &mut Vec<String>) -> Outcome {
    let deny = read("deny.toml")?;
    let quoted = |line: &str, key: &str| -> Option<String> {
        let (_, rest) = line.split_once(key)?;
        rest.split('"').nth(1).map(str::to_string)
    };
    let reasons = deny.lines().filter(|line| line.contains("reason = \""));
    let known: BTreeSet<String> = reasons.filter_map(|line| quoted(line, "crate = ")).collect();
    let list = deny
        .split("[licenses]")
        .nth(1)
        .and_then(|rest| rest.split_once("allow = ["))
        .map_or("", |(_, rest)| rest);
    let licences: BTreeSet<&str> =
        list.split(']').next().unwrap_or_default().split('"').skip(1).step_by(2).collect();
    let tree =
        output(cargo().args(["tree", "--workspace", "--locked", "--prefix=none", "--format={p}\t{l}"]))?;
    let mut seen = BTreeSet::new();
    for line in tree.lines() {
        let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
        let name = package.split(' ').next().unwrap_or_default();
        if name.is_empty()
            || name == "xtask"
            || name.starts_with("icecore-")
            || !seen.insert(name.to_string())
        {
            continue;
        }
        if !known.contains(name) {
            faults.push(format!("deny.toml: {name} has no line with a reason"));
        }
        let licence = licence.trim_end_matches(" (*)");
        if !licence.split(['/', '|']).flat_map(|l| l.split(" OR ")).any(|l| satisfied(l, &licences)) {
            faults.push(format!("deny.toml: {name} is under {licence:?}"));
        }
    }
    Ok(())
}

/// Whether one alternative of a licence expression (its parts joined by AND) is all allowed.
fn satisfied(alternative: &str, licences: &BTreeSet<&str>) -> bool {
    let plain = alternative.replace(['(', ')'], "");
    !plain.trim().is_empty() && plain.split(" AND ").all(|part| licences.contains(part.trim()))
}

fn read(path: &str) -> Outcome<String> {
    fs::read_to_string(repo_root().join(path)).map_err(|e| format!("{path}: {e}"))
}
