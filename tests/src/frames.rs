//! The oracle: page frame numbers.
//!
//! A registration is stale exactly if the device would reach other page frames than the program.
//! The kernel tells the frames of a mapping in `/proc/self/pagemap` (root only;
//! Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr;

use nix::errno::Errno;
use regcache::monitor::Monitor;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Guard, page_size};

/// The frame behind each page of `range`, as the program sees it: every page is read first, so that
/// it has one.
pub fn frames(range: AddressRange) -> Vec<u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;

    let pagemap = File::open("/proc/self/pagemap").expect("open /proc/self/pagemap");
    (range.start()..range.end())
        .step_by(page_size())
        .map(|page| {
            // SAFETY: the tests ask for mapped ranges only, and a volatile read of a byte that
            // others may write is at worst any value.
            unsafe { ptr::read_volatile(page as *const u8) };
            let mut entry = [0; 8];
            pagemap
                .read_exact_at(&mut entry, (page / page_size() * 8) as u64)
                .expect("read /proc/self/pagemap");
            let entry = u64::from_ne_bytes(entry);
            assert!(entry & PRESENT != 0, "page {page:#x} was read and is not present");
            let frame = entry & FRAME;
            assert_ne!(frame, 0, "page frames are shown to root only");
            frame
        })
        .collect()
}

/// A registrar that notes the frames which it pinned.
#[derive(Debug)]
pub struct Framed<R>(pub R);

/// A registration and its frames.
#[derive(Debug)]
pub struct FramedRegion<T> {
    /// What the wrapped registrar made.
    pub region: T,
    range: AddressRange,
    frames: Vec<u64>,
}

impl<R: Registrar> Registrar for Framed<R> {
    type Region = FramedRegion<R::Region>;

    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<Self::Region, Errno> {
        // SAFETY: the caller's promise is passed on.
        let region = unsafe { self.0.register(range, access) }?;
        // Pinned pages keep their frames, so this is what the pin holds, unless the mapping changes
        // meanwhile: then the cache must throw the registration away.
        Ok(FramedRegion { region, range, frames: frames(range) })
    }

    fn deregister(&self, region: &Self::Region) -> Result<(), Errno> {
        self.0.deregister(&region.region)
    }

    fn keys(&self, region: &Self::Region) -> Keys {
        self.0.keys(&region.region)
    }
}

/// A registrar that pins nothing: for what happens to memory that is only watched.
#[derive(Debug, Default)]
pub struct Unpinned;

impl Registrar for Unpinned {
    type Region = ();

    unsafe fn register(&self, _range: AddressRange, _access: Access) -> Result<(), Errno> {
        Ok(())
    }

    fn deregister(&self, _region: &()) -> Result<(), Errno> {
        Ok(())
    }

    fn keys(&self, _region: &()) -> Keys {
        Keys { local: 0, remote: 0 }
    }
}

/// Whether `guard`'s registration is of other frames than the program sees in `range`.
pub fn is_stale<R: Registrar, M: Monitor>(
    guard: &Guard<'_, Framed<R>, M>,
    range: AddressRange,
) -> bool {
    let registered = guard.region();
    let skip = (range.start() - registered.range.start()) / page_size();
    let pages = range.len() / page_size();
    registered.frames[skip..skip + pages] != frames(range)
}
