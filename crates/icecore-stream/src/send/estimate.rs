//! How long a stream will be, without making it: from the space accounting where that is possible
//! (`dmu_send_estimate_fast`, dmu_send.c), else by a dry run that reads metadata only.

use super::package::package_streams;
use super::{PackageSpec, Packing, SendError, SendFlags, SendSpec, Source, resolve, send_stream_dry};
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_dsl::{DatasetRef, Dsl, Found};
use icecore_format::Blkptr;
use icecore_format::objset::ObjsetType;
use icecore_format::stream::RECORD_SIZE;
use std::io::{self, Write};

/// Bytes before and after compression that a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sizes {
    /// As stored.
    pub compressed: u64,
    /// Logical.
    pub uncompressed: u64,
}

impl Sizes {
    /// The stream's length by OpenZFS's estimate, given the record size: a record for each block instead of
    /// its pointer, and one each for BEGIN and END (`dmu_adjust_send_estimate_for_indirects`).
    #[must_use]
    pub fn stream_bytes(self, record_size: u64, as_stored: bool) -> u64 {
        let record = RECORD_SIZE as u64;
        let blocks = self.uncompressed.checked_div(record_size).unwrap_or(0);
        let size = if as_stored { self.compressed } else { self.uncompressed };
        size.wrapping_sub(blocks.wrapping_mul(size_of::<Blkptr>() as u64))
            .wrapping_add(blocks.wrapping_mul(record))
            .wrapping_add(2 * record)
    }
}

/// The estimated length in bytes of the stream that `spec` asks for, as `zfs send -nP` tells it.
pub fn estimate(io: &dyn BlockStore, dsl: &Dsl, spec: &SendSpec) -> Result<u64, SendError> {
    estimate_of(io, dsl, spec, &resolve(io, dsl, spec)?)
}

/// The same of what was found already.
pub fn estimate_of(
    io: &dyn BlockStore,
    dsl: &Dsl,
    spec: &SendSpec,
    source: &Source,
) -> Result<u64, SendError> {
    match sizes(io, dsl, spec, source)? {
        Some(sizes) => {
            let record_size = record_size(io, dsl, source)?;
            let size = sizes.stream_bytes(record_size, spec.flags.compress || spec.flags.raw);
            Ok(size.saturating_sub(spec.resume_bytes))
        }
        None => dry_run(io, source, spec.flags),
    }
}

/// The exact length in bytes of the stream that `spec` asks for, at the cost of reading its metadata.
pub fn exact_size(io: &dyn BlockStore, dsl: &Dsl, spec: &SendSpec) -> Result<u64, SendError> {
    dry_run(io, &resolve(io, dsl, spec)?, spec.flags)
}

fn dry_run(io: &dyn BlockStore, source: &Source, flags: SendFlags) -> Result<u64, SendError> {
    let mut counter = Counter(0);
    send_stream_dry(io, source, flags, Packing::default(), &mut counter)?;
    Ok(counter.0)
}

/// What is known of one stream of a package beforehand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedStream {
    /// The snapshot.
    pub to: String,
    /// The snapshot before it in the package, if it builds on that: what `zfs send -nv` shows.
    pub previous: Option<String>,
    /// What it builds on: `previous`, or the origin of a clone.
    pub from: Option<String>,
    /// Its estimated length in bytes.
    pub bytes: u64,
}

/// The streams of a package in their order, with OpenZFS's estimates (`dump_snapshot`, libzfs_sendrecv.c:
/// what builds on an origin is estimated as if it were whole).
pub fn estimate_package(
    io: &dyn BlockStore,
    dsl: &Dsl,
    spec: &PackageSpec,
) -> Result<Vec<PlannedStream>, SendError> {
    let mut out = package_streams(io, dsl, spec)?;
    for stream in &mut out {
        let (to, from) = (stream.to.clone(), stream.previous.clone());
        stream.bytes = estimate(io, dsl, &SendSpec { to, from, ..spec.send.clone() })?;
    }
    Ok(out)
}

/// Sizes from the accounting; `None` where it cannot tell.
fn sizes(
    io: &dyn BlockStore,
    dsl: &Dsl,
    spec: &SendSpec,
    source: &Source,
) -> Result<Option<Sizes>, SendError> {
    let space = match &spec.from {
        None => {
            let ds = dsl.dataset(io, source.to.obj)?;
            return Ok(Some(Sizes { compressed: ds.compressed_bytes, uncompressed: ds.uncompressed_bytes }));
        }
        Some(from) => match dsl.lookup(io, from)? {
            Found::Dataset(r) => dsl.space_written(io, r.obj, source.to.obj)?,
            Found::Bookmark { phys, .. } if phys.has_freed_before_next() => {
                dsl.space_written_bookmark(io, &phys, source.to.obj)?
            }
            Found::Bookmark { .. } => return Ok(None),
        },
    };
    let size = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Some(Sizes { compressed: size(space.compressed), uncompressed: size(space.uncompressed) }))
}

fn record_size(io: &dyn BlockStore, dsl: &Dsl, source: &Source) -> Result<u64, SendError> {
    let r: DatasetRef = dsl.by_object(io, source.to.obj)?;
    let os = Objset::open(io, source.to.obj, &source.to.bp, Want::NoKey)?;
    let property = if os.phys().kind() == ObjsetType::Zvol { "volblocksize" } else { "recordsize" };
    Ok(dsl.prop_number(io, r, property)?)
}

struct Counter(u64);
impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
