//! `zfs receive -c`: puts rotten blocks of a snapshot right from a stream of it (`zfs_receive_one`, libzfs_sendrecv.c;
//! `receive_process_write_record`, dmu_recv.c).
//!
//! Nothing is made, and no block is written but those that are lost, in their places, with the very bytes that their checksums
//! stand for. Unlike OpenZFS, which ends at the first block that it cannot mend, this goes on to the end.

use super::Named;
use super::receive::{Stream, bad_stream};
use crate::engine::{Ahead, Engine, Reading};
use crate::fail::{Fail, Outcome};
use icecore_dsl::Hold;
use icecore_format::stream::{Begin, Order, Record, StreamReader, Write, feature};
use icecore_format::{Compress, ObjectId};
use icecore_pool::heal::{Given, Mended, mend};
use icecore_stream::payload_sum;
use icecore_stream::receive::{Engine as _, ReceiveSpec};
use std::cell::RefCell;
use std::rc::Rc;

/// What was found of the blocks that the stream has.
#[derive(Default)]
struct Found {
    healed: u64,
    lost: u64,
    unlike: u64,
}

/// Heals the snapshot that `spec` names from the stream that `begin` opens. `other` is a flag that does not go with it.
pub fn heal(
    spec: &ReceiveSpec,
    begin: &Begin,
    input: &Rc<RefCell<Ahead>>,
    other: bool,
    verbose: bool,
) -> Outcome {
    let kind = if begin.fromguid == 0 { Stream::Full } else { Stream::Incremental };
    let fail = |why: &str| Fail::new(format!("{}: {why}", kind.failed()));
    if begin.is_compound() {
        return Err(Fail::new(match spec.target.contains('@') {
            true => "cannot receive: cannot specify snapshot name for multi-snapshot stream",
            false => "cannot receive: packages heal nothing; send the snapshot by itself",
        }));
    }
    if other {
        return Err(fail("corrective recv can not be used when combined with this flag"));
    }
    let sent = begin.toname.as_str().unwrap_or("");
    let name = match (spec.target.contains('@'), sent.split_once('@')) {
        (false, Some((_, snap))) => format!("{}@{snap}", spec.target),
        _ => spec.target.clone(),
    };
    super::valid(&name, Named::Snapshot).map_err(|_| Fail::new("cannot receive: invalid name"))?;
    let missing = || {
        let first = format!("cannot open '{name}': dataset does not exist");
        let why = "corrective recv must specify an existing snapshot to heal";
        Fail::new(format!("{first}\n{}", fail(why).message))
    };
    if crate::state::find(crate::session::pool_of(&name))?.is_none() {
        return Err(missing());
    }
    let mut engine = Engine::open(&name)?;
    let pool = engine.pool();
    let r = pool.dsl.lookup_snapshot(pool.io(), &name).map_err(|_| missing())?;
    if pool.dsl.dataset(pool.io(), r.obj)?.guid != begin.toguid {
        return Err(fail("local snapshot doesn't match the snapshot in the provided stream"));
    }
    if verbose {
        let verb = if spec.dry_run { "would receive" } else { "receiving" };
        let what = if kind == Stream::Full { "full" } else { "incremental" };
        println!("{verb} corrective {what} stream of {sent} into {name}");
    }
    if spec.dry_run {
        return Ok(());
    }
    if spec.origin.is_some() {
        return Err(bad_stream(kind, "a snapshot that is here has its origin"));
    }
    if !begin.has(feature::RAW) {
        if !pool.dsl.key_loaded(pool.io(), r.dir)? {
            let why = "key must be loaded to do a non-raw corrective recv on an encrypted dataset.";
            return Err(fail(why));
        }
        pool.lend_keys(r.dir)?;
    }
    let hold = pool.dsl.busy().hold(r.obj);
    engine.listen(input);
    let mut found = Found::default();
    let read = blocks(&mut engine, input, r.obj, begin, &mut found);
    finish(&mut engine, hold, &found)?;
    if verbose {
        println!("healed {} blocks", found.healed);
    }
    let left =
        format!("({} blocks were put right, {} are still damaged)", found.healed, found.lost + found.unlike);
    match read {
        Ok(()) if found.unlike > 0 => {
            Err(fail(&format!("stream is not compatible with the data in the pool.\n{left}")))
        }
        Ok(()) if found.lost == 0 => Ok(()),
        Ok(()) => Err(fail(&format!("{UNABLE}\n{left}"))),
        Err(why) => Err(fail(&format!("{UNABLE}\n{left}\n({why})"))),
    }
}

const UNABLE: &str = "corrective receive was not able to reconstruct the data needed for healing.";

/// Looks at every block that the stream has. The error says why the stream cannot be read on.
fn blocks(
    engine: &mut Engine,
    input: &Rc<RefCell<Ahead>>,
    objset: u64,
    begin: &Begin,
    found: &mut Found,
) -> Result<(), String> {
    let mut reading = Reading(Rc::clone(input));
    let mut reader = StreamReader::new(&mut reading, payload_sum);
    let mut payload = Vec::new();
    loop {
        if engine.should_rest() {
            engine.rest();
        }
        let entry = reader.next(&mut payload).map_err(|e| e.to_string())?;
        match entry.map(|e| e.record) {
            None => return Err("the stream ends without END".into()),
            Some(Record::End(_)) => return Ok(()),
            Some(Record::Write(w)) => {
                let given = given(&w, &payload, begin, reader.order());
                match mend(engine.pool(), objset, &given) {
                    Mended::Sound => {}
                    Mended::Healed => found.healed += 1,
                    Mended::Lost => found.lost += 1,
                    Mended::Unlike => found.unlike += 1,
                }
            }
            Some(_) => {}
        }
    }
}

fn given<'a>(w: &Write, bytes: &'a [u8], begin: &Begin, order: Order) -> Given<'a> {
    Given {
        object: ObjectId(w.object),
        offset: w.offset,
        size: w.logical_size,
        bytes,
        compress: Compress(w.compression_type),
        raw: begin.has(feature::RAW),
        little_endian: order == Order::Little,
    }
}

/// Makes the repairs durable, and takes what is whole out of the error log.
fn finish(engine: &mut Engine, hold: Hold, found: &Found) -> Outcome {
    let pool = engine.pool();
    drop(hold);
    if found.healed == 0 {
        return Ok(());
    }
    pool.io_mut().flush_repairs().map_err(|e| Fail::new(e.to_string()))?;
    // A scrub under way finds it out by itself, and after a resilver the next one does.
    if !pool.is_scanning() && pool.resilvering().is_none() {
        pool.scrub_errors(&mut || true)?;
    }
    Ok(())
}
