//! What the DMU needs from below: a store of checksummed blocks, read by pointer and written by content.
//!
//! These two traits cut the knot of ZFS's layers: the pool keeps its own state in the DMU, the DMU keeps
//! its blocks in the pool. This crate knows no device; the pool crate implements both traits.
//!
//! Invariants:
//! 1. Everything `read` returns has passed the block pointer's checksum (and MAC, where a key was used).
//! 2. `write_batch` allocates in the order of its input, whatever runs in parallel below: the bytes on disk
//!    are a function of the operations, the clock and the entropy.
//! 3. Nothing written is reachable before the commit of the txg: a failed operation needs no undo on disk.

use icecore_format::fletcher::Fletcher4;
use icecore_format::{Blkptr, Bookmark, Checksum, Compress, Corrupt, ObjectId, ObjectType, Txg};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// In which form a block is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Want {
    /// Decrypted with the dataset's loaded key, decompressed, little-endian.
    Logical,
    /// As `Logical`, but without a key: indirect blocks, objset blocks and types that are only
    /// authenticated are readable; a block of dnodes comes with its bonus areas still encrypted, in
    /// the byte order in which it is stored; anything else that is encrypted is
    /// [`ReadError::KeyUnavailable`].
    NoKey,
    /// Exactly the stored bytes (psize of them): checksum verified, nothing undone.
    Stored,
    /// As stored, but decrypted with the dataset's loaded key; still compressed, in the stored byte order.
    Compressed,
}

/// Why a block could not be had. Split by what a caller can do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// No copy could be read from its device.
    Device(String),
    /// Copies were read, none has the right checksum or MAC.
    Checksum {
        /// Where the block belongs.
        at: Bookmark,
        /// The pointer followed.
        bp: Box<Blkptr>,
    },
    /// Verified bytes that make no sense.
    Corrupt(Corrupt),
    /// The dataset's key is not loaded.
    KeyUnavailable {
        /// Dataset object in the MOS.
        objset: u64,
    },
    /// Written by something newer, or a layout we do not read yet.
    Unsupported(String),
    /// No such object.
    NoObject(ObjectId),
}

impl From<Corrupt> for ReadError {
    fn from(c: Corrupt) -> Self {
        Self::Corrupt(c)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(why) => write!(f, "{why}"),
            Self::Checksum { at, bp } => write!(f, "checksum error at {at} ({:?})", bp.dvas()),
            Self::Corrupt(c) => write!(f, "{c}"),
            Self::KeyUnavailable { objset } => {
                write!(f, "the encryption key of dataset object {objset} is not loaded")
            }
            Self::Unsupported(why) => write!(f, "not supported: {why}"),
            Self::NoObject(id) => write!(f, "object {id} does not exist"),
        }
    }
}
impl std::error::Error for ReadError {}

/// Why something could not be written. After any of these but [`Self::Quota`] the open txg must be abandoned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// No space left at `txg`.
    NoSpace,
    /// A quota is used up. Nothing has changed.
    Quota,
    /// A device failed; the pool is suspended until it is opened again.
    Device(String),
    /// What had to be read first could not be.
    Read(ReadError),
    /// The request makes no sense for the state it meets.
    Invalid(String),
}

impl From<ReadError> for WriteError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}
impl From<Corrupt> for WriteError {
    fn from(c: Corrupt) -> Self {
        Self::Read(ReadError::Corrupt(c))
    }
}
impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => write!(f, "out of space"),
            Self::Quota => write!(f, "space quota exceeded"),
            Self::Device(why) | Self::Invalid(why) => write!(f, "{why}"),
            Self::Read(e) => write!(f, "{e}"),
        }
    }
}
impl std::error::Error for WriteError {}

/// A block asked for with [`BlockStore::fetch`], and the answer. The buffer may come from an earlier one: what is
/// in it is overwritten.
#[derive(Debug)]
pub struct Fetch {
    /// The pointer to follow.
    pub bp: Blkptr,
    /// Where the block belongs.
    pub at: Bookmark,
    /// In which form it is wanted.
    pub want: Want,
    /// Its contents, if it could be read.
    pub bytes: Vec<u8>,
    /// The fletcher4 of `bytes` as little-endian words, where verifying the block gave it.
    pub sum: Option<Fletcher4>,
    /// Whether it could be read.
    pub result: Result<(), ReadError>,
}

impl Fetch {
    /// A question, with a buffer for the answer.
    #[must_use]
    pub fn new(bp: Blkptr, at: Bookmark, want: Want, buffer: Vec<u8>) -> Self {
        Self { bp, at, want, bytes: buffer, sum: None, result: Ok(()) }
    }
    /// Takes over what a read gave.
    pub fn answer(&mut self, read: Result<Arc<[u8]>, ReadError>) {
        self.bytes.clear();
        self.result = read.map(|block| self.bytes.extend_from_slice(&block));
    }
}

/// Whom [`BlockStore::read_each`] shows blocks.
pub type Look<'a> = dyn Fn(usize, Result<&[u8], ReadError>) + Sync + 'a;

/// What `f` makes of each number below `n`, by the workers of `io`, in the order of the numbers.
pub fn map_each<T: Send + Sync>(io: &dyn BlockStore, n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    gathered(n, |put| io.for_each(n, &|i| put(i, f(i))))
}

/// What `f` makes of each of `blocks` in passing, in their order.
pub fn look_each<T: Send + Sync>(
    io: &dyn BlockStore,
    blocks: &[(Blkptr, Bookmark)],
    want: Want,
    f: impl Fn(Result<&[u8], ReadError>) -> T + Sync,
) -> Vec<T> {
    gathered(blocks.len(), |put| io.read_each(blocks, want, &|i, block| put(i, f(block))))
}

/// What was put at each number below `n`, in any order and by any thread.
fn gathered<T: Send + Sync>(n: usize, fill: impl FnOnce(&(dyn Fn(usize, T) + Sync))) -> Vec<T> {
    let slots: Vec<OnceLock<T>> = (0..n).map(|_| OnceLock::new()).collect();
    fill(&|i, value| {
        if let Some(slot) = slots.get(i) {
            let _ = slot.set(value);
        }
    });
    slots.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Reads blocks.
pub trait BlockStore: Sync {
    /// The contents of the block that `bp` points to, in the form wanted. `bp` is checked; holes must not
    /// be asked for. Embedded pointers are decoded. `at.objset` selects the key.
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError>;

    /// Many blocks at once, results in input order; stores that have several workers or slow devices
    /// overlap them. Results are the same as single reads.
    fn read_many(&self, blocks: &[(Blkptr, Bookmark)], want: Want) -> Vec<Result<Arc<[u8]>, ReadError>> {
        blocks.iter().map(|(bp, at)| self.read(bp, at, want)).collect()
    }

    /// Reads all of `blocks` into their buffers, and calls `meanwhile` once, possibly at the same time, on the
    /// caller's thread. Results are the same as of single reads.
    fn fetch(&self, blocks: &mut [Fetch], meanwhile: &mut dyn FnMut()) {
        for block in blocks {
            block.answer(self.read(&block.bp, &block.at, block.want));
        }
        meanwhile();
    }

    /// Calls `job` with each number below `n`, in any order, several at the same time where the store has workers.
    fn for_each(&self, n: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(job);
    }

    /// Shows `look` each of `blocks`, with its place in them, in any order, several at the same time where the store
    /// has workers. What is shown passes by: it is not kept. Results are the same as of single reads.
    fn read_each(&self, blocks: &[(Blkptr, Bookmark)], want: Want, look: &Look<'_>) {
        self.for_each(blocks.len(), &|i| {
            if let Some((bp, at)) = blocks.get(i) {
                look(i, self.read(bp, at, want).as_deref().map_err(Clone::clone));
            }
        });
    }

    /// Txg under construction (writers) or of the opened uberblock (readers).
    fn txg(&self) -> Txg;

    /// Whether holes carry their birth txg (feature hole_birth active).
    fn hole_birth(&self) -> bool;
}

/// A store that keeps no data of objects, for who goes through very many of them once. Their heads, and where their blocks are, are
/// kept as ever: neighbours need the same.
pub struct Passing<'a>(pub &'a dyn BlockStore);

impl BlockStore for Passing<'_> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        if at.object == ObjectId(0) || at.level > 0 {
            return self.0.read(bp, at, want);
        }
        let read = look_each(self.0, &[(*bp, *at)], want, |block| block.map(Arc::from)).pop();
        read.unwrap_or_else(|| Err(Corrupt::new("batch", "index").into()))
    }
    fn txg(&self) -> Txg {
        self.0.txg()
    }
    fn hole_birth(&self) -> bool {
        self.0.hole_birth()
    }
}

/// Salt, IV, MAC and byte order of a block received as ciphertext (or of authenticated plain text, whose
/// salt and IV are not stored).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawCrypt {
    /// Salt of the data key.
    pub salt: [u8; 8],
    /// AEAD nonce.
    pub iv: [u8; 12],
    /// AEAD tag, or truncated HMAC.
    pub mac: [u8; 16],
}

/// How the bytes of a new block are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Logical contents, to be compressed, and encrypted with the dataset's loaded key if `encrypt`.
    Logical {
        /// Algorithm to try; never INHERIT or ON.
        compress: Compress,
        /// zstd level as the property stores it, 0 for the default.
        level: u8,
        /// The objset is encrypted: encrypt or authenticate by type.
        encrypt: bool,
    },
    /// Bytes to be stored as they are (compressed and perhaps encrypted by the sender).
    Stored {
        /// Algorithm they are compressed with.
        compress: Compress,
        /// Byte order of the contents.
        little_endian: bool,
        /// Present where the objset is encrypted.
        crypt: Option<RawCrypt>,
        /// The fletcher4 of the bytes as little-endian words, if it is known: need not be computed again.
        sum: Option<Fletcher4>,
    },
}

/// One block to be written.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// Where it belongs.
    pub at: Bookmark,
    /// Object type of the contents.
    pub kind: ObjectType,
    /// 0 for data.
    pub level: u8,
    /// Logical size in bytes.
    pub lsize: u64,
    /// The bytes: `lsize` of them for logical, psize (unpadded) for stored form.
    pub data: Vec<u8>,
    /// What the bytes are.
    pub form: Form,
    /// Algorithm; never INHERIT or ON.
    pub checksum: Checksum,
    /// Copies wanted: 1 to 3 (the store lowers it to 2 for encrypted blocks).
    pub copies: u8,
    /// Fill count for the pointer.
    pub fill: u64,
    /// May the block be embedded in its pointer when it compresses to 112 bytes or less
    /// (only ever for unencrypted objsets, with the embedded_data feature)?
    pub may_embed: bool,
    /// May the block that `old` points to be kept if its contents are these, by its checksum? The answer is `old` then.
    pub may_keep: bool,
    /// The pointer this one replaces. If it was born in this very txg and the stored size is the same,
    /// its place is used again (and the caller must not free it: the DVAs are equal).
    pub old: Blkptr,
}

/// Writes and frees blocks in the txg under construction.
pub trait BlockWriter: BlockStore {
    /// Allocates and writes; all-zero logical contents give a hole. Results in input order.
    fn write_batch(&mut self, blocks: Vec<NewBlock>) -> Result<Vec<Blkptr>, WriteError>;

    /// A buffer for about `len` bytes of a block to come, if one that was written is at hand: what is in it means
    /// nothing.
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        let _ = len;
        Vec::new()
    }

    /// Gives the block's space back with this txg. The caller knows that nothing else refers to it.
    /// Holes and embedded pointers are ignored.
    fn free(&mut self, bp: &Blkptr) -> Result<(), WriteError>;
}
