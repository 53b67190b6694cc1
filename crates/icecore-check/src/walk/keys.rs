//! Encryption: keys made, loaded, unloaded, changed.

use super::model::{Key, within};
use super::{Outcome, Step, Walk};
use std::fs;

/// `zfs change-key`, and what comes of it.
pub(super) struct KeyChange {
    pub line: Vec<String>,
    key: Key,
    /// The datasets that it opens then.
    pub follow: Vec<String>,
}

impl Walk {
    /// A new key in a file of its own.
    pub fn new_key(&mut self) -> Outcome<Key> {
        let file = self.fresh("key");
        let format = ["passphrase", "raw", "hex"][self.rng.below(3) as usize];
        let mut raw = [0; 32];
        self.rng.fill(&mut raw);
        let hex: String = raw.iter().map(|b| format!("{b:02x}")).collect();
        let bytes = match format {
            "raw" => raw.to_vec(),
            "hex" => hex.into_bytes(),
            _ => format!("pass {}", &hex[..20]).into_bytes(),
        };
        fs::write(self.desk.path("keys").join(&file), bytes).map_err(|e| e.to_string())?;
        Ok(Key { format, file })
    }

    pub fn location(&self, key: &Key) -> String {
        format!("file://{}", self.desk.path("keys").join(&key.file).display())
    }

    /// Options of `zfs create` that make an encryption root with this key.
    pub fn key_options(&mut self, key: &Key) -> Vec<String> {
        let suites = ["on", "aes-128-ccm", "aes-192-ccm", "aes-256-ccm", "aes-128-gcm", "aes-192-gcm"];
        let suite = suites[self.rng.below(suites.len() as u64) as usize];
        let mut out = vec![
            format!("encryption={suite}"),
            format!("keyformat={}", key.format),
            format!("keylocation={}", self.location(key)),
        ];
        if key.format == "passphrase" {
            out.push("pbkdf2iters=100000".into());
        }
        out
    }

    fn value(&self, name: &str, property: &str) -> Outcome<String> {
        let said = self.desk.ok(&["zfs", "get", "-H", "-o", "value", property, name])?;
        Ok(said.trim_end().to_string())
    }

    pub fn root_of(&self, name: &str) -> Outcome<String> {
        self.value(name, "encryptionroot")
    }

    /// Loads the key of a dataset if it has one: whether its contents can be had.
    pub fn unlock(&mut self, name: &str) -> Outcome<bool> {
        let Some(ds) = self.model.sets.get(name) else { return Ok(false) };
        let (Some(key), estranged) = (ds.key.clone(), ds.estranged) else { return Ok(true) };
        if self.value(name, "keystatus")? == "available" {
            return Ok(true);
        }
        let root = self.root_of(name)?;
        let done = self.desk.run(&["zfs", "load-key", "-L", &self.location(&key), &root])?;
        match done.ok() {
            true => Ok(true),
            false if estranged => Ok(false),
            false => Err(format!("the key of {name} (root {root}) does not load: {}", done.err)),
        }
    }

    /// Encrypted file systems and volumes.
    fn some_encrypted(&mut self) -> Option<String> {
        let all: Vec<String> =
            self.model.sets.iter().filter(|(_, d)| d.key.is_some()).map(|(n, _)| n.clone()).collect();
        self.pick(&all)
    }

    pub fn unload_key(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_encrypted() else { return Ok(Step::Skipped) };
        let root = self.root_of(&name)?;
        if self.value(&root, "keystatus")? != "available" {
            return Ok(Step::Skipped);
        }
        self.desk.ok(&["zfs", "unload-key", &root])?;
        Ok(Step::Done)
    }

    /// A key that is none is refused, and changes nothing.
    pub fn wrong_key(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_encrypted() else { return Ok(Step::Skipped) };
        let root = self.root_of(&name)?;
        let right = self.model.ds(&name).key.clone();
        let wrong = self.new_key()?;
        let done = self.desk.run(&["zfs", "load-key", "-n", "-L", &self.location(&wrong), &root])?;
        if done.ok() && right.is_none_or(|r| r != wrong) {
            return Err(format!("a wrong key opens {root}"));
        }
        Ok(Step::Refused)
    }

    pub fn change_key(&mut self) -> Outcome<Step> {
        let Some(name) = self.some_encrypted() else { return Ok(Step::Skipped) };
        let Some(change) = self.key_change(&name)? else { return Ok(Step::Skipped) };
        let line: Vec<&str> = change.line.iter().map(String::as_str).collect();
        let done = self.desk.run(&line)?;
        if !done.ok() {
            // A clone follows its origin; there may be no clones of another root.
            return if self.has_relations(&name) {
                Ok(Step::Refused)
            } else {
                Err(format!("{}: {}", line.join(" "), done.err))
            };
        }
        self.key_changed(&change);
        self.touch(&name);
        Ok(Step::Done)
    }

    /// A change of keys that may be cut short: which key opens the datasets tells whether it came to be.
    pub(super) fn change_key_whole(&mut self) -> Outcome<Option<KeyChange>> {
        let Some(name) = self.some(|_, d| d.key.is_some() && !d.estranged && !d.received) else {
            return Ok(None);
        };
        if self.has_relations(&name) {
            return Ok(None);
        }
        let Some(change) = self.key_change(&name)? else { return Ok(None) };
        self.key_changed(&change);
        Ok(Some(change))
    }

    /// Another key for a dataset, or its parent's; `None` where what it takes is not at hand.
    fn key_change(&mut self, name: &str) -> Outcome<Option<KeyChange>> {
        if !self.unlock(name)? {
            return Ok(None);
        }
        let root = self.root_of(name)?;
        let (key, words): (Key, Vec<String>) = if self.rng.one_in(3) && root == name {
            // Back under the parent's.
            let Some((parent, _)) = name.rsplit_once('/') else { return Ok(None) };
            let Some(key) = self.model.ds(parent).key.clone() else { return Ok(None) };
            if !self.unlock(parent)? {
                return Ok(None);
            }
            (key, vec!["-i".into()])
        } else {
            let key = self.new_key()?;
            let format = format!("keyformat={}", key.format);
            let location = format!("keylocation={}", self.location(&key));
            (key, ["-o", &format, "-o", &location].map(str::to_string).to_vec())
        };
        // All whose root this is go with it, clones elsewhere too.
        let mut follow = Vec::new();
        let candidates: Vec<String> =
            self.model.sets.iter().filter(|(_, d)| d.key.is_some()).map(|(n, _)| n.clone()).collect();
        for other in candidates {
            let its = self.root_of(&other)?;
            if its == name || (its == root && (within(&other, name) || self.of_one_origin(&other, name))) {
                follow.push(other);
            }
        }
        let mut line = vec!["zfs".to_string(), "change-key".into()];
        line.extend(words);
        line.push(name.into());
        Ok(Some(KeyChange { line, key, follow }))
    }

    fn key_changed(&mut self, change: &KeyChange) {
        for other in &change.follow {
            self.model.ds(other).key = Some(change.key.clone());
            self.estrange(other);
        }
    }

    /// Copies of this dataset, or what it is a copy of, may not follow its key.
    fn estrange(&mut self, name: &str) {
        let guids: Vec<u64> = self.model.ds(name).snaps.iter().map(|s| s.guid).collect();
        for (other, ds) in &mut self.model.sets {
            if other != name && ds.snaps.iter().any(|s| guids.contains(&s.guid)) {
                ds.estranged = true;
            }
        }
        self.model.ds(name).estranged |= self.model.sets[name].received;
    }

    fn family(&self, name: &str) -> Option<u64> {
        let mut origin = self.model.sets.get(name)?.origin?;
        while let Some(next) = self.model.find(origin).and_then(|(n, _)| self.model.sets[n].origin) {
            origin = next;
        }
        Some(origin)
    }

    fn of_one_origin(&self, a: &str, b: &str) -> bool {
        let base = |n: &str| {
            self.family(n).and_then(|id| self.model.find(id)).map_or(n.to_string(), |(d, _)| d.to_string())
        };
        base(a) == base(b)
    }

    fn has_relations(&self, name: &str) -> bool {
        let below = self.model.subtree(name);
        below.iter().any(|n| {
            let ds = &self.model.sets[n];
            ds.origin.is_some() || ds.snaps.iter().any(|s| !self.model.clones(s.id).is_empty())
        })
    }
}
