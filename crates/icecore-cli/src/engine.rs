//! The pool that a receive goes into.
//!
//! Invariants:
//! 1. In the service the pool is held only while a record is applied or others do not want it: between records it is let
//!    go, everything being committed, when others wait and it was held long enough or the next record has not come.
//! 2. While it is held nothing is read but what is in memory already: records come through [`Ahead`].

use crate::fail::Outcome;
use crate::mounts::Aside;
use crate::pools::{Owned, Stream};
use crate::session::{self, For, Has, Open, no_pool, pool_of};
use crate::state::{self, Imported};
use icecore_env::Env;
use icecore_format::stream::{MAGIC, Order, RECORD_SIZE, Record};
use icecore_pool::Pool;
use icecore_service::stdio::Input;
use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a receive has the pool while others want it.
const TURN: Duration = Duration::from_millis(100);
/// How long it waits for its next record while others want the pool.
const PATIENCE_MS: u64 = 20;
/// Bytes read from a stream at once.
const STEP: usize = 1 << 20;

/// An open pool that can be taken back to its last commit: what receive needs.
pub struct Engine {
    /// What is held of it.
    open: Option<Open>,
    home: Home,
    input: Option<Rc<RefCell<Ahead>>>,
    env: Env,
    since: Instant,
    aside: Aside,
}

enum Home {
    /// Opened for this command alone.
    Own(Box<Imported>),
    /// The service's.
    Service(Arc<Owned>, #[expect(dead_code, reason = "keeps the pool from being exported")] Stream),
}

impl Engine {
    /// Opens the imported pool that `name` lies in for writing.
    pub fn open(name: &str) -> Outcome<Self> {
        let open = session::open(name, For::Write)?;
        let home = match open.owned() {
            Some(owned) => Home::Service(Arc::clone(owned), owned.begin()),
            None => Home::Own(Box::new(state::find(pool_of(name))?.ok_or_else(|| no_pool(name))?)),
        };
        let env = open.io().env().clone();
        Ok(Self { open: Some(open), home, input: None, env, since: Instant::now(), aside: Aside::default() })
    }
    /// From now on the pool is let go when `input` has nothing to receive.
    pub fn listen(&mut self, input: &Rc<RefCell<Ahead>>) {
        self.input = Some(Rc::clone(input));
    }
    /// Lets the pool go for good; what stepped aside for the receive is to come back.
    pub fn end(self) -> Aside {
        self.aside
    }
    /// Nothing comes any more.
    pub fn deaf(&mut self) {
        self.input = None;
    }
    /// The pool. In the service one that has failed meanwhile comes too: it takes no changes any more.
    ///
    /// # Panics
    /// Never: of a pool of its own it is only without while that is opened again, and a failure to do so ends the command.
    pub fn pool(&mut self) -> &mut Pool {
        if self.open.is_none()
            && let Home::Service(owned, _) = &self.home
        {
            let guard = owned.shared().write();
            let has = Has::writing(guard, Arc::clone(owned));
            self.open = Some(Open { has, loans: Vec::new() });
            self.since = Instant::now();
        }
        self.open.as_mut().expect("open but for the moment of reopening")
    }
    /// Lets others have the pool. What is not committed is gone.
    pub fn let_go(&mut self) {
        if matches!(self.home, Home::Service(..)) {
            self.open = None;
        }
    }
}

impl icecore_stream::receive::Engine for Engine {
    fn parts(&mut self) -> (&mut dyn icecore_dmu::BlockWriter, &mut icecore_dsl::Dsl) {
        let (io, dsl) = self.pool().parts();
        (io, dsl)
    }
    fn commit(&mut self) -> Result<(), String> {
        self.pool().commit().map(|_| ()).map_err(|e| e.to_string())
    }
    fn abandon(&mut self) -> Result<(), String> {
        match &self.home {
            Home::Own(record) => {
                // The lock goes with the devices: they must be closed before they can be opened again.
                self.open = None;
                self.open = Some(session::open_record(record, For::Write).map_err(|f| f.message)?);
                Ok(())
            }
            Home::Service(owned, _) => {
                let owned = Arc::clone(owned);
                owned.reopen(self.pool()).map_err(|e| e.to_string())
            }
        }
    }
    fn now_ns(&mut self) -> u64 {
        // Not a reason to wait for the pool.
        self.env.clock.monotonic_ns()
    }
    fn add_keys(&mut self, objset: u64, keys: Arc<icecore_transform::crypt::MasterKeys>) {
        self.pool().io_mut().add_key(objset, keys);
    }
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        // Not a reason to wait for the pool.
        match &mut self.open {
            Some(open) => icecore_dmu::BlockWriter::buffer(open.io_mut(), len),
            None => Vec::new(),
        }
    }
    fn set_aside(&mut self, datasets: &[String]) -> Result<(), String> {
        let away = Aside::of_these(self.pool(), datasets);
        if away.is_empty() {
            return Ok(());
        }
        // What is read and written there needs the pool.
        self.let_go();
        self.aside.also(away).map_err(|f| f.message)
    }
    fn should_rest(&mut self) -> bool {
        let (Some(_), Home::Service(owned, _), Some(input)) = (&self.open, &self.home, &self.input) else {
            return false;
        };
        loop {
            if input.borrow_mut().has_record(PATIENCE_MS) {
                return owned.wanted() && self.since.elapsed() >= TURN;
            }
            if owned.wanted() {
                return true;
            }
        }
    }
    fn rest(&mut self) {
        self.let_go();
    }
}

/// A stream, read ahead as far as its next record.
#[derive(Debug)]
pub struct Ahead {
    from: Input,
    /// What was read and not yet taken is from `at` to `end`.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// There is no more, or it cannot be read: reading on will tell which.
    ended: bool,
    order: Order,
}

impl Ahead {
    /// A stream that begins with what was read of it already.
    pub fn new(from: Input, read: Vec<u8>) -> Rc<RefCell<Self>> {
        let end = read.len();
        Rc::new(RefCell::new(Self { from, buffer: read, at: 0, end, ended: false, order: Order::Little }))
    }
    /// Whether the next record is here with all its payload, or the stream ends before; waits for it as long as something
    /// comes at least every so many milliseconds. To be asked between records.
    fn has_record(&mut self, millis: u64) -> bool {
        if !self.has(RECORD_SIZE, millis) {
            return false;
        }
        let head = self.buffer.get(self.at..self.at + RECORD_SIZE);
        let Some(head) = head.and_then(|h| <&[u8; RECORD_SIZE]>::try_from(h).ok()) else { return true };
        if let Some(order) = order_of(head) {
            self.order = order;
        }
        // What is no record is refused by whoever reads it.
        let payload = Record::parse(head, self.order).map_or(0, |r| r.payload_len());
        self.has(RECORD_SIZE + usize::try_from(payload).unwrap_or(0), millis)
    }
    fn has(&mut self, len: usize, millis: u64) -> bool {
        while self.end - self.at < len && !self.ended {
            match self.from.ready(millis) {
                Ok(true) => self.fill(),
                Ok(false) => return false,
                Err(_) => self.ended = true,
            }
        }
        true
    }
    fn fill(&mut self) {
        if self.at > 0 {
            self.buffer.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
        }
        if self.buffer.len() < self.end + STEP {
            self.buffer.resize(self.end + STEP, 0);
        }
        let got = loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.unwrap_or(0),
            }
        };
        self.end += got;
        self.ended = got == 0;
    }
}

/// The byte order that a BEGIN record tells.
fn order_of(head: &[u8; RECORD_SIZE]) -> Option<Order> {
    let begin = head.get(..4).is_some_and(|t| t == [0; 4]);
    let magic = u64::from_le_bytes(head.get(8..16)?.try_into().ok()?);
    match magic {
        MAGIC if begin => Some(Order::Little),
        m if begin && m == MAGIC.swap_bytes() => Some(Order::Big),
        _ => None,
    }
}

/// The stream as receive reads it.
pub struct Reading(pub Rc<RefCell<Ahead>>);

impl Read for Reading {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut ahead = self.0.borrow_mut();
        if ahead.at == ahead.end && out.len() < STEP / 16 {
            ahead.fill();
        }
        let waiting = &ahead.buffer[ahead.at..ahead.end];
        if waiting.is_empty() {
            return ahead.from.read(out);
        }
        let n = waiting.len().min(out.len());
        out[..n].copy_from_slice(&waiting[..n]);
        ahead.at += n;
        Ok(n)
    }
}
