//! The table of native dataset properties: type, default, who inherits it, which datasets have it, the
//! words for its values (zfs_prop.c). In the order in which `zfs get all` prints them (`zfs_prop_t`,
//! include/sys/fs/zfs.h). Words and defaults are those of OpenZFS 2.3 on Linux.

use std::sync::LazyLock;

/// What values a property has.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// A number, printed as bytes.
    Bytes(u64),
    /// A number that counts or identifies.
    Count(u64),
    /// One of a list of words, stored as a number; the first word of a number is the one printed.
    Index(u64, &'static [(&'static str, u64)]),
    /// Text, with its default.
    Text(Option<&'static str>),
}

/// Who may set a property, and whether children take it over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attr {
    /// Computed.
    Readonly,
    /// Settable, inherited.
    Inherit,
    /// Settable, not inherited.
    Default,
    /// Set at creation only, inherited by what is created below.
    Onetime,
    /// Set at creation only, with a default.
    OnetimeDefault,
}

/// File systems.
pub const FS: u8 = 1;
/// Snapshots.
pub const SNAP: u8 = 2;
/// Volumes.
pub const VOL: u8 = 4;
/// Bookmarks.
pub const BOOK: u8 = 8;
const DS: u8 = FS | SNAP | VOL;
const FV: u8 = FS | VOL;

/// One native property.
#[derive(Clone, Copy, Debug)]
pub struct Prop {
    /// Name.
    pub name: &'static str,
    /// Values.
    pub kind: Type,
    /// Who sets and inherits it.
    pub attr: Attr,
    /// Which kinds of datasets have it.
    pub types: u8,
    /// Whether `get all` shows it.
    pub visible: bool,
}

impl Prop {
    /// Whether children take it over (`zfs_prop_inheritable`).
    #[must_use]
    pub fn inheritable(&self) -> bool {
        matches!(self.attr, Attr::Inherit | Attr::Onetime)
    }
    /// Whether it can never be set after creation (`zfs_prop_readonly`).
    #[must_use]
    pub fn readonly(&self) -> bool {
        matches!(self.attr, Attr::Readonly | Attr::Onetime | Attr::OnetimeDefault)
    }
    /// Whether it is set at creation (`zfs_prop_setonce`).
    #[must_use]
    pub fn setonce(&self) -> bool {
        matches!(self.attr, Attr::Onetime | Attr::OnetimeDefault)
    }
    /// The default of a number or index.
    #[must_use]
    pub fn default_number(&self) -> u64 {
        match self.kind {
            Type::Bytes(d) | Type::Count(d) | Type::Index(d, _) => d,
            Type::Text(_) => 0,
        }
    }
    /// The word for an index value.
    #[must_use]
    pub fn word(&self, value: u64) -> Option<&'static str> {
        match self.kind {
            Type::Index(_, words) => words.iter().find(|(_, v)| *v == value).map(|(w, _)| *w),
            _ => None,
        }
    }
    /// The index value for a word.
    #[must_use]
    pub fn index(&self, word: &str) -> Option<u64> {
        match self.kind {
            Type::Index(_, words) => words.iter().find(|(w, _)| *w == word).map(|(_, v)| *v),
            _ => None,
        }
    }
}

/// The native property `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Prop> {
    static BY_NAME: LazyLock<Vec<&Prop>> = LazyLock::new(|| {
        let mut all: Vec<&Prop> = PROPS.iter().collect();
        all.sort_unstable_by_key(|p| p.name);
        all
    });
    let at = BY_NAME.binary_search_by_key(&name, |p| p.name).ok()?;
    BY_NAME.get(at).copied()
}

/// The values of a property as libzfs lists them (`zprop_values`; the words of zfs_prop.c).
#[must_use]
pub fn values(name: &str) -> &'static str {
    match name {
        "redundant_metadata" => "all | most | some | none",
        "sync" => "standard | always | disabled",
        "checksum" => "on | off | fletcher2 | fletcher4 | sha256 | sha512 | skein | edonr | blake3",
        "dedup" => {
            "on | off | verify | sha256[,verify] | sha512[,verify] | skein[,verify] | edonr,verify | blake3[,verify]"
        }
        "compression" => {
            "on | off | lzjb | gzip | gzip-[1-9] | zle | lz4 | zstd | zstd-[1-19] | zstd-fast | zstd-fast-[1-10,20,30,40,50,60,70,80,90,100,500,1000]"
        }
        "snapdir" => "disabled | hidden | visible",
        "snapdev" => "hidden | visible",
        "aclmode" => "discard | groupmask | passthrough | restricted",
        "acltype" => "off | nfsv4 | posix",
        "aclinherit" => "discard | noallow | restricted | passthrough | passthrough-x",
        "copies" => "1 | 2 | 3",
        "primarycache" | "secondarycache" => "all | none | metadata",
        "prefetch" => "none | metadata | all",
        "logbias" => "latency | throughput",
        "xattr" => "on | off | dir | sa",
        "dnodesize" => "legacy | auto | 1k | 2k | 4k | 8k | 16k",
        "volmode" => "default | full | geom | dev | none",
        "direct" => "disabled | standard | always",
        "version" => "1 | 2 | 3 | 4 | 5 | current",
        "canmount" => "on | off | noauto",
        "normalization" => "none | formC | formD | formKC | formKD",
        "casesensitivity" => "sensitive | insensitive | mixed",
        "keyformat" => "none | raw | hex | passphrase",
        "encryption" => {
            "on | off | aes-128-ccm | aes-192-ccm | aes-256-ccm | aes-128-gcm | aes-192-gcm | aes-256-gcm"
        }
        _ => "on | off",
    }
}

const BOOL: &[(&str, u64)] = &[("off", 0), ("on", 1)];
const CHECKSUM: &[(&str, u64)] = &[
    ("on", 1),
    ("off", 2),
    ("fletcher2", 6),
    ("fletcher4", 7),
    ("sha256", 8),
    ("noparity", 10),
    ("sha512", 11),
    ("skein", 12),
    ("edonr", 13),
    ("blake3", 14),
];
const VERIFY: u64 = 1 << 8;
const DEDUP: &[(&str, u64)] = &[
    ("on", 1),
    ("off", 2),
    ("verify", 1 | VERIFY),
    ("sha256", 8),
    ("sha256,verify", 8 | VERIFY),
    ("sha512", 11),
    ("sha512,verify", 11 | VERIFY),
    ("skein", 12),
    ("skein,verify", 12 | VERIFY),
    ("edonr,verify", 13 | VERIFY),
    ("blake3", 14),
    ("blake3,verify", 14 | VERIFY),
];
const fn zstd(level: u64) -> u64 {
    16 | level << 7
}
const COMPRESSION: &[(&str, u64)] = &[
    ("on", 1),
    ("off", 2),
    ("lzjb", 3),
    ("gzip", 10),
    ("gzip-1", 5),
    ("gzip-2", 6),
    ("gzip-3", 7),
    ("gzip-4", 8),
    ("gzip-5", 9),
    ("gzip-6", 10),
    ("gzip-7", 11),
    ("gzip-8", 12),
    ("gzip-9", 13),
    ("zle", 14),
    ("lz4", 15),
    ("zstd", 16),
    ("zstd-fast", zstd(103)),
    ("zstd-1", zstd(1)),
    ("zstd-2", zstd(2)),
    ("zstd-3", zstd(3)),
    ("zstd-4", zstd(4)),
    ("zstd-5", zstd(5)),
    ("zstd-6", zstd(6)),
    ("zstd-7", zstd(7)),
    ("zstd-8", zstd(8)),
    ("zstd-9", zstd(9)),
    ("zstd-10", zstd(10)),
    ("zstd-11", zstd(11)),
    ("zstd-12", zstd(12)),
    ("zstd-13", zstd(13)),
    ("zstd-14", zstd(14)),
    ("zstd-15", zstd(15)),
    ("zstd-16", zstd(16)),
    ("zstd-17", zstd(17)),
    ("zstd-18", zstd(18)),
    ("zstd-19", zstd(19)),
    ("zstd-fast-1", zstd(103)),
    ("zstd-fast-2", zstd(104)),
    ("zstd-fast-3", zstd(105)),
    ("zstd-fast-4", zstd(106)),
    ("zstd-fast-5", zstd(107)),
    ("zstd-fast-6", zstd(108)),
    ("zstd-fast-7", zstd(109)),
    ("zstd-fast-8", zstd(110)),
    ("zstd-fast-9", zstd(111)),
    ("zstd-fast-10", zstd(112)),
    ("zstd-fast-20", zstd(113)),
    ("zstd-fast-30", zstd(114)),
    ("zstd-fast-40", zstd(115)),
    ("zstd-fast-50", zstd(116)),
    ("zstd-fast-60", zstd(117)),
    ("zstd-fast-70", zstd(118)),
    ("zstd-fast-80", zstd(119)),
    ("zstd-fast-90", zstd(120)),
    ("zstd-fast-100", zstd(121)),
    ("zstd-fast-500", zstd(122)),
    ("zstd-fast-1000", zstd(123)),
];
const CRYPT: &[(&str, u64)] = &[
    ("on", 1),
    ("off", 2),
    ("aes-128-ccm", 3),
    ("aes-192-ccm", 4),
    ("aes-256-ccm", 5),
    ("aes-128-gcm", 6),
    ("aes-192-gcm", 7),
    ("aes-256-gcm", 8),
];
const KEYFORMAT: &[(&str, u64)] = &[("none", 0), ("raw", 1), ("hex", 2), ("passphrase", 3)];
const KEYSTATUS: &[(&str, u64)] = &[("none", 0), ("unavailable", 1), ("available", 2)];
const HIDDEN: &[(&str, u64)] = &[("hidden", 0), ("visible", 1)];
const SNAPDIR: &[(&str, u64)] = &[("hidden", 0), ("visible", 1), ("disabled", 2)];
const ACLMODE: &[(&str, u64)] = &[("discard", 0), ("groupmask", 2), ("passthrough", 3), ("restricted", 4)];
const ACLTYPE: &[(&str, u64)] =
    &[("off", 0), ("posix", 1), ("nfsv4", 2), ("disabled", 0), ("noacl", 0), ("posixacl", 1)];
const ACLINHERIT: &[(&str, u64)] = &[
    ("discard", 0),
    ("noallow", 1),
    ("restricted", 4),
    ("passthrough", 3),
    ("secure", 4),
    ("passthrough-x", 5),
];
const CASE: &[(&str, u64)] = &[("sensitive", 0), ("insensitive", 1), ("mixed", 2)];
const COPIES: &[(&str, u64)] = &[("1", 1), ("2", 2), ("3", 3)];
const NORMALIZE: &[(&str, u64)] =
    &[("none", 0), ("formD", 0x10), ("formKC", 0x60), ("formC", 0x50), ("formKD", 0x20)];
const VERSION: &[(&str, u64)] = &[("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5), ("current", 5)];
const LOGBIAS: &[(&str, u64)] = &[("latency", 0), ("throughput", 1)];
const CANMOUNT: &[(&str, u64)] = &[("off", 0), ("on", 1), ("noauto", 2)];
const CACHE: &[(&str, u64)] = &[("none", 0), ("metadata", 1), ("all", 2)];
const SYNC: &[(&str, u64)] = &[("standard", 0), ("always", 1), ("disabled", 2)];
const XATTR: &[(&str, u64)] = &[("off", 0), ("on", 2), ("sa", 2), ("dir", 1)];
const DNSIZE: &[(&str, u64)] =
    &[("legacy", 0), ("auto", 1), ("1k", 1024), ("2k", 2048), ("4k", 4096), ("8k", 8192), ("16k", 16384)];
const REDUNDANT: &[(&str, u64)] = &[("all", 0), ("most", 1), ("some", 2), ("none", 3)];
const VOLMODE: &[(&str, u64)] = &[("default", 0), ("full", 1), ("geom", 1), ("dev", 2), ("none", 3)];
const DIRECT: &[(&str, u64)] = &[("disabled", 0), ("standard", 1), ("always", 2)];

macro_rules! props {
    ($($name:literal $kind:expr, $attr:ident, $types:expr $(, $hidden:ident)?;)*) => {
        /// Every native property, in OpenZFS's order.
        pub const PROPS: &[Prop] = &[$(Prop {
            name: $name, kind: $kind, attr: Attr::$attr, types: $types, visible: props!(@ $($hidden)?),
        }),*];
    };
    (@ hidden) => { false };
    (@) => { true };
}

props! {
    "type" Type::Text(None), Readonly, DS | BOOK;
    "creation" Type::Count(0), Readonly, DS | BOOK;
    "used" Type::Bytes(0), Readonly, DS;
    "available" Type::Bytes(0), Readonly, FV;
    "referenced" Type::Bytes(0), Readonly, DS | BOOK;
    "compressratio" Type::Count(0), Readonly, DS | BOOK;
    "mounted" Type::Index(0, BOOL), Readonly, FS;
    "origin" Type::Text(None), Readonly, FV;
    "quota" Type::Bytes(0), Default, FS;
    "reservation" Type::Bytes(0), Default, FV;
    "volsize" Type::Bytes(0), Default, SNAP | VOL;
    "volblocksize" Type::Bytes(16384), Onetime, VOL;
    "recordsize" Type::Bytes(131_072), Inherit, FS;
    "mountpoint" Type::Text(Some("/")), Inherit, FS;
    "sharenfs" Type::Text(Some("off")), Inherit, FS;
    "checksum" Type::Index(1, CHECKSUM), Inherit, FV;
    "compression" Type::Index(1, COMPRESSION), Inherit, FV;
    "atime" Type::Index(1, BOOL), Inherit, FS;
    "devices" Type::Index(1, BOOL), Inherit, FS | SNAP;
    "exec" Type::Index(1, BOOL), Inherit, FS | SNAP;
    "setuid" Type::Index(1, BOOL), Inherit, FS | SNAP;
    "readonly" Type::Index(0, BOOL), Inherit, FV;
    "zoned" Type::Index(0, BOOL), Inherit, FS;
    "snapdir" Type::Index(0, SNAPDIR), Inherit, FS;
    "aclmode" Type::Index(0, ACLMODE), Inherit, FS;
    "aclinherit" Type::Index(4, ACLINHERIT), Inherit, FS;
    "createtxg" Type::Count(0), Readonly, DS | BOOK;
    "name" Type::Text(None), Readonly, DS | BOOK, hidden;
    "canmount" Type::Index(1, CANMOUNT), Default, FS;
    "iscsioptions" Type::Text(None), Inherit, VOL, hidden;
    "xattr" Type::Index(2, XATTR), Inherit, FS | SNAP;
    "numclones" Type::Count(0), Readonly, SNAP, hidden;
    "copies" Type::Index(1, COPIES), Inherit, FV;
    "version" Type::Index(0, VERSION), Default, FS | SNAP;
    "utf8only" Type::Index(0, BOOL), Onetime, FS | SNAP;
    "normalization" Type::Index(0, NORMALIZE), Onetime, FS | SNAP;
    "casesensitivity" Type::Index(0, CASE), Onetime, FS | SNAP;
    "vscan" Type::Index(0, BOOL), Inherit, FS;
    "nbmand" Type::Index(0, BOOL), Inherit, FS | SNAP;
    "sharesmb" Type::Text(Some("off")), Inherit, FS;
    "refquota" Type::Bytes(0), Default, FS;
    "refreservation" Type::Bytes(0), Default, FV;
    "guid" Type::Count(0), Readonly, DS | BOOK;
    "primarycache" Type::Index(2, CACHE), Inherit, DS;
    "secondarycache" Type::Index(2, CACHE), Inherit, DS;
    "usedbysnapshots" Type::Bytes(0), Readonly, FV;
    "usedbydataset" Type::Bytes(0), Readonly, FV;
    "usedbychildren" Type::Bytes(0), Readonly, FV;
    "usedbyrefreservation" Type::Bytes(0), Readonly, FV;
    "useraccounting" Type::Count(0), Readonly, DS, hidden;
    "stmf_sbd_lu" Type::Text(None), Inherit, VOL, hidden;
    "defer_destroy" Type::Index(0, BOOL), Readonly, SNAP;
    "userrefs" Type::Count(0), Readonly, SNAP;
    "logbias" Type::Index(0, LOGBIAS), Inherit, FV;
    "unique" Type::Bytes(0), Readonly, DS, hidden;
    "objsetid" Type::Count(0), Readonly, DS;
    "dedup" Type::Index(2, DEDUP), Inherit, FV;
    "mlslabel" Type::Text(Some("none")), Inherit, DS;
    "sync" Type::Index(0, SYNC), Inherit, FV;
    "dnodesize" Type::Index(0, DNSIZE), Inherit, FS;
    "refcompressratio" Type::Count(0), Readonly, DS;
    "written" Type::Bytes(0), Readonly, DS;
    "clones" Type::Text(None), Readonly, SNAP;
    "logicalused" Type::Bytes(0), Readonly, FV;
    "logicalreferenced" Type::Bytes(0), Readonly, DS | BOOK;
    "inconsistent" Type::Count(0), Readonly, DS, hidden;
    "volmode" Type::Index(0, VOLMODE), Inherit, FV;
    "filesystem_limit" Type::Count(u64::MAX), Default, FS;
    "snapshot_limit" Type::Count(u64::MAX), Default, FV;
    "filesystem_count" Type::Count(u64::MAX), Readonly, FS;
    "snapshot_count" Type::Count(u64::MAX), Readonly, FV;
    "snapdev" Type::Index(0, HIDDEN), Inherit, FV;
    "acltype" Type::Index(0, ACLTYPE), Inherit, FS | SNAP;
    "context" Type::Text(Some("none")), Default, DS;
    "fscontext" Type::Text(Some("none")), Default, DS;
    "defcontext" Type::Text(Some("none")), Default, DS;
    "rootcontext" Type::Text(Some("none")), Default, DS;
    "relatime" Type::Index(1, BOOL), Inherit, FS;
    "redundant_metadata" Type::Index(0, REDUNDANT), Inherit, FV;
    "overlay" Type::Index(1, BOOL), Inherit, FS;
    "prevsnap" Type::Text(None), Readonly, FV, hidden;
    "receive_resume_token" Type::Text(None), Readonly, FV;
    "encryption" Type::Index(2, CRYPT), Onetime, DS;
    "keylocation" Type::Text(Some("none")), Default, FV;
    "keyformat" Type::Index(0, KEYFORMAT), OnetimeDefault, FV;
    "pbkdf2salt" Type::Count(0), OnetimeDefault, FV, hidden;
    "pbkdf2iters" Type::Count(0), OnetimeDefault, FV;
    "encryptionroot" Type::Text(None), Readonly, DS;
    "keyguid" Type::Count(0), Readonly, DS, hidden;
    "keystatus" Type::Index(0, KEYSTATUS), Readonly, DS;
    "special_small_blocks" Type::Bytes(0), Inherit, FS;
    "ivsetguid" Type::Count(0), Readonly, DS | BOOK, hidden;
    "redacted" Type::Count(0), Readonly, DS, hidden;
    "redact_snaps" Type::Text(None), Readonly, DS | BOOK;
    "snapshots_changed" Type::Count(0), Readonly, FV;
    "prefetch" Type::Index(2, CACHE), Inherit, DS;
    "volthreading" Type::Index(1, BOOL), Default, VOL;
    "direct" Type::Index(1, DIRECT), Inherit, FS;
    "longname" Type::Index(0, BOOL), Inherit, FS;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_have_words_and_words_go_both_ways() {
        for p in PROPS {
            let Type::Index(default, words) = p.kind else { continue };
            if p.name != "version" {
                assert!(p.word(default).is_some(), "{}", p.name);
            }
            for (w, v) in words {
                assert_eq!(p.index(w), Some(*v), "{}={w}", p.name);
            }
        }
        assert_eq!(find("compression").unwrap().word(16 | 19 << 7), Some("zstd-19"));
        assert_eq!(find("acltype").unwrap().word(1), Some("posix"));
    }
}
