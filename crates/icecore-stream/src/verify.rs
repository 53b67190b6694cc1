//! Checks a stream completely without a pool: what a receiver would refuse, and with a key what it could not even see.
//!
//! Invariants:
//! 1. A stream that passes is complete, its sums fit, every record keeps the rules of [`super::receive::rules`], every
//!    compressed payload decompresses to its size, and each block lies in an object that was announced.
//! 2. With a key, every data and spill block of the streams it opens has the MAC it says. A full stream, and an increment
//!    on one that was verified before, is proven whole: [`tree`]. Of another increment [`Proof`] says what was not.
//! 3. The first damage ends the check: what follows it cannot be trusted by the stream's own sums.
//! 4. Memory is one payload and a few words a stream, and with a key the metadata of what is proven whole.

mod tree;

pub use tree::Proof;

use crate::payload_sum;
use crate::receive::keydata::{KeyData, KeyRefusal};
use crate::receive::rules::{Limits, Refusal, Rule, Rules, refuse};
use icecore_dsl::crypt::KEYFORMAT_RAW;
use icecore_dsl::{KeyForm, wrapping_key};
use icecore_format::nvlist::NvList;
use icecore_format::stream::{
    Begin, Entry, Object, Order, Record, Spill, StreamError, StreamReader, Write, WriteByref, WriteEmbedded,
    feature, object_type,
};
use icecore_format::units::MAX_BLOCK;
use icecore_format::{Compress, Corrupt, Guid, ObjectType};
use icecore_transform::compress::decompress;
use icecore_transform::crypt::{DataKey, MasterKeys, Suite, WrappedKey, WrappingKey, unwrap_key};
use std::fmt;
use std::io::Read;
use std::sync::Arc;
use tree::{Chain, Tree};

/// The largest dnode there is (`DNODE_MAX_SIZE`).
const DNODE_MAX: u64 = 16 << 10;

/// One snapshot's stream that passed.
#[derive(Clone, Debug)]
pub struct StreamFacts {
    /// `dataset@snapshot` at the sender.
    pub name: String,
    /// Guid of the snapshot.
    pub toguid: u64,
    /// Guid of what it builds on, 0 for none.
    pub fromguid: u64,
    /// Payloads are as on the sender's disk.
    pub raw: bool,
    /// Deduplicated: `zstream redup` has to expand it before any receiver of today takes it.
    pub dedup: bool,
    /// Goes on after an interrupted receive.
    pub resuming: bool,
    /// Records, BEGIN and END among them.
    pub records: u64,
    /// Bytes of file, volume and directory data uncompressed.
    pub logical: u64,
    /// Encrypted blocks whose MAC was checked.
    pub macs: u64,
    /// Encrypted blocks whose MAC was not, for want of a key that opens the stream.
    pub locked: u64,
    /// What all MACs together prove.
    pub proof: Proof,
}

/// A whole input that passed.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Its streams in order.
    pub streams: Vec<StreamFacts>,
    /// Packages among it.
    pub packages: u64,
    /// All records.
    pub records: u64,
    /// All bytes.
    pub bytes: u64,
}

/// The first thing that is wrong.
#[derive(Debug)]
pub enum Defect {
    /// Structure or sums.
    Stream(StreamError),
    /// A record that no receiver may take.
    Record {
        /// Number of the record, from 0.
        number: u64,
        /// Byte offset of the record.
        offset: u64,
        /// Its type.
        name: &'static str,
        /// What is wrong with it.
        why: Why,
    },
}

/// What is wrong with a record.
#[derive(Debug)]
pub enum Why {
    /// A field breaks a rule.
    Rule(Refusal),
    /// The list of a BEGIN.
    List(Corrupt),
    /// The wrapped key of a raw stream.
    Key(KeyRefusal),
    /// A feature no receiver knows.
    Feature(u64),
    /// A block of an object that was not announced.
    Unannounced(u64),
    /// The payload does not have the MAC that the record says.
    Mac {
        /// The object.
        object: u64,
        /// Byte offset in it; `None` for a spill block.
        offset: Option<u64>,
    },
    /// The MAC of a block of dnodes does not fit: one of the 32 objects from this one on is not as it was sent.
    Dnodes(u64),
    /// Every block is right by itself, but the MAC of the objset does not fit.
    Root,
    /// The records do not make an objset.
    Tree(String),
    /// The package does not list this snapshot.
    NotListed(u64),
    /// The input has no stream.
    Empty,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(e) => write!(f, "{e}"),
            Self::Record { number, offset, name, why } => {
                write!(f, "stream record {number} ({name}) at byte {offset}: {why}")
            }
        }
    }
}
impl std::error::Error for Defect {}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(r) => write!(f, "{r}"),
            Self::List(c) => write!(f, "the list of properties cannot be read: {c}"),
            Self::Key(k) => write!(f, "{k}"),
            Self::Feature(bits) => write!(f, "unknown stream features {bits:#x}"),
            Self::Unannounced(object) => write!(f, "object {object} has data but no OBJECT record"),
            Self::Mac { object, offset: Some(at) } => {
                write!(f, "object {object} at {at}: the MAC does not fit the data")
            }
            Self::Mac { object, offset: None } => {
                write!(f, "object {object}, spill block: the MAC does not fit")
            }
            Self::Dnodes(first) => write!(
                f,
                "objects {first} to {}: the MAC does not fit their dnodes (names, owners, modes, sizes, or which \
                 blocks they have)",
                first.saturating_add(31)
            ),
            Self::Root => f.write_str(
                "the MAC of the objset does not fit: something was changed, exchanged, added or left out",
            ),
            Self::Tree(why) => write!(f, "the records do not make an objset: {why}"),
            Self::NotListed(guid) => write!(f, "the package does not list the snapshot {guid:#x}"),
            Self::Empty => f.write_str("there is no stream"),
        }
    }
}
impl From<Refusal> for Why {
    fn from(r: Refusal) -> Self {
        Self::Rule(r)
    }
}

/// Keys made of one secret: passphrases are stretched once for each salt.
struct Secret<'a> {
    material: Option<&'a [u8]>,
    made: Vec<(KeyForm, WrappingKey)>,
}

impl Secret<'_> {
    fn open(&mut self, data: &KeyData) -> Option<MasterKeys> {
        let material = self.material?;
        let k = &data.key;
        let form = KeyForm { keyformat: k.keyformat, salt: k.salt, iters: k.iters };
        if !self.made.iter().any(|(f, _)| *f == form) {
            let raw = form.keyformat == KEYFORMAT_RAW;
            let line = || material.split(|b| *b == b'\n').next().unwrap_or(material);
            self.made.push((form, wrapping_key(form, if raw { material } else { line() }).ok()?));
        }
        let (_, wrapping) = self.made.iter().find(|(f, _)| *f == form)?;
        let wrapped = WrappedKey {
            suite: Suite::from_number(k.suite)?,
            guid: Guid(k.guid),
            version: 1,
            iv: k.iv,
            mac: k.mac,
            master: k.master,
            hmac: k.hmac,
        };
        unwrap_key(wrapping, &wrapped).ok()
    }
}

/// Checks everything `input` has, to its end. `secret` is the passphrase, the hexadecimal digits (both
/// to the end of the line) or the 32 bytes.
/// `progress` is told the bytes read so far, now and then.
pub fn verify(
    input: &mut dyn Read,
    secret: Option<&[u8]>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, Defect> {
    Verifier::default().verify(input, secret, progress)
}

/// Checks one input after another: an increment is proven on what came before it.
#[derive(Default)]
pub struct Verifier {
    chain: Chain,
}

impl Verifier {
    /// As [`verify`].
    pub fn verify(
        &mut self,
        input: &mut dyn Read,
        secret: Option<&[u8]>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verified, Defect> {
        verify_on(&mut self.chain, input, secret, progress)
    }
}

fn verify_on(
    chain: &mut Chain,
    input: &mut dyn Read,
    secret: Option<&[u8]>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, Defect> {
    let mut reader = StreamReader::new(input, payload_sum).concatenated();
    let mut secret = Secret { material: secret, made: Vec::new() };
    let mut done = Verified::default();
    let mut payload = Vec::new();
    let mut one: Option<One> = None;
    let mut listed: Option<Vec<u64>> = None;
    while let Some(entry) = reader.next(&mut payload).map_err(Defect::Stream)? {
        let Entry { offset, number, ref record, .. } = entry;
        let name = record.type_name();
        let wrong = |why: Why| Defect::Record { number, offset, name, why };
        match (record, &mut one) {
            (Record::Begin(b), _) if b.is_compound() => {
                listed = Some(listed_guids(&payload).map_err(wrong)?);
                done.packages += 1;
            }
            (Record::Begin(b), _) => {
                if let Some(guids) = listed.as_ref().filter(|g| !g.contains(&b.toguid)) {
                    // Streams sent for a clone's origin and such stand in no list; an empty list promises nothing.
                    if !guids.is_empty() {
                        return Err(wrong(Why::NotListed(b.toguid)));
                    }
                }
                one = Some(One::new(b, &payload, reader.order(), &mut secret, chain).map_err(wrong)?);
            }
            (Record::End(_), _) => {
                if let Some(o) = one.take() {
                    done.streams.push(o.end(chain).map_err(wrong)?);
                } else if !reader.in_package() {
                    listed = None;
                }
            }
            (r, Some(o)) => {
                let as_sent = o.tree.is_some().then(|| payload.clone());
                o.check(r, &mut payload).map_err(wrong)?;
                o.grow(chain, &entry, as_sent).map_err(wrong)?;
                o.facts.records += 1;
            }
            (_, None) => {
                return Err(wrong(
                    Refusal { rule: Rule::Unexpected, field: name, value: 0, limit: 0 }.into(),
                ));
            }
        }
        done.records += 1;
        if number % 64 == 0 {
            progress(reader.offset());
        }
    }
    done.bytes = reader.offset();
    if done.streams.is_empty() && done.packages == 0 {
        return Err(Defect::Record { number: 0, offset: 0, name: "BEGIN", why: Why::Empty });
    }
    Ok(done)
}

/// Guids of all snapshots that a package's list names.
fn listed_guids(payload: &[u8]) -> Result<Vec<u64>, Why> {
    use crate::package::key;
    let list = list(payload)?;
    let mut out = Vec::new();
    for (_, fs) in list.list(key::FSS).into_iter().flat_map(NvList::iter) {
        let icecore_format::nvlist::NvValue::List(fs) = fs else { continue };
        for (_, guid) in fs.list(key::SNAPS).into_iter().flat_map(NvList::iter) {
            if let icecore_format::nvlist::NvValue::U64(guid) = guid {
                out.push(*guid);
            }
        }
    }
    Ok(out)
}

fn list(payload: &[u8]) -> Result<NvList, Why> {
    if payload.is_empty() {
        return Ok(NvList::new());
    }
    NvList::decode(payload).map(|(list, _)| list).map_err(Why::List)
}

/// The object whose data may follow.
#[derive(Clone, Copy)]
struct Head {
    object: u64,
    blksz: u64,
    maxblkid: u64,
}

/// One stream between BEGIN and END.
struct One {
    facts: StreamFacts,
    rules: Rules,
    keys: Option<Arc<MasterKeys>>,
    /// The whole, as far as it can be proven.
    tree: Option<Tree>,
    data_key: Option<DataKey>,
    /// First object of the last OBJECT_RANGE.
    range: Option<u64>,
    head: Option<Head>,
    last_write: (u64, u64),
}

impl One {
    fn new(
        b: &Begin,
        payload: &[u8],
        order: Order,
        secret: &mut Secret<'_>,
        chain: &mut Chain,
    ) -> Result<Self, Why> {
        // Deduplicated streams are sound in themselves, though receivers no longer take them.
        let unknown = b.features() & !(feature::MASK | feature::DEDUP | feature::DEDUPPROPS);
        if unknown != 0 {
            return Err(Why::Feature(unknown));
        }
        let list = list(payload)?;
        let raw = b.has(feature::RAW);
        let data = list.list(crate::package::begin_key::CRYPT_KEYDATA).map(KeyData::parse);
        let data = data.transpose().map_err(Why::Key)?;
        let keys = data.as_ref().and_then(|data| secret.open(data)).map(Arc::new);
        let limits = Limits { block_max: MAX_BLOCK, dnode_max: DNODE_MAX };
        let resuming = b.has(feature::RESUMING);
        let (tree, proof) = match data.zip(keys.clone()) {
            Some((data, keys)) => match Tree::begin(chain, b, order, limits, &data, keys, resuming) {
                Ok(tree) => (Some(tree), Proof::None),
                Err(why) => (None, Proof::Blocks(why)),
            },
            None => (None, Proof::None),
        };
        let facts = StreamFacts {
            name: String::from_utf8_lossy(b.toname.as_bytes()).into_owned(),
            toguid: b.toguid,
            fromguid: b.fromguid,
            raw,
            dedup: b.has(feature::DEDUP),
            resuming,
            records: 1,
            logical: 0,
            macs: 0,
            locked: 0,
            proof,
        };
        Ok(Self {
            facts,
            rules: Rules::new(b, limits),
            keys,
            tree,
            data_key: None,
            range: None,
            head: None,
            last_write: (0, 0),
        })
    }

    /// The record's part in the whole, with the payload as it was sent.
    fn grow(&mut self, chain: &mut Chain, entry: &Entry, as_sent: Option<Vec<u8>>) -> Result<(), Why> {
        let (Some(tree), Some(payload)) = (&mut self.tree, as_sent) else { return Ok(()) };
        if let Some(why) = tree.apply(chain, entry, payload)? {
            self.tree = None;
            self.facts.proof = Proof::Blocks(why);
        }
        Ok(())
    }

    fn end(mut self, chain: &mut Chain) -> Result<StreamFacts, Why> {
        self.facts.records += 1;
        if let Some(tree) = self.tree.take() {
            self.facts.proof = tree.end(chain)?;
        }
        Ok(self.facts)
    }

    fn check(&mut self, record: &Record, payload: &mut [u8]) -> Result<(), Why> {
        if let Record::WriteByref(w) = record {
            return self.byref(w);
        }
        self.rules.check(record)?;
        match record {
            Record::ObjectRange(r) => self.range = Some(r.firstobj),
            Record::Object(o) => self.object(o)?,
            Record::Write(w) => self.write(w, payload)?,
            Record::WriteEmbedded(w) => self.embedded(w, payload)?,
            Record::Spill(s) => self.spill(s, payload)?,
            _ => {}
        }
        Ok(())
    }

    fn object(&mut self, o: &Object) -> Result<(), Why> {
        if self.facts.raw {
            let range = self.range.unwrap_or(u64::MAX);
            if !(range..range.saturating_add(32)).contains(&o.object) {
                refuse(Rule::OutsideRange, "OBJECT object", o.object, range)?;
            }
        }
        self.head = Some(Head { object: o.object, blksz: o.blksz.into(), maxblkid: o.maxblkid });
        Ok(())
    }

    /// The object that data is for: the one announced last, since data follows its object at once.
    fn place(&mut self, object: u64, offset: u64, size: u64) -> Result<(), Why> {
        if (object, offset) < self.last_write {
            let (value, limit) = if object < self.last_write.0 {
                (object, self.last_write.0)
            } else {
                (offset, self.last_write.1)
            };
            refuse(Rule::OutOfOrder, "WRITE offset", value, limit)?;
        }
        self.last_write = (object, offset);
        let Some(head) = self.head.filter(|h| h.object == object) else {
            // A stream that resumes may begin in the middle of an object.
            return if self.facts.resuming { Ok(()) } else { Err(Why::Unannounced(object)) };
        };
        if self.facts.raw {
            if size != head.blksz || !offset.is_multiple_of(head.blksz) {
                refuse(Rule::NotOneBlock, "WRITE offset", offset, head.blksz)?;
            }
            if offset / head.blksz > head.maxblkid {
                refuse(Rule::BeyondLastBlock, "WRITE offset", offset, head.maxblkid)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, w: &Write, payload: &mut [u8]) -> Result<(), Why> {
        self.place(w.object, w.offset, w.logical_size)?;
        self.facts.logical += w.logical_size;
        if self.facts.raw && w.mac != [0; 16] {
            let sealed = Sealed { kind: w.object_type, salt: w.salt, iv: w.iv, mac: w.mac };
            if !self.unseal(&sealed, payload, Why::Mac { object: w.object, offset: Some(w.offset) })? {
                return Ok(());
            }
        }
        unpack(w.compression_type, payload, w.logical_size, "WRITE payload")
    }

    /// Data that stood in the stream before, or in another snapshot.
    fn byref(&mut self, w: &WriteByref) -> Result<(), Why> {
        if !self.facts.dedup {
            refuse(Rule::NeedsFeature, "WRITE_BYREF object", w.object, feature::DEDUP)?;
        }
        self.place(w.object, w.offset, w.length)?;
        self.facts.logical += w.length;
        Ok(())
    }

    fn embedded(&mut self, w: &WriteEmbedded, payload: &[u8]) -> Result<(), Why> {
        self.place(w.object, w.offset, w.length)?;
        self.facts.logical += w.length;
        let packed = payload.get(..w.psize as usize).unwrap_or(payload);
        unpack(w.compression, packed, w.lsize.into(), "WRITE_EMBEDDED payload")
    }

    fn spill(&mut self, s: &Spill, payload: &mut [u8]) -> Result<(), Why> {
        if self.head.is_none_or(|h| h.object != s.object) && !self.facts.resuming {
            return Err(Why::Unannounced(s.object));
        }
        if self.facts.raw && s.mac != [0; 16] {
            // The record's own type is 0: OpenZFS leaves it out.
            let kind = ObjectType::SA.0.into();
            let sealed = Sealed { kind, salt: s.salt, iv: s.iv, mac: s.mac };
            if !self.unseal(&sealed, payload, Why::Mac { object: s.object, offset: None })? {
                return Ok(());
            }
        }
        unpack(s.compression_type, payload, s.length, "SPILL payload")
    }

    /// Checks the MAC and leaves the plaintext in `payload`; false if there is no key.
    fn unseal(&mut self, sealed: &Sealed, payload: &mut [u8], wrong: Why) -> Result<bool, Why> {
        let Some(keys) = &self.keys else {
            self.facts.locked += 1;
            return Ok(false);
        };
        self.facts.macs += 1;
        let encrypted = object_type(sealed.kind).is_none_or(|t| t.is_encrypted());
        if !encrypted {
            return if keys.block_hmac(payload) == sealed.mac { Ok(true) } else { Err(wrong) };
        }
        if self.data_key.as_ref().is_none_or(|k| k.salt() != sealed.salt) {
            self.data_key = Some(keys.data_key(sealed.salt));
        }
        match &self.data_key {
            Some(key) if key.open(&sealed.iv, &[], payload, &sealed.mac).is_ok() => Ok(true),
            _ => Err(wrong),
        }
    }
}

/// How a raw block is protected.
struct Sealed {
    kind: u32,
    salt: [u8; 8],
    iv: [u8; 12],
    mac: [u8; 16],
}

fn unpack(compression: u8, payload: &[u8], size: u64, field: &'static str) -> Result<(), Why> {
    let wrong = Refusal { rule: Rule::Payload, field, value: payload.len() as u64, limit: size };
    match Compress(compression) {
        Compress::INHERIT | Compress::OFF if payload.len() as u64 == size => Ok(()),
        Compress::INHERIT | Compress::OFF => Err(wrong.into()),
        c => match usize::try_from(size).map(|size| decompress(c, payload, size)) {
            Ok(Ok(data)) if data.len() as u64 == size => Ok(()),
            _ => Err(wrong.into()),
        },
    }
}
