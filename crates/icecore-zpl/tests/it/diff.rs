//! `diff` against a comparison that knows nothing of births and parents: both states are walked from their roots, and
//! told apart by number, generation, kind, links and time of change.

use icecore_check::{fixture, zoo};
use icecore_dmu::BlockStore;
use icecore_format::{ObjectId, Txg};
use icecore_pool::Pool;
use icecore_zpl::{Change, Dataset, Filesystem, Finding, Step, Walk, Znode, ZplError, diff};
use std::collections::{BTreeMap, BTreeSet};

/// All objects that a walk from the root comes to, with their names.
struct State {
    name: String,
    fs: Filesystem,
    files: BTreeMap<ObjectId, (Znode, BTreeSet<String>)>,
    ids: BTreeMap<String, ObjectId>,
}

impl State {
    fn new(pool: &Pool, name: &str) -> Option<Self> {
        let io: &dyn BlockStore = pool.io();
        let Dataset::Filesystem(fs) = icecore_zpl::open(io, &pool.dsl, name).ok()? else { return None };
        let root = fs.znode(io, fs.root()).unwrap();
        let mut state = Self { name: name.into(), files: BTreeMap::new(), ids: BTreeMap::new(), fs: *fs };
        state.add("/".into(), root.clone());
        let mut walk = Walk::new(&state.fs, io, root).unwrap();
        while let Some(step) = walk.next(&state.fs, io) {
            match step {
                Step::File { path, znode } => state.add(format!("/{}", latin(&path)), *znode),
                Step::Leave { .. } => {}
                Step::Failed { path, error } => panic!("{name}: {}: {error}", latin(&path)),
            }
        }
        Some(state)
    }
    fn add(&mut self, path: String, z: Znode) {
        self.ids.insert(path.clone(), z.id);
        self.files.entry(z.id).or_insert_with(|| (z, BTreeSet::new())).1.insert(path);
    }
    /// The first of all names of the file called `path`; which of them an object is told by is not fixed.
    fn first_name(&self, path: &[u8]) -> String {
        let path = latin(path);
        let id = self.ids.get(&path).unwrap_or_else(|| panic!("{}: no {path}", self.name));
        self.name_of(*id)
    }
    fn name_of(&self, id: ObjectId) -> String {
        self.files[&id].1.first().unwrap().clone()
    }
}

/// Bytes as letters, each as it is.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// What must be told, by the walks alone.
fn expected(a: &State, b: &State) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for id in a.files.keys().chain(b.files.keys()).collect::<BTreeSet<_>>() {
        let gone = || format!("- {}", a.name_of(*id));
        let new = || format!("+ {}", b.name_of(*id));
        let (old, now) = match (a.files.get(id), b.files.get(id)) {
            (Some(_), None) => {
                lines.insert(gone());
                continue;
            }
            (None, Some(_)) => {
                lines.insert(new());
                continue;
            }
            (Some(old), Some(now)) => (old, now),
            (None, None) => unreachable!(),
        };
        let ((old, _), (now, _)) = (old, now);
        let directory = old.kind == icecore_zpl::FileKind::Directory;
        if (old.generation, old.kind) != (now.generation, now.kind) {
            lines.extend([gone(), new()]);
        } else if old.ctime != now.ctime && old.links != now.links && !directory {
            lines.insert(format!("M {} {:+}", b.name_of(*id), now.links as i64 - old.links as i64));
        } else if old.ctime != now.ctime && a.name_of(*id) == b.name_of(*id) {
            lines.insert(format!("M {}", a.name_of(*id)));
        } else if old.ctime != now.ctime {
            lines.insert(format!("R {} {}", a.name_of(*id), b.name_of(*id)));
        }
    }
    lines
}

/// What is told, and how many of that is about the hidden objects of extended attributes, which no walk comes to.
fn told(pool: &Pool, a: &State, b: &State, since: Txg) -> (BTreeSet<String>, usize) {
    let (mut lines, mut hidden) = (BTreeSet::new(), 0);
    diff::<ZplError>(pool.io(), &a.fs, &b.fs, since, &mut |finding| {
        let Finding::File(d) = finding else { panic!("{} {}: {finding:?}", a.name, b.name) };
        let path = latin(&d.path);
        let later = matches!(d.change, Change::Added | Change::Modified);
        if let Some((file, _)) = path.split_once("/<xattrdir>") {
            let file = if file.is_empty() { "/" } else { file };
            let state = if later { b } else { a };
            assert!(state.ids.contains_key(file), "{}: {path}", state.name);
            hidden += 1;
            return Ok(());
        }
        let line = match &d.change {
            Change::Added => format!("+ {}", b.first_name(&d.path)),
            Change::Removed => format!("- {}", a.first_name(&d.path)),
            Change::Modified => format!("M {}", a.first_name(&d.path)),
            // Of a name that was removed the other state does not know; the object is the same.
            Change::Links(n) => {
                let id = a.ids.get(&path).or_else(|| b.ids.get(&path)).unwrap();
                format!("M {} {n:+}", b.name_of(*id))
            }
            Change::Renamed(to) => format!("R {} {}", a.first_name(&d.path), b.first_name(to)),
        };
        assert!(lines.insert(line.clone()), "told twice: {line}");
        Ok(())
    })
    .unwrap();
    (lines, hidden)
}

/// Compares every state of every file system with all later ones of its line; lines seen.
fn whole_pool(pool: &Pool, root: &str) -> BTreeSet<String> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let mut names = Vec::new();
    for head in dsl.descendants(io, root).unwrap() {
        let r = dsl.lookup_head(io, &head).unwrap();
        let snaps = dsl.snapshots(io, &head).unwrap();
        names.extend(snaps.into_iter().map(|(s, r)| (format!("{head}@{s}"), r)));
        names.push((head, r));
    }
    let mut all = BTreeSet::new();
    for (from, f) in names.iter().filter(|(_, f)| f.snapshot) {
        let Some(a) = State::new(pool, from) else { continue };
        for (to, t) in &names {
            if t.obj == f.obj || !dsl.is_before(io, t.obj, f.obj, None).unwrap() {
                continue;
            }
            let b = State::new(pool, to).unwrap();
            let since = Txg(dsl.dataset(io, f.obj).unwrap().creation_txg);
            let (lines, _) = told(pool, &a, &b, since);
            assert_eq!(lines, expected(&a, &b), "{from} {to}");
            // Pruning leaves nothing out.
            assert_eq!(lines, told(pool, &a, &b, Txg(0)).0, "{from} {to}");
            all.extend(lines.into_iter().map(|l| format!("{from} {to}: {l}")));
        }
    }
    all
}

#[test]
fn every_pair_of_snapshots_of_the_cold_pool() {
    let mut pool = zoo::open(&[fixture::fixture("cold/main.img")]).unwrap();
    zoo::load_keys(&mut pool, &fixture::tests_data());
    let all = whole_pool(&pool, "main");
    let docs = "main/encrypted/docs@root main/encrypted/docs@newsnapshot";
    // As the recipe of the image has it.
    for line in [
        "- /letter-7.txt",
        "R /letter-9.txt /deep/letter-nine.txt",
        "M /letter-10.txt",
        "+ /letter-61.txt",
        "+ /diary.txt",
        "- /deep/er/still/ledger.csv",
    ] {
        assert!(all.contains(&format!("{docs}: {line}")), "{line}");
    }
    assert!(all.len() > 100, "{}", all.len());
}

/// Every state against every other, also of other file systems, whose numbers are the same and whose files are not.
#[test]
fn every_pair_of_the_shapes() {
    let Some((images, expect)) = zoo::folders() else {
        eprintln!("SKIPPED: ICECORE_ZOO does not name a folder of unpacked images");
        return;
    };
    let mut pool = zoo::open(&[zoo::find(&images, "shapes.img").unwrap()]).unwrap();
    zoo::load_keys(&mut pool, &expect);
    let all = whole_pool(&pool, "shapes");
    let kinds = "shapes/kinds@first shapes/kinds@second";
    for line in [
        format!("{kinds}: + /added"),
        format!("{kinds}: M /h1 -1"),
        "shapes/kinds@first shapes/kclone@kc: + /c".to_string(),
    ] {
        assert!(all.iter().any(|l| l.starts_with(&line)), "{line}");
    }
    let names =
        ["shapes/kinds@first", "shapes/bigdir@again", "shapes/xattrdir@first", "shapes/deep", "shapes/mixed"];
    let states: Vec<State> = names.iter().map(|n| State::new(&pool, n).unwrap()).collect();
    let mut seen = 0;
    for a in &states {
        for b in &states {
            let (lines, _) = told(&pool, a, b, Txg(0));
            assert_eq!(lines, expected(a, b), "{} {}", a.name, b.name);
            seen += lines.len();
        }
    }
    assert!(seen > 10_000, "{seen}");
}
