//! The monitor alone, for middleware that has a cache of its own.

use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use libc::c_int;
use parking_lot::Mutex;
use regcache::AddressRange;
use regcache::monitor::Announcements;
use ummunotify::{Device, Event as Told, EventBuffer, Features, Kinds, Options, Watch};

use crate::boundary::{self, enter};
use crate::create::{MONITOR_MANUAL, MONITOR_UMMUNOTIFY};
use crate::failure::Failure;
use crate::handle::{handle_of, out};
use crate::input::{self, Sized};
use crate::manage::range;

/// `struct regcache_monitor_options`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MonitorOptions {
    /// The size of this structure.
    pub type_size: usize,
    /// `enum regcache_monitor_kind`
    pub monitor: u32,
    /// Zero.
    pub flags: u32,
    /// Zero.
    pub reserved: [u64; 4],
}

// SAFETY: it is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized for MonitorOptions {
    fn reserved_is_zero(&self) -> bool {
        self.flags == 0 && self.reserved == [0; 4]
    }
}

/// `REGCACHE_EVENT_WATCH`
pub const EVENT_WATCH: u32 = 1;
/// `REGCACHE_EVENT_RANGE`
pub const EVENT_RANGE: u32 = 2;
/// `REGCACHE_EVENT_ALL`
pub const EVENT_ALL: u32 = 3;

/// `REGCACHE_WATCH_UNPINNED`
pub const WATCH_UNPINNED: u32 = 1 << 0;

/// `struct regcache_event`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// `REGCACHE_EVENT_WATCH` and the like.
    pub kind: u32,
    /// Kinds of change, `UMMUNOTIFY_KIND_*`.
    pub changes: u32,
    /// The watch.
    pub cookie: u64,
    /// The first byte that changed.
    pub addr: *mut c_void,
    /// How many bytes, as far as known.
    pub len: usize,
}

/// `regcache_sink`
pub type SinkFn = unsafe extern "C-unwind" fn(context: *mut c_void, event: *const Event);

/// `seen` when there is something to drain whatever the counter says. No counter gets there.
const NEWS: u64 = u64::MAX - 1;

/// The counter where there is none: it stands at 1, and at 0 in a forked child, where it so differs
/// from what was seen.
fn still() -> Result<&'static AtomicU64, Failure> {
    static PAGE: OnceLock<Result<&'static AtomicU64, c_int>> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        let size = regcache::page_size();
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing in use.
        let page = unsafe { libc::mmap(ptr::null_mut(), size, prot, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(last_errno());
        }
        // SAFETY: the mapping is this function's own.
        if unsafe { libc::madvise(page, size, libc::MADV_WIPEONFORK) } != 0 {
            return Err(last_errno());
        }
        // SAFETY: it is mapped for ever, aligned, and zero, which is a number.
        let counter = unsafe { &*page.cast::<AtomicU64>() };
        counter.store(1, Ordering::Relaxed);
        Ok(counter)
    });
    page.map_err(|errno| Failure::new(errno, "no page that shows a fork"))
}

fn last_errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM)
}

/// The counter of a monitor that was closed: `seen` is never equal to it.
static CLOSED: AtomicU64 = AtomicU64::new(u64::MAX);

/// `struct regcache_monitor`: never freed, as other handles are not.
#[repr(C)]
pub struct MonitorHandle {
    /// Moves before a watched mapping changes.
    pub counter: AtomicPtr<AtomicU64>,
    /// What it was when all news up to there had gone to the sink.
    pub seen: AtomicU64,
    /// What it is on.
    pub body: AtomicPtr<MonitorBody>,
}

/// What a monitor's handle is on.
pub struct MonitorBody {
    process: u32,
    device: Option<Device>,
    announced: Announcements,
    /// Serialises drains, sink included.
    drainer: Mutex<EventBuffer>,
}

thread_local! {
    /// The monitor that this thread is draining.
    static DRAINING: Cell<*const MonitorBody> = const { Cell::new(ptr::null()) };
}

/// Monitors that were closed. They stay reachable, so that no search for leaks complains.
static GONE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl MonitorHandle {
    fn body(&self) -> Result<&MonitorBody, Failure> {
        // SAFETY: it lives until the monitor is closed, and the header forbids that during a call.
        // Acquire pairs with the swap in `close`.
        let body = unsafe { self.body.load(Ordering::Acquire).as_ref() };
        let body = body.ok_or_else(Failure::dead)?;
        match std::process::id() == body.process {
            true => Ok(body),
            false => Err(Failure::from(ummunotify::Error::ForeignProcess)),
        }
    }

    /// Makes `changed` true until the next drain has ended. Under the lock of what is announced.
    fn news(&self) {
        // Release: who sees it and drains finds what was announced.
        self.seen.store(NEWS, Ordering::Release);
    }
}

impl MonitorBody {
    fn is_draining_here(&self) -> bool {
        DRAINING.with(|draining| draining.get() == ptr::from_ref(self))
    }

    fn refuse_in_sink(&self) -> Result<(), Failure> {
        match self.is_draining_here() {
            true => Err(Failure::new(libc::EDEADLK, "the sink of this very monitor calls")),
            false => Ok(()),
        }
    }
}

/// A call on a monitor.
///
/// # Safety
///
/// `monitor` is NULL or a handle, and is not closed meanwhile.
unsafe fn on(
    name: &'static str,
    monitor: *mut MonitorHandle,
    call: impl FnOnce(&'static MonitorHandle, &MonitorBody) -> Result<c_int, Failure>,
) -> c_int {
    enter(name, || {
        // SAFETY: handles are never freed.
        let handle = unsafe { handle_of(monitor, "monitor") }?;
        call(handle, handle.body()?)
    })
}

/// `regcache_monitor_open()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_open(
    options: *const MonitorOptions,
    monitor: *mut *mut MonitorHandle,
) -> c_int {
    enter("regcache_monitor_open", || {
        // SAFETY: the header asks for a place for the result.
        let to = unsafe { out(monitor, "monitor") }?;
        *to = ptr::null_mut();
        let kind = match options.is_null() {
            true => MONITOR_UMMUNOTIFY,
            // SAFETY: the header asks for an initialised structure.
            false => unsafe { input::read(options, "options") }?.monitor,
        };
        let device = match kind {
            MONITOR_UMMUNOTIFY => {
                Some(Options::new().features(Features::FILTER | Features::KINDS).open()?)
            }
            MONITOR_MANUAL => None,
            other => {
                return Err(Failure::invalid(format!("options->monitor {other} is not known")));
            }
        };
        let counter = match &device {
            Some(device) => device.counter(),
            None => ptr::from_ref(still()?),
        };
        // Nothing is watched yet, so no change up to now is news.
        let seen = device.as_ref().map_or(1, Device::generation);
        let body = MonitorBody {
            process: std::process::id(),
            device,
            announced: Announcements::new(),
            drainer: Mutex::new(EventBuffer::new()),
        };
        *to = Box::into_raw(Box::new(MonitorHandle {
            counter: AtomicPtr::new(counter.cast_mut()),
            seen: AtomicU64::new(seen),
            body: AtomicPtr::new(Box::into_raw(Box::new(body))),
        }));
        Ok(0)
    })
}

/// `regcache_monitor_close()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_close(monitor: *mut MonitorHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_close", monitor, |handle, body| {
            body.refuse_in_sink()?;
            handle.counter.store(ptr::from_ref(&CLOSED).cast_mut(), Ordering::Relaxed);
            handle.seen.store(NEWS, Ordering::Relaxed);
            let body = handle.body.swap(ptr::null_mut(), Ordering::AcqRel);
            GONE.lock().push(ptr::from_ref(handle) as usize);
            // `open` made a box of it, and the header forbids other calls meanwhile.
            drop(Box::from_raw(body));
            Ok(0)
        })
    }
}

/// `regcache_monitor_watch()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_watch(
    monitor: *mut MonitorHandle,
    addr: *const c_void,
    len: usize,
    cookie: u64,
    flags: u32,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_watch", monitor, |_, body| {
            let range = range(addr, len)?;
            if flags & !WATCH_UNPINNED != 0 {
                return Err(Failure::invalid(format!("flags {flags:#x} is not known")));
            }
            let Some(device) = &body.device else { return Ok(0) };
            let mut watch = Watch::new();
            if flags & WATCH_UNPINNED == 0 && device.features().contains(Features::FILTER) {
                watch = watch.ignore(Kinds::FILTERABLE);
            }
            device.register_with(range.start(), range.len(), cookie, watch)?;
            Ok(0)
        })
    }
}

/// `regcache_monitor_unwatch()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_unwatch(
    monitor: *mut MonitorHandle,
    cookie: u64,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_unwatch", monitor, |_, body| {
            if let Some(device) = &body.device {
                device.unregister(cookie)?;
            }
            Ok(0)
        })
    }
}

/// `regcache_monitor_notify()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_notify(
    monitor: *mut MonitorHandle,
    addr: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_notify", monitor, |handle, body| {
            let range = range(addr, len)?;
            let mut announced = body.announced.lock();
            announced.push(range);
            handle.news();
            Ok(0)
        })
    }
}

/// `regcache_monitor_flush()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_flush(monitor: *mut MonitorHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_flush", monitor, |handle, body| {
            let mut announced = body.announced.lock();
            announced.push_all();
            handle.news();
            Ok(0)
        })
    }
}

/// `regcache_monitor_fd()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_fd(monitor: *mut MonitorHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_fd", monitor, |_, body| {
            let device = body.device.as_ref();
            device.map(|device| device.as_fd().as_raw_fd()).ok_or_else(|| {
                Failure::new(libc::EOPNOTSUPP, "a manual monitor has nothing to wait for")
            })
        })
    }
}

/// `regcache_monitor_drain()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_monitor_drain(
    monitor: *mut MonitorHandle,
    sink: Option<SinkFn>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_monitor_drain", monitor, |handle, body| {
            let sink = sink.ok_or_else(|| Failure::null("sink"))?;
            body.refuse_in_sink()?;
            let mut told: c_int = 0;
            let mut tell = |event: Event| {
                told = told.saturating_add(1);
                // The header asks for a function that can be called with this context.
                boundary::callback(|| sink(context, &event)).ok_or_else(|| {
                    Failure::new(libc::ENOTRECOVERABLE, "the sink panicked; drain again")
                })
            };
            body.drain(handle, &mut tell)?;
            Ok(told)
        })
    }
}

/// While it lives, this thread drains a monitor.
struct Draining(*const MonitorBody);

impl Draining {
    fn begin(body: &MonitorBody) -> Draining {
        Draining(DRAINING.with(|draining| draining.replace(body)))
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        DRAINING.with(|draining| draining.set(self.0));
    }
}

impl MonitorBody {
    /// Tells everything that happened up to now. One thread at a time: `seen` is stored when the
    /// sink has heard all of it, so who finds nothing changed knows that the sink was told.
    fn drain(
        &self,
        handle: &MonitorHandle,
        tell: &mut dyn FnMut(Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut buffer = self.drainer.lock();
        let _here = Draining::begin(self);
        let (announced, ()) = self.announced.take(|| ());
        let told =
            tell_announced(announced, tell).and_then(|()| self.tell_device(&mut buffer, tell));
        match told {
            Ok(generation) => {
                let announced = self.announced.lock();
                if announced.is_empty() {
                    // Release pairs with the Acquire in `regcache_monitor_changed`.
                    handle.seen.store(generation, Ordering::Release);
                }
                Ok(())
            }
            Err(failure) => {
                // Something may have been lost between here and the sink: the next drain says so.
                self.announced.lock().push_all();
                handle.news();
                Err(failure)
            }
        }
    }

    /// Returns a generation up to which everything has been told.
    fn tell_device(
        &self,
        buffer: &mut EventBuffer,
        tell: &mut dyn FnMut(Event) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let Some(device) = &self.device else { return Ok(1) };
        loop {
            // Loaded before the read: if that finds nothing, all up to here has been told.
            let before = device.generation();
            let events = device.read(buffer)?;
            if events.len() == 0 {
                return Ok(before);
            }
            for event in events {
                match event {
                    Told::Last { generation } => return Ok(generation),
                    Told::Invalid(hit) => tell(Event {
                        kind: EVENT_WATCH,
                        changes: hit.kinds.bits(),
                        cookie: hit.cookie,
                        addr: hit.start as *mut c_void,
                        len: (hit.end - hit.start) as usize,
                    })?,
                }
            }
        }
    }
}

fn tell_announced(
    announced: Vec<AddressRange>,
    tell: &mut dyn FnMut(Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    announced.into_iter().try_for_each(|range| {
        let all = range == AddressRange::EVERYTHING;
        tell(Event {
            kind: if all { EVENT_ALL } else { EVENT_RANGE },
            changes: 0,
            cookie: 0,
            addr: range.start() as *mut c_void,
            len: range.len(),
        })
    })
}
