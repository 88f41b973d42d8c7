//! What the kernel module costs: registering, changes of mappings that it watches and that it does
//! not, fork, memory. Runs where the module is loaded, as root; `cargo xtask bench kernel` does that
//! in a guest.

mod cgroup;
mod large;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use cgroup::Cgroup;
use regcache::registrar::{IoUring, Registrar};
use regcache::{Access, AddressRange, page_size};
use regcache_benches::row::{Row, median, table};
use regcache_benches::worker::{Turn, Worker, compare};
use ummunotify::{Device, Event, EventBuffer, Features, Kinds, Options, Watch};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TURNS: usize = 45;
const MILLION: usize = 1 << 20;

/// Where regions are watched: every other page from here. The pages between are free.
const SPAN: usize = 1 << 40;
/// Far from there.
const ELSEWHERE: usize = 1 << 36;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let out = std::env::args().nth(1);
    Device::open()?;
    let mut rows = Vec::new();
    let mut done = |row: Row| {
        println!("{}", table(std::slice::from_ref(&row)).lines().nth(1).unwrap_or_default());
        rows.push(row);
    };
    memory_of_a_region(&mut done)?;
    munmap_of_unwatched_memory(&mut done)?;
    munmap_by_two_threads(&mut done)?;
    munmap_under_many_caches(&mut done)?;
    registering(&mut done)?;
    munmap_of_watched_memory(&mut done)?;
    truncate_by_another_process(&mut done)?;
    reading_events(&mut done)?;
    fork_with_pins(&mut done)?;
    large::verifying(&mut done)?;
    large::noting(&mut done)?;
    large::memory_of_a_note(&mut done)?;
    println!("\n{}", table(&rows));
    if let Some(out) = out {
        let json = serde_json::json!({ "rows": rows });
        fs::write(&out, serde_json::to_string_pretty(&json)?)?;
    }
    Ok(())
}

fn open() -> Device {
    Options::new().features(Features::FILTER | Features::VERIFY).open().expect("/dev/ummunotify")
}

/// A device that watches `regions` pages from [`SPAN`], every other one.
fn watching(regions: usize) -> Device {
    let device = open();
    for n in 0..regions {
        device.register(SPAN + 2 * n * page_size(), page_size(), n as u64).expect("register");
    }
    device
}

fn map(addr: usize, pages: usize) {
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: NOREPLACE replaces nothing.
    let at = unsafe { libc::mmap(addr as *mut _, pages * page_size(), prot, flags, -1, 0) };
    assert_eq!(at as usize, addr, "{}", std::io::Error::last_os_error());
}

fn unmap(addr: usize, pages: usize) {
    // SAFETY: only called for what `map` mapped, which nobody refers to.
    assert_eq!(unsafe { libc::munmap(addr as *mut _, pages * page_size()) }, 0);
}

/// Nanoseconds of one munmap of a page, on average over the addresses.
fn time_munmaps(addrs: impl Iterator<Item = usize>) -> f64 {
    let (mut nanos, mut count) = (0, 0);
    for addr in addrs {
        map(addr, 1);
        let start = Instant::now();
        unmap(addr, 1);
        nanos += start.elapsed().as_nanos();
        count += 1;
    }
    nanos as f64 / f64::from(count)
}

const MUNMAPS: usize = 400;

/// The three places where memory is unmapped.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    OneGap,
    ManyGaps,
}

impl Place {
    fn addrs(self) -> Box<dyn Iterator<Item = usize>> {
        let gap = |n: usize| SPAN + (2 * (n % MILLION) + 1) * page_size();
        match self {
            Place::Outside => Box::new((0..MUNMAPS).map(|_| ELSEWHERE)),
            Place::OneGap => Box::new((0..MUNMAPS).map(move |_| gap(MILLION / 2))),
            // A stride that is no divisor of the number of gaps visits all of them.
            Place::ManyGaps => Box::new((0..MUNMAPS).map(move |n| gap(n * 786_433))),
        }
    }
}

fn munmap_of_unwatched_memory(done: &mut impl FnMut(Row)) -> Result<()> {
    let worker = |regions: Option<usize>, place: Place| {
        Worker::new(move || -> Turn {
            let device = regions.map(watching);
            Box::new(move || {
                black_box(&device);
                time_munmaps(place.addrs())
            })
        })
    };
    for (name, place, bar) in [
        ("outside the span", Place::Outside, Some(1.10)),
        ("in one gap", Place::OneGap, Some(1.10)),
        ("in many gaps", Place::ManyGaps, None),
    ] {
        let mut open = worker(Some(0), place)?;
        for (text, regions) in [("1k", 1 << 10), ("64k", 1 << 16), ("1M", MILLION)] {
            let mut subject = worker(Some(regions), place)?;
            let measure = format!("munmap of unwatched memory, {name}, {text} watched, ns");
            let row = compare(&measure, TURNS, &mut open, &mut subject);
            done(match bar {
                Some(bar) if regions == MILLION => row.at_most(bar),
                _ => row,
            });
        }
        let mut closed = worker(None, place)?;
        let measure = format!("munmap, {name}, device open (baseline: closed), ns");
        done(compare(&measure, TURNS, &mut closed, &mut open));
    }
    Ok(())
}

/// Two threads of one process unmap at the same time, far from what is watched and from each other.
fn munmap_by_two_threads(done: &mut impl FnMut(Row)) -> Result<()> {
    let worker = |regions: usize| {
        Worker::new(move || -> Turn {
            let device = watching(regions);
            Box::new(move || {
                black_box(&device);
                thread::scope(|scope| {
                    let threads = [0, 1 << 32].map(|offset| {
                        let addrs = (0..MUNMAPS).map(move |_| ELSEWHERE + offset);
                        scope.spawn(move || time_munmaps(addrs))
                    });
                    let nanos: f64 =
                        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
                    nanos / 2.0
                })
            })
        })
    };
    let mut baseline = worker(0)?;
    let mut subject = worker(MILLION)?;
    let measure = "munmap of unwatched memory by two threads, 1M watched, ns";
    done(compare(measure, TURNS, &mut baseline, &mut subject));
    Ok(())
}

/// As many caches in the process, each with a file of its own: of memory that none watches, and of
/// a page that each does.
fn munmap_under_many_caches(done: &mut impl FnMut(Row)) -> Result<()> {
    let worker = |caches: usize, watched: bool| {
        Worker::new(move || -> Turn {
            let devices: Vec<Device> = (0..caches).map(|_| open()).collect();
            let mut buffer = EventBuffer::new();
            Box::new(move || {
                let mut nanos = 0.0;
                for _ in 0..TURNS {
                    map(ELSEWHERE, 1);
                    for device in devices.iter().filter(|_| watched) {
                        device.register(ELSEWHERE, page_size(), 0).expect("register");
                    }
                    let start = Instant::now();
                    unmap(ELSEWHERE, 1);
                    nanos += start.elapsed().as_nanos() as f64;
                    for device in devices.iter().filter(|_| watched) {
                        while device.read(&mut buffer).expect("read").len() > 0 {}
                        device.unregister(0).expect("unregister");
                    }
                }
                nanos / TURNS as f64
            })
        })
    };
    for (name, watched) in [("of unwatched memory", false), ("of a page that each watches", true)] {
        let mut baseline = worker(1, watched)?;
        for caches in [16, 64, 256] {
            let mut subject = worker(caches, watched)?;
            let measure = format!("munmap {name}, {caches} caches (baseline: 1), ns");
            done(compare(&measure, TURNS, &mut baseline, &mut subject));
        }
    }
    Ok(())
}

/// Registers and unregisters 1,000 more, spread over what is watched.
fn registering(done: &mut impl FnMut(Row)) -> Result<()> {
    const MORE: usize = 1000;
    let worker = |regions: usize, unregister: bool| {
        Worker::new(move || -> Turn {
            let device = watching(regions);
            Box::new(move || {
                let cookie = |n: usize| (MILLION + n) as u64;
                let start = Instant::now();
                for n in 0..MORE {
                    let addr = SPAN + 2 * (n * 786_433 % regions) * page_size();
                    device.register(addr, page_size(), cookie(n)).expect("register");
                }
                let registered = start.elapsed();
                let start = Instant::now();
                for n in 0..MORE {
                    device.unregister(cookie(n)).expect("unregister");
                }
                let elapsed = if unregister { start.elapsed() } else { registered };
                elapsed.as_nanos() as f64 / MORE as f64
            })
        })
    };
    for (name, unregister) in [("register", false), ("unregister", true)] {
        let mut baseline = worker(1 << 10, unregister)?;
        for (text, regions) in [("64k", 1 << 16), ("1M", MILLION)] {
            let mut subject = worker(regions, unregister)?;
            let measure = format!("{name}, {text} watched (baseline: 1k), ns");
            let row = compare(&measure, TURNS, &mut baseline, &mut subject);
            let promised = regions == MILLION && !unregister;
            done(if promised { row.at_most(3.0) } else { row });
        }
    }
    Ok(())
}

fn munmap_of_watched_memory(done: &mut impl FnMut(Row)) -> Result<()> {
    const PAGES: usize = 1 << 12;
    let worker = |regions: usize| {
        Worker::new(move || -> Turn {
            let device = open();
            let mut buffer = EventBuffer::new();
            Box::new(move || {
                map(ELSEWHERE, PAGES);
                for n in 0..regions {
                    let addr = ELSEWHERE + n * page_size();
                    device.register(addr, page_size(), n as u64).expect("register");
                }
                let start = Instant::now();
                unmap(ELSEWHERE, PAGES);
                let elapsed = start.elapsed();
                while device.read(&mut buffer).expect("read").len() > 0 {}
                for n in 0..regions {
                    device.unregister(n as u64).expect("unregister");
                }
                elapsed.as_nanos() as f64 / 1000.0
            })
        })
    };
    let mut baseline = worker(0)?;
    for regions in [1, 64, PAGES] {
        let mut subject = worker(regions)?;
        let measure = format!("munmap of {PAGES} pages that covers {regions} watched, us");
        done(compare(&measure, TURNS, &mut baseline, &mut subject));
    }
    Ok(())
}

/// Another process truncates a file of one page, which a million regions watch, twice before the
/// events are read. The first time each of them is marked. The second time nothing can be learnt
/// of them any more, and they must cost nothing.
fn truncate_by_another_process(done: &mut impl FnMut(Row)) -> Result<()> {
    // Each takes a million reads.
    const TURNS: usize = 5;
    let worker = |regions: usize| {
        Worker::new(move || -> Turn {
            let file = memfd(page_size());
            let mut other = Worker::new({
                let file = file.try_clone().expect("dup");
                move || -> Turn {
                    Box::new(move || {
                        let start = Instant::now();
                        file.set_len(0).expect("ftruncate");
                        let elapsed = start.elapsed();
                        file.set_len(page_size() as u64).expect("ftruncate");
                        elapsed.as_nanos() as f64 / 1000.0
                    })
                }
            })
            .expect("fork");
            let page = map_file(&file);
            let device = open();
            for n in 0..regions {
                device.register(page, page_size(), n as u64).expect("register");
            }
            let mut buffer = EventBuffer::new();
            let mut first = true;
            Box::new(move || {
                // SAFETY: the page is mapped, and the file as long as that between the turns.
                unsafe { (page as *mut u8).write_volatile(1) };
                let micros = other.turn();
                if !first {
                    while device.read(&mut buffer).expect("read").len() > 0 {}
                }
                first = !first;
                micros
            })
        })
    };
    let mut unwatched = worker(0)?;
    let mut watched = worker(MILLION)?;
    // Rows of the first and of the second truncation: values, baselines, ratios.
    let mut columns: [[Vec<f64>; 3]; 2] = Default::default();
    for turn in 0..=TURNS {
        for column in &mut columns {
            let (base, value) = (unwatched.turn(), watched.turn());
            if turn > 0 {
                column[0].push(value);
                column[1].push(base);
                column[2].push(value / base);
            }
        }
    }
    for (name, bar, column) in [("first", None, 0), ("second", Some(2.0), 1)] {
        let [value, baseline, ratio] = columns[column].clone().map(median);
        let measure = format!("{name} truncation of a page watched 1M times, us");
        let row = Row::new(measure, value, baseline, ratio);
        done(match bar {
            Some(bar) => row.at_most(bar),
            None => row,
        });
    }
    Ok(())
}

fn memfd(bytes: usize) -> File {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes as u64).expect("ftruncate");
    file
}

fn map_file(file: &File) -> usize {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping replaces nothing.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), page_size(), prot, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at as usize
}

fn reading_events(done: &mut impl FnMut(Row)) -> Result<()> {
    const REGIONS: usize = 1 << 14;
    let device = open();
    let mut buffer = EventBuffer::new();
    map(ELSEWHERE, REGIONS);
    for n in 0..REGIONS {
        device.register(ELSEWHERE + n * page_size(), page_size(), n as u64)?;
    }
    unmap(ELSEWHERE, REGIONS);
    let start = Instant::now();
    let mut events = 0;
    loop {
        let read = device.read(&mut buffer)?;
        if read.len() == 0 {
            break;
        }
        events += read.filter(|event| matches!(event, Event::Invalid(_))).count();
    }
    let nanos = start.elapsed().as_nanos() as f64;
    assert_eq!(events, REGIONS, "every event is read once");
    done(Row::alone("reading an event, ns", nanos / REGIONS as f64));
    done(Row::alone("events read in a second", REGIONS as f64 * 1e9 / nanos));
    Ok(())
}

/// fork with 10,000 pinned pages, watched with a filter and noted, against the same pins unwatched.
fn fork_with_pins(done: &mut impl FnMut(Row)) -> Result<()> {
    const PINS: usize = 10_000;
    #[derive(Clone, Copy)]
    enum Wanted {
        Micros,
        Events,
        /// Ranges with an event of which VERIFY does not say that nothing has changed.
        Refused,
    }
    let worker = |watched: bool, pages: Pages, wanted: Wanted| {
        Worker::new(move || -> Turn {
            let addr = ELSEWHERE;
            map_for_pins(addr, PINS, pages);
            let ring = IoUring::new(PINS as u32).expect("io_uring");
            let device = open();
            for n in 0..PINS {
                let start = addr + n * page_size();
                if watched {
                    let watch = Watch::new().ignore(Kinds::FILTERABLE);
                    device.register_with(start, page_size(), n as u64, watch).expect("register");
                }
                let range = AddressRange::new(start, page_size()).expect("a page");
                // SAFETY: an io_uring has no peer.
                unsafe { ring.register(range, Access::LOCAL_WRITE) }.expect("pin");
                if watched {
                    device.note(n as u64).expect("note");
                }
            }
            let mut buffer = EventBuffer::new();
            while device.read(&mut buffer).expect("read").len() > 0 {}
            Box::new(move || {
                let before = device.generation();
                let start = Instant::now();
                // SAFETY: the child only leaves.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    // SAFETY: _exit(2) runs no code of this process any more.
                    unsafe { libc::_exit(0) }
                }
                let elapsed = start.elapsed().as_nanos() as f64 / 1000.0;
                // SAFETY: no status is asked for.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                black_box(&ring);
                let mut events = 0;
                let mut refused = 0;
                loop {
                    let read = device.read(&mut buffer).expect("read");
                    if read.len() == 0 {
                        break;
                    }
                    for event in read {
                        let Event::Invalid(invalid) = event else { continue };
                        events += 1;
                        refused += usize::from(!device.verify(invalid.cookie).expect("verify"));
                    }
                }
                assert_eq!(device.generation() > before, events > 0, "events move the counter");
                match wanted {
                    Wanted::Micros => elapsed,
                    Wanted::Events => events as f64,
                    Wanted::Refused => refused as f64,
                }
            })
        })
    };
    for (name, pages) in [("4 KiB pages", Pages::Small), ("huge pages", Pages::Transparent)] {
        let mut baseline = worker(false, pages, Wanted::Micros)?;
        let mut subject = worker(true, pages, Wanted::Micros)?;
        let measure = format!("fork, {PINS} pins watched (baseline: unwatched), {name}, us");
        done(compare(&measure, TURNS, &mut baseline, &mut subject).at_most(1.10));
        let events = worker(true, pages, Wanted::Events)?.turn();
        done(Row::alone(format!("fork, {PINS} pins watched, {name}, events"), events).at_most(0.0));
    }

    // The kernel clears these, and VERIFY says that they are what they were.
    let before = fs::read_to_string(NR_HUGE_PAGES)?;
    fs::write(NR_HUGE_PAGES, (2 * PINS * page_size()).div_ceil(HUGE_PAGE).to_string())?;
    let name = format!("fork, {PINS} pins watched, private hugetlb");
    let events = worker(true, Pages::Hugetlb, Wanted::Events)?.turn();
    done(Row::alone(format!("{name}, events"), events));
    let refused = worker(true, Pages::Hugetlb, Wanted::Refused)?.turn();
    done(Row::alone(format!("{name}, events that VERIFY does not answer"), refused).at_most(0.0));
    fs::write(NR_HUGE_PAGES, before)?;
    Ok(())
}

const HUGE_PAGE: usize = 2 << 20;
const NR_HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

#[derive(Clone, Copy, PartialEq)]
enum Pages {
    Small,
    Transparent,
    Hugetlb,
}

fn map_for_pins(addr: usize, count: usize, pages: Pages) {
    let bytes = (count * page_size()).next_multiple_of(HUGE_PAGE);
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    if pages == Pages::Hugetlb {
        flags |= libc::MAP_HUGETLB;
    }
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: NOREPLACE replaces nothing; the advice and the writes are for that mapping only.
    unsafe {
        assert_eq!(libc::mmap(addr as *mut _, bytes, prot, flags, -1, 0) as usize, addr);
        let advice = match pages {
            Pages::Small => Some(libc::MADV_NOHUGEPAGE),
            Pages::Transparent => Some(libc::MADV_HUGEPAGE),
            Pages::Hugetlb => None,
        };
        if let Some(advice) = advice {
            assert_eq!(libc::madvise(addr as *mut _, bytes, advice), 0);
        }
        (addr as *mut u8).write_bytes(1, bytes);
    }
}

/// What a region costs the kernel, by the memory cgroup's own account.
fn memory_of_a_region(done: &mut impl FnMut(Row)) -> Result<()> {
    let Some(cgroup) = Cgroup::create()? else { return Ok(()) };
    let mut worker = Worker::new({
        let cgroup = cgroup.clone();
        move || -> Turn {
            cgroup.join();
            let mut device = None;
            Box::new(move || {
                device = Some(match device.take() {
                    None => watching(0),
                    Some(device) => {
                        drop(device);
                        watching(MILLION)
                    }
                });
                0.0
            })
        }
    })?;
    worker.turn();
    let before = cgroup.kernel_bytes()?;
    worker.turn();
    let bytes = (cgroup.kernel_bytes()? - before) / MILLION as f64;
    done(Row::alone("kernel memory of a region, bytes", bytes).at_most(160.0));
    drop(worker);
    cgroup.remove();
    Ok(())
}
