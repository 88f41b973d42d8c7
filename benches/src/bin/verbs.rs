//! The whole cache, with a device and the kernel's word, side by side with libfabric's `fi_mr_reg`
//! on the same device: `cargo xtask bench cache` runs this where there is an RDMA device and the
//! module, mostly in a guest. On an emulated processor only the ratios mean something.

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use examples::rdma::Device;
use regcache::monitor::Ummunotify;
use regcache::registrar::Verbs;
use regcache::{Access, Cache, page_size};
use regcache_benches::arguments::Arguments;
use regcache_benches::clock::Clock;
use regcache_benches::comparison::{Comparison, OURS, heading, verdict};
use regcache_benches::course::{Arena, Course, Pattern, count};
use regcache_benches::libfabric::{Libfabric, NAME as LIBFABRIC};
use regcache_benches::rounds::{Rounds, Samples};
use regcache_benches::row::median;
use regcache_benches::subject::{Subject, walk, walk_once};
use regcache_benches::team::team;
use regcache_benches::worker::Turn;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// More than any scene registers.
const UNLIMITED: usize = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verbs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::of_this_program()?;
    println!("{}", heading());
    let mut report = Report { arguments, rows: Vec::new() };
    for (regions, pattern, threads) in [
        (1, Pattern::Same, 1),
        (1024, Pattern::Same, 1),
        (1024, Pattern::Random, 1),
        (1024, Pattern::Same, 2),
        (1024, Pattern::Own, 2),
    ] {
        hits(&mut report, regions, pattern, threads)?;
    }
    misses(&mut report)?;
    events_elsewhere(&mut report)?;
    drain(&mut report)?;
    println!("\n{}", verdict(&report.rows));
    if let Some(out) = &report.arguments.out {
        let json = serde_json::json!({ "rows": report.rows });
        fs::write(out, serde_json::to_string_pretty(&json)?)?;
    }
    Ok(())
}

/// What was found so far.
struct Report {
    arguments: Arguments,
    rows: Vec<Comparison>,
}

impl Report {
    /// Lets `ours` and libfabric take turns. The function, called in a process of its own, makes a
    /// turn of a subject.
    fn against_libfabric(&mut self, measure: &str, scene: impl Scene) -> Result<()> {
        if !measure.contains(&self.arguments.only) {
            return Ok(());
        }
        let mut rounds = Rounds::default();
        rounds.add(OURS, || scene.turn(Ours::open(scene.limit())))?;
        // SAFETY: this runs in a process that was forked just now by one that has one thread and
        // does not use libfabric.
        rounds.add(LIBFABRIC, || scene.turn(unsafe { libfabric(scene.limit()) }))?;
        let samples = rounds.run(self.arguments.turns);
        self.add(measure, &samples, OURS, LIBFABRIC, None);
        Ok(())
    }

    fn add(&mut self, measure: &str, samples: &Samples, name: &str, peer: &str, bar: Option<f64>) {
        if let Some(outcome) = samples.outcome(name, peer) {
            let row = Comparison::new(measure, peer, outcome).at_most(bar);
            println!("{}", row.line());
            self.rows.push(row);
        }
    }
}

/// # Safety
///
/// As for [`Libfabric::open`].
unsafe fn libfabric(limit: usize) -> Libfabric {
    // SAFETY: the caller promises it.
    let libfabric = unsafe { Libfabric::open(limit) }.expect("libfabric");
    let arena = Arena::map(1).expect("mmap");
    let (first, again) = (libfabric.key(arena.region(0)), libfabric.key(arena.region(0)));
    assert_eq!(first, again, "libfabric caches");
    libfabric
}

/// Our cache over verbs, told by the kernel.
#[derive(Clone, Copy)]
struct Ours {
    cache: &'static Cache<Verbs, Ummunotify>,
    page_size: usize,
}

impl Ours {
    fn open(limit: usize) -> Ours {
        // Both live as long as the process.
        let device = Box::leak(Box::new(Device::open(None).expect("an RDMA device")));
        // SAFETY: the protection domain outlives the cache.
        let registrar = unsafe { Verbs::from_pd(device.pd()) }.expect("libibverbs");
        let monitor = Ummunotify::open().expect("/dev/ummunotify");
        let cache = Cache::builder(registrar, monitor).max_regions(limit).max_bytes(u64::MAX);
        Ours { cache: Box::leak(Box::new(cache.build().expect("a cache"))), page_size: page_size() }
    }
}

impl Subject for Ours {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        let guard = self.cache.get_or_register(addr, self.page_size, Access::LOCAL_WRITE);
        black_box(guard.expect("registering succeeds").lkey());
    }
}

/// Something to do with a cache, whosever it is.
trait Scene {
    /// How many regions the cache may hold.
    fn limit(&self) -> usize {
        UNLIMITED
    }

    fn turn<S: Subject + Copy + Send + Sync + 'static>(&self, subject: S) -> Turn;
}

/// Lookups along a course.
#[derive(Clone, Copy)]
struct Lookups {
    limit: usize,
    regions: usize,
    pattern: Pattern,
    threads: usize,
    time: Duration,
}

impl Scene for Lookups {
    fn limit(&self) -> usize {
        self.limit
    }

    fn turn<S: Subject + Copy + Send + Sync + 'static>(&self, mut subject: S) -> Turn {
        let Lookups { regions, pattern, threads, time, .. } = *self;
        let arena = Arena::map(regions).expect("mmap");
        walk_once(&mut subject, &Course::new(arena, Pattern::Sequential, 0, 1));
        team(threads, Clock::of_team(threads), time, move |thread| {
            let mut subject = subject;
            let course = Course::new(arena, pattern, thread, threads);
            Box::new(move |stop| walk(&mut subject, &course, stop))
        })
    }
}

fn hits(report: &mut Report, regions: usize, pattern: Pattern, threads: usize) -> Result<()> {
    let each = if threads > 1 { format!(", {threads} threads, each") } else { String::new() };
    let measure = format!("verbs: hit, {}, {}{each}", pattern.name(), count(regions));
    let time = report.arguments.time;
    let scene = Lookups { limit: UNLIMITED, regions, pattern, threads, time };
    report.against_libfabric(&measure, scene)
}

/// Pins one page and lets go of another.
fn misses(report: &mut Report) -> Result<()> {
    let (limit, time) = (64, report.arguments.time);
    let regions = 16 * limit;
    let scene = Lookups { limit, regions, pattern: Pattern::Sequential, threads: 1, time };
    report.against_libfabric(&format!("verbs: miss and evict, limit {}", count(limit)), scene)
}

/// One munmap goes over all regions, and the next lookup acts on it: each region's share.
fn drain(report: &mut Report) -> Result<()> {
    struct Drain;
    impl Scene for Drain {
        fn turn<S: Subject + Copy + Send + Sync + 'static>(&self, subject: S) -> Turn {
            const REGIONS: usize = 1024;
            let here = Arena::map(1).expect("mmap");
            team(1, Clock::Thread, Duration::ZERO, move |_| {
                let mut subject = subject;
                Box::new(move |stop| {
                    let arena = Arena::map(REGIONS).expect("mmap");
                    subject.look_up(here.region(0));
                    for index in 0..REGIONS {
                        subject.look_up(arena.region(index));
                    }
                    unmap(arena.region(0), 2 * (REGIONS + 1));
                    let start = stop.clock().nanos();
                    subject.look_up(here.region(0));
                    (stop.clock().nanos() - start) as f64 / REGIONS as f64
                })
            })
        }
    }
    report.against_libfabric("verbs: drain, 1k regions unmapped, each", Drain)
}

/// A page elsewhere is unmapped, then a region is hit: what the hit costs. If that page was watched,
/// there is an event; if not, there is none, and everything else is the same.
#[derive(Clone, Copy)]
struct HitAfterMunmap {
    watched: bool,
}

impl Scene for HitAfterMunmap {
    fn turn<S: Subject + Copy + Send + Sync + 'static>(&self, subject: S) -> Turn {
        const TIMES: usize = 200;
        let watched = self.watched;
        let here = Arena::map(1).expect("mmap");
        team(1, Clock::Thread, Duration::ZERO, move |_| {
            let mut subject = subject;
            Box::new(move |_| {
                let mut nanos = Vec::new();
                for _ in 0..TIMES {
                    let elsewhere = Arena::map(1).expect("mmap");
                    subject.look_up(elsewhere.region(0));
                    subject.look_up(here.region(0));
                    unmap(if watched { elsewhere.region(0) } else { elsewhere.gap(0) }, 1);
                    let start = Instant::now();
                    subject.look_up(here.region(0));
                    nanos.push(start.elapsed().as_nanos() as f64);
                    // The rest of it, in either case with an event that is acted on at once.
                    unmap(elsewhere.region(0), 4);
                    subject.look_up(here.region(0));
                }
                (median(nanos) - clock_nanos()).max(1.0)
            })
        })
    }
}

/// What it costs to read the clock twice.
fn clock_nanos() -> f64 {
    median((0..1000).map(|_| Instant::now().elapsed().as_nanos() as f64).collect())
}

fn events_elsewhere(report: &mut Report) -> Result<()> {
    let measure = "verbs: hit after an event elsewhere";
    if measure.contains(&report.arguments.only) {
        let mut rounds = Rounds::default();
        for (name, watched) in [(EVENT, true), (NO_EVENT, false)] {
            rounds.add(name, || HitAfterMunmap { watched }.turn(Ours::open(UNLIMITED)))?;
        }
        let samples = rounds.run(report.arguments.turns);
        report.add(measure, &samples, EVENT, NO_EVENT, Some(1.15));
    }
    report.against_libfabric(measure, HitAfterMunmap { watched: true })
}

const EVENT: &str = "event";
const NO_EVENT: &str = "regcache, no event";

/// Unmaps pages of an arena that the caller looks up no more.
fn unmap(addr: usize, pages: usize) {
    // By the C library's function, so that libfabric's hooks see it.
    // SAFETY: the pages belong to an arena of the caller's, and hold nothing.
    assert_eq!(unsafe { libc::munmap(addr as *mut _, pages * page_size()) }, 0);
}
