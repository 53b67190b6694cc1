//! What a test of OpenZFS's suite needs besides commands, told by the words of its script.
//!
//! The goals are by class: nine of ten of those that need nothing, half of those that need a little.

/// How much of a machine a test wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Commands and files.
    A,
    /// Users, extended attributes, zdb, fio, mount(8), programs of the suite's own.
    B,
    /// A kernel module: tunables, device nodes of volumes, raidz, zinject, sharing.
    C,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// The class of a test by its script. What only its comments say does not count.
    pub fn of(script: &str) -> Self {
        let code = || script.lines().filter(|l| !l.trim_start().starts_with('#'));
        let any = |words: &[&str]| code().any(|l| words.iter().any(|w| l.contains(w)));
        match () {
            () if any(HARD) => Self::C,
            () if any(SOFT) => Self::B,
            () => Self::A,
        }
    }
    /// How many of a hundred are to pass.
    pub fn goal(self) -> Option<usize> {
        match self {
            Self::A => Some(90),
            Self::B => Some(50),
            Self::C => None,
        }
    }
}

const HARD: &[&str] = &[
    "set_tunable",
    "get_tunable",
    "ZVOL_",
    "TESTVOL",
    "zvol",
    "-V ",
    "raidz",
    "draid",
    "zinject",
    "kstat",
    "losetup",
    "lsblk",
    "scsi",
    "sharenfs",
    "sharesmb",
    "share_nfs",
    "zfs share",
    "unshare",
    "zfs program",
    "dedup=",
    "zfs_dedup",
    "with_dedup",
    "bclone",
    "clonefile",
    "zpool remove",
    "zpool trim",
    "zpool initialize",
    "checkpoint",
];

const SOFT: &[&str] = &[
    "add_user",
    "useradd",
    "user_run",
    " su ",
    "xattr",
    "getfacl",
    "setfacl",
    "userquota",
    "groupquota",
    "projectquota",
    "zfs allow",
    "zpool events",
    "mount -t zfs",
    "zdb",
    "zstream",
    "fio",
    "badsend",
    "mkbusy",
    "mkholes",
    "randfree_file",
    "send_doall",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_a_script_needs_is_its_class() {
        assert_eq!(Class::of("# zdb is not used\nlog_must zfs create $TESTPOOL/a\n"), Class::A);
        assert_eq!(Class::of("log_must zfs create a\nzdb -dddd a\n"), Class::B);
        assert_eq!(Class::of("zdb -dddd a\n  set_tunable32 X 1\n"), Class::C);
        assert_eq!(Class::of("log_must zfs create -V 1M $TESTPOOL/$TESTVOL\n"), Class::C);
    }
}
