//! From two inventories to what has to be sent, dataset by dataset, or why it cannot be.
//!
//! Invariants (the tests hold them over random histories):
//! 1. A base is a snapshot or bookmark of the source whose GUID the destination has as a snapshot, and of
//!    all such the newest.
//! 2. A plan never destroys or rolls back anything; where that would be needed it refuses, before the
//!    first byte, and says what to do.
//! 3. Encrypted datasets are sent raw, always; a pair in which raw and plain meet is refused.
//! 4. Tasks come parents first.
//! 5. A snapshot that is still to be taken ([`Tree::with_snapshot`]) is planned with as if it were there, so
//!    that what cannot work is refused before it is taken.

use crate::inventory::{Dataset, Mark, Partial, Tree};

/// What an increment starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Base {
    /// A snapshot of the source.
    Snapshot(Mark),
    /// A bookmark of the source.
    Bookmark(Mark),
}

impl Base {
    /// The snapshot or bookmark itself.
    #[must_use]
    pub fn mark(&self) -> &Mark {
        match self {
            Self::Snapshot(m) | Self::Bookmark(m) => m,
        }
    }
    /// As typed after `-i`: `@name` or `#name`.
    #[must_use]
    pub fn typed(&self) -> String {
        match self {
            Self::Snapshot(m) => format!("@{}", m.name),
            Self::Bookmark(m) => format!("#{}", m.name),
        }
    }
}

/// One stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Go on with a stream that was cut.
    Resume {
        /// The destination's token.
        token: String,
        /// The snapshot of the source that the stream brings.
        to: Mark,
    },
    /// Everything up to a snapshot.
    Full {
        /// The snapshot's name.
        to: String,
    },
    /// What changed.
    Incremental {
        /// From here.
        from: Base,
        /// To this snapshot.
        to: String,
    },
}

/// What happens to one dataset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// Path below both roots.
    pub path: String,
    /// Raw streams.
    pub raw: bool,
    /// Streams in order; none if it is up to date.
    pub steps: Vec<Step>,
    /// Why, in a few words.
    pub reason: String,
    /// Sends up to a snapshot that is still to be taken: how much that brings cannot be known yet.
    pub pending: bool,
}

/// Why a pair cannot work as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Conflict {
    /// The source has no snapshot, and none may be made.
    NoSnapshot,
    /// Both have snapshots, none in common.
    NoCommonBase {
        /// The source's newest of those that are there.
        source: Option<String>,
        /// The destination's newest.
        destination: String,
    },
    /// The destination exists without a single snapshot, and is not empty.
    DestinationInTheWay,
    /// The destination exists and is not encrypted; an encrypted copy cannot take its place.
    EncryptedOverExisting,
    /// Changed since the base was received.
    DestinationModified {
        /// The base's name on the destination.
        since: String,
    },
    /// The destination has snapshots newer than the base.
    DestinationAhead {
        /// The base's name on the destination.
        base: String,
        /// What stands after it.
        newer: Vec<String>,
    },
    /// An encrypted source, a destination that is not.
    RawOnPlain,
    /// The reverse.
    PlainOnRaw,
    /// The destination has another snapshot of the name that is to be sent.
    NameTaken {
        /// The name.
        name: String,
    },
    /// Half a stream on the destination that the source cannot go on with.
    PartialState {
        /// The snapshot as the stream's sender called it; empty if the token cannot be read.
        to: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// Both have the snapshot by GUID, but it was re-encrypted on the way.
    IvsetMismatch {
        /// The base's name.
        base: String,
    },
}

impl Conflict {
    /// What stands in the way and what to do, for the pair whose destination is called `destination`.
    #[must_use]
    pub fn describe(&self, destination: &str) -> String {
        match self {
            Self::NoSnapshot => {
                "the source has no snapshot to send, and none is taken (--no-snapshot, or its pool is read-only)".into()
            },
            Self::NoCommonBase { source, destination: theirs } => {
                let ours = match source {
                    Some(name) => format!("the source's newest is @{name}"),
                    None => "the source has none".into(),
                };
                format!(
                    "no snapshot or bookmark in common ({ours}, the destination's newest is @{theirs}): \
                     back up to another name, or destroy the destination's copy yourself if you no longer need it"
                )
            }
            Self::DestinationInTheWay => {
                "the destination has a dataset of that name with data and no snapshot: choose another name, or move it away"
                    .into()
            }
            Self::EncryptedOverExisting => {
                "an encrypted dataset cannot take the place of an existing one: back up to a name that does not exist yet below it"
                    .into()
            }
            Self::DestinationModified { since } => format!(
                "the destination was changed since @{since}: look at what changed, then undo it with \
                 'zfs rollback {destination}@{since}'"
            ),
            Self::DestinationAhead { base, newer } => format!(
                "the destination has snapshots after the common @{base} ({}): keep them by renaming the dataset, or undo \
                 them with 'zfs rollback -r {destination}@{base}'",
                newer.iter().map(|n| format!("@{n}")).collect::<Vec<_>>().join(", ")
            ),
            Self::RawOnPlain => {
                "the source is encrypted and the destination's copy is not: back up to a new dataset".into()
            }
            Self::PlainOnRaw => {
                "the destination's copy is encrypted and the source is not: back up to a new dataset".into()
            }
            Self::NameTaken { name } => format!(
                "the destination has another snapshot called @{name}: rename one of the two, as with \
                 'zfs rename {destination}@{name} {destination}@{name}-old'"
            ),
            Self::PartialState { to, why } => format!(
                "half a stream{} was received there and cannot be gone on with, for {why}: drop that half with \
                 'zfs receive -A {destination}'",
                if to.is_empty() { String::new() } else { format!(" of {to}") }
            ),
            Self::IvsetMismatch { base } => format!(
                "@{base} was received without -w at some point (IV set guid mismatch): raw increments on it can never be \
                 read; back up to a new dataset"
            ),
        }
    }
}

/// What to do, and what stands in the way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Tasks, parents first.
    pub tasks: Vec<Task>,
    /// Refusals by path. If there is any, nothing is done.
    pub conflicts: Vec<(String, Conflict)>,
}

impl Plan {
    /// Nothing to send.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.conflicts.is_empty() && self.tasks.iter().all(|t| t.steps.is_empty())
    }
}

/// Plans a backup of `source` onto `destination`.
#[must_use]
pub fn plan(source: &Tree, destination: &Tree) -> Plan {
    let mut out = Plan::default();
    for ds in &source.datasets {
        match task(source, ds, destination.get(&ds.path)) {
            Ok(task) => out.tasks.push(task),
            Err(conflict) => out.conflicts.push((ds.path.clone(), conflict)),
        }
    }
    out
}

fn task(tree: &Tree, source: &Dataset, destination: Option<&Dataset>) -> Result<Task, Conflict> {
    let Some(newest) = source.snapshots.last() else { return Err(Conflict::NoSnapshot) };
    let make = |steps: Vec<Step>, reason: String| Task {
        path: source.path.clone(),
        raw: source.encrypted,
        pending: !steps.is_empty() && newest.is_pending(),
        steps,
        reason,
    };
    let full = |reason: &str| {
        let mut steps = vec![Step::Full { to: source.snapshots[0].name.clone() }];
        steps.extend(increments(Base::Snapshot(source.snapshots[0].clone()), source));
        make(steps, reason.into())
    };
    let Some(there) = destination else { return Ok(full("not on the destination yet")) };
    if let Some(partial) = &there.partial {
        let to = resumable(tree, source, partial)?.clone();
        let rest = increments(Base::Snapshot(to.clone()), source);
        let mut reason = String::from("a stream was cut here; it goes on where it was");
        if !rest.is_empty() {
            reason += &format!(", then from @{}", to.name);
        }
        names_free(&rest, source, there)?;
        let mut steps = vec![Step::Resume { token: partial.token.clone(), to }];
        steps.extend(rest);
        return Ok(make(steps, reason));
    }
    let Some(last) = there.snapshots.last() else {
        return match (there.empty, source.encrypted) {
            (false, _) => Err(Conflict::DestinationInTheWay),
            (true, true) => Err(Conflict::EncryptedOverExisting),
            (true, false) => Ok(full("the destination's dataset is empty")),
        };
    };
    if source.encrypted != there.encrypted {
        return Err(if source.encrypted { Conflict::RawOnPlain } else { Conflict::PlainOnRaw });
    }
    let Some((base, found)) = common(source, there) else {
        let ours = source.snapshots.iter().rev().find(|s| !s.is_pending());
        return Err(Conflict::NoCommonBase {
            source: ours.map(|s| s.name.clone()),
            destination: last.name.clone(),
        });
    };
    let both_known = base.mark().ivset != 0 && found.ivset != 0;
    if source.encrypted && both_known && base.mark().ivset != found.ivset {
        return Err(Conflict::IvsetMismatch { base: found.name.clone() });
    }
    if base.mark().guid == newest.guid {
        return Ok(make(Vec::new(), format!("up to date with @{}", newest.name)));
    }
    let newer: Vec<String> =
        there.snapshots.iter().filter(|s| s.createtxg > found.createtxg).map(|s| s.name.clone()).collect();
    if !newer.is_empty() {
        return Err(Conflict::DestinationAhead { base: found.name.clone(), newer });
    }
    if there.modified {
        return Err(Conflict::DestinationModified { since: found.name.clone() });
    }
    let reason = format!("from {}", base.typed());
    let steps = increments(base, source);
    names_free(&steps, source, there)?;
    Ok(make(steps, reason))
}

/// The snapshot of `source` that the half-received stream brings, if its sender can go on with it.
fn resumable<'s>(tree: &Tree, source: &'s Dataset, partial: &Partial) -> Result<&'s Mark, Conflict> {
    let refuse = |why| Conflict::PartialState { to: partial.to_name.clone(), why };
    let has = |marks: &[Mark], guid: u64| marks.iter().any(|m| !m.is_pending() && m.guid == guid);
    let to = source.snapshots.iter().find(|s| !s.is_pending() && s.guid == partial.to);
    let Some(to) = to else { return Err(refuse("the source has no such snapshot any more")) };
    let base_is_there = partial.from == 0
        || tree.datasets.iter().any(|d| has(&d.snapshots, partial.from) || has(&d.bookmarks, partial.from));
    if !base_is_there {
        return Err(refuse("the source no longer has the snapshot or bookmark that it builds on"));
    }
    if source.encrypted && !partial.raw {
        return Err(refuse("it was sent without -w and the source is encrypted"));
    }
    Ok(to)
}

/// Refuses what the destination could only receive under a name that it has given to something else.
fn names_free(steps: &[Step], source: &Dataset, there: &Dataset) -> Result<(), Conflict> {
    for step in steps {
        let Step::Incremental { to, .. } = step else { continue };
        let ours = source.snapshots.iter().find(|s| s.name == *to).map(|s| s.guid);
        if there.snapshots.iter().any(|s| s.name == *to && Some(s.guid) != ours) {
            return Err(Conflict::NameTaken { name: to.clone() });
        }
    }
    Ok(())
}

/// One stream for each snapshot of the source after `base`, each building on the one before: a cut costs
/// at most one of them.
fn increments(base: Base, source: &Dataset) -> Vec<Step> {
    let txg = base.mark().createtxg;
    let mut from = base;
    let mut out = Vec::new();
    for to in source.snapshots.iter().filter(|s| s.createtxg > txg) {
        out.push(Step::Incremental { from, to: to.name.clone() });
        from = Base::Snapshot(to.clone());
    }
    out
}

/// The newest snapshot or bookmark of the source that the destination has, with the destination's own.
/// A snapshot is preferred to a bookmark of the same GUID.
fn common<'d>(source: &Dataset, there: &'d Dataset) -> Option<(Base, &'d Mark)> {
    let snapshots = source.snapshots.iter().map(|m| (m.createtxg, 1, Base::Snapshot(m.clone())));
    let bookmarks = source.bookmarks.iter().map(|m| (m.createtxg, 0, Base::Bookmark(m.clone())));
    let mut all: Vec<_> = snapshots.chain(bookmarks).collect();
    all.sort_by_key(|(txg, kind, _)| (*txg, *kind));
    all.into_iter().rev().find_map(|(_, _, base)| {
        let found = there.snapshots.iter().find(|s| s.guid == base.mark().guid)?;
        Some((base, found))
    })
}

#[cfg(test)]
mod tests;
