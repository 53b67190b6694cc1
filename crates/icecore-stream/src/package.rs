//! What streams and packages say in their lists, for sender and receiver alike.

/// Names in the list of a BEGIN record (`BEGINNV_*`, zfs_ioctl.h).
pub mod begin_key {
    /// Guids of the snapshots the contents are redacted by.
    pub const REDACT_SNAPS: &str = "redact_snaps";
    /// The same of the incremental source.
    pub const REDACT_FROM_SNAPS: &str = "redact_from_snaps";
    /// Object to go on with.
    pub const RESUME_OBJECT: &str = "resume_object";
    /// Byte offset in it.
    pub const RESUME_OFFSET: &str = "resume_offset";
    /// The wrapped key of a raw stream.
    pub const CRYPT_KEYDATA: &str = "crypt_keydata";
}

/// Names in the list of a package (`send_data_t`, libzfs_sendrecv.c).
pub mod key {
    /// Short name of the snapshot sent.
    pub const TOSNAP: &str = "tosnap";
    /// Short name of the incremental source.
    pub const FROMSNAP: &str = "fromsnap";
    /// Flag: one dataset only.
    pub const NOT_RECURSIVE: &str = "not_recursive";
    /// Flag: raw streams follow.
    pub const RAW: &str = "raw";
    /// Datasets by `0x` and the hexadecimal guid of their head.
    pub const FSS: &str = "fss";
    /// Full name at the sender.
    pub const NAME: &str = "name";
    /// Guid of the parent's incremental source, or of its target where that is new.
    pub const PARENT_FROM: &str = "parentfromsnap";
    /// Guid of the snapshot a clone was made from.
    pub const ORIGIN: &str = "origin";
    /// Properties.
    pub const PROPS: &str = "props";
    /// Flag: an encryption root.
    pub const IS_ENCROOT: &str = "is_encroot";
    /// Guids of snapshots by short name.
    pub const SNAPS: &str = "snaps";
    /// Properties of snapshots by short name.
    pub const SNAPPROPS: &str = "snapprops";
    /// Times of holds by tag by short name.
    pub const SNAPHOLDS: &str = "snapholds";
}
