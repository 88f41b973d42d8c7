//! How a cache is made and destroyed.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use libc::c_int;
use parking_lot::Mutex;
use regcache::monitor::Ummunotify;
use regcache::registrar::Verbs;
use regcache::{Peers, Reaper};

use crate::boundary::{self, enter};
use crate::completion::Living;
use crate::failure::Failure;
use crate::handle::{self, Handle, handle, out};
use crate::input::{self, Sized};
use crate::lease::Directory;
use crate::lessee::{Cache, Lessee};
use crate::local::LocalBody;
use crate::region::MOST_PAYLOAD;
use crate::registrar::{Backend, Functions, Pinner, RegionFn};
use crate::source::Source;

/// `struct regcache_options`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The size of this structure.
    pub type_size: usize,
    /// `enum regcache_monitor_kind`
    pub monitor: u32,
    /// `REGCACHE_TRUST_PEERS` and the like.
    pub flags: u32,
    /// Registrations that are held at most.
    pub max_regions: u64,
    /// Bytes that are held at most.
    pub max_bytes: u64,
    /// Bytes of the caller's in each region.
    pub payload_size: usize,
    /// Zero.
    pub reserved: [u64; 4],
}

// SAFETY: it is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized for Options {
    fn reserved_is_zero(&self) -> bool {
        self.reserved == [0; 4]
    }
}

/// `struct regcache_callbacks`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Callbacks {
    /// The size of this structure.
    pub type_size: usize,
    /// Pins.
    pub mem_reg: Option<RegionFn>,
    /// Unpins.
    pub mem_dereg: Option<RegionFn>,
    /// Passed to both.
    pub context: *mut c_void,
    /// Zero.
    pub reserved: [u64; 4],
}

// SAFETY: it is `repr(C)`, begins with its size, and consists of integers, pointers, and pointers to
// functions that may be null. (Other bytes are not a function, which the caller promises not to
// pass.)
unsafe impl Sized for Callbacks {
    fn reserved_is_zero(&self) -> bool {
        self.reserved == [0; 4]
    }
}

/// `REGCACHE_MONITOR_UMMUNOTIFY`
pub const MONITOR_UMMUNOTIFY: u32 = 0;
/// `REGCACHE_MONITOR_MANUAL`
pub const MONITOR_MANUAL: u32 = 1;

/// `REGCACHE_TRUST_PEERS`
pub const TRUST_PEERS: u32 = 1 << 0;
/// `REGCACHE_REAPER`
pub const REAPER: u32 = 1 << 1;
/// `REGCACHE_NO_VERIFY`
pub const NO_VERIFY: u32 = 1 << 2;

/// `REGCACHE_NO_REAPER`
pub const NO_REAPER: u32 = 1 << 3;

/// `REGCACHE_DESTROY_FORCE`
pub const DESTROY_FORCE: u32 = 1 << 0;

/// `REGCACHE_UNCACHED`
pub const UNCACHED: u64 = u64::MAX;

/// `struct regcache`
pub type CacheHandle = Handle<CacheBody>;

/// `struct ibv_pd`, of libibverbs.
#[repr(C)]
pub struct IbvPd {
    _opaque: [u8; 0],
}

/// What a handle on a cache is on.
pub struct CacheBody {
    pub(crate) id: u64,
    process: u32,
    /// Lessees have references to it that end with them; `Drop` ends those first.
    cache: Arc<Cache>,
    pub(crate) living: Arc<Living>,
    pub(crate) directory: Arc<Directory>,
    lessees: Mutex<Vec<Arc<Lessee>>>,
    pub(crate) locals: Mutex<Vec<usize>>,
    reaper: Mutex<Option<Reaper>>,
}

impl CacheBody {
    /// The cache, which lives as long as this.
    #[inline]
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A forked child must not wait for locks that nobody will let go of.
    pub(crate) fn refuse_foreign(&self) -> Result<(), Failure> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(Failure::from(regcache::Error::Forked))
    }

    /// A lessee that nobody has.
    pub(crate) fn claim_lessee(&self, exclusive: bool) -> Result<Arc<Lessee>, Failure> {
        self.refuse_foreign()?;
        let mut lessees = self.lessees.lock();
        if let Some(lessee) = lessees.iter().find(|l| l.is_exclusive() == exclusive && l.claim()) {
            return Ok(lessee.clone());
        }
        // SAFETY: the cache is in an `Arc` that this has until `Drop`, which ends the lessees first;
        // and guards end before, since who destroys the handle has looked at the leases.
        let cache: &'static Cache = unsafe { &*Arc::as_ptr(&self.cache) };
        let lessee = Arc::new(Lessee::new(cache, &self.directory, exclusive)?);
        lessees.push(lessee.clone());
        Ok(lessee)
    }
}

impl Drop for CacheBody {
    fn drop(&mut self) {
        *self.reaper.get_mut() = None;
        for lessee in self.lessees.get_mut().drain(..) {
            // SAFETY: the header forbids calls while the cache is destroyed.
            unsafe { lessee.end() };
        }
    }
}

fn make(
    backend: Backend,
    options: Option<Options>,
    to: &mut *mut CacheHandle,
) -> Result<c_int, Failure> {
    let options = options.unwrap_or(Options {
        type_size: size_of::<Options>(),
        monitor: MONITOR_UMMUNOTIFY,
        flags: 0,
        max_regions: 0,
        max_bytes: 0,
        payload_size: 0,
        reserved: [0; 4],
    });
    if options.flags & !(TRUST_PEERS | REAPER | NO_VERIFY | NO_REAPER) != 0 {
        return Err(Failure::invalid(format!("options->flags {:#x} is not known", options.flags)));
    }
    if options.flags & (REAPER | NO_REAPER) == REAPER | NO_REAPER {
        return Err(Failure::invalid("options->flags has both REAPER and NO_REAPER"));
    }
    // Callbacks may be of a program with one thread, so that they are asked about.
    let reaps_by_default = matches!(backend, Backend::Verbs(_)) && options.flags & NO_REAPER == 0;
    if options.payload_size > MOST_PAYLOAD {
        return Err(Failure::invalid("options->payload_size is more than 1 MiB"));
    }
    let source = match options.monitor {
        MONITOR_UMMUNOTIFY => Source::new(Some(Ummunotify::open()?)),
        MONITOR_MANUAL => Source::new(None),
        other => return Err(Failure::invalid(format!("options->monitor {other} is not known"))),
    };
    let living = Arc::new(Living::default());
    let pinner = Pinner { backend, payload_size: options.payload_size, living: living.clone() };
    let mut builder = Cache::builder(pinner, source);
    match options.max_regions {
        0 => {}
        UNCACHED => builder = builder.max_regions(0),
        regions => builder = builder.max_regions(regions as usize),
    }
    if options.max_bytes != 0 {
        builder = builder.max_bytes(options.max_bytes);
    }
    if options.flags & TRUST_PEERS != 0 {
        builder = builder.peers(Peers::Trusted);
    }
    if options.flags & NO_VERIFY != 0 {
        builder = builder.verify(false);
    }
    let cache = Arc::new(builder.build()?);
    let reaper = match options.flags & REAPER {
        // Where there can be none, stale memory goes with the next lookup that misses.
        0 if reaps_by_default => Reaper::start(&cache).ok(),
        0 => None,
        _ => Some(Reaper::start(&cache).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
            Failure::new(errno, format!("no reaper thread: {error}"))
        })?),
    };
    *to = Handle::open(|id| CacheBody {
        id,
        process: std::process::id(),
        cache,
        living,
        directory: Arc::new(Directory::new(id)),
        lessees: Mutex::default(),
        locals: Mutex::default(),
        reaper: Mutex::new(reaper),
    });
    Ok(0)
}

/// # Safety
///
/// As for [`input::read`]; NULL is no options.
unsafe fn read_options(options: *const Options) -> Result<Option<Options>, Failure> {
    if options.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller promises it.
    unsafe { input::read(options, "options") }.map(Some)
}

/// `regcache_create()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_create(
    callbacks: *const Callbacks,
    options: *const Options,
    cache: *mut *mut CacheHandle,
) -> c_int {
    enter("regcache_create", || {
        // SAFETY: the header asks for a place for the result.
        let to = unsafe { out(cache, "cache") }?;
        *to = ptr::null_mut();
        // SAFETY: the header asks for initialised structures.
        let callbacks = unsafe { input::read(callbacks, "callbacks") }?;
        let mem_reg = callbacks.mem_reg.ok_or_else(|| Failure::null("callbacks->mem_reg"))?;
        let mem_dereg = callbacks.mem_dereg.ok_or_else(|| Failure::null("callbacks->mem_dereg"))?;
        let functions = Functions { mem_reg, mem_dereg, context: callbacks.context };
        // SAFETY: as above.
        let options = unsafe { read_options(options) }?;
        make(Backend::Callbacks(functions), options, to)
    })
}

/// `regcache_create_verbs()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_create_verbs(
    pd: *mut IbvPd,
    options: *const Options,
    cache: *mut *mut CacheHandle,
) -> c_int {
    enter("regcache_create_verbs", || {
        // SAFETY: the header asks for a place for the result.
        let to = unsafe { out(cache, "cache") }?;
        *to = ptr::null_mut();
        let pd = NonNull::new(pd).ok_or_else(|| Failure::null("pd"))?;
        // SAFETY: the header asks for initialised structures.
        let options = unsafe { read_options(options) }?;
        // SAFETY: the header asks for a live pd that outlives the cache.
        let verbs = unsafe { Verbs::from_pd(pd.cast()) }?;
        make(Backend::Verbs(verbs), options, to)
    })
}

/// `regcache_destroy()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_destroy(cache: *mut CacheHandle, flags: u32) -> c_int {
    enter("regcache_destroy", || {
        // SAFETY: the header asks for a handle.
        let handle = unsafe { handle(cache, "cache") }?;
        let body = handle.body()?;
        body.refuse_foreign()?;
        if flags & !DESTROY_FORCE != 0 {
            return Err(Failure::invalid(format!("flags {flags:#x} is not known")));
        }
        if boundary::is_in_callback() {
            return Err(Failure::new(libc::EDEADLK, "a callback cannot destroy a cache"));
        }
        if flags & DESTROY_FORCE == 0 {
            refuse_in_use(body)?;
        }
        for local in body.locals.lock().drain(..) {
            // SAFETY: it is the handle of an open local, and handles are never freed; the header
            // forbids calls meanwhile.
            drop(unsafe { (*(local as *const Handle<LocalBody>)).close() });
        }
        body.directory.seize();
        // SAFETY: the header forbids calls on the cache meanwhile, and `body` is not used again.
        drop(unsafe { handle.close() }?);
        Ok(0)
    })
}

fn refuse_in_use(body: &CacheBody) -> Result<(), Failure> {
    let busy = |count: usize, what: &str| match count {
        0 => Ok(()),
        _ => Err(Failure::new(libc::EBUSY, format!("{count} {what}"))),
    };
    busy(body.directory.live(), "tickets have not been put")?;
    busy(body.locals.lock().len(), "local handles are open")?;
    // What the reaper is deregistering would count as what cannot be deregistered, so it ends first.
    let had_reaper = body.reaper.lock().take().is_some();
    let flushed = body.cache().flush().map_err(Failure::from);
    let result =
        flushed.and_then(|_| busy(body.living.count(), "registrations could not be deregistered"));
    if result.is_err() && had_reaper {
        // The cache lives on. Without a thread, stale memory goes with the next lookup that misses.
        *body.reaper.lock() = Reaper::start(&body.cache).ok();
    }
    result
}

/// As [`handle::handle`], and what it is on.
///
/// # Safety
///
/// The same, and the cache is not destroyed while the result is used.
#[inline]
pub(crate) unsafe fn body<'c>(cache: *const CacheHandle) -> Result<&'c CacheBody, Failure> {
    // SAFETY: the caller promises it.
    unsafe { handle::handle(cache, "cache") }?.body()
}
