//! Names of pools, datasets, snapshots and bookmarks: which are allowed (zfs_namecheck.c).

use crate::error::{DslError, Result};

/// A dataset name must be shorter than this, snapshot part included (`ZFS_MAX_DATASET_NAME_LEN`).
pub const NAME_LEN_MAX: usize = 256;
/// Slashes a name may have (`zfs_max_dataset_nesting`).
pub const NESTING_MAX: usize = 50;

/// What a name points to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// `pool/a/b`.
    Head,
    /// `pool/a/b@name`.
    Snapshot(&'a str),
    /// `pool/a/b#name`.
    Bookmark(&'a str),
}

/// Splits a checked name into the directory path and what follows `@` or `#`.
pub fn split(name: &str) -> Result<(&str, Part<'_>)> {
    check(name)?;
    Ok(match name.find(['@', '#']) {
        None => (name, Part::Head),
        Some(i) => {
            let (path, rest) = name.split_at(i);
            let tail = rest.get(1..).unwrap_or("");
            (path, if rest.starts_with('@') { Part::Snapshot(tail) } else { Part::Bookmark(tail) })
        }
    })
}

/// Whether the name is allowed: `pool/a/b`, with `@snap` or `#bookmark` at most once at its end (`entity_namecheck`; the words
/// are those of `zfs_validate_name`, libzfs_dataset.c). `%` is allowed as in the names OpenZFS itself makes (`%recv`).
pub fn check(name: &str) -> Result<()> {
    let bad = |why: String| Err(DslError::Name(why));
    if name.len() >= NAME_LEN_MAX {
        return bad("name is too long".into());
    }
    if name.starts_with('/') {
        return bad("leading slash in name".into());
    }
    let mut tail = false;
    let mut rest = name;
    loop {
        let end = rest.find(['/', '@', '#']);
        let part = &rest[..end.unwrap_or(rest.len())];
        let mark = end.and_then(|at| rest[at..].chars().next());
        if part.is_empty() && mark.is_none() && name.ends_with('/') {
            return bad("trailing slash in name".into());
        }
        characters(part, "name")?;
        match part {
            "." => return bad("self reference, '.' is found in name".into()),
            ".." => return bad("parent reference, '..' is found in name".into()),
            _ => {}
        }
        let delimiter = matches!(mark, Some('@' | '#'));
        if delimiter && tail {
            return bad("multiple '@' and/or '#' delimiters in name".into());
        }
        component(part)?;
        tail |= delimiter;
        let Some(at) = end else { break };
        if mark == Some('/') && tail {
            return bad("trailing slash in name".into());
        }
        rest = &rest[at + 1..];
    }
    let path = name.split(['@', '#']).next().unwrap_or(name);
    if path.matches('/').count() >= NESTING_MAX {
        return bad(format!("nested more than {NESTING_MAX} levels"));
    }
    Ok(())
}

/// Whether one component is allowed, `%` included.
pub fn component(part: &str) -> Result<()> {
    if part.is_empty() {
        return Err(DslError::Name("empty component or misplaced '@' or '#' delimiter in name".into()));
    }
    if part.len() >= NAME_LEN_MAX {
        return Err(DslError::Name("name is too long".into()));
    }
    characters(part, "name")
}

fn characters(part: &str, what: &str) -> Result<()> {
    match part.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.: %".contains(*c))) {
        Some(c) => Err(DslError::Name(format!("invalid character '{c}' in {what}"))),
        None => Ok(()),
    }
}

/// Whether a pool may have this name (`pool_namecheck`; the words are those of `zpool_name_valid`, libzfs_pool.c).
pub fn check_pool(name: &str) -> Result<()> {
    if name.len() >= NAME_LEN_MAX - 2 - 2 * crate::ORIGIN_DIR.len() {
        return Err(DslError::Name("name is too long".into()));
    }
    characters(name, "pool name")?;
    if name.contains('%') {
        return Err(DslError::Name("invalid character '%' in pool name".into()));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(DslError::Name("name must begin with a letter".into()));
    }
    if ["mirror", "raidz", "draid"].contains(&name) {
        return Err(DslError::Name("name is reserved".into()));
    }
    Ok(())
}

/// The parent's path and the last component; `None` for a pool's own name.
#[must_use]
pub fn parent(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_openzfs_does() {
        for good in ["p", "p/a b/c.d", "p@s", "p/%recv", "p/a#book:1", "p/a@-_.: x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/p", "p/", "p//a", "p@", "p@a@b", "p#a@b", "p@a/b", "p/../a", "p/.", "p/a@..", "pä", "p/a\n",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&format!("p/{}", "a".repeat(254))).is_err());
        assert!(check(&format!("p/{}", "a".repeat(253))).is_ok());
        assert!(check(&vec!["a"; 51].join("/")).is_err());
        for (name, why) in [
            ("p/", "trailing slash"),
            ("p//a", "empty component"),
            ("@a", "empty component"),
            ("p@a@b", "multiple '@'"),
            ("p@a/b", "trailing slash"),
            ("p/./a", "self reference"),
            ("p/a@..", "parent reference"),
            ("p/a*/", "invalid character '*'"),
        ] {
            let said = check(name).unwrap_err().to_string();
            assert!(said.starts_with(why), "{name}: {said}");
        }
        assert!(check_pool("mirror").is_err() && check_pool("1p").is_err() && check_pool("tank").is_ok());
    }

    #[test]
    fn split_tells_the_three_kinds() {
        assert_eq!(split("p/a").unwrap(), ("p/a", Part::Head));
        assert_eq!(split("p/a@s").unwrap(), ("p/a", Part::Snapshot("s")));
        assert_eq!(split("p#b").unwrap(), ("p", Part::Bookmark("b")));
    }
}
