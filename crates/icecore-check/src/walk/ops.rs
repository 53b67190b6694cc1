//! The kinds of steps on datasets, snapshots and files.

use super::look::tree_of;
use super::model::{Ds, Entry, Tree, pool_of, within};
use super::volumes::{MIBS, tree_of_image};
use super::{Outcome, Step, Walk};
use crate::manifest::sha256_of;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

type Work = fn(&mut Walk) -> Outcome<Step>;

/// Name, weight, and what it does.
const KINDS: &[(&str, u64, Work)] = &[
    ("put", 14, Walk::put),
    ("mkdir", 4, Walk::mkdir),
    ("rm", 6, Walk::rm),
    ("import-tree", 5, Walk::import),
    ("mounted", 6, Walk::mounted),
    ("create", 8, Walk::create),
    ("volume", 4, Walk::volume),
    ("image", 8, Walk::image),
    ("resize", 2, Walk::resize),
    ("snapshot", 14, Walk::snapshot),
    ("clone", 6, Walk::clone_snapshot),
    ("promote", 4, Walk::promote),
    ("rename", 4, Walk::rename),
    ("rename-snapshot", 2, Walk::rename_snapshot),
    ("destroy-snapshot", 8, Walk::destroy_snapshot),
    ("destroy", 5, Walk::destroy),
    ("rollback", 5, Walk::rollback),
    ("bookmark", 2, Walk::bookmark),
    ("hold", 2, Walk::hold),
    ("release", 3, Walk::release),
    ("set", 4, Walk::set),
    ("inherit", 2, Walk::inherit),
    ("change-key", 3, Walk::change_key),
    ("unload-key", 2, Walk::unload_key),
    ("wrong-key", 1, Walk::wrong_key),
    ("wrong-name", 3, Walk::wrong_name),
    ("send-full", 6, Walk::send_full),
    ("send-increment", 10, Walk::send_increment),
    ("garbage", 1, Walk::garbage),
    ("sync", 2, Walk::sync),
    ("sides", 4, Walk::change_sides),
    ("last-side", 1, Walk::last_side),
    ("scrub", 1, Walk::scrub),
    ("export-import", 2, Walk::export_import),
    ("kill", 4, Walk::kill),
];

/// More datasets or snapshots than these, and destroying comes first.
const SETS: usize = 30;
const SNAPS: usize = 120;

pub(super) fn choose(walk: &mut Walk) -> (&'static str, Work) {
    if walk.power && walk.rng.one_in(2) {
        return ("power-cut", Walk::power_cut);
    }
    let snaps: usize = walk.model.sets.values().map(|d| d.snaps.len()).sum();
    if snaps > SNAPS && walk.rng.one_in(2) {
        return ("destroy-snapshot", Walk::destroy_snapshot);
    }
    if walk.model.sets.len() > SETS && walk.rng.one_in(3) {
        return ("destroy", Walk::destroy);
    }
    let mut at = walk.rng.below(KINDS.iter().map(|k| k.1).sum());
    for (name, weight, work) in KINDS {
        if at < *weight {
            return (name, *work);
        }
        at -= weight;
    }
    unreachable!("below the sum of the weights")
}

/// Properties that walks set, and values as `zfs get -p` shows them.
const PROPS: &[(&str, &[&str])] = &[
    ("compression", &["off", "lz4", "zstd", "gzip-9", "zle", "lzjb"]),
    ("checksum", &["fletcher2", "fletcher4", "sha256", "sha512", "blake3", "skein"]),
    ("copies", &["1", "2"]),
    ("redundant_metadata", &["all", "most"]),
    ("recordsize", &["512", "4096", "131072", "1048576"]),
    ("atime", &["on", "off"]),
    ("snapdir", &["hidden", "visible"]),
];
/// How many of them volumes have too.
const OF_VOLUMES: usize = 4;

impl Walk {
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.rng.below(from.len() as u64) as usize).cloned()
    }

    /// A dataset that fits.
    pub fn some(&mut self, fits: impl Fn(&str, &Ds) -> bool) -> Option<String> {
        let all: Vec<String> =
            self.model.sets.iter().filter(|(n, d)| fits(n, d)).map(|(n, _)| n.clone()).collect();
        self.pick(&all)
    }

    /// A dataset with snapshots, and the place of one of them.
    pub fn some_snapshot(&mut self) -> Option<(String, usize)> {
        let all: Vec<(String, usize)> = self
            .model
            .sets
            .iter()
            .flat_map(|(n, d)| (0..d.snaps.len()).map(move |i| (n.clone(), i)))
            .collect();
        self.pick(&all)
    }

    /// A file system to put something below, in this pool if one is named; not too deep.
    pub fn some_parent(&mut self, pool: Option<&str>) -> Option<String> {
        self.some(|n, d| !d.volume && n.matches('/').count() < 4 && pool.is_none_or(|p| pool_of(n) == p))
    }

    pub fn snap_name(&self, name: &str, at: usize) -> String {
        format!("{name}@{}", self.model.sets[name].snaps[at].name)
    }

    pub fn must(&self, words: &[&str]) -> Outcome<Step> {
        self.desk.ok(words).map(|_| Step::Done)
    }

    pub fn must_not(&self, words: &[&str], why: &str) -> Outcome<Step> {
        let done = self.desk.run(words)?;
        match done.status {
            // OpenZFS ends with 2 and the usage, or with -1, where others say 1.
            1 | 2 | 255 if !done.err.trim().is_empty() => Ok(Step::Refused),
            status => Err(format!("{} ended with {status} ({}): {why}", words.join(" "), done.err)),
        }
    }

    // Files.

    /// A file system with its contents in reach.
    pub fn some_files(&mut self) -> Outcome<Option<String>> {
        let Some(name) = self.some(|_, d| !d.volume) else { return Ok(None) };
        Ok(self.unlock(&name)?.then_some(name))
    }

    pub fn some_dir(&mut self, name: &str) -> String {
        let mut dirs = vec![String::new()];
        let tree = &self.model.sets[name].tree;
        dirs.extend(tree.iter().filter(|(_, e)| **e == Entry::Dir).map(|(p, _)| format!("{p}/")));
        self.pick(&dirs).unwrap_or_default()
    }

    /// New contents in a file of this machine.
    pub fn contents(&mut self, file: &Path) -> Outcome<Entry> {
        let len = match self.rng.below(8) {
            0 => 0,
            1 | 2 => self.rng.below(120),
            3 | 4 => self.rng.below(20_000),
            5 => 128 << 10,
            _ => self.rng.below(900_000),
        } as usize;
        let mut bytes = vec![0; len];
        match self.rng.below(4) {
            0 => {}
            1 => self.rng.fill(&mut bytes),
            2 => bytes.iter_mut().enumerate().for_each(|(i, b)| *b = b"cold backup "[i % 12]),
            // With a hole in the middle.
            _ => {
                let end = len / 3;
                self.rng.fill(&mut bytes[..end]);
                self.rng.fill(&mut bytes[len - end..]);
            }
        }
        fs::write(file, &bytes).map_err(|e| e.to_string())?;
        Ok(Entry::File(len as u64, sha256_of(&bytes)))
    }

    pub fn written(&mut self, name: &str) {
        self.touch(name);
        self.model.ds(name).pristine = false;
    }

    fn put(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_files()? else { return Ok(Step::Skipped) };
        let (path, entry, file) = self.new_file(&name)?;
        self.desk.ok(&["cp", &file, &format!("{name}:/{path}")])?;
        self.model.ds(&name).tree.insert(path, entry);
        self.written(&name);
        Ok(Step::Done)
    }

    /// A path, new or of a file there is, and what is to be put there.
    pub fn new_file(&mut self, name: &str) -> Outcome<(String, Entry, String)> {
        let files: Vec<String> = self.model.sets[name]
            .tree
            .iter()
            .filter(|(_, e)| matches!(e, Entry::File(..)))
            .map(|(p, _)| p.clone())
            .collect();
        let old = if self.rng.one_in(3) { self.pick(&files) } else { None };
        let path = match old {
            Some(path) => path,
            None => self.some_dir(name) + &self.fresh("file"),
        };
        let file = self.desk.path("files/new");
        let entry = self.contents(&file)?;
        Ok((path, entry, file.display().to_string()))
    }

    fn mkdir(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_files()? else { return Ok(Step::Skipped) };
        let path = self.some_dir(&name) + &self.fresh("dir");
        self.desk.ok(&["mkdir", &format!("{name}:/{path}")])?;
        self.model.ds(&name).tree.insert(path, Entry::Dir);
        self.written(&name);
        Ok(Step::Done)
    }

    fn rm(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_files()? else { return Ok(Step::Skipped) };
        let paths: Vec<String> = self.model.sets[&name].tree.keys().cloned().collect();
        let Some(path) = self.pick(&paths) else { return Ok(Step::Skipped) };
        self.desk.ok(&["rm", "-r", &format!("{name}:/{path}")])?;
        self.model.ds(&name).tree.retain(|p, _| !within(p, &path));
        self.written(&name);
        Ok(Step::Done)
    }

    fn import(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_files()? else { return Ok(Step::Skipped) };
        let folder = self.desk.path("files/tree");
        let failed = |e: std::io::Error| e.to_string();
        // The same folder again and again: only what changed has to be copied.
        fs::create_dir_all(folder.join("sub")).map_err(failed)?;
        for _ in 0..=self.rng.below(6) {
            let sub = if self.rng.one_in(2) { "sub/" } else { "" };
            let path = folder.join(format!("{sub}f{}", self.rng.below(12)));
            self.contents(&path)?;
        }
        let link = folder.join(format!("l{}", self.rng.below(3)));
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("sub/f1", &link).map_err(failed)?;
        }
        self.desk.ok(&["mkdir", "-p", &format!("{name}:/tree")])?;
        self.desk.ok(&["import-tree", &folder.display().to_string(), &format!("{name}:/tree")])?;
        let below = tree_of(&folder)?.into_iter().map(|(p, e)| (format!("tree/{p}"), e));
        let tree = &mut self.model.ds(&name).tree;
        tree.insert("tree".into(), Entry::Dir);
        tree.extend(below);
        self.written(&name);
        Ok(Step::Done)
    }

    // Datasets.

    /// Options of `zfs create` and `clone`.
    fn some_props(&mut self, volume: bool) -> Vec<(&'static str, String)> {
        let known = if volume { &PROPS[..OF_VOLUMES] } else { PROPS };
        let mut out = Vec::new();
        for (name, values) in known {
            if self.rng.one_in(4) {
                out.push((*name, self.pick(values).unwrap_or_default().to_string()));
            }
        }
        out
    }

    fn new_set(&mut self, volume: bool) -> Outcome<Step> {
        let Some(parent) = self.some_parent(None) else { return Ok(Step::Skipped) };
        if !self.unlock(&parent)? {
            return Ok(Step::Skipped);
        }
        let name = format!("{parent}/{}", self.fresh(if volume { "v" } else { "f" }));
        let props = self.some_props(volume);
        let mut ds = Ds { volume, key: self.model.sets[&parent].key.clone(), ..Ds::default() };
        let mut options: Vec<String> = props.iter().map(|(p, v)| format!("{p}={v}")).collect();
        if self.rng.one_in(4) {
            let key = self.new_key()?;
            options.extend(self.key_options(&key));
            ds.key = Some(key);
        }
        let mut line = vec!["zfs", "create"];
        for o in &options {
            line.extend(["-o", o]);
        }
        let mibs = 1 + self.rng.below(MIBS);
        let size = format!("{mibs}M");
        if volume {
            ds.tree = tree_of_image(&vec![0; (mibs as usize) << 20]);
            line.extend(if self.rng.one_in(2) { &["-s", "-V"][..] } else { &["-V"] });
            line.push(&size);
        }
        line.push(&name);
        self.desk.ok(&line)?;
        ds.props = props.into_iter().collect();
        self.model.sets.insert(name.clone(), ds);
        self.touch(&name);
        Ok(Step::Done)
    }

    fn create(&mut self) -> Outcome<Step> {
        self.new_set(false)
    }

    fn volume(&mut self) -> Outcome<Step> {
        self.new_set(true)
    }

    fn snapshot(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|_, _| true) else { return Ok(Step::Skipped) };
        let snap = self.fresh("s");
        let full = format!("{name}@{snap}");
        self.touch(&name);
        if self.rng.one_in(4) {
            self.desk.ok(&["zfs", "snapshot", "-r", &full])?;
            for n in self.model.subtree(&name) {
                self.model.snapshot(&n, &snap);
            }
        } else {
            self.desk.ok(&["zfs", "snapshot", &full])?;
            self.model.snapshot(&name, &snap);
        }
        Ok(Step::Done)
    }

    fn clone_snapshot(&mut self) -> Outcome<Step> {
        let Some((of, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let pool = pool_of(&of).to_string();
        let Some(parent) = self.some_parent(Some(&pool)) else { return Ok(Step::Skipped) };
        if !self.unlock(&of)? || !self.unlock(&parent)? {
            return Ok(Step::Skipped);
        }
        let name = format!("{parent}/{}", self.fresh("c"));
        let done = self.desk.run(&["zfs", "clone", &self.snap_name(&of, at), &name])?;
        let origin = &self.model.sets[&of];
        if !done.ok() {
            let alike = origin.key.is_some() == self.model.sets[&parent].key.is_some();
            return if alike { Err(done.err) } else { Ok(Step::Refused) };
        }
        self.cloned(&of, at, &name);
        self.touch(&name);
        Ok(Step::Done)
    }

    pub fn cloned(&mut self, of: &str, at: usize, name: &str) {
        let origin = &self.model.sets[of];
        let snap = &origin.snaps[at];
        let ds = Ds {
            volume: origin.volume,
            tree: (*snap.tree).clone(),
            origin: Some(snap.id),
            key: origin.key.clone(),
            estranged: origin.estranged,
            ..Ds::default()
        };
        self.model.sets.insert(name.to_string(), ds);
    }

    fn promote(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|_, d| d.origin.is_some()) else { return Ok(Step::Skipped) };
        if !self.unlock(&name)? {
            return Ok(Step::Skipped);
        }
        let done = self.desk.run(&["zfs", "promote", &name])?;
        if !done.ok() {
            let encrypted = self.model.sets[&name].key.is_some();
            return if encrypted { Ok(Step::Refused) } else { Err(done.err) };
        }
        self.promoted(&name)?;
        self.touch(&name);
        Ok(Step::Done)
    }

    pub fn promoted(&mut self, name: &str) -> Outcome {
        let id = self.model.sets[name].origin.unwrap_or_default();
        let of = self.model.find(id).map(|(n, _)| n.to_string()).ok_or("a clone of nothing")?;
        let old = self.model.ds(&of);
        let at = old.snaps.iter().position(|s| s.id == id).map_or(0, |i| i + 1);
        let mut moved: Vec<_> = old.snaps.drain(..at).collect();
        // Bookmarks of what is no newer than the origin go with it.
        let (marks, stay) = std::mem::take(&mut old.bookmarks).into_iter().partition(|(_, of)| *of <= id);
        old.bookmarks = stay;
        let above = old.origin.replace(id);
        old.received = false;
        let raw = old.raw;
        let new = self.model.ds(name);
        moved.append(&mut new.snaps);
        (new.snaps, new.origin, new.raw) = (moved, above, raw);
        new.bookmarks.extend::<BTreeMap<_, _>>(marks);
        Ok(())
    }

    fn rename(&mut self) -> Outcome<Step> {
        let Some(old) = self.some(|n, _| n.contains('/')) else { return Ok(Step::Skipped) };
        let pool = pool_of(&old).to_string();
        let parent = self
            .some(|n, d| pool_of(n) == pool && !d.volume && !within(n, &old) && n.matches('/').count() < 3);
        let Some(parent) = parent else { return Ok(Step::Skipped) };
        let new = format!("{parent}/{}", self.fresh("r"));
        let done = self.desk.run(&["zfs", "rename", &old, &new])?;
        if !done.ok() {
            let keys = self.model.sets[&old].key.is_some() || self.model.sets[&parent].key.is_some();
            return if keys { Ok(Step::Refused) } else { Err(done.err) };
        }
        self.renamed(&old, &new);
        self.touch(&new);
        Ok(Step::Done)
    }

    pub fn renamed(&mut self, old: &str, new: &str) {
        for name in self.model.subtree(old) {
            if let Some(ds) = self.model.sets.remove(&name) {
                self.model.sets.insert(format!("{new}{}", &name[old.len()..]), ds);
            }
        }
    }

    fn rename_snapshot(&mut self) -> Outcome<Step> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let snap = self.fresh("s");
        self.desk.ok(&["zfs", "rename", &self.snap_name(&name, at), &format!("{name}@{snap}")])?;
        self.model.ds(&name).snaps[at].name = snap;
        self.touch(&name);
        Ok(Step::Done)
    }

    fn destroy_snapshot(&mut self) -> Outcome<Step> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let full = self.snap_name(&name, at);
        let snap = &self.model.sets[&name].snaps[at];
        if snap.held || !self.model.clones(snap.id).is_empty() {
            return self.must_not(&["zfs", "destroy", &full], "it is held or has clones");
        }
        self.desk.ok(&["zfs", "destroy", &full])?;
        self.model.ds(&name).snaps.remove(at);
        self.touch(&name);
        Ok(Step::Done)
    }

    fn destroy(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|n, _| n.contains('/')) else { return Ok(Step::Skipped) };
        let below = self.model.subtree(&name);
        let has_more = below.len() > 1 || !self.model.sets[&name].snaps.is_empty();
        if has_more && self.rng.one_in(4) {
            return self.must_not(&["zfs", "destroy", &name], "it has children or snapshots");
        }
        let held = below.iter().any(|n| self.model.sets[n].snaps.iter().any(|s| s.held));
        let line = ["zfs", "destroy", "-r", &name];
        if held || self.model.cloned_outside(&below) {
            return self.must_not(&line, "something is held or has clones outside");
        }
        let clones = below
            .iter()
            .any(|n| self.model.sets[n].snaps.iter().any(|s| !self.model.clones(s.id).is_empty()));
        let done = self.desk.run(&line)?;
        if !done.ok() {
            return if clones { Ok(Step::Refused) } else { Err(done.err) };
        }
        for n in below {
            self.model.sets.remove(&n);
        }
        self.touch(&name);
        Ok(Step::Done)
    }

    fn rollback(&mut self) -> Outcome<Step> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let full = self.snap_name(&name, at);
        let later = &self.model.sets[&name].snaps[at + 1..];
        if !later.is_empty() && self.rng.one_in(3) {
            return self.must_not(&["zfs", "rollback", &full], "there are newer snapshots");
        }
        if later.iter().any(|s| s.held || !self.model.clones(s.id).is_empty()) {
            return self
                .must_not(&["zfs", "rollback", "-r", &full], "newer snapshots are held or have clones");
        }
        self.desk.ok(&["zfs", "rollback", "-r", &full])?;
        self.rolled_back(&name, at);
        self.touch(&name);
        Ok(Step::Done)
    }

    pub fn rolled_back(&mut self, name: &str, at: usize) {
        let ds = self.model.ds(name);
        ds.snaps.truncate(at + 1);
        let (id, tree) = (ds.snaps[at].id, Arc::clone(&ds.snaps[at].tree));
        ds.bookmarks.retain(|_, of| *of <= id);
        ds.tree = Tree::clone(&tree);
    }

    fn bookmark(&mut self) -> Outcome<Step> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let mark = self.fresh("b");
        self.desk.ok(&["zfs", "bookmark", &self.snap_name(&name, at), &format!("{name}#{mark}")])?;
        let ds = self.model.ds(&name);
        let id = ds.snaps[at].id;
        ds.bookmarks.insert(mark, id);
        self.touch(&name);
        Ok(Step::Done)
    }

    fn hold(&mut self) -> Outcome<Step> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let full = self.snap_name(&name, at);
        self.touch(&name);
        if self.model.sets[&name].snaps[at].held {
            return self.must_not(&["zfs", "hold", "walk", &full], "it is held already");
        }
        self.model.ds(&name).snaps[at].held = true;
        self.must(&["zfs", "hold", "walk", &full])
    }

    fn release(&mut self) -> Outcome<Step> {
        let held: Vec<(String, usize)> = self
            .model
            .sets
            .iter()
            .flat_map(|(n, d)| {
                d.snaps.iter().enumerate().filter(|(_, s)| s.held).map(move |(i, _)| (n.clone(), i))
            })
            .collect();
        let Some((name, at)) = self.pick(&held) else { return Ok(Step::Skipped) };
        self.touch(&name);
        let full = self.snap_name(&name, at);
        self.model.ds(&name).snaps[at].held = false;
        self.must(&["zfs", "release", "walk", &full])
    }

    fn set(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|_, _| true) else { return Ok(Step::Skipped) };
        let volume = self.model.sets[&name].volume;
        let props = self.some_props(volume);
        let Some((property, value)) = self.pick(&props) else { return Ok(Step::Skipped) };
        self.desk.ok(&["zfs", "set", &format!("{property}={value}"), &name])?;
        self.model.ds(&name).props.insert(property, value);
        self.touch(&name);
        Ok(Step::Done)
    }

    fn inherit(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|_, d| !d.props.is_empty()) else { return Ok(Step::Skipped) };
        let known: Vec<&'static str> = self.model.sets[&name].props.keys().copied().collect();
        let Some(property) = self.pick(&known) else { return Ok(Step::Skipped) };
        self.desk.ok(&["zfs", "inherit", property, &name])?;
        self.model.ds(&name).props.remove(property);
        self.touch(&name);
        Ok(Step::Done)
    }

    // Wrong ones.

    fn wrong_name(&mut self) -> Outcome<Step> {
        let Some(name) = self.some(|n, _| n.contains('/')) else { return Ok(Step::Skipped) };
        let none = format!("{name}/none/below");
        let pool = pool_of(&name).to_string();
        match self.rng.below(7) {
            0 => self.must_not(&["zfs", "create", &name], "it exists"),
            1 => self.must_not(&["zfs", "create", &none], "there is no parent"),
            2 => self.must_not(&["zfs", "destroy", &none], "it does not exist"),
            3 => self.must_not(&["zfs", "snapshot", &format!("{none}@s")], "it does not exist"),
            4 => self.must_not(&["zfs", "rename", &name, &format!("{name}/below")], "it is its own parent"),
            5 => self.must_not(&["zfs", "rename", &pool, &format!("{pool}/x")], "pools are not renamed"),
            _ => {
                let Some((of, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
                self.must_not(&["zfs", "snapshot", &self.snap_name(&of, at)], "it exists")
            }
        }
    }
}
