//! Changes during which the service dies: by a signal, or because power goes.

use super::volumes::Image;
use super::{Outcome, POOLS, Step, Walk};
use std::path::PathBuf;
use std::time::Duration;

/// A command, and what the model says once it was carried out; all of it happens or nothing.
pub(super) struct Change {
    words: Vec<String>,
    /// A file on its standard input.
    input: Option<PathBuf>,
    /// Heads whose contents tell.
    heads: Vec<String>,
}

impl Change {
    fn of(words: &[&str], heads: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect();
        Self { words: owned(words), input: None, heads: owned(heads) }
    }
}

type Work = fn(&mut Walk) -> Outcome<Option<Change>>;

const CHANGES: &[Work] = &[
    Walk::change_snapshot,
    Walk::change_destroy_snapshot,
    Walk::change_create,
    Walk::change_image,
    Walk::change_file,
    Walk::change_rename,
    Walk::change_rollback,
    Walk::change_destroy,
    Walk::change_clone,
    Walk::change_promote,
    Walk::change_receive,
    Walk::change_receive,
    Walk::change_increment,
    Walk::change_increment,
    Walk::change_mirror,
    Walk::change_mirror,
    Walk::change_keys,
    Walk::change_keys,
];

impl Walk {
    /// A command during which the service is killed.
    pub(super) fn kill(&mut self) -> Outcome<Step> {
        let after = Duration::from_millis(self.rng.below(25));
        self.dies(|walk, words, input| {
            walk.desk.doomed(words, input, || {
                std::thread::sleep(after);
                walk.desk.kill_service()
            })
        })
    }

    /// Lets the service die by `how` during a change, which says whether it was acknowledged. What was is there, and else all
    /// of it or nothing; what was acknowledged before is there too.
    pub(super) fn dies(
        &mut self,
        how: impl FnOnce(&mut Self, &[&str], Option<&std::path::Path>) -> Outcome<bool>,
    ) -> Outcome<Step> {
        let before = (self.model.clone(), self.sides.clone());
        let at = self.rng.below(CHANGES.len() as u64) as usize;
        let Some(change) = CHANGES[at](self)? else { return Ok(Step::Skipped) };
        let words: Vec<&str> = change.words.iter().map(String::as_str).collect();
        let acknowledged = how(self, &words, change.input.as_deref())?;
        POOLS.iter().for_each(|pool| self.touch(pool));
        let outcome = match self.compare_change(&change) {
            Ok(()) => Step::Done,
            Err(why) if acknowledged => return Err(format!("acknowledged, and not there: {why}")),
            Err(after) => {
                (self.model, self.sides) = before;
                self.compare_change(&change)
                    .map_err(|why| format!("neither before nor after: {why}\nnor {after}"))?;
                Step::Refused
            }
        };
        self.tidy_sides()?;
        Ok(outcome)
    }

    fn compare_change(&mut self, change: &Change) -> Outcome {
        self.compare_names()?;
        self.compare_sides()?;
        change.heads.iter().try_for_each(|head| self.compare_head(head))
    }

    /// Whether a dataset and all its snapshots may go, or be left behind: nothing is held, nothing was cloned.
    fn is_free(&self, name: &str, from: usize) -> bool {
        let snaps = &self.model.sets[name].snaps[from..];
        snaps.iter().all(|s| !s.held && self.model.clones(s.id).is_empty())
    }

    fn change_snapshot(&mut self) -> Outcome<Option<Change>> {
        let Some(name) = self.some(|_, _| true) else { return Ok(None) };
        let snap = self.fresh("s");
        for n in self.model.subtree(&name) {
            self.model.snapshot(&n, &snap);
        }
        Ok(Some(Change::of(&["zfs", "snapshot", "-r", &format!("{name}@{snap}")], &[&name])))
    }

    fn change_destroy_snapshot(&mut self) -> Outcome<Option<Change>> {
        let Some((name, at)) = self.some_snapshot() else { return Ok(None) };
        let snap = &self.model.sets[&name].snaps[at];
        if snap.held || !self.model.clones(snap.id).is_empty() {
            return Ok(None);
        }
        let full = self.snap_name(&name, at);
        self.model.ds(&name).snaps.remove(at);
        Ok(Some(Change::of(&["zfs", "destroy", &full], &[&name])))
    }

    fn change_create(&mut self) -> Outcome<Option<Change>> {
        let Some(name) = self.some_parent(None) else { return Ok(None) };
        if self.model.sets[&name].key.is_some() {
            return Ok(None);
        }
        let new = format!("{name}/{}", self.fresh("f"));
        self.model.ds(&new);
        Ok(Some(Change::of(&["zfs", "create", &new], &[&name, &new])))
    }

    fn change_image(&mut self) -> Outcome<Option<Change>> {
        let Some(Image { name, line, tree: Some(tree) }) = self.new_image()? else { return Ok(None) };
        self.model.ds(&name).tree = tree;
        self.model.ds(&name).pristine = false;
        Ok(Some(Change { words: line, input: None, heads: vec![name] }))
    }

    fn change_file(&mut self) -> Outcome<Option<Change>> {
        let Some(name) = self.some_files()? else { return Ok(None) };
        let (path, entry, file) = self.new_file(&name)?;
        let change = Change::of(&["cp", &file, &format!("{name}:/{path}")], &[&name]);
        self.model.ds(&name).tree.insert(path, entry);
        self.model.ds(&name).pristine = false;
        Ok(Some(change))
    }

    fn change_rename(&mut self) -> Outcome<Option<Change>> {
        let Some(old) = self.some(|n, d| n.contains('/') && d.key.is_none()) else { return Ok(None) };
        let Some((parent, _)) = old.rsplit_once('/') else { return Ok(None) };
        if self.model.sets[parent].key.is_some() {
            return Ok(None);
        }
        let new = format!("{parent}/{}", self.fresh("r"));
        self.renamed(&old, &new);
        Ok(Some(Change::of(&["zfs", "rename", &old, &new], &[&old, &new])))
    }

    fn change_rollback(&mut self) -> Outcome<Option<Change>> {
        let Some((name, at)) = self.some_snapshot().filter(|(n, at)| self.is_free(n, at + 1)) else {
            return Ok(None);
        };
        let full = self.snap_name(&name, at);
        self.rolled_back(&name, at);
        Ok(Some(Change::of(&["zfs", "rollback", "-r", &full], &[&name])))
    }

    fn change_destroy(&mut self) -> Outcome<Option<Change>> {
        let Some(name) = self.some(|n, _| n.contains('/')) else { return Ok(None) };
        let below = self.model.subtree(&name);
        if !below.iter().all(|n| self.is_free(n, 0)) {
            return Ok(None);
        }
        below.iter().for_each(|n| drop(self.model.sets.remove(n)));
        Ok(Some(Change::of(&["zfs", "destroy", "-r", &name], &[&name])))
    }

    fn change_clone(&mut self) -> Outcome<Option<Change>> {
        let Some((of, at)) = self.some_snapshot() else { return Ok(None) };
        let pool = super::model::pool_of(&of).to_string();
        let Some(parent) = self.some_parent(Some(&pool)) else { return Ok(None) };
        if [&of, &parent].iter().any(|n| self.model.sets[*n].key.is_some()) {
            return Ok(None);
        }
        let name = format!("{parent}/{}", self.fresh("c"));
        let full = self.snap_name(&of, at);
        self.cloned(&of, at, &name);
        Ok(Some(Change::of(&["zfs", "clone", &full, &name], &[&of, &name])))
    }

    fn change_promote(&mut self) -> Outcome<Option<Change>> {
        let Some(name) = self.some(|_, d| d.origin.is_some() && d.key.is_none()) else { return Ok(None) };
        self.promoted(&name)?;
        Ok(Some(Change::of(&["zfs", "promote", &name], &[&name])))
    }

    fn change_receive(&mut self) -> Outcome<Option<Change>> {
        let Some((of, at)) = self.some_snapshot() else { return Ok(None) };
        let stays = self.model.sets[&of].key.is_some();
        let Some(parent) = self.some_parent(None) else { return Ok(None) };
        if !stays && self.model.sets[&parent].key.is_some() {
            return Ok(None);
        }
        let name = format!("{parent}/{}", self.fresh("d"));
        let stream = self.desk.path("files/stream");
        self.desk.to_file(&["zfs", "send", "-w", &self.snap_name(&of, at)], &stream)?;
        self.received(&of, at, &name, stays);
        let change = Change::of(&["zfs", "receive", "-u", &name], &[&name]);
        Ok(Some(Change { input: Some(stream), ..change }))
    }

    fn change_increment(&mut self) -> Outcome<Option<Change>> {
        let pairs = self.pairs();
        let Some((from, to, base)) = self.pick(&pairs) else { return Ok(None) };
        let (src, dst) = (&self.model.sets[&from], &self.model.sets[&to]);
        let raw = src.key.is_some();
        if src.estranged || dst.estranged || raw != dst.raw {
            return Ok(None);
        }
        let end = src.snaps.len() - 1;
        let (first, last) = (self.snap_name(&from, base), self.snap_name(&from, end));
        let stream = self.desk.path("files/stream");
        let mut line = vec!["zfs", "send"];
        line.extend(raw.then_some("-w"));
        // One snapshot: of several the first may be there.
        line.extend(["-i", &first, &last]);
        self.desk.to_file(&line, &stream)?;
        self.increased(&from, end, end, &to);
        let change = Change::of(&["zfs", "receive", "-u", "-F", &to], &[&to]);
        Ok(Some(Change { input: Some(stream), ..change }))
    }

    fn change_keys(&mut self) -> Outcome<Option<Change>> {
        let change = self.change_key_whole()?;
        Ok(change.map(|change| Change { words: change.line, input: None, heads: change.follow }))
    }

    fn change_mirror(&mut self) -> Outcome<Option<Change>> {
        let before = self.sides.clone();
        let line = self.change_of_sides()?;
        if line.is_none() {
            self.sides = before;
        }
        Ok(line.map(|words| Change { words, input: None, heads: vec![POOLS[0].into()] }))
    }
}
