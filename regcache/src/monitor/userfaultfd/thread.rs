//! The thread that reads the events.
//!
//! Whoever unmaps watched memory is blocked until this thread has read the event, and may hold any
//! lock meanwhile: the allocator's, the cache's, the loader's. So from its first event to its last
//! this thread takes no lock, allocates nothing, frees nothing, and cannot panic. What it shares
//! with others are atomics. It waits for the kernel only.
//!
//! It *marks before it reads*: the generation moves while the unmapper is still blocked, so when
//! the unmapper goes on, every lookup that follows finds news.
//!
//! The userfaultfd is open in this thread's own table of files and nowhere else. So no child
//! process ever holds it open, forked or cloned in whatever way; no code of the process closes it by
//! its number; and when this thread ends, for whatever reason, the kernel closes it, which ends all
//! watches and lets go whoever is blocked. Nothing can then wait for a reader that is not there.
//!
//! The price is that the ioctls are made on request, by a second thread that shares the table: the
//! *server*. It is woken by a futex, since a descriptor of the process's own table may be closed by
//! anybody and its number be another file's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::errno::Errno;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::gate::{Gate, LONG};
use super::ring::{Change, Ring};
use super::sys::{self, Event, Message, OpenError, Uffd};
use crate::descriptor::Descriptor;
use crate::lock::Lock;
use crate::range::AddressRange;

/// What the thread is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Tell of changes of a range.
    Register = 1,
    /// Tell no more.
    Unregister = 2,
}

/// Where the thread is in its life, and if it did not come far, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Running,
    Ended,
    /// It has no table of files of its own.
    NoFiles(Errno),
    /// It has no userfaultfd.
    NoUserfaultfd(Errno),
    /// The userfaultfd has no events.
    NoEvents(Errno),
    NoWriteProtect,
    /// A second thread, or its eventfd, cannot be had.
    NoServer(Errno),
}

impl State {
    fn to_word(self) -> u64 {
        let (kind, errno) = match self {
            State::Starting => (0, 0),
            State::Running => (1, 0),
            State::Ended => (2, 0),
            State::NoFiles(errno) => (3, errno as i32),
            State::NoUserfaultfd(errno) => (4, errno as i32),
            State::NoEvents(errno) => (5, errno as i32),
            State::NoWriteProtect => (6, 0),
            State::NoServer(errno) => (7, errno as i32),
        };
        kind << 32 | u64::from(errno as u32)
    }

    fn from_word(word: u64) -> State {
        let errno = Errno::from_raw(word as i32);
        match word >> 32 {
            0 => State::Starting,
            1 => State::Running,
            3 => State::NoFiles(errno),
            4 => State::NoUserfaultfd(errno),
            5 => State::NoEvents(errno),
            6 => State::NoWriteProtect,
            7 => State::NoServer(errno),
            _ => State::Ended,
        }
    }
}

/// What the thread shares with the monitor.
#[derive(Debug)]
pub(super) struct Shared {
    /// Moves before an event is read.
    generation: AtomicU64,
    /// The generation up to which all events are in the ring.
    recorded: AtomicU64,
    pub ring: Ring,
    /// Where threads of the process wait for the two here.
    gate: Gate,
    /// Where the server waits for them.
    requests: Gate,
    state: AtomicU64,
    stop: AtomicBool,
    /// Held by the thread that has something asked.
    asking: Lock<()>,
    /// Requests ever made, and ever answered: at most one is open.
    asked: AtomicU32,
    answered: AtomicU32,
    request: AtomicU32,
    start: AtomicU64,
    len: AtomicU64,
    /// An errno, or 0.
    answer: AtomicI32,
    /// Written when there is something in the ring, in the threads' own table of files, and read by
    /// nobody: the process waits for the next write.
    news: Descriptor,
    /// It has been written since the ring was last about to be emptied.
    has_news: AtomicBool,
    epoch: Instant,
}

impl Shared {
    pub(super) fn new() -> Result<Shared, Errno> {
        Ok(Shared {
            generation: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            ring: Ring::new(),
            gate: Gate::default(),
            requests: Gate::default(),
            state: AtomicU64::new(State::Starting.to_word()),
            stop: AtomicBool::new(false),
            asking: Lock::default(),
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            request: AtomicU32::new(0),
            start: AtomicU64::new(0),
            len: AtomicU64::new(0),
            answer: AtomicI32::new(0),
            news: Descriptor::new(new_eventfd()?)?,
            has_news: AtomicBool::new(false),
            epoch: Instant::now(),
        })
    }

    #[inline]
    pub(super) fn generation(&self) -> u64 {
        // Acquire pairs with the Release in `mark`.
        self.generation.load(Ordering::Acquire)
    }

    /// Nanoseconds since this was made.
    pub(super) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Whether the server has nothing more to do.
    fn is_ending(&self) -> bool {
        // Acquire pairs with the Release in `stop`.
        self.stop.load(Ordering::Acquire) || self.state() == State::Ended
    }

    pub(super) fn state(&self) -> State {
        // Acquire pairs with the Release in `set_state`: what came before it has been done.
        State::from_word(self.state.load(Ordering::Acquire))
    }

    fn set_state(&self, state: State) {
        // Release pairs with the Acquire in `state`.
        self.state.store(state.to_word(), Ordering::Release);
        self.gate.open();
        self.requests.open();
    }

    /// Whether more monitors can be told by it: code of the process may have closed the file of news.
    pub(super) fn is_usable(&self) -> bool {
        self.state() == State::Running && self.news.is_ours()
    }

    /// Waits until the thread runs or will not.
    pub(super) fn wait_for_start(&self) -> State {
        self.gate.wait_until(|| self.state() != State::Starting);
        self.state()
    }

    /// Waits until every event up to `generation` is in the ring; false if the thread has ended.
    pub(super) fn wait_for_records(&self, generation: u64) -> bool {
        // Acquire pairs with the Release in `record`.
        let recorded = || self.recorded.load(Ordering::Acquire) >= generation;
        self.gate.wait_until(|| recorded() || self.state() != State::Running);
        self.state() == State::Running
    }

    /// Has the server do `request`, and returns what came of it.
    pub(super) fn ask(&self, request: Request, range: AddressRange) -> Result<(), Errno> {
        let _one = self.asking.lock();
        self.request.store(request as u32, Ordering::Relaxed);
        self.start.store(range.start() as u64, Ordering::Relaxed);
        self.len.store(range.len() as u64, Ordering::Relaxed);
        let number = self.asked.load(Ordering::Relaxed).wrapping_add(1);
        // Release pairs with the Acquire in `answer_request`: the request is written.
        self.asked.store(number, Ordering::Release);
        self.requests.open();
        // Acquire pairs with the Release in `answer_request`: so is the answer.
        let answered = || self.answered.load(Ordering::Acquire) == number;
        self.gate.wait_until(|| answered() || self.state() != State::Running);
        if !answered() {
            return Err(Errno::ESRCH);
        }
        match self.answer.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    /// Tells the threads to end.
    pub(super) fn stop(&self) {
        // Release pairs with the Acquire in `serve`.
        self.stop.store(true, Ordering::Release);
        self.requests.open();
    }

    /// What is written to when there is something in the ring.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// What is in the ring is about to be taken out.
    pub(super) fn clear_news(&self) {
        // AcqRel, and the same in `tell_news`: what is put into the ring after this is told again, and
        // what was put in before is found there.
        self.has_news.swap(false, Ordering::AcqRel);
    }

    /// Something is in the ring.
    fn tell_news(&self, news: BorrowedFd<'_>) {
        if !self.has_news.swap(true, Ordering::AcqRel) {
            ring_bell(news);
        }
    }

    /// An event is there, and whoever made it is blocked: everybody is to know before it goes on.
    fn mark(&self) -> u64 {
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        // Release pairs with the Acquire in `generation`. The unmapper itself, and who hears of it
        // from the unmapper, is ordered after this by the read that lets it go.
        self.generation.store(generation, Ordering::Release);
        generation
    }

    fn record(&self, messages: &[Message], uffd: &Uffd) {
        let at = self.now();
        for message in messages {
            let change = match message.event() {
                Event::Unmapped(range) => Change::Unmapped(range),
                Event::Removing(range) => Change::Removing { range, at },
                Event::Moved { from, to } => Change::Moved { from, to },
                Event::Fault { page } => {
                    uffd.unprotect(page);
                    continue;
                }
                // Whatever it is, it is about memory.
                Event::Unknown => {
                    self.ring.lose(at);
                    continue;
                }
            };
            self.ring.push(change, at);
        }
    }

    fn answer_request(&self, uffd: &Uffd) {
        // Acquire pairs with the Release in `ask`.
        let number = self.asked.load(Ordering::Acquire);
        if number == self.answered.load(Ordering::Relaxed) {
            return;
        }
        let start = self.start.load(Ordering::Relaxed) as usize;
        let len = self.len.load(Ordering::Relaxed) as usize;
        let result = match (AddressRange::new(start, len), self.request.load(Ordering::Relaxed)) {
            (Some(range), REGISTER) => uffd.register(range),
            (Some(range), UNREGISTER) => uffd.unregister(range),
            _ => Err(Errno::EINVAL),
        };
        self.answer.store(result.err().map_or(0, |errno| errno as i32), Ordering::Relaxed);
        // Release pairs with the Acquire in `ask`.
        self.answered.store(number, Ordering::Release);
        self.gate.open();
    }
}

const REGISTER: u32 = Request::Register as u32;
const UNREGISTER: u32 = Request::Unregister as u32;

/// The life of the thread that reads the events.
pub(super) fn run(shared: Arc<Shared>) {
    if let Err(errno) = sys::keep_only(shared.news.as_fd().as_raw_fd()) {
        return shared.set_state(State::NoFiles(errno));
    }
    let uffd = match Uffd::open() {
        Ok(uffd) => Arc::new(uffd),
        Err(error) => {
            return shared.set_state(match error {
                OpenError::Call(errno) => State::NoUserfaultfd(errno),
                OpenError::Api(errno) => State::NoEvents(errno),
                OpenError::NoWriteProtect => State::NoWriteProtect,
            });
        }
    };
    let server = new_eventfd().and_then(|bell| {
        let bell = Arc::new(bell);
        let server = start_server(shared.clone(), uffd.clone(), bell.clone())
            .map_err(|error| error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))?;
        Ok((server, bell))
    });
    let (server, bell) = match server {
        Ok(server) => server,
        Err(errno) => return shared.set_state(State::NoServer(errno)),
    };
    read_events(&shared, uffd, &bell);
    // Nobody is blocked any more, so the server may need any lock now.
    let _ = server.join();
}

/// Ends when it is told to or the userfaultfd fails.
fn read_events(shared: &Shared, uffd: Arc<Uffd>, bell: &OwnedFd) {
    let news = shared.news.as_fd();
    // Dropped before `uffd`: all is marked as changed before whoever is blocked is let go.
    let _end = End(shared);
    shared.set_state(State::Running);

    let mut buffer = [Message::default(); 16];
    loop {
        let mut files = [
            PollFd::from_borrowed_fd(uffd.as_fd(), PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut files, None) {
            if error == rustix::io::Errno::INTR {
                continue;
            }
            return;
        }
        let [events, rung] = files.each_ref().map(|file| file.revents());
        if !events.is_empty() {
            let generation = shared.mark();
            match uffd.read(&mut buffer) {
                Ok(messages) => shared.record(messages, &uffd),
                // The unmapper was killed.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return,
            }
            // Release pairs with the Acquire in `wait_for_records`: the ring is written.
            shared.recorded.store(generation, Ordering::Release);
            shared.gate.open();
            shared.tell_news(news);
        }
        if !rung.is_empty() {
            return;
        }
    }
}

fn start_server(
    shared: Arc<Shared>,
    uffd: Arc<Uffd>,
    bell: Arc<OwnedFd>,
) -> io::Result<JoinHandle<()>> {
    let server = thread::Builder::new().name("regcache-uffd-2".into());
    server.spawn(move || {
        serve(&shared, &uffd);
        // First, so that the file is closed when the other thread lets go of it, and not by this
        // one, which may have to wait for a lock that somebody holds who is blocked.
        drop(uffd);
        ring_bell(bell.as_fd());
    })
}

/// Makes the ioctls. Waits for requests only, and allocates and locks nothing.
fn serve(shared: &Shared, uffd: &Uffd) {
    loop {
        shared.requests.wait(LONG, || {
            // Acquire pairs with the Release in `ask`.
            shared.asked.load(Ordering::Acquire) != shared.answered.load(Ordering::Relaxed)
                || shared.is_ending()
        });
        if shared.is_ending() {
            return;
        }
        shared.answer_request(uffd);
    }
}

/// Marks all as changed when the thread ends: nobody is told of anything any more.
struct End<'s>(&'s Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let Self(shared) = self;
        shared.set_state(State::Ended);
        shared.mark();
        shared.tell_news(shared.news.as_fd());
    }
}

fn new_eventfd() -> Result<OwnedFd, Errno> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))
}

fn ring_bell(eventfd: BorrowedFd<'_>) {
    // It fails only where it has been rung 2^64 - 1 times and not heard.
    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}
