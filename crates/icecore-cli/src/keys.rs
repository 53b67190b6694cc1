//! Keys on their way from people and files to the engine, and into the pool a command has open.
//!
//! Decides where a key is read from, in which form (`get_key_material` and `validate_key`,
//! libzfs_crypto.c), and which roots a command must unlock. A key that a command reads lasts as long as the command;
//! only `zfs load-key` and `zfs create` leave one in the service.
//!
//! Invariants:
//! 1. A key never stands on a command line or in the environment, only its place does.
//! 2. Key bytes live in [`Material`] from the first byte read, which is locked memory and wiped; standard input and
//!    files are read without buffers of others. A key from a server has been through curl's memory first, and a pipe.
//! 3. What is typed is not shown, and the terminal is as before when this ends, interrupted or not.

use crate::caller;
use crate::fail::{Fail, Outcome};
use crate::session::Open;
use icecore_dsl::crypt::{KEYFORMAT_HEX, KEYFORMAT_NONE, KEYFORMAT_PASSPHRASE, KEYFORMAT_RAW};
use icecore_dsl::keystore::{
    ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, PASSPHRASE_LEN_MAX, PASSPHRASE_LEN_MIN, wrapping_key,
};
use icecore_dsl::{DslError, KeyError, KeyForm, NewKey};
use icecore_env::Env;
use icecore_pool::Pool;
use icecore_secret::{Secret, SecretText};
use icecore_service::stdio::Input;
use icecore_transform::crypt::Suite;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Key text or raw key bytes, in locked memory and wiped when dropped.
pub type Material = SecretText;

/// Bytes of key text that are taken at most: more than any key has.
const MATERIAL_MAX: usize = SecretText::ROOM;
/// Bytes of a raw key.
const RAW_LEN: usize = 32;
/// How often a person may try (`MAX_KEY_PROMPT_ATTEMPTS`).
const ATTEMPTS_MAX: u32 = 3;

/// How long a server may take, in seconds.
const FETCH_SECONDS: &str = "30";
/// Where curl is looked for before the PATH.
const CURL: &[&str] = &["/usr/bin/curl", "/usr/local/bin/curl"];
/// Variables that say whom to trust and who one is (libzfs_crypto.c), and curl's options for them.
const CURL_ENV: &[(&str, &str)] = &[
    ("SSL_CA_CERT_FILE", "--cacert"),
    ("SSL_CA_CERT_PATH", "--capath"),
    ("SSL_CLIENT_CERT_FILE", "--cert"),
    ("SSL_CLIENT_KEY_FILE", "--key"),
];

/// Where a key comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// Asked for.
    Prompt,
    /// Read from a file.
    File(PathBuf),
    /// Fetched from a server, by the program curl.
    Url(String),
}

impl Location {
    /// The value of property `keylocation`.
    pub fn parse(text: &str) -> Outcome<Self> {
        match (text, text.strip_prefix("file://")) {
            ("prompt", _) => Ok(Self::Prompt),
            (_, Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            (t, _) if t.starts_with("http://") || t.starts_with("https://") => Ok(Self::Url(t.into())),
            (t, _) => Err(Fail::new(format!(
                "Invalid keylocation\n('{t}' is not 'prompt', 'file:///PATH' or 'https://ADDRESS': it never is the key itself)"
            ))),
        }
    }
}

/// Whom a prompt may turn to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The terminal if standard input is one, else a line of standard input, as OpenZFS does.
    Input,
    /// The terminal only: standard input has another use, or none.
    Terminal,
}

/// How a command gets at keys.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// `--keylocation` or `-L`: read here instead of where the dataset says.
    pub location: Option<&'a str>,
    /// Whom to ask.
    pub ask: Ask,
    /// What else can be done where there is no key, as a clause of its own.
    pub otherwise: &'a str,
    /// What OpenZFS says where there is none; empty where the reason comes first.
    pub missing: &'a str,
}

impl Default for How<'_> {
    fn default() -> Self {
        Self { location: None, ask: Ask::Input, otherwise: "", missing: "encryption key not loaded" }
    }
}

/// What is asked for.
struct Question<'a> {
    dataset: Option<&'a str>,
    keyformat: u64,
    new: bool,
}

impl Question<'_> {
    fn text(&self, again: bool) -> String {
        let what = if self.keyformat == KEYFORMAT_HEX { "hex key" } else { "passphrase" };
        let whose = self.dataset.map_or(String::new(), |d| format!(" for '{d}'"));
        format!(
            "{} {}{what}{whose}: ",
            if again { "Re-enter" } else { "Enter" },
            if self.new { "new " } else { "" }
        )
    }

    /// The rules a key must keep; those of a passphrase only bind new ones (`validate_key`).
    fn check(&self, material: &[u8]) -> Outcome {
        let (min, max, what) = match self.keyformat {
            KEYFORMAT_RAW => (RAW_LEN, RAW_LEN, "Raw key"),
            KEYFORMAT_HEX => (RAW_LEN * 2, RAW_LEN * 2, "Hex key"),
            _ if self.new => (PASSPHRASE_LEN_MIN, PASSPHRASE_LEN_MAX, "Passphrase"),
            _ => return Ok(()),
        };
        let (low, high) = if min == max { ("expected", "expected") } else { ("min", "max") };
        if material.len() < min {
            return Err(Fail::new(format!("{what} too short ({low} {min}).")));
        }
        if material.len() > max {
            return Err(Fail::new(format!("{what} too long ({high} {max}).")));
        }
        if self.keyformat == KEYFORMAT_HEX && !material.iter().all(u8::is_ascii_hexdigit) {
            return Err(Fail::new("Invalid hex character detected."));
        }
        if self.keyformat == KEYFORMAT_PASSPHRASE && material.contains(&0) {
            // OpenZFS takes the part before it for the whole, and says nothing.
            return Err(Fail::new("a passphrase cannot hold a zero byte"));
        }
        Ok(())
    }
}

fn read(question: &Question<'_>, location: &Location, ask: Ask) -> Outcome<Material> {
    let material = match location {
        Location::File(path) => {
            let file = File::open(path).map_err(|e| {
                let why = crate::human::os_error(&e);
                Fail::new(format!("Failed to open key material file: {why}\n({})", path.display()))
            })?;
            take(&mut &file, question.keyformat)?
        }
        Location::Url(url) => fetched(url, question.keyformat)?,
        Location::Prompt => match terminal(ask) {
            None => take(&mut caller::stdin()?, question.keyformat)
                .map_err(|f| Fail::new(format!("encryption failure\n({})", f.message)))?,
            Some(tty) => return typed(question, &mut tty?),
        },
    };
    question.check(&material)?;
    Ok(material)
}

/// The key that a server gives. curl has the address from its standard input, for it may hold what opens the door.
fn fetched(url: &str, keyformat: u64) -> Outcome<Material> {
    let fail = |why: &dyn std::fmt::Display| Fail::new(format!("Failed to connect to {url}: {why}"));
    if url.chars().any(char::is_control) {
        return Err(fail(&"the address has control characters"));
    }
    // The service's PATH is that of whoever started it, which may be short.
    let there = CURL.iter().find(|path| std::path::Path::new(path).exists());
    let mut curl = Command::new(there.unwrap_or(&"curl"));
    curl.args(["-q", "--silent", "--show-error", "--fail", "--location", "--globoff"]);
    curl.args(["--proto", "=http,https", "--proto-redir", "=http,https", "--max-time", FETCH_SECONDS]);
    for (name, option) in CURL_ENV {
        if let Some(value) = caller::var(name) {
            curl.arg(option).arg(value);
        }
    }
    curl.args(["--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = curl.spawn().map_err(|e| match e.kind() {
        ErrorKind::NotFound => fail(&"keys are fetched by the program curl, which is not installed"),
        _ => fail(&e),
    })?;
    let config = format!("url = \"{}\"\n", url.replace('\\', "\\\\").replace('"', "\\\""));
    // The pipe ends with this line, and so does what curl reads. Its own end tells where that failed.
    let _ = child.stdin.take().map(|mut to| to.write_all(config.as_bytes()));
    let key = child.stdout.take().map(|mut from| take(&mut from, keyformat));
    let ended = child.wait_with_output().map_err(|e| fail(&e))?;
    // A key that is longer than any closes the pipe on curl: its complaint is no news then.
    match key {
        Some(Err(too_long)) if ended.status.success() => Err(too_long),
        Some(Ok(key)) if ended.status.success() => Ok(key),
        _ => {
            let said = String::from_utf8_lossy(&ended.stderr);
            Err(fail(&said.trim().trim_start_matches("curl: ")))
        }
    }
}

/// The terminal to ask on; `None` where standard input is to be read.
fn terminal(ask: Ask) -> Option<Outcome<Tty>> {
    if ask == Ask::Input && !caller::stdin_is_terminal() {
        return None;
    }
    let open = || {
        let (screen, line) = caller::tty()?;
        Ok(Tty { keyboard: Input::new(screen.try_clone()?, line), screen })
    };
    Some(open().map_err(|_: std::io::Error| Fail::new("there is no terminal to ask for the key on")))
}

/// A raw key, or one line without its end.
fn take(from: &mut dyn Read, keyformat: u64) -> Outcome<Material> {
    let raw = keyformat == KEYFORMAT_RAW;
    // One byte more than a raw key has tells that it is too long; a line that fills the room there is opens nothing.
    let max = if raw { RAW_LEN + 1 } else { MATERIAL_MAX };
    let mut out = Material::new();
    gather(from, &mut out, max, (!raw).then_some(b'\n')).map(|()| out)
}

/// Bytes to the end, or up to `stop`, or until `out` has `max`; byte by byte, so that nothing stays in buffers.
fn gather(from: &mut dyn Read, out: &mut Material, max: usize, stop: Option<u8>) -> Outcome {
    let mut byte = Secret::<[u8; 1]>::zeros();
    while out.len() < max {
        match from.read(&mut byte[..]) {
            Ok(0) if out.is_empty() => return Err(Fail::new("there is no key to read: its source is empty")),
            Ok(0) => break,
            Ok(_) if stop == Some(byte[0]) => break,
            Ok(_) => {
                let _ = out.push(byte[0]);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Fail::new(format!("encryption failure\n(cannot read the key: {e})"))),
        }
    }
    Ok(())
}

/// The key in a file, where it is not yet known what form it has: all of the file. What takes it cuts a line off where
/// the key is one.
pub fn whole_file(name: &str) -> Outcome<Material> {
    let fail = |e: &dyn std::fmt::Display| Fail::new(format!("cannot read key file '{name}': {e}"));
    let mut file = File::open(name).map_err(|e| fail(&e))?;
    let mut out = Material::new();
    gather(&mut file, &mut out, MATERIAL_MAX, None).map_err(|f| fail(&f.message))?;
    if out.len() >= MATERIAL_MAX {
        return Err(fail(&"it is longer than any key"));
    }
    Ok(out)
}

/// Asks on a terminal; for a new key twice.
fn typed(question: &Question<'_>, tty: &mut Tty) -> Outcome<Material> {
    if question.keyformat == KEYFORMAT_RAW {
        return Err(Fail::new("Cannot enter raw keys on the terminal"));
    }
    let first = line(tty, &question.text(false))?;
    question.check(&first)?;
    if question.new && *line(tty, &question.text(true))? != *first {
        return Err(Fail::new("Provided keys do not match."));
    }
    Ok(first)
}

/// A terminal: the same one twice, to write on and to read from.
struct Tty {
    screen: File,
    keyboard: Input,
}

/// A terminal that shows nothing of what is typed, until dropped.
struct Silent<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(tty: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut silent = before.clone();
        // Byte by byte, and interrupts as bytes: nothing may end us before the terminal is as it was.
        silent.local_modes -= LocalModes::ECHO
            | LocalModes::ECHOE
            | LocalModes::ECHOK
            | LocalModes::ECHONL
            | LocalModes::ICANON
            | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(tty, OptionalActions::Flush, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.tty, OptionalActions::Flush, &self.before);
        let _ = self.tty.write_all(b"\n");
    }
}

fn line(tty: &mut Tty, prompt: &str) -> Outcome<Material> {
    let lost = |e: std::io::Error| Fail::new(format!("cannot ask on the terminal: {e}"));
    // Silent before the question: nothing typed after seeing it may show, or be dropped.
    let mut screen = &tty.screen;
    let _silent = Silent::new(screen).map_err(|e| lost(e.into()))?;
    screen.write_all(prompt.as_bytes()).map_err(lost)?;
    let mut out = Material::new();
    let mut byte = Secret::<[u8; 1]>::zeros();
    loop {
        match tty.keyboard.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) => match byte[0] {
                b'\n' | b'\r' => break,
                // ^C, ^D, ^\, ^Z
                0x03 | 0x04 | 0x1c | 0x1a => return Err(Fail::new("interrupted: no key was given")),
                0x15 => out.clear(),
                0x08 | 0x7f => {
                    // A whole character of UTF-8.
                    while out.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
                }
                _ if out.len() >= MATERIAL_MAX => return Err(Fail::new("the line is longer than any key")),
                b => {
                    let _ = out.push(b);
                }
            },
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(lost(e)),
        }
    }
    Ok(out)
}

/// The encryption root of `dataset` (a snapshot's or bookmark's name will do); `None` if not encrypted.
pub fn root_of(pool: &Pool, dataset: &str) -> Outcome<Option<String>> {
    let path = dataset.split(['@', '#']).next().unwrap_or(dataset);
    let open = |e: &DslError| crate::zfs::cannot("open", path, e);
    let head = pool.dsl.lookup_head(pool.io(), path).map_err(|e| open(&e))?;
    match pool.dsl.encryption_root(pool.io(), head.dir).map_err(|e| open(&e))? {
        None => Ok(None),
        Some(dir) => Ok(Some(pool.dsl.dir_name(pool.io(), dir).map_err(|e| open(&e))?)),
    }
}

/// Loads the key that `dataset` needs, for as long as this command has the pool; nothing where it needs none or has it.
pub fn unlock(pool: &mut Open, dataset: &str, how: How<'_>) -> Outcome {
    let Some(root) = root_of(pool, dataset)? else { return Ok(()) };
    let dir = pool.dsl.lookup_head(pool.io(), &root)?.dir;
    let fresh = !pool.dsl.key_loaded(pool.io(), dir)?;
    if fresh {
        let material = right_key(pool, &root, how)?;
        match load(pool, &root, &material) {
            // Somebody else was faster.
            Ok(()) | Err(DslError::Key(KeyError::Loaded)) => {}
            Err(e) => return Err(wrong(&root, &e)),
        }
    }
    let loan = pool.owned().and_then(|owned| owned.lend(dir, fresh));
    pool.loans.extend(loan);
    // What was made since the key was loaded has its data keys still in the pool only.
    let path = dataset.split(['@', '#']).next().unwrap_or(dataset);
    let dir = pool.dsl.lookup_head(pool.io(), path)?.dir;
    if !pool.without_keys(dir)?.is_empty() {
        pool.in_memory(|pool| pool.lend_keys(dir))??;
    }
    Ok(())
}

/// Loads a key.
pub fn load(pool: &mut Open, root: &str, material: &Material) -> Result<(), DslError> {
    let loaded = pool.in_memory(|pool| {
        let (io, dsl) = pool.parts();
        for (objset, keys) in dsl.load_key(io, root, material)? {
            io.add_key(objset, keys);
        }
        Ok(())
    });
    loaded.unwrap_or_else(|f| Err(DslError::Busy(f.message)))
}

/// Reads the key of the encryption root `root` and sees that it is right.
pub fn right_key(pool: &mut Open, root: &str, how: How<'_>) -> Outcome<Material> {
    let (io, dsl) = (pool.io(), &pool.dsl);
    let head = dsl.lookup_head(io, root)?;
    let own = dsl.prop_text(io, head, "keylocation")?;
    let text = how.location.or(own.as_deref()).unwrap_or("prompt");
    let location = Location::parse(text)?;
    let question =
        Question { dataset: Some(root), keyformat: dsl.key_form(io, head.dir)?.keyformat, new: false };
    let asked = location == Location::Prompt && !matches!(terminal(how.ask), None | Some(Err(_)));
    let mut attempt = 1;
    loop {
        let read = pool.away(|| read(&question, &location, how.ask))?;
        let material = read.map_err(|f| Fail {
            message: match how.missing {
                "" => format!("{}\n(keylocation={text} of '{root}')", f.message),
                missing => format!(
                    "{missing}\nthe key of '{root}' (keylocation={text}) could not be read: {}{}",
                    f.message, how.otherwise
                ),
            },
            ..f
        })?;
        match pool.dsl.check_key(pool.io(), root, &material) {
            Ok(_) => return Ok(material),
            Err(DslError::Key(KeyError::Wrong | KeyError::Form(_))) if asked && attempt < ATTEMPTS_MAX => {
                eprintln!("Incorrect key provided for '{root}'.");
                attempt += 1;
            }
            Err(e) => return Err(wrong(root, &e)),
        }
    }
}

fn wrong(root: &str, e: &DslError) -> Fail {
    match e {
        DslError::Key(KeyError::Wrong) => Fail::new(format!("Incorrect key provided for '{root}'.")),
        DslError::Key(KeyError::Form(why)) => {
            Fail::new(format!("Incorrect key provided for '{root}': {why}"))
        }
        e => Fail::new(e.to_string()),
    }
}

/// The encryption properties on a command line.
#[derive(Clone, Default, Debug)]
pub struct CryptoProps {
    /// `encryption`: `Some(None)` is off.
    pub suite: Option<Option<Suite>>,
    /// `keyformat`.
    pub keyformat: Option<u64>,
    /// `keylocation`.
    pub keylocation: Option<String>,
    /// `pbkdf2iters`.
    pub iters: Option<u64>,
}

impl CryptoProps {
    /// Whether there are any.
    pub fn asks(&self) -> bool {
        self.suite.is_some() || self.keyformat.is_some() || self.keylocation.is_some() || self.iters.is_some()
    }
    /// Takes a property if it is one of these.
    pub fn take(&mut self, name: &str, value: &str) -> Outcome<bool> {
        let bad = || {
            let words = icecore_dsl::prop::table::values(name);
            Fail::new(format!("'{name}' must be one of '{words}'"))
        };
        match name {
            "encryption" => {
                self.suite = Some(match value {
                    "off" => None,
                    "on" => Some(Suite::Aes256Gcm),
                    v => Some(Suite::from_name(v).ok_or_else(bad)?),
                });
            }
            "keyformat" => {
                self.keyformat = Some(match value {
                    "raw" => KEYFORMAT_RAW,
                    "hex" => KEYFORMAT_HEX,
                    "passphrase" => KEYFORMAT_PASSPHRASE,
                    "none" => KEYFORMAT_NONE,
                    _ => return Err(bad()),
                });
            }
            "keylocation" => {
                let place = Location::parse(value).map_err(|f| match value {
                    // Which is a place, but none of a key.
                    "none" => f,
                    _ => Fail { message: f.message.replacen("Invalid", "invalid", 1), ..f },
                })?;
                if matches!(place, Location::File(p) if !p.is_absolute()) {
                    return Err(Fail::new("invalid keylocation"));
                }
                self.keylocation = Some(value.into());
            }
            "pbkdf2iters" => {
                let n: u64 = icecore_dsl::prop::size(value).map_err(|e| Fail::new(e.to_string()))?;
                if n < ITERATIONS_MIN {
                    return Err(Fail::new(format!("minimum pbkdf2 iterations is {ITERATIONS_MIN}")));
                }
                // More would keep whoever wants the key waiting for hours.
                if n > ITERATIONS_MAX {
                    return Err(Fail::new(format!("'pbkdf2iters' is at most {ITERATIONS_MAX} here")));
                }
                self.iters = Some(n);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The suite of a new pool's root, `None` where it is not to be encrypted (`zfs_crypto_create` without a parent).
    pub fn root_suite(&self, feature: bool) -> Outcome<Option<Suite>> {
        let own = self.keyformat.is_some() || self.keylocation.is_some() || self.iters.is_some();
        match self.suite.flatten() {
            Some(_) if !feature => Err(Fail::new("Encryption feature not enabled.")),
            None if own && !feature => Err(Fail::new("Encryption feature not enabled.")),
            None if own => Err(Fail::new("Encryption must be turned on to set encryption properties.")),
            Some(_) if self.keyformat.is_none_or(|format| format == KEYFORMAT_NONE) => {
                Err(Fail::new("Keyformat required for new encryption root."))
            }
            suite => Ok(suite),
        }
    }

    /// Reads a new key of these properties (`populate_create_encryption_params_nvlists`).
    pub fn new_key(&self, dataset: Option<&str>, suite: Suite) -> Outcome<NewKey> {
        let keyformat = self
            .keyformat
            .filter(|format| *format != KEYFORMAT_NONE)
            .ok_or_else(|| Fail::new("Keyformat required for new encryption root."))?;
        let passphrase = keyformat == KEYFORMAT_PASSPHRASE;
        if self.iters.is_some() && !passphrase {
            return Err(Fail::new("Cannot specify pbkdf2iters with a non-passphrase keyformat."));
        }
        let keylocation = self.keylocation.clone().unwrap_or_else(|| "prompt".into());
        let question = Question { dataset, keyformat, new: true };
        let material = read(&question, &Location::parse(&keylocation)?, Ask::Input)?;
        let form = if passphrase {
            let salt = Env::os().entropy.guid();
            KeyForm { keyformat, salt, iters: self.iters.unwrap_or(ITERATIONS_DEFAULT) }
        } else {
            KeyForm { keyformat, salt: 0, iters: 0 }
        };
        let wrapping = wrapping_key(form, &material).map_err(|e| Fail::new(e.to_string()))?;
        Ok(NewKey { suite, form, wrapping, keylocation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: &[u8], keyformat: u64, new: bool) -> Result<Vec<u8>, String> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        let question = Question { dataset: None, keyformat, new };
        let material = take(&mut &reader, keyformat).map_err(|f| f.message)?;
        question.check(&material).map_err(|f| f.message)?;
        Ok(material.to_vec())
    }

    #[test]
    fn keys_have_the_lengths_and_digits_openzfs_asks_for() {
        let check = |bytes: &[u8], format, new, expected: Result<&[u8], &str>| {
            let got = taken(bytes, format, new);
            match expected {
                Ok(key) => assert_eq!(got.as_deref(), Ok(key)),
                Err(why) => assert!(got.as_ref().is_err_and(|e| e.contains(why)), "{got:?}, not {why}"),
            }
        };
        let (hex, raw) = ([b'a'; 64], [b'\n'; 32]);
        check(&hex, KEYFORMAT_HEX, true, Ok(&hex));
        check(&[&hex[..], b"\n"].concat(), KEYFORMAT_HEX, true, Ok(&hex));
        check(&[b'a'; 63], KEYFORMAT_HEX, false, Err("too short (expected 64)"));
        check(&[b'a'; 65], KEYFORMAT_HEX, false, Err("too long (expected 64)"));
        check(&[b'g'; 64], KEYFORMAT_HEX, false, Err("Invalid hex character"));
        check(&raw, KEYFORMAT_RAW, true, Ok(&raw));
        check(&raw[..31], KEYFORMAT_RAW, true, Err("too short (expected 32)"));
        check(&[0; 33], KEYFORMAT_RAW, true, Err("too long (expected 32)"));
        check(b"12345678\nmore", KEYFORMAT_PASSPHRASE, true, Ok(b"12345678"));
        check(b"1234567\n", KEYFORMAT_PASSPHRASE, true, Err("too short (min 8)"));
        check(b"1234567\n", KEYFORMAT_PASSPHRASE, false, Ok(b"1234567"));
        check(&[b'x'; 513], KEYFORMAT_PASSPHRASE, true, Err("too long (max 512)"));
        check(&[b'x'; 512], KEYFORMAT_PASSPHRASE, true, Ok(&[b'x'; 512]));
        check(b"nothing\0hidden", KEYFORMAT_PASSPHRASE, true, Err("zero byte"));
        // Longer than any passphrase: as much as there is room for opens nothing.
        check(&[b'x'; 5000], KEYFORMAT_PASSPHRASE, false, Ok(&[b'x'; MATERIAL_MAX]));
        check(&[b'x'; 5000], KEYFORMAT_PASSPHRASE, true, Err("too long (max 512)"));
        check(b"", KEYFORMAT_PASSPHRASE, false, Err("empty"));
    }

    #[test]
    fn a_key_is_nowhere_but_at_a_prompt_or_in_a_file() {
        assert_eq!(Location::parse("prompt").unwrap(), Location::Prompt);
        assert_eq!(Location::parse("file:///a/b").unwrap(), Location::File("/a/b".into()));
        for bad in ["ftp://host/key", "my secret words", "file://", "none", ""] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
        assert!(CryptoProps::default().take("keylocation", "file://relative").is_err());
    }
}
