//! Callbacks that panic: the caller gets an error, and the cache goes on.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;
use regcache_ffi::boundary::regcache_last_error;
use regcache_ffi::create::{CacheHandle, MONITOR_MANUAL, regcache_create, regcache_destroy};
use regcache_ffi::lookup::{regcache_get, regcache_put};
use regcache_ffi::manage::{regcache_flush, regcache_invalidate};
use regcache_ffi::monitor::{
    Event, MonitorHandle, MonitorOptions, regcache_monitor_close, regcache_monitor_drain,
    regcache_monitor_notify, regcache_monitor_open,
};
use regcache_ffi::{Callbacks, Options, Region, Ticket};

/// How many of the next calls panic.
#[derive(Default)]
struct Panics {
    reg: AtomicI32,
    dereg: AtomicI32,
    registered: AtomicI32,
}

fn panic_if(left: &AtomicI32) {
    if left.fetch_sub(1, Ordering::Relaxed) > 0 {
        panic!("not today");
    }
}

unsafe extern "C-unwind" fn reg(context: *mut c_void, region: *mut Region) -> c_int {
    // SAFETY: it is the context that the cache was made with.
    let panics = unsafe { &*context.cast::<Panics>() };
    panic_if(&panics.reg);
    panics.registered.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the region is the callback's.
    unsafe { (*region).lkey = 7 };
    0
}

unsafe extern "C-unwind" fn dereg(context: *mut c_void, _region: *mut Region) -> c_int {
    // SAFETY: as above.
    let panics = unsafe { &*context.cast::<Panics>() };
    panic_if(&panics.dereg);
    panics.registered.fetch_sub(1, Ordering::Relaxed);
    0
}

unsafe extern "C-unwind" fn panicking_completion(_context: *mut c_void) {
    panic!("not today");
}

unsafe extern "C-unwind" fn panicking_sink(context: *mut c_void, _event: *const Event) {
    // SAFETY: it is the context that the drain was called with.
    panic_if(unsafe { &*context.cast::<AtomicI32>() });
}

fn last_error() -> String {
    // SAFETY: it is a string of this thread.
    unsafe { CStr::from_ptr(regcache_last_error()) }.to_str().unwrap().to_owned()
}

#[test]
fn panics_of_callbacks_are_errors() {
    let panics = Panics::default();
    let context = ptr::from_ref(&panics).cast_mut().cast::<c_void>();
    let callbacks = Callbacks {
        type_size: size_of::<Callbacks>(),
        mem_reg: Some(reg),
        mem_dereg: Some(dereg),
        context,
        reserved: [0; 4],
    };
    let options = Options {
        type_size: size_of::<Options>(),
        monitor: MONITOR_MANUAL,
        flags: 0,
        max_regions: 0,
        max_bytes: 1 << 30,
        payload_size: 64,
        reserved: [0; 4],
    };
    let mut cache: *mut CacheHandle = ptr::null_mut();
    let mut ticket = Ticket::NONE;
    let addr = 0x1000 as *const c_void;
    // SAFETY: the structures are initialised, the handle is open until it is destroyed, and tickets
    // are put once.
    unsafe {
        assert_eq!(regcache_create(&callbacks, &options, &mut cache), 0);

        panics.reg.store(1, Ordering::Relaxed);
        assert_eq!(regcache_get(cache, addr, 8, 0, &mut ticket), -libc::ENOTRECOVERABLE);
        assert!(last_error().contains("regcache_get"), "{}", last_error());
        assert_eq!(ticket.lease, 0);

        assert_eq!(regcache_get(cache, addr, 8, 0, &mut ticket), 0);
        assert_eq!((*ticket.region).lkey, 7);
        assert_eq!(
            regcache_invalidate(cache, addr, 8, Some(panicking_completion), ptr::null_mut()),
            0
        );
        panics.dereg.store(1, Ordering::Relaxed);
        assert_eq!(regcache_put(cache, ticket), 0);
        assert_eq!(panics.registered.load(Ordering::Relaxed), 1);
        // It is tried again.
        assert_eq!(regcache_flush(cache), 0);
        assert_eq!(panics.registered.load(Ordering::Relaxed), 0);
        assert_eq!(regcache_destroy(cache, 0), 0);
    }
}

#[test]
fn a_sink_that_panics_is_told_again() {
    let options = MonitorOptions {
        type_size: size_of::<MonitorOptions>(),
        monitor: MONITOR_MANUAL,
        flags: 0,
        reserved: [0; 4],
    };
    let mut monitor: *mut MonitorHandle = ptr::null_mut();
    let panics = AtomicI32::new(1);
    let context = ptr::from_ref(&panics).cast_mut().cast::<c_void>();
    let addr = 0x1000 as *const c_void;
    // SAFETY: the structure is initialised, and the handle is open until it is closed.
    unsafe {
        assert_eq!(regcache_monitor_open(&options, &mut monitor), 0);
        assert_eq!(regcache_monitor_notify(monitor, addr, 8), 0);
        let drain = || regcache_monitor_drain(monitor, Some(panicking_sink), context);
        assert_eq!(drain(), -libc::ENOTRECOVERABLE);
        // Everything, since who knows what the sink had done.
        assert_eq!(drain(), 1);
        assert_eq!(drain(), 0);
        assert_eq!(regcache_monitor_close(monitor), 0);
    }
}
