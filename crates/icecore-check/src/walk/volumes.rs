//! Images written into volumes, and volumes of other sizes.
//!
//! What the model has to know of a volume after a part was written is made from bytes whose hash it knew before.

use super::model::{Entry, IMAGE, Tree};
use super::{Outcome, Step, Walk};
use crate::manifest::sha256_of;
use std::fs;

/// The largest volume, in MiB.
pub(super) const MIBS: u64 = 16;

/// What a volume with these bytes is in the model.
pub(super) fn tree_of_image(bytes: &[u8]) -> Tree {
    Tree::from([(IMAGE.into(), Entry::File(bytes.len() as u64, sha256_of(bytes)))])
}

/// A piece written into a volume.
pub(super) struct Image {
    /// The volume.
    pub name: String,
    /// The command.
    pub line: Vec<String>,
    /// What the volume is then; none if the piece does not fit.
    pub tree: Option<Tree>,
}

impl Walk {
    /// A volume with its contents in reach, and these.
    fn some_volume(&mut self) -> Outcome<Option<(String, Vec<u8>)>> {
        let Some(name) = self.some(|_, d| d.volume) else { return Ok(None) };
        if !self.unlock(&name)? {
            return Ok(None);
        }
        let bytes = self.image_of(&name)?;
        if tree_of_image(&bytes) != self.model.sets[&name].tree {
            return Err(format!("the volume {name} is not as it was left"));
        }
        Ok(Some((name, bytes)))
    }

    /// The bytes of a volume, or of a snapshot of one.
    pub(super) fn image_of(&self, name: &str) -> Outcome<Vec<u8>> {
        let out = self.desk.path("out/image");
        self.desk.ok(&["cp", name, &out.display().to_string()])?;
        fs::read(&out).map_err(|e| e.to_string())
    }

    /// A piece for a volume.
    pub(super) fn new_image(&mut self) -> Outcome<Option<Image>> {
        let Some((name, mut bytes)) = self.some_volume()? else { return Ok(None) };
        let file = self.desk.path("files/new");
        self.contents(&file)?;
        let piece = fs::read(&file).map_err(|e| e.to_string())?;
        let at = match self.rng.below(4) {
            0 => 0,
            1 => self.rng.below(bytes.len() as u64 / 16384) * 16384,
            _ => self.rng.below(bytes.len() as u64 + 1),
        };
        let file = file.display().to_string();
        let mut line = vec!["cp".into(), file, name.clone()];
        if at > 0 {
            line.extend(["--offset".into(), at.to_string()]);
        }
        let there = bytes.get_mut(at as usize..at as usize + piece.len());
        let tree = there.map(|there| there.copy_from_slice(&piece)).map(|()| tree_of_image(&bytes));
        Ok(Some(Image { name, line, tree }))
    }

    /// Writes a piece into a volume, or is told that it does not fit.
    pub(super) fn image(&mut self) -> Outcome<Step> {
        let Some(Image { name, line, tree }) = self.new_image()? else { return Ok(Step::Skipped) };
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let Some(tree) = tree else { return self.must_not(&line, "it does not fit") };
        self.desk.ok(&line)?;
        self.model.ds(&name).tree = tree;
        self.written(&name);
        Ok(Step::Done)
    }

    /// Another size: what is added is zeros.
    pub(super) fn resize(&mut self) -> Outcome<Step> {
        let Some((name, mut bytes)) = self.some_volume()? else { return Ok(Step::Skipped) };
        let size = (1 + self.rng.below(MIBS)) << 20;
        self.desk.ok(&["zfs", "set", &format!("volsize={size}"), &name])?;
        bytes.resize(size as usize, 0);
        self.model.ds(&name).tree = tree_of_image(&bytes);
        self.written(&name);
        Ok(Step::Done)
    }
}
