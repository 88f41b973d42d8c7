//! Runs a program in this process.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;
use regcache::monitor::{Manual, Ummunotify};
use regcache::{Access, AddressRange, Cache, Error, page_size};

use super::arena::{Arena, Kind, State};
use super::change::{Tools, change};
use super::child::Child;
use super::helper::Helper;
use super::operation::{How, Operation, named};
use super::oracle::{self, Counted, Jitter, Pinner, Probe, Told, TruthCache, TruthGuard, ring};
use super::program::{CHILDREN, CacheKind, HOLDS, Pins, Program};
use super::totals::{Counts, Totals, count};
use super::watchdog::Progress;
use crate::pinned::pinned_kib;

named! {
    /// Who tells the caches of changes.
    Teller {
        /// The kernel module.
        Kernel = "kernel",
        /// The program, which knows what it changes.
        Program = "program",
        /// Nobody: such a cache is stale soon, and the machine must say so.
        Nobody = "nobody",
    }
}

/// A guard that is kept.
struct Held<'c> {
    guard: TruthGuard<'c>,
    cache: usize,
    range: AddressRange,
}

/// What all lanes share.
struct Stage<'c> {
    caches: &'c [Option<TruthCache>],
    arenas: &'c [Option<Arena>],
    teller: Teller,
    helper: &'c Helper,
    holds: Vec<Mutex<Option<Held<'c>>>>,
    children: Vec<Mutex<Option<Child>>>,
    counts: Counts,
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// What one lane has for itself.
struct Lane {
    tools: Tools,
    probe: Probe,
}

/// A program before its threads start: its memory, and the process that changes it from outside.
pub struct Prepared<'p> {
    program: &'p Program,
    teller: Teller,
    arenas: Vec<Option<Arena>>,
    helper: Helper,
}

impl Prepared<'_> {
    /// Makes the memory. This process must have one thread.
    pub fn new(program: &Program, teller: Teller) -> Prepared<'_> {
        let arenas = program.arenas.iter().enumerate().map(|(number, kind)| {
            program.uses_arena(number).then(|| Arena::new(*kind, number)).flatten()
        });
        let arenas = arenas.collect();
        Prepared { program, teller, arenas, helper: Helper::fork() }
    }

    /// Runs it. The error says what was wrong.
    pub fn run(self, progress: &Arc<Progress>) -> Result<Totals, String> {
        let Prepared { program, teller, arenas, helper } = self;
        progress.step("opening devices");
        let pinners: Vec<_> = program
            .caches
            .iter()
            .enumerate()
            .map(|(n, kind)| program.uses_cache(n).then(|| pinner(*kind)).transpose())
            .collect::<Result<_, _>>()?;
        let pinned = pinned_kib();
        let files = open_files() - pinners.iter().flatten().filter(|p| is_ring(p)).count();
        let caches = program.caches.iter().zip(pinners).map(|(kind, pinner)| {
            pinner.map(|pinner| cache(*kind, pinner, teller, program.jitter)).transpose()
        });
        let caches: Vec<_> = caches.collect::<Result<_, _>>()?;

        let mut totals = perform(program, &caches, &arenas, teller, &helper, progress)?;
        progress.step("flushing caches");
        for (number, cache) in caches.iter().enumerate() {
            let Some(cache) = cache else { continue };
            cache.flush().map_err(|error| format!("flush of cache {number}: {error}"))?;
            let (stats, live) = (cache.stats(), cache.registrar().live());
            if stats.regions != 0 || stats.bytes != 0 || live != 0 {
                return Err(format!(
                    "LEAK: cache {number} holds {} regions of {} bytes, and {live} are live",
                    stats.regions, stats.bytes
                ));
            }
            if stats.deregister_failures != 0 {
                return Err(format!("{} deregistrations failed", stats.deregister_failures));
            }
            totals.add_stats(&stats);
        }
        progress.step("dropping caches");
        drop(caches);
        progress.step("waiting for pages to be unpinned");
        expect("KiB pinned", pinned, pinned_kib)?;
        expect("open files", files as u64, || open_files() as u64)?;
        progress.step("ending the other process");
        drop(helper);
        Ok(totals)
    }
}

/// All lanes, from their first operation to the last guard.
fn perform(
    program: &Program,
    caches: &[Option<TruthCache>],
    arenas: &[Option<Arena>],
    teller: Teller,
    helper: &Helper,
    progress: &Progress,
) -> Result<Totals, String> {
    let stage = Stage {
        caches,
        arenas,
        teller,
        helper,
        holds: (0..HOLDS).map(|_| Mutex::new(None)).collect(),
        children: (0..CHILDREN).map(|_| Mutex::new(None)).collect(),
        counts: Counts::default(),
        failure: Mutex::new(None),
        stop: AtomicBool::new(false),
    };
    progress.step("running lanes");
    thread::scope(|scope| {
        for (number, operations) in program.lanes.iter().enumerate() {
            let (stage, position) = (&stage, &progress.lanes[number]);
            scope.spawn(move || {
                let mut lane = Lane { tools: Tools::new(), probe: Probe::new() };
                let rounds = (0..program.rounds).flat_map(|_| operations.iter().enumerate());
                for (done, (index, operation)) in rounds.enumerate() {
                    if stage.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    position.store(done, Ordering::Relaxed);
                    let result =
                        catch_unwind(AssertUnwindSafe(|| stage.operate(&mut lane, operation)));
                    if let Err(error) = result.unwrap_or_else(|panic| Err(message(&*panic))) {
                        stage.fail(format!(
                            "lane {number}, operation {index}, {operation}: {error}"
                        ));
                        return;
                    }
                    count(&stage.counts.operations);
                }
                position.store(program.rounds * operations.len(), Ordering::Relaxed);
            });
        }
    });
    progress.step("dropping guards");
    for hold in &stage.holds {
        drop(hold.lock().take());
    }
    progress.step("ending children");
    for child in &stage.children {
        if let Some(child) = child.lock().take() {
            child.end()?;
        }
    }
    match stage.failure.into_inner() {
        Some(failure) => Err(failure),
        None => Ok(stage.counts.totals()),
    }
}

impl<'c> Stage<'c> {
    fn fail(&self, error: String) {
        self.failure.lock().get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn operate(&self, lane: &mut Lane, operation: &Operation) -> Result<(), String> {
        match *operation {
            Operation::Get { cache, arena, at, len, write, hold } => {
                if let (Some(_), Some(arena)) = (&self.caches[cache], &self.arenas[arena]) {
                    let range = arena.request(at, len);
                    let guard = self.get(lane, cache, arena, range, write)?;
                    if let (Some(guard), Some(hold)) = (guard, hold) {
                        let held = Held { guard, cache, range };
                        let before = self.holds[hold].lock().replace(held);
                        drop(before);
                    }
                }
            }
            Operation::Use { hold } => {
                if let Some(Held { guard, cache, range }) = &*self.holds[hold].lock() {
                    count(&self.counts.used);
                    let cache = self.caches[*cache].as_ref().expect("it lent the guard");
                    lane.probe.use_held(cache, guard, *range)?;
                }
            }
            Operation::Drop { hold } => {
                let held = self.holds[hold].lock().take();
                drop(held);
            }
            Operation::Change { arena, page, pages, how } => {
                if let Some(arena) = &self.arenas[arena] {
                    count(&self.counts.changes);
                    self.change(lane, arena, (page, pages), how);
                }
            }
            Operation::Fork { child } => self.fork(child)?,
            Operation::Drain { cache } => self.call(cache, |cache| cache.drain())?,
            Operation::Flush { cache } => self.call(cache, |cache| cache.flush())?,
            Operation::Stats { cache } => self.call(cache, |cache| {
                let _ = format!("{} {cache:?}", cache.stats());
                Ok(())
            })?,
        }
        Ok(())
    }

    fn call(
        &self,
        cache: usize,
        call: impl FnOnce(&TruthCache) -> Result<(), Error>,
    ) -> Result<(), String> {
        let cache = self.caches[cache].as_ref();
        cache.map_or(Ok(()), call).map_err(|error| error.to_string())
    }

    /// Looks `range` up, and judges what comes.
    fn get(
        &self,
        lane: &mut Lane,
        number: usize,
        arena: &Arena,
        range: AddressRange,
        write: bool,
    ) -> Result<Option<TruthGuard<'c>>, String> {
        const TRIES: usize = 5;
        let cache = self.caches[number].as_ref().expect("the caller looked");
        let access = if write { Access::LOCAL_WRITE } else { Access::empty() };
        let mut refusal = None;
        count(&self.counts.lookups);
        for _ in 0..TRIES {
            let before = arena.epoch();
            let result = cache.get_or_register(range.start(), range.len(), access);
            let state = arena.lock();
            let decided = before % 2 == 0 && arena.epoch() == before;
            let mapped = is_mapped(arena, &state, range);
            match result {
                Err(error) if matches!(error, Error::Forked) => return Err(error.to_string()),
                Ok(guard) if !decided => {
                    count(&self.counts.undecided);
                    return Ok(Some(guard));
                }
                Err(_) if !decided => {
                    count(&self.counts.undecided);
                    return Ok(None);
                }
                Ok(_) if !mapped => {
                    return Err("STALE: a registration of memory that is not mapped".to_owned());
                }
                Ok(guard) => {
                    count(&self.counts.judged);
                    // SAFETY: the arena's lock is held, so nobody else writes there or changes the
                    // mapping, and all of it is mapped.
                    unsafe { lane.probe.judge(cache, &guard, range, write) }?;
                    return Ok(Some(guard));
                }
                Err(_) if !mapped => {
                    count(&self.counts.unmapped);
                    return Ok(None);
                }
                Err(error) if may_refuse(&error, arena.kind) => {
                    count(&self.counts.refused);
                    return Ok(None);
                }
                // Another thread may have been registering the same memory since before the last
                // change, and its error is shared.
                Err(error) => {
                    count(&self.counts.repeated);
                    refusal = Some(error);
                }
            }
        }
        Err(format!("mapped memory is refused: {}", refusal.expect("why it was repeated")))
    }

    fn change(&self, lane: &mut Lane, arena: &Arena, pages: (usize, usize), how: How) {
        let mut change_ = arena.lock_for_change();
        self.announce(arena);
        change(arena, &mut change_.state, pages, how, &mut lane.tools, self.helper);
        // What was registered meanwhile may be of the old pages, too.
        self.announce(arena);
    }

    fn announce(&self, arena: &Arena) {
        for cache in self.caches.iter().flatten() {
            if let (oracle::Teller::Program(manual), Teller::Program) =
                (&cache.monitor().by, self.teller)
            {
                manual.invalidate(arena.all());
            }
        }
    }

    fn fork(&self, child: usize) -> Result<(), String> {
        let mut child = self.children[child].lock();
        match child.take() {
            Some(child) => child.end(),
            None => {
                let addr = self.arenas.iter().flatten().map(|arena| arena.all().start()).next();
                *child = Child::fork(self.caches.iter().flatten(), addr.unwrap_or(page_size()));
                if child.is_some() {
                    count(&self.counts.forks);
                }
                Ok(())
            }
        }
    }
}

fn is_mapped(arena: &Arena, state: &State, range: AddressRange) -> bool {
    let (first, last) = (arena.page_of(range.start()), arena.page_of(range.end() - 1));
    state.mapped[first..=last].iter().all(|mapped| *mapped)
}

/// No more memory can be pinned; or an io_uring of an old kernel, which takes no System V segment,
/// and no range of huge pages that were mapped by several calls (`io_pin_pages` of Linux 6.1).
fn may_refuse(error: &Error, kind: Kind) -> bool {
    match error {
        Error::CannotPin { .. } => true,
        Error::Register { errno: Errno::EOPNOTSUPP, .. } => kind == Kind::SystemV,
        Error::Register { errno: Errno::EINVAL, .. } => kind.is_hugetlb(),
        _ => false,
    }
}

fn is_ring(pinner: &Pinner) -> bool {
    matches!(pinner, Pinner::Ring(_))
}

fn pinner(kind: CacheKind) -> Result<Pinner, String> {
    match kind.pins {
        // Room for what is held and what is stale, besides.
        Pins::Ring => ring(kind.regions + 4 * HOLDS).map_err(|error| error.to_string()),
        #[cfg(feature = "guest")]
        Pins::Verbs => Ok(Pinner::Verbs(crate::rdma::verbs())),
        #[cfg(not(feature = "guest"))]
        Pins::Verbs => Err("this program was built without verbs".to_owned()),
    }
}

fn cache(
    kind: CacheKind,
    pinner: Pinner,
    teller: Teller,
    jitter: u64,
) -> Result<TruthCache, String> {
    let by = match teller {
        Teller::Kernel => {
            oracle::Teller::Kernel(Ummunotify::open().map_err(|error| error.to_string())?)
        }
        Teller::Program | Teller::Nobody => oracle::Teller::Program(Manual::new()),
    };
    let jitter = Jitter::new(jitter);
    let registrar = Counted::new(pinner, jitter.clone());
    let builder = Cache::builder(registrar, Told { by, jitter }).max_bytes(1 << 30);
    builder.max_regions(kind.regions).build().map_err(|error| error.to_string())
}

/// Waits until a number is what it was: an io_uring lets go some time after it was told to.
fn expect(what: &str, expected: u64, now: impl Fn() -> u64) -> Result<(), String> {
    let start = Instant::now();
    while now() != expected {
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("LEAK: {} {what}, and {expected} in the beginning", now()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What a panic said.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("of an unknown kind"))
}
