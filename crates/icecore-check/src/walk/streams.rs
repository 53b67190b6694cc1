//! Steps that send and receive.

use super::model::{Ds, Snap};
use super::{COLD, Outcome, POOLS, Step, Walk};
use std::collections::BTreeMap;

impl Walk {
    /// Flags of `zfs send`; properties go with what is not decrypted for it only.
    fn send_flags(&mut self, decrypted: bool) -> Vec<&'static str> {
        let known = if decrypted { &["-L", "-e", "-c"][..] } else { &["-L", "-e", "-c", "-p"] };
        known.iter().copied().filter(|_| self.rng.one_in(3)).collect()
    }

    /// Snapshots of one dataset as another gets them.
    fn copies(&mut self, of: &str, from: usize, to: usize) -> Vec<Snap> {
        let snaps = self.model.sets[of].snaps[from..=to].to_vec();
        snaps.into_iter().map(|s| Snap { id: self.model.id(), held: false, ..s }).collect()
    }

    pub(super) fn send_full(&mut self) -> Outcome<Step> {
        let Some((of, at)) = self.some_snapshot() else { return Ok(Step::Skipped) };
        let encrypted = self.model.sets[&of].key.is_some();
        let raw = self.rng.one_in(2) || (encrypted && self.rng.one_in(2));
        if encrypted && !raw && !self.unlock(&of)? {
            return Ok(Step::Skipped);
        }
        let stays = encrypted && raw;
        let parent = self.some(|n, d| !d.volume && n.matches('/').count() < 4 && (stays || d.key.is_none()));
        let Some(parent) = parent else { return Ok(Step::Skipped) };
        let name = format!("{parent}/{}", self.fresh("d"));
        let full = format!("{of}@{}", self.model.sets[&of].snaps[at].name);
        let flags = self.send_flags(encrypted && !raw);
        let mut left = vec!["zfs", "send"];
        left.extend(flags);
        left.extend(raw.then_some("-w"));
        left.push(&full);
        let (l, r) = self.desk.pipe(&left, &["zfs", "receive", "-u", &name])?;
        if !l.ok() || !r.ok() {
            return Err(format!("send and receive failed:\n{}{}", l.err, r.err));
        }
        self.received(&of, at, &name, stays);
        self.touch(&name);
        Ok(Step::Done)
    }

    /// A full copy of a snapshot came in, which `stays` encrypted or is not.
    pub(super) fn received(&mut self, of: &str, at: usize, name: &str, stays: bool) {
        let snaps = self.copies(of, at, at);
        let source = &self.model.sets[of];
        let ds = Ds {
            volume: source.volume,
            tree: (*source.snaps[at].tree).clone(),
            snaps,
            key: source.key.clone().filter(|_| stays),
            raw: stays,
            pristine: true,
            received: true,
            estranged: source.estranged && stays,
            ..Ds::default()
        };
        self.model.sets.insert(name.to_string(), ds);
    }

    /// Copies that an increment fits on: source, destination, place of the base in the source.
    pub(super) fn pairs(&self) -> Vec<(String, String, usize)> {
        let mut out = Vec::new();
        for (to, dst) in self.model.sets.iter().filter(|(_, d)| d.received) {
            let Some(last) = dst.snaps.last() else { continue };
            for (from, src) in self.model.sets.iter().filter(|(n, _)| *n != to) {
                let fits = match (src.key.is_some(), dst.key.is_some()) {
                    (true, true) => dst.raw,
                    (_, false) => true,
                    (false, true) => false,
                };
                if let Some(at) = src.snaps.iter().position(|s| s.guid == last.guid)
                    && fits
                    && at + 1 < src.snaps.len()
                {
                    out.push((from.clone(), to.clone(), at));
                }
            }
        }
        out
    }

    pub(super) fn send_increment(&mut self) -> Outcome<Step> {
        let pairs = self.pairs();
        let Some((from, to, base)) = self.pick(&pairs) else { return Ok(Step::Skipped) };
        let src = &self.model.sets[&from];
        let (count, encrypted) = (src.snaps.len(), src.key.is_some());
        let end = base + 1 + self.rng.below((count - base - 1) as u64) as usize;
        let dst = &self.model.sets[&to];
        let raw = encrypted && dst.raw;
        let modified = dst.snaps.last().is_some_and(|s| *s.tree != dst.tree);
        let (pristine, estranged) = (dst.pristine, dst.estranged || self.model.sets[&from].estranged);
        if encrypted && !raw && !self.unlock(&from)? {
            return Ok(Step::Skipped);
        }
        let src = &self.model.sets[&from];
        let all = self.rng.one_in(2);
        let base_name = format!("{from}@{}", src.snaps[base].name);
        let end_name = format!("{from}@{}", src.snaps[end].name);
        let flags = self.send_flags(encrypted && !raw);
        let mut left = vec!["zfs", "send"];
        left.extend(flags);
        left.extend(raw.then_some("-w"));
        left.extend([if all { "-I" } else { "-i" }, &base_name, &end_name]);
        let wrong = modified && self.rng.one_in(3);
        let force = !wrong && (!pristine || self.rng.one_in(4));
        let mut right = vec!["zfs", "receive", "-u"];
        right.extend(force.then_some("-F"));
        right.push(&to);
        self.touch(&to);
        let (l, r) = self.desk.pipe(&left, &right)?;
        if wrong {
            return match (r.ok(), r.err.contains("has been modified")) {
                (false, true) => Ok(Step::Refused),
                _ => Err(format!("an increment onto a modified dataset: {}{}", l.err, r.err)),
            };
        }
        // Large blocks that came before do not come in small ones later (`ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH`).
        let small = !raw && !left.contains(&"-L");
        if small && !r.ok() && r.err.contains("requires -L") {
            return Ok(Step::Refused);
        }
        if !l.ok() || !r.ok() {
            // After a change of keys OpenZFS's rules decide.
            return if estranged && !r.err.is_empty() {
                Ok(Step::Refused)
            } else {
                Err(format!("send and receive failed:\n{}{}", l.err, r.err))
            };
        }
        self.increased(&from, if all { base + 1 } else { end }, end, &to);
        Ok(Step::Done)
    }

    /// Snapshots `first` to `last` of `from` came in.
    pub(super) fn increased(&mut self, from: &str, first: usize, last: usize, to: &str) {
        let snaps = self.copies(from, first, last);
        let ds = self.model.ds(to);
        if let Some(last) = snaps.last() {
            ds.tree = (*last.tree).clone();
        }
        ds.snaps.extend(snaps);
        ds.pristine = true;
    }

    pub(super) fn garbage(&mut self) -> Outcome<Step> {
        let Some(parent) = self.some_parent(None) else { return Ok(Step::Skipped) };
        let name = format!("{parent}/{}", self.fresh("g"));
        let mut bytes = vec![0; 1 + self.rng.below(4096) as usize];
        self.rng.fill(&mut bytes);
        let done = self.desk.with_input(&["zfs", "receive", &name], &bytes)?;
        if done.status != 1 || done.err.is_empty() {
            return Err(format!("garbage was received with {}: {}", done.status, done.err));
        }
        self.touch(&name);
        Ok(Step::Refused)
    }

    fn guids(&self, pool: &str) -> Outcome<BTreeMap<String, String>> {
        let said = self.desk.ok(&["zfs", "list", "-Hp", "-r", "-t", "snapshot", "-o", "name,guid", pool])?;
        let pair = |l: &str| l.split_once('\t').map(|(n, g)| (n.to_string(), g.to_string()));
        Ok(said.lines().filter_map(pair).collect())
    }

    /// Brings the cold pool up to date, from the empty one where it does not fit any more.
    pub(super) fn sync(&mut self) -> Outcome<Step> {
        let (from, to) = (POOLS[0], format!("{COLD}/copy"));
        let mut outcome = Step::Done;
        let mut snap = self.sync_once(from, &to)?;
        if snap.is_none() {
            outcome = Step::Refused;
            self.desk.ok(&["zfs", "destroy", "-R", &to])?;
            snap = self.sync_once(from, &to)?;
        }
        let Some(snap) = snap else { return Err("sync into nothing was refused".into()) };
        let (here, there) = (self.guids(from)?, self.guids(&to)?);
        for name in self.model.subtree(from) {
            let copy = format!("{to}{}@{snap}", &name[from.len()..]);
            let (a, b) = (here.get(&format!("{name}@{snap}")), there.get(&copy));
            if a.is_none() || a != b {
                return Err(format!("after a sync {name}@{snap} is {a:?} and {copy} is {b:?}"));
            }
        }
        Ok(outcome)
    }

    /// The snapshot that was copied; none if it was refused.
    fn sync_once(&mut self, from: &str, to: &str) -> Outcome<Option<String>> {
        let snap = self.fresh("y");
        let done = self.desk.run(&["sync", "--snapshot", &snap, from, to])?;
        self.touch(from);
        self.touch(to);
        if self.guids(from)?.contains_key(&format!("{from}@{snap}")) {
            for name in self.model.subtree(from) {
                self.model.snapshot(&name, &snap);
            }
        }
        if !done.ok() && done.err.trim().is_empty() {
            return Err("sync refused without a word".into());
        }
        Ok(done.ok().then_some(snap))
    }
}
