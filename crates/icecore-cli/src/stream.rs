//! `icecore stream`: what a stream file holds, and whether all of it is sound. No pool is needed.

mod unpack;

use crate::args::{Opt, Typed, flag, value};
use crate::commands::Command;
use crate::fail::{FAILED, Fail, Outcome};
use crate::human;
use crate::keys;
use icecore_stream::dump::{DumpError, dump};
use icecore_stream::verify::{Proof, Verified, Verifier};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufWriter, Read};

/// What a stream is read in.
const BUFFER: usize = 1 << 20;

const VERIFY_USAGE: &str = "stream verify [--json] [-q] [--key-file FILE] <file|-> ...";
const DUMP_USAGE: &str = "stream dump [-v] <file|->";

const COMMANDS: &[Command] = &[
    (&["verify"], run_verify, VERIFY_USAGE),
    (&["dump"], run_dump, DUMP_USAGE),
    (&["ls"], unpack::run_ls, unpack::LS_USAGE),
    (&["cat"], unpack::run_cat, unpack::CAT_USAGE),
    (&["extract"], unpack::run_extract, unpack::EXTRACT_USAGE),
];

/// Runs `icecore stream ARGS`.
pub fn run(args: &[String]) -> Outcome {
    crate::commands::run("icecore stream", COMMANDS, &[], args)
}

fn open(name: &str) -> Outcome<Box<dyn Read>> {
    if name == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(name).map_err(|e| Fail::new(format!("cannot open '{name}': {e}")))?;
    Ok(Box::new(file))
}

fn run_verify(args: &[String]) -> Outcome {
    const KNOWN: &[Opt] = &[flag('J', "json"), flag('q', "quiet"), value('k', "key-file")];
    let typed = Typed::parse(args, KNOWN, VERIFY_USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing file argument", VERIFY_USAGE));
    }
    let secret = typed.value('k').map(keys::whole_file).transpose()?;
    let mut damaged = false;
    // One for all: an increment is proven on the files before it.
    let mut verifier = Verifier::default();
    let mut rows = Vec::new();
    for name in &typed.operands {
        let mut input = io::BufReader::with_capacity(BUFFER, open(name)?);
        let outcome = verifier.verify(&mut input, secret.as_deref(), &mut |_| {});
        damaged |= outcome.is_err();
        match outcome {
            Ok(v) if typed.has('J') => rows.push(facts(name, &v)),
            Ok(v) if !typed.has('q') => tell(name, &v, secret.is_some()),
            Ok(_) => {}
            Err(e) if typed.has('J') => rows.push(json!({"file": name, "ok": false, "error": e.to_string()})),
            Err(e) => eprintln!("{name}: DAMAGED: {e}\n{name}: do not rely on anything from there on"),
        }
    }
    if typed.has('J') {
        println!("{}", json!({ "files": rows }));
    }
    if damaged { Err(Fail::said(FAILED)) } else { Ok(()) }
}

fn tell(name: &str, v: &Verified, with_key: bool) {
    for s in &v.streams {
        let kind = match (s.fromguid != 0, s.raw) {
            (false, false) => "full",
            (false, true) => "full raw",
            (true, false) => "incremental",
            (true, true) => "incremental raw",
        };
        let macs = match (s.macs, s.locked) {
            (0, 0) => String::new(),
            (n, 0) => match s.proof {
                Proof::Blocks(why) => {
                    format!(", {n} MACs of blocks; those of dnodes and of the objset are not proven: {why}")
                }
                _ => format!(", all MACs up to the objset's ({n} of blocks)"),
            },
            (_, n) if with_key => format!(", {n} blocks not opened by this key"),
            (_, n) => format!(", {n} encrypted blocks (MACs need a key: --key-file)"),
        };
        let resumed = match (s.dedup, s.resuming) {
            (true, _) => ", deduplicated (expand it with zstream redup before receiving)",
            (_, true) => ", resumed",
            _ => "",
        };
        println!(
            "{}: {kind}{resumed}, guid {:#x}, {} of data, {} records{macs}",
            s.name,
            s.toguid,
            human::bytes(s.logical),
            s.records
        );
    }
    println!("{name}: OK: {} streams, {} records, {} bytes", v.streams.len(), v.records, v.bytes);
}

fn facts(name: &str, v: &Verified) -> serde_json::Value {
    let streams: Vec<_> = v
        .streams
        .iter()
        .map(|s| {
            json!({
                "name": s.name, "toguid": s.toguid, "fromguid": s.fromguid, "raw": s.raw,
                "resuming": s.resuming, "dedup": s.dedup, "records": s.records, "logical_bytes": s.logical,
                "macs_checked": s.macs, "macs_not_checked": s.locked,
                "proven": match s.proof { Proof::None => "nothing", Proof::Whole => "whole", Proof::Blocks(_) => "blocks" },
                "not_whole_because": match s.proof { Proof::Blocks(why) => Some(why), _ => None },
            })
        })
        .collect();
    json!({
        "file": name, "ok": true, "packages": v.packages, "records": v.records, "bytes": v.bytes,
        "streams": streams,
    })
}

fn run_dump(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('v', "verbose")], DUMP_USAGE)?;
    let name = match typed.operands.as_slice() {
        [] => "-",
        [one] => one,
        _ => return Err(Fail::usage("too many arguments", DUMP_USAGE)),
    };
    let mut input = io::BufReader::with_capacity(BUFFER, open(name)?);
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = dump(&mut input, typed.has('v'), &mut out);
    let flushed = io::Write::flush(&mut out);
    match outcome {
        Ok(()) => Ok(flushed?),
        // The reader has seen enough.
        Err(DumpError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Fail::new(format!("{name}: {e}"))),
    }
}
