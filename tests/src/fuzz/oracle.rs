//! Says whether a registration is of the pages that the program sees: by bytes that an io_uring
//! moves through it, both ways, and by page frames.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use regcache::monitor::{Cookie, Invalid, Manual, Monitor, MonitorError, Ummunotify};
use regcache::registrar::{IoUring, IoUringRegion, Keys, Registrar};
#[cfg(feature = "guest")]
use regcache::registrar::{Verbs, VerbsRegion};
use regcache::{Access, AddressRange, Cache, Guard, page_size};

use super::generate::Random;
use crate::raw;

/// A cache under test.
pub type TruthCache = Cache<Counted, Told>;
/// What it lends.
pub type TruthGuard<'c> = Guard<'c, Counted, Told>;

/// Makes some calls take longer than they must.
#[derive(Debug, Clone)]
pub struct Jitter {
    one_in: u64,
    calls: Arc<AtomicU64>,
}

impl Jitter {
    /// One call of so many, or none for 0.
    pub fn new(one_in: u64) -> Jitter {
        Jitter { one_in, calls: Arc::default() }
    }

    fn stall(&self) {
        if self.one_in == 0 {
            return;
        }
        let number = Random(self.calls.fetch_add(1, Ordering::Relaxed)).number();
        match number % (3 * self.one_in) {
            0 => thread::sleep(Duration::from_micros(200)),
            1 => thread::sleep(Duration::from_micros(20)),
            2 => thread::yield_now(),
            _ => (),
        }
    }
}

/// Who tells a cache of changes.
pub struct Told {
    /// It does.
    pub by: Teller,
    /// How long it takes.
    pub jitter: Jitter,
}

/// Who tells.
pub enum Teller {
    /// The kernel module.
    Kernel(Ummunotify),
    /// This program, of what it changes itself; or nobody, if it does not.
    Program(Manual),
}

impl Monitor for Told {
    fn generation(&self) -> u64 {
        match &self.by {
            Teller::Kernel(kernel) => kernel.generation(),
            Teller::Program(program) => program.generation(),
        }
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.jitter.stall();
        let result = match &self.by {
            Teller::Kernel(kernel) => kernel.watch(cookie, range),
            Teller::Program(program) => program.watch(cookie, range),
        };
        self.jitter.stall();
        result
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.jitter.stall();
        match &self.by {
            Teller::Kernel(kernel) => kernel.unwatch(cookie),
            Teller::Program(program) => program.unwatch(cookie),
        }
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        self.jitter.stall();
        let result = match &self.by {
            Teller::Kernel(kernel) => kernel.drain(invalid),
            Teller::Program(program) => program.drain(invalid),
        };
        self.jitter.stall();
        result
    }
}

/// Who pins.
pub enum Pinner {
    /// An io_uring.
    Ring(Box<IoUring>),
    /// An RDMA device.
    #[cfg(feature = "guest")]
    Verbs(Verbs),
}

/// A registrar that counts what lives, and notes the frames that it pinned.
pub struct Counted {
    pinner: Pinner,
    jitter: Jitter,
    live: AtomicI64,
    pagemap: Pagemap,
}

/// A registration.
pub struct Region {
    pin: Pin,
    live: AtomicBool,
    range: AddressRange,
    /// 0 where it is not known.
    frames: Vec<u64>,
}

enum Pin {
    Ring(IoUringRegion),
    #[cfg(feature = "guest")]
    Verbs(VerbsRegion),
}

impl Counted {
    /// Counts what `pinner` makes.
    pub fn new(pinner: Pinner, jitter: Jitter) -> Counted {
        Counted { pinner, jitter, live: AtomicI64::new(0), pagemap: Pagemap::open() }
    }

    /// Registrations that were made and not undone.
    pub fn live(&self) -> i64 {
        self.live.load(Ordering::SeqCst)
    }
}

impl Registrar for Counted {
    type Region = Region;

    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<Region, Errno> {
        // SAFETY: the caller's promise is passed on.
        let pin = unsafe {
            match &self.pinner {
                Pinner::Ring(ring) => Pin::Ring(ring.register(range, access)?),
                #[cfg(feature = "guest")]
                Pinner::Verbs(verbs) => Pin::Verbs(verbs.register(range, access)?),
            }
        };
        self.live.fetch_add(1, Ordering::SeqCst);
        // Pinned pages keep their frames, so these are the pin's, unless the mapping changes
        // meanwhile: then the cache must throw the registration away.
        let frames = self.pagemap.frames(range);
        self.jitter.stall();
        Ok(Region { pin, live: AtomicBool::new(true), range, frames })
    }

    fn deregister(&self, region: &Region) -> Result<(), Errno> {
        self.jitter.stall();
        assert!(region.live.swap(false, Ordering::SeqCst), "a region was deregistered twice");
        match (&self.pinner, &region.pin) {
            (Pinner::Ring(ring), Pin::Ring(pin)) => ring.deregister(pin),
            #[cfg(feature = "guest")]
            (Pinner::Verbs(verbs), Pin::Verbs(pin)) => verbs.deregister(pin),
            #[cfg(feature = "guest")]
            _ => unreachable!("a region of another registrar"),
        }
        .inspect(|()| {
            self.live.fetch_sub(1, Ordering::SeqCst);
        })
        .inspect_err(|_| region.live.store(true, Ordering::SeqCst))
    }

    fn keys(&self, region: &Region) -> Keys {
        match (&self.pinner, &region.pin) {
            (Pinner::Ring(ring), Pin::Ring(pin)) => ring.keys(pin),
            #[cfg(feature = "guest")]
            (Pinner::Verbs(verbs), Pin::Verbs(pin)) => verbs.keys(pin),
            #[cfg(feature = "guest")]
            _ => unreachable!("a region of another registrar"),
        }
    }
}

/// What is behind the addresses of this process (proc(5)).
struct Pagemap(Option<File>);

impl Pagemap {
    fn open() -> Pagemap {
        Pagemap(File::open("/proc/self/pagemap").ok())
    }

    /// The frame of each page; 0 where there is none, or where the kernel does not tell.
    fn frames(&self, range: AddressRange) -> Vec<u64> {
        const PRESENT: u64 = 1 << 63;
        const FRAME: u64 = (1 << 55) - 1;

        let (first, end) = (range.start() / page_size(), range.end().div_ceil(page_size()));
        let mut bytes = vec![0; (end - first) * 8];
        if let Some(pagemap) = &self.0 {
            if pagemap.read_exact_at(&mut bytes, first as u64 * 8).is_err() {
                bytes.fill(0);
            }
        }
        let entries = bytes.chunks_exact(8).map(|e| u64::from_ne_bytes(e.try_into().unwrap()));
        entries.map(|entry| if entry & PRESENT == 0 { 0 } else { entry & FRAME }).collect()
    }
}

/// A pipe that the device writes to and reads from: a file would make the kernel hand each transfer
/// to another thread.
pub struct Probe {
    read: OwnedFd,
    write: OwnedFd,
    cpu: Vec<u8>,
    device: Vec<u8>,
    random: Random,
}

impl Probe {
    /// Opens it.
    pub fn new() -> Probe {
        let mut ends = [0_i32; 2];
        raw!(SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK);
        // SAFETY: the kernel has just made these descriptors, and nothing else knows of them.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let (cpu, device) = (Vec::new(), Vec::new());
        Probe { read, write, cpu, device, random: Random(0) }
    }

    /// Says what is wrong with `guard`, which was lent for `range`, if anything is.
    ///
    /// # Safety
    ///
    /// All of `range` is mapped and writable, and the caller has it for itself.
    pub unsafe fn judge(
        &mut self,
        cache: &TruthCache,
        guard: &TruthGuard<'_>,
        range: AddressRange,
        write: bool,
    ) -> Result<(), String> {
        let region = guard.region();
        if !region.live.load(Ordering::SeqCst) {
            return Err("the registration is not alive".to_owned());
        }
        if !guard.range().covers(range) || !region.range.covers(range) {
            return Err(format!("the registration is of {}", guard.range()));
        }
        if write && !guard.access().contains(Access::LOCAL_WRITE) {
            return Err(format!("the registration is for {:?}", guard.access()));
        }
        // All pages are written, so that each has its frame when frames are compared.
        // SAFETY: as the caller promises.
        unsafe { stamp(range) };
        // SAFETY: as the caller promises.
        let bytes = unsafe { self.judge_bytes(cache, region, range, write) };
        let frames = judge_frames(cache, region, range);
        match (bytes, frames) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(bytes), Ok(())) => Err(bytes),
            (Ok(()), Err(frames)) => Err(frames),
            (Err(bytes), Err(frames)) => Err(format!("{bytes}; {frames}")),
        }
    }

    /// # Safety
    ///
    /// As for [`judge`](Probe::judge).
    unsafe fn judge_bytes(
        &mut self,
        cache: &TruthCache,
        region: &Region,
        range: AddressRange,
        write: bool,
    ) -> Result<(), String> {
        #[cfg_attr(not(feature = "guest"), allow(irrefutable_let_patterns))]
        let (Pinner::Ring(ring), Pin::Ring(pin)) = (&cache.registrar().pinner, &region.pin) else {
            return Ok(());
        };
        let pieces = self.pieces(range);
        self.device_reads(ring, pin, &pieces)?;
        // SAFETY: as the caller promises.
        unsafe { self.look(&pieces) };
        if self.cpu != self.device {
            return Err(difference("STALE: the device reads other bytes", &self.cpu, &self.device));
        }
        if !write {
            return Ok(());
        }
        self.device.iter_mut().for_each(|byte| *byte = !*byte);
        raw!(SYS_write, self.write.as_raw_fd(), self.device.as_ptr(), self.device.len());
        for piece in &pieces {
            let (addr, len) = (piece.start(), piece.len());
            // SAFETY: as the caller promises; where the registration is stale, pages are written
            // that nothing uses any more.
            let read = unsafe { ring.read_fixed(pin, addr, len, &self.read, 0) };
            if read != Ok(len) {
                return Err(format!("the device cannot write: {read:?}"));
            }
        }
        // SAFETY: as the caller promises.
        unsafe { self.look(&pieces) };
        if self.cpu != self.device {
            return Err(difference("STALE: the device writes elsewhere", &self.cpu, &self.device));
        }
        Ok(())
    }

    /// What is moved of a range: all of it if that is little; or else the bytes around up to three
    /// borders of pages, the first and the last among them. Frames are compared for all pages.
    fn pieces(&mut self, range: AddressRange) -> Vec<AddressRange> {
        const NEAR: usize = 16;
        let (start, end) = (range.start(), range.end());
        let (first, last) = (start / page_size() + 1, (end - 1) / page_size());
        if range.len() <= 8 * NEAR || first > last {
            let len = range.len().min(8 * NEAR);
            return AddressRange::new(start, len).into_iter().collect();
        }
        let mut borders = vec![first, first + self.random.below(last - first + 1), last];
        borders.dedup();
        let around = |border: usize| {
            let from = start.max(border * page_size() - NEAR);
            AddressRange::new(from, end.min(border * page_size() + NEAR) - from)
        };
        borders.into_iter().filter_map(around).collect()
    }

    /// What the device finds.
    fn device_reads(
        &mut self,
        ring: &IoUring,
        pin: &IoUringRegion,
        pieces: &[AddressRange],
    ) -> Result<(), String> {
        let mut sum = 0;
        for piece in pieces {
            let wrote = ring.write_fixed(pin, piece.start(), piece.len(), &self.write, 0);
            if wrote != Ok(piece.len()) {
                return Err(format!("the device cannot read: {wrote:?}"));
            }
            sum += piece.len();
        }
        self.device.resize(sum, 0);
        let read = raw!(SYS_read, self.read.as_raw_fd(), self.device.as_mut_ptr(), sum);
        assert_eq!(read, sum, "a pipe returns what was put into it");
        Ok(())
    }

    /// What the program finds.
    ///
    /// # Safety
    ///
    /// As for [`judge`](Probe::judge).
    unsafe fn look(&mut self, pieces: &[AddressRange]) {
        self.cpu.clear();
        for piece in pieces {
            // SAFETY: the range is mapped, and nobody writes it meanwhile.
            let memory = unsafe { slice::from_raw_parts(piece.start() as *const u8, piece.len()) };
            self.cpu.extend_from_slice(memory);
        }
    }

    /// Says what is wrong with a guard that was held for a while. It may be of old pages, but the
    /// device must still be able to work with it.
    pub fn use_held(
        &mut self,
        cache: &TruthCache,
        guard: &TruthGuard<'_>,
        range: AddressRange,
    ) -> Result<(), String> {
        let region = guard.region();
        if !region.live.load(Ordering::SeqCst) {
            return Err("the registration was deregistered while it was held".to_owned());
        }
        if !region.range.covers(range) {
            return Err("the registration became another one".to_owned());
        }
        #[cfg_attr(not(feature = "guest"), allow(irrefutable_let_patterns))]
        if let (Pinner::Ring(ring), Pin::Ring(pin)) = (&cache.registrar().pinner, &region.pin) {
            let pieces = self.pieces(range);
            self.device_reads(ring, pin, &pieces)?;
        }
        Ok(())
    }
}

/// Writes something to both ends of each page of `range` that was never written before.
///
/// # Safety
///
/// As for [`Probe::judge`].
unsafe fn stamp(range: AddressRange) {
    static STAMPS: AtomicU64 = AtomicU64::new(1);
    let mut at = range.start();
    while at < range.end() {
        let end = (at / page_size() * page_size() + page_size()).min(range.end());
        let number = STAMPS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // A single byte, too, must differ from what is likely to be there.
        let bytes = number.rotate_left(8).to_ne_bytes();
        let len = bytes.len().min(end - at);
        for to in [at, end - len] {
            // SAFETY: the caller has this memory for itself, and no reference points into it.
            unsafe { (to as *mut u8).copy_from(bytes.as_ptr(), len) };
        }
        at = end;
    }
}

fn judge_frames(cache: &TruthCache, region: &Region, range: AddressRange) -> Result<(), String> {
    let now = cache.registrar().pagemap.frames(range);
    let skip = range.start() / page_size() - region.range.start() / page_size();
    for (page, (pinned, now)) in region.frames[skip..].iter().zip(now).enumerate() {
        if *pinned != 0 && now != 0 && *pinned != now {
            return Err(format!(
                "STALE: page {page} of the lookup has frame {now:#x}, and {pinned:#x} is pinned"
            ));
        }
    }
    Ok(())
}

fn difference(what: &str, cpu: &[u8], device: &[u8]) -> String {
    let at = cpu.iter().zip(device).position(|(a, b)| a != b).unwrap_or(0);
    format!("{what}, from byte {at} on: {:#04x}, not {:#04x}", device[at], cpu[at])
}

/// An io_uring with room for `slots` registrations, or why there is none.
pub fn ring(slots: usize) -> io::Result<Pinner> {
    IoUring::new(slots as u32).map(|ring| Pinner::Ring(Box::new(ring))).map_err(io::Error::other)
}
