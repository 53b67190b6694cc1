//! Sending: a snapshot, or what changed since another, as a stream (`dmu_send_impl`, dmu_send.c).
//!
//! Decides the stream's feature flags and its BEGIN record, and runs the walk and the records with reads
//! ahead between them. The bytes are those OpenZFS sends for the same snapshot.
//!
//! Invariants:
//! 1. Nothing is written before all that can be refused has been refused.
//! 2. Memory is bounded: while one batch of at most [`AHEAD_BLOCKS`] blocks or [`AHEAD_BYTES`] (and one block) is
//!    written, one more is read.
//! 3. On any error the stream ends without END: no receiver takes it for complete.

mod error;
mod estimate;
mod package;
mod records;
mod source;
mod traverse;

pub use error::SendError;
pub use estimate::{PlannedStream, Sizes, estimate, estimate_of, estimate_package, exact_size};
pub use package::{PackageSpec, Prepared, prepare, send_package, send_prepared};
pub use source::{
    Ancestor, DatasetFeatures, PoolFeatures, Source, SourceSnapshot, resolve, resolve_saved, resolve_token,
};

use crate::package::begin_key;
use icecore_dmu::{BlockStore, Fetch, Objset, ReadError, Want};
use icecore_format::fletcher::HashFn;
use icecore_format::nvlist::NvList;
use icecore_format::objset::{ObjsetPhys, ObjsetType};
use icecore_format::stream::{Begin, End, PayloadLen, SUBSTREAM, StreamWriter, ToName, begin_flag, feature};
use icecore_format::units::OLD_MAX_BLOCK;
use icecore_format::{Blkptr, Bookmark, Compress, ObjectId, ObjectType, Txg};
use records::{Place, Records};
use std::io::{BufWriter, Write};
use traverse::{Range, Resume, Scope};

/// Blocks read ahead together.
pub const AHEAD_BLOCKS: usize = 64;
/// Bytes of blocks read ahead together, when blocks are large.
pub const AHEAD_BYTES: u64 = 8 << 20;

/// How the lists in BEGIN records are packed. Receivers take both.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Packing {
    /// As OpenZFS up to 2.3 does: little-endian memory layout.
    #[default]
    Native,
    /// As later ones do, padded to a multiple of 8.
    Xdr,
}

/// What the sender is asked to leave as it is on disk (`zfs send -w`, `-L`, `-e`, `-c`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendFlags {
    /// `-w`: ciphertext as stored; of unencrypted datasets the same as the other three together.
    pub raw: bool,
    /// `-L`: blocks over 128 KiB whole.
    pub large_block: bool,
    /// `-e`: blocks that live in their pointers as such.
    pub embed: bool,
    /// `-c`: compressed blocks as stored.
    pub compress: bool,
}

/// What to send; names as the user gives them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SendSpec {
    /// `dataset@snapshot`, or `dataset` as it is now.
    pub to: String,
    /// `dataset@snapshot` or `dataset#bookmark` that the receiver has already.
    pub from: Option<String>,
    /// What goes as stored.
    pub flags: SendFlags,
    /// Object and byte offset of a resume token.
    pub resume: Option<(u64, u64)>,
    /// Bytes the receiver of a resumed stream has already; only for estimates.
    pub resume_bytes: u64,
    /// How BEGIN lists are packed.
    pub packing: Packing,
}

/// What was sent.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Bytes of stream.
    pub bytes: u64,
    /// Feature flags of the (last) stream.
    pub features: u64,
    /// Snapshots sent.
    pub snapshots: u64,
    /// What of a package could not be sent, in words; the rest was.
    pub warnings: Vec<String>,
}

/// Told how many bytes of stream went out so far; called after each batch.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Sends the snapshot of `source` as a stream of its own.
pub fn send_one(
    io: &dyn BlockStore,
    source: &Source,
    flags: SendFlags,
    packing: Packing,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Sent, SendError> {
    let mut writer = stream_writer(out);
    let features = send_stream(io, source, flags, packing, &mut writer, progress)?;
    writer.flush()?;
    Ok(Sent { bytes: writer.offset(), features, snapshots: 1, warnings: Vec::new() })
}

/// Small records are gathered; payloads of blocks pass through without a copy.
pub(crate) fn stream_writer(out: &mut dyn Write) -> StreamWriter<BufWriter<&mut dyn Write>> {
    StreamWriter::new(BufWriter::with_capacity(64 << 10, out), HASH)
}

pub(crate) const HASH: HashFn = crate::payload_sum;

/// Writes one stream to a writer that may be inside a package. Gives the feature flags.
pub(crate) fn send_stream<W: Write>(
    io: &dyn BlockStore,
    source: &Source,
    flags: SendFlags,
    packing: Packing,
    out: &mut StreamWriter<W>,
    progress: Progress<'_>,
) -> Result<u64, SendError> {
    stream(io, source, flags, packing, out, progress, false)
}

/// Writes a stream of the right length whose blocks are zeros: no block of data is read.
pub(crate) fn send_stream_dry(
    io: &dyn BlockStore,
    source: &Source,
    flags: SendFlags,
    packing: Packing,
    out: &mut dyn Write,
) -> Result<u64, SendError> {
    let mut writer = StreamWriter::new(out, HASH);
    stream(io, source, flags, packing, &mut writer, &mut |_| {}, true)
}

fn stream<W: Write>(
    io: &dyn BlockStore,
    source: &Source,
    flags: SendFlags,
    packing: Packing,
    out: &mut StreamWriter<W>,
    progress: Progress<'_>,
    dry: bool,
) -> Result<u64, SendError> {
    let to = &source.to;
    if to.bp.is_hole() {
        return Err(SendError::Unsupported(format!("{} has no contents at all", to.name)));
    }
    let encrypted = to.crypt.is_some() || to.bp.uses_crypt();
    let raw = flags.raw && encrypted;
    let want = if raw { Want::NoKey } else { Want::Logical };
    // Reading the objset block with the key also proves it authentic.
    let phys = ObjsetPhys::parse(&io.read(&to.bp, &Bookmark::root(to.obj), want)?)?;
    let features = feature_flags(source, flags, encrypted, phys.kind())?;
    let resume = resume_point(io, source, want)?;
    let list = begin_list(source, features, &phys)?;
    let begin = begin_record(source, features, phys.kind())?;
    write_begin(out, begin, &list, packing)?;

    let since = source.from.as_ref().map_or(Txg(0), |f| f.creation_txg);
    let meta = phys.meta_dnode()?;
    let objects_max = meta.maxblkid().wrapping_add(1).wrapping_mul(32);
    let records = Records::new(out, HASH, to.guid, since, features, objects_max);
    let mut pump = Pump {
        io,
        objset: to.obj,
        records,
        waiting: Batch::default(),
        read: Batch::default(),
        spare: Vec::new(),
        bytes: 0,
        progress,
        dry,
    };
    let scope = Scope { io, objset: to.obj, since, want, encrypted, resume };
    traverse::walk(&scope, &phys, &mut |range| pump.take(range))?;
    pump.finish()?;
    if source.saved.is_none() {
        out.write(&End { checksum: [0; 4], toguid: to.guid }.into(), &[])?;
    }
    Ok(features)
}

/// The stream's feature flags (`setup_featureflags`, dmu_send.c).
fn feature_flags(
    source: &Source,
    flags: SendFlags,
    encrypted: bool,
    kind: ObjsetType,
) -> Result<u64, SendError> {
    let (of, pool) = (&source.to.features, &source.pool);
    let mut out = 0;
    let mut set = |on: bool, bit: u64| out |= if on { bit } else { 0 };
    let compressed = flags.compress || flags.raw;
    let embed = (flags.embed || flags.raw) && !encrypted && pool.embedded_data_active;
    let large = (flags.raw || flags.large_block) && of.large_blocks;
    set(kind == ObjsetType::Zfs && source.to.zpl_version >= ZPL_VERSION_SA, feature::SA_SPILL);
    set(large, feature::LARGE_BLOCKS);
    set(embed, feature::EMBED_DATA);
    set(compressed, feature::COMPRESSED);
    set(flags.raw && encrypted, feature::RAW);
    set((embed || compressed) && pool.lz4_active, feature::LZ4);
    set(compressed && of.zstd, feature::ZSTD);
    set(source.resume.is_some(), feature::RESUMING);
    set(of.large_dnode, feature::LARGE_DNODE);
    set(of.longname, feature::LONGNAME);
    // A micro ZAP must never be split.
    if of.large_microzap && !large {
        return Err(SendError::LargeMicrozap { snapshot: source.to.name.clone() });
    }
    set(of.large_microzap, feature::LARGE_MICROZAP);
    Ok(out)
}
/// First version of the file system layer that keeps system attributes (`ZPL_VERSION_SA`).
const ZPL_VERSION_SA: u64 = 5;

fn resume_point(io: &dyn BlockStore, source: &Source, want: Want) -> Result<Option<Resume>, SendError> {
    let Some((object, offset)) = source.resume else { return Ok(None) };
    let os = Objset::open(io, source.to.obj, &source.to.bp, want)?;
    match os.dnode(io, ObjectId(object)) {
        Ok(dn) => Ok(Some(Resume { object, blkid: offset.checked_div(dn.block_size()).unwrap_or(0) })),
        Err(ReadError::NoObject(_)) => {
            Err(SendError::ResumeObject { snapshot: source.to.name.clone(), object })
        }
        Err(e) => Err(e.into()),
    }
}

fn begin_list(source: &Source, features: u64, phys: &ObjsetPhys) -> Result<NvList, SendError> {
    let mut list = NvList::new();
    if let Some(snaps) = &source.to.redact_snaps {
        list.set(begin_key::REDACT_SNAPS, snaps.clone());
    }
    if let Some(snaps) = source.from.as_ref().and_then(|f| f.redact_snaps.as_ref()) {
        list.set(begin_key::REDACT_FROM_SNAPS, snaps.clone());
    }
    if let Some((object, offset)) = source.resume {
        list.set(begin_key::RESUME_OBJECT, object).set(begin_key::RESUME_OFFSET, offset);
    }
    if features & feature::RAW != 0 {
        let from_ivset = source.from.as_ref().map_or(0, |f| f.ivset_guid);
        list.set(begin_key::CRYPT_KEYDATA, source.key_list(phys, from_ivset)?);
    }
    Ok(list)
}

fn begin_record(source: &Source, features: u64, kind: ObjsetType) -> Result<Begin, SendError> {
    let to = &source.to;
    let (guid, name) = match &source.saved {
        Some((guid, name)) => (*guid, name),
        None => (to.guid, &to.name),
    };
    let mut begin = Begin::new(SUBSTREAM, features);
    begin.creation_time = to.creation_time;
    begin.objset_type = u32::try_from(kind.raw()).unwrap_or(0);
    begin.flags = begin_flag::FREERECORDS | begin_flag::SPILL_BLOCK;
    if source.from.as_ref().is_some_and(|f| f.is_clone_origin) {
        begin.flags |= begin_flag::CLONE;
    }
    if to.case_insensitive {
        begin.flags |= begin_flag::CI_DATA;
    }
    begin.toguid = guid;
    begin.fromguid = source.from.as_ref().map_or(0, |f| f.guid);
    begin.toname = ToName::new(name).ok_or_else(|| SendError::Name(name.clone()))?;
    Ok(begin)
}

fn write_begin<W: Write>(
    out: &mut StreamWriter<W>,
    mut begin: Begin,
    list: &NvList,
    packing: Packing,
) -> Result<(), SendError> {
    let mut payload = Vec::new();
    if !list.is_empty() {
        payload = match packing {
            Packing::Native => list.encode_native(),
            Packing::Xdr => list.encode_xdr(),
        };
        if packing == Packing::Xdr {
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
    }
    begin.payload_len = PayloadLen(u32::try_from(payload.len()).map_err(|_| SendError::ListTooLarge)?);
    Ok(out.write(&begin.into(), &payload)?)
}

/// Gathers ranges until there are blocks enough for one round of reads; while those are read, writes the ones
/// read before.
struct Pump<'a, W> {
    io: &'a dyn BlockStore,
    objset: u64,
    records: Records<'a, W>,
    waiting: Batch,
    read: Batch,
    /// Buffers of blocks that have been written.
    spare: Vec<Vec<u8>>,
    bytes: u64,
    progress: Progress<'a>,
    /// Only lengths count.
    dry: bool,
}

/// Pieces in their order, and the blocks that some of them need, in the same order.
#[derive(Default)]
struct Batch {
    pieces: Vec<Waiting>,
    blocks: Vec<Fetch>,
}

enum Waiting {
    /// Needs no read.
    Ready(Range),
    /// The next block of the batch.
    Block { place: Place, stored: bool },
}

impl<W: Write> Pump<'_, W> {
    fn take(&mut self, range: Range) -> Result<(), SendError> {
        match range {
            Range::Data { object, blkid, kind, block_size, bp } => {
                self.wait_for(Place { object, blkid, kind, block_size }, bp);
            }
            Range::Object { object, dnode, block } => {
                // An unchanged spill block goes along, for receivers that would lose theirs otherwise
                // (`piggyback_unmodified_spill`).
                let (spill, kind) = (dnode.spill(), dnode.kind());
                self.waiting.pieces.push(Waiting::Ready(Range::Object { object, dnode, block }));
                if let Some(bp) = spill
                    && bp.birth() <= self.records.since()
                    && !bp.is_hole()
                {
                    self.wait_for(Place { object, blkid: Bookmark::SPILL, kind, block_size: bp.lsize() }, bp);
                }
            }
            other => self.waiting.pieces.push(Waiting::Ready(other)),
        }
        let full = self.waiting.blocks.len() >= AHEAD_BLOCKS || self.bytes >= AHEAD_BYTES;
        if full || self.waiting.pieces.len() >= AHEAD_BLOCKS * 8 { self.drain() } else { Ok(()) }
    }

    fn wait_for(&mut self, place: Place, bp: Blkptr) {
        if self.goes_embedded(&bp) {
            let Place { object, blkid, kind, block_size } = place;
            self.waiting.pieces.push(Waiting::Ready(Range::Data { object, blkid, kind, block_size, bp }));
            return;
        }
        let stored = self.goes_stored(&place, &bp);
        self.bytes = self.bytes.saturating_add(if stored { bp.psize() } else { place.block_size });
        let want = match (stored, self.records.has(feature::RAW)) {
            (true, true) => Want::Stored,
            (true, false) => Want::Compressed,
            (false, _) => Want::Logical,
        };
        let at =
            Bookmark { objset: self.objset, object: ObjectId(place.object), level: 0, blkid: place.blkid };
        self.waiting.blocks.push(Fetch::new(bp, at, want, self.spare.pop().unwrap_or_default()));
        self.waiting.pieces.push(Waiting::Block { place, stored });
    }

    /// Whether the pointer itself is sent (`send_do_embed`).
    fn goes_embedded(&self, bp: &Blkptr) -> bool {
        bp.is_embedded()
            && (bp.compress() < Compress::LZ4 || self.records.has(feature::LZ4))
            && (bp.compress() != Compress::ZSTD || self.records.has(feature::ZSTD))
            && bp.embedded_type() == icecore_format::blkptr::EMBEDDED_DATA
            && self.records.has(feature::EMBED_DATA)
    }

    /// Whether the block goes as it is on disk, at most decrypted (`issue_data_read`).
    fn goes_stored(&self, place: &Place, bp: &Blkptr) -> bool {
        if self.records.has(feature::RAW) {
            return true;
        }
        let split = place.block_size > OLD_MAX_BLOCK && !self.records.has(feature::LARGE_BLOCKS);
        self.records.has(feature::COMPRESSED)
            && !split
            && bp.is_little_endian()
            && !bp.is_embedded()
            && !bp.kind().is_metadata()
    }

    /// Reads what waits, and writes the records of what was read before.
    fn drain(&mut self) -> Result<(), SendError> {
        let mut next = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let mut written = Ok(());
        if self.dry {
            next.blocks.iter_mut().for_each(blank);
            written = self.write_read();
        } else if next.blocks.is_empty() {
            written = self.write_read();
        } else {
            self.io.fetch(&mut next.blocks, &mut || written = self.write_read());
        }
        written?;
        self.read = next;
        (self.progress)(self.records.offset());
        Ok(())
    }

    /// Writes all that is left.
    fn finish(&mut self) -> Result<(), SendError> {
        self.drain()?;
        self.write_read()?;
        (self.progress)(self.records.offset());
        self.records.flush()
    }

    fn write_read(&mut self) -> Result<(), SendError> {
        let Batch { pieces, blocks } = std::mem::take(&mut self.read);
        let mut blocks = blocks.into_iter();
        for piece in pieces {
            match piece {
                Waiting::Ready(range) => self.write_ready(range)?,
                Waiting::Block { place, stored } => {
                    let Some(mut block) = blocks.next() else { return Err(SendError::ShortRead) };
                    std::mem::replace(&mut block.result, Ok(()))?;
                    self.write_block(place, &block, stored)?;
                    self.keep(block.bytes);
                }
            }
        }
        Ok(())
    }

    /// Keeps a buffer for a later block, up to the bytes of one batch.
    fn keep(&mut self, buffer: Vec<u8>) {
        let kept: usize = self.spare.iter().chain([&buffer]).map(Vec::capacity).sum();
        if kept as u64 <= AHEAD_BYTES {
            self.spare.push(buffer);
        }
    }

    fn write_ready(&mut self, range: Range) -> Result<(), SendError> {
        match range {
            Range::DnodeBlock { first_object, slots, bp } => {
                self.records.object_range(first_object, slots, &bp)
            }
            Range::Object { object, dnode, block } => self.records.dnode(object, &dnode, &block),
            Range::Hole { object, start, end, block_size } => {
                self.records.hole(object, start, end, block_size)
            }
            Range::Redacted { object, start, end, block_size } => {
                let (offset, blocks) = (start.wrapping_mul(block_size), end.wrapping_sub(start));
                self.records.redact(object, offset, blocks.wrapping_mul(block_size))
            }
            Range::Data { object, blkid, kind, block_size, bp } => {
                self.records.embedded(Place { object, blkid, kind, block_size }, &bp)
            }
        }
    }

    fn write_block(&mut self, place: Place, block: &Fetch, stored: bool) -> Result<(), SendError> {
        let expected = if stored { block.bp.psize() } else { place.block_size };
        if block.bytes.len() as u64 != expected {
            return Err(SendError::ShortRead);
        }
        if block.bp.kind() == ObjectType::SA {
            self.records.spill(place.object, &block.bp, &block.bytes)
        } else {
            self.records.write(place, block, stored)
        }
    }
}

/// Where only lengths count: a block of zeros.
fn blank(block: &mut Fetch) {
    let stored = matches!(block.want, Want::Stored | Want::Compressed);
    let len = if stored { block.bp.psize() } else { block.bp.lsize() };
    block.bytes.clear();
    block.bytes.resize(usize::try_from(len).unwrap_or(0), 0);
}
