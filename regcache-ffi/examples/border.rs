//! What the border costs: a hit and its release through the shared library, and in Rust.
//!
//! ```sh
//! make -C regcache-ffi && cargo run --release -p regcache-ffi --example border
//! ```

use std::ffi::c_void;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, ptr};

use libloading::Library;
use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache};
use regcache_ffi::{Callbacks, Options, Region, Ticket};

type Get = unsafe extern "C" fn(*mut c_void, *const c_void, usize, u32, *mut Ticket) -> libc::c_int;
type Put = unsafe extern "C" fn(*mut c_void, Ticket) -> libc::c_int;

/// Registers nothing.
struct Free;

impl Registrar for Free {
    type Region = ();

    unsafe fn register(&self, _range: AddressRange, _access: Access) -> Result<(), Errno> {
        Ok(())
    }

    fn deregister(&self, _region: &()) -> Result<(), Errno> {
        Ok(())
    }

    fn keys(&self, _region: &()) -> Keys {
        Keys { local: 1, remote: 1 }
    }
}

unsafe extern "C-unwind" fn nothing(_context: *mut c_void, _region: *mut Region) -> libc::c_int {
    0
}

const ROUNDS: usize = 2_000_000;
const REPEATS: usize = 9;
const BASE: usize = 0x1_0000_0000;

/// Nanoseconds of one call, the median of some runs.
fn nanoseconds(pages: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut times: Vec<_> = (0..REPEATS)
        .map(|_| {
            let (start, mut random) = (Instant::now(), 1_usize);
            for _ in 0..ROUNDS {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Two pages apart, so that none are merged.
                call(BASE + (random >> 40) % pages * 8192);
            }
            start.elapsed().as_nanos() as f64 / ROUNDS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[REPEATS / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = env::args_os().nth(1).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/ffi/libregcache.so"),
        PathBuf::from,
    );
    // SAFETY: it is this package's library, which runs no code when it is loaded.
    let library = unsafe { Library::new(&path) }?;
    // SAFETY: these are the types of the functions of these names, as everywhere below.
    let (get, put) =
        unsafe { (*library.get::<Get>(b"regcache_get")?, *library.get::<Put>(b"regcache_put")?) };
    // SAFETY: as above.
    let (local_get, local_put) = unsafe {
        let get = *library.get::<Get>(b"regcache_local_get")?;
        (get, *library.get::<Put>(b"regcache_local_put")?)
    };
    let mut cache: *mut c_void = ptr::null_mut();
    let mut local: *mut c_void = ptr::null_mut();
    let callbacks = Callbacks {
        type_size: size_of::<Callbacks>(),
        mem_reg: Some(nothing),
        mem_dereg: Some(nothing),
        context: ptr::null_mut(),
        reserved: [0; 4],
    };
    let options = Options {
        type_size: size_of::<Options>(),
        monitor: regcache_ffi::create::MONITOR_MANUAL,
        flags: 0,
        max_regions: 0,
        max_bytes: 1 << 40,
        payload_size: 0,
        reserved: [0; 4],
    };
    // SAFETY: the structures are initialised, and there is a place for the result.
    unsafe {
        let create = library.get::<unsafe extern "C" fn(
            *const Callbacks,
            *const Options,
            *mut *mut c_void,
        ) -> libc::c_int>(b"regcache_create")?;
        assert_eq!(create(&callbacks, &options, &mut cache), 0);
        let open = library
            .get::<unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> libc::c_int>(
                b"regcache_local_open",
            )?;
        assert_eq!(open(cache, &mut local), 0);
    }
    let rust = Cache::builder(Free, Manual::new()).max_bytes(1 << 40).build()?;
    let rust_local = rust.local();

    println!("ns of a hit and its release   Rust   C      ratio  Rust, local   C, local   ratio");
    for pages in [1, 1024] {
        let in_rust = nanoseconds(pages, |addr| {
            black_box(rust.get_or_register(addr, 64, Access::empty()).unwrap().lkey());
        });
        let in_c = nanoseconds(pages, |addr| {
            let mut ticket = Ticket::NONE;
            // SAFETY: the handle is open, and the ticket is put once.
            unsafe {
                assert_eq!(get(cache, addr as *const c_void, 64, 0, &mut ticket), 0);
                black_box((*ticket.region).lkey);
                assert_eq!(put(cache, ticket), 0);
            }
        });
        let locally = nanoseconds(pages, |addr| {
            black_box(rust_local.get_or_register(addr, 64, Access::empty()).unwrap().lkey());
        });
        let locally_in_c = nanoseconds(pages, |addr| {
            let mut ticket = Ticket::NONE;
            // SAFETY: as above.
            unsafe {
                assert_eq!(local_get(local, addr as *const c_void, 64, 0, &mut ticket), 0);
                black_box((*ticket.region).lkey);
                assert_eq!(local_put(local, ticket), 0);
            }
        });
        println!(
            "{pages:>5} regions               {in_rust:>6.1} {in_c:>6.1} {:>6.2} {locally:>12.1} \
             {locally_in_c:>10.1} {:>7.2}",
            in_c / in_rust,
            locally_in_c / locally
        );
    }
    Ok(())
}
