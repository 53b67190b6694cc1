//! The key of an encrypted dataset, for one command.

use crate::fail::{Fail, Outcome};
use icecore_dsl::{DatasetRef, DslError, KeyError};
use icecore_pool::Pool;
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use std::io::Read;
use zeroize::Zeroizing;

/// Longest key material that is read: passphrases have 512 bytes at most.
const MATERIAL_MAX: u64 = 4096;
/// Property `keyformat`: 32 raw bytes, taken as they are.
const RAW: u64 = icecore_dsl::crypt::KEYFORMAT_RAW;

/// Loads the key of `dataset` if it is encrypted: from its `keylocation` if that is a file, else asked for on the
/// terminal, else read from the first line of standard input (a raw key: its first 32 bytes).
pub fn key_for(pool: &mut Pool, dataset: &str, r: DatasetRef) -> Outcome {
    let say = |e: DslError| Fail::new(format!("cannot open '{dataset}': {e}"));
    let (io, dsl) = pool.parts();
    let Some(root) = dsl.encryption_root(io, r.dir).map_err(say)? else { return Ok(()) };
    if dsl.key_loaded(io, r.dir).map_err(say)? {
        return Ok(());
    }
    let name = dsl.dir_name(io, root).map_err(say)?;
    let form = dsl.key_form(io, root).map_err(say)?;
    let head = dsl.lookup_head(io, &name).map_err(say)?;
    let location = dsl.prop_text(io, head, "keylocation").map_err(say)?.unwrap_or_default();
    let material = match location.strip_prefix("file://") {
        Some(path) => {
            let file = std::fs::File::open(path);
            let file =
                file.map_err(|e| Fail::new(format!("cannot open '{dataset}': key file {path}: {e}")))?;
            read_material(file, form.keyformat == RAW)?
        }
        None if isatty(std::io::stdin()) => ask(&name)?,
        None => read_material(Stdin, form.keyformat == RAW)?,
    };
    let keys = dsl.load_key(io, &name, &material).map_err(|e| match e {
        DslError::Key(KeyError::Wrong) => {
            Fail::new(format!("Key load error: Incorrect key provided for '{name}'."))
        }
        e => Fail::new(format!("Key load error: {e} ('{name}')")),
    })?;
    for (objset, keys) in keys {
        io.add_key(objset, keys);
    }
    Ok(())
}

/// Standard input without the library's buffer, which would keep a copy of what was typed.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), to)?)
    }
}

/// A line without its end, or 32 bytes.
fn read_material(mut from: impl Read, raw: bool) -> Outcome<Zeroizing<Vec<u8>>> {
    // Byte by byte: what follows the line on standard input is not ours, and no copy stays in a buffer.
    let mut material = Zeroizing::new(Vec::with_capacity(MATERIAL_MAX as usize));
    let mut byte = Zeroizing::new([0_u8; 1]);
    let limit = if raw { 33 } else { MATERIAL_MAX as usize };
    while material.len() < limit {
        match from.read(&mut *byte) {
            Ok(0) => break,
            Ok(_) if !raw && byte[0] == b'\n' => break,
            Ok(_) => material.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Fail::new(format!("cannot read the key: {e}"))),
        }
    }
    if !raw && material.last() == Some(&b'\r') {
        material.pop();
    }
    Ok(material)
}

/// Asks on the terminal, without showing what is typed.
fn ask(name: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).map_err(|e| Fail::new(format!("terminal: {e}")))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    eprint!("Enter passphrase for '{name}': ");
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| Fail::new(format!("terminal: {e}")))?;
    let line = read_material(Stdin, false);
    let back = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    eprintln!();
    back.map_err(|e| Fail::new(format!("terminal: {e}")))?;
    line
}
