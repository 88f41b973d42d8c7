//! What a device does beyond the interface of 2009.

use std::path::{Path, PathBuf};

use bitflags::bitflags;

use crate::device::Device;
use crate::error::Error;
use crate::sys::REGISTER_SLOT;

bitflags! {
    /// `UMMUNOTIFY_FEATURE_*`
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Features: u32 {
        /// [`Watch::ignore`]
        const FILTER = 1 << 0;
        /// [`Device::note`] and [`Device::verify`]
        const VERIFY = 1 << 1;
        /// [`Invalid::kinds`](crate::Invalid::kinds)
        const KINDS = 1 << 2;
        /// [`Watch::slot`] and [`Device::slot_generation`]
        const GENSLOT = 1 << 3;
        /// [`Watch::oneshot`]
        const ONESHOT = 1 << 5;
        /// [`Watch::nowake`]
        const NOWAKE = 1 << 6;
    }
}

bitflags! {
    /// Kinds of change, `UMMUNOTIFY_KIND_*`: who raises which is told in the kernel's
    /// `enum mmu_notifier_event`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Kinds: u32 {
        /// munmap, mmap over, mremap.
        const UNMAP = 1 << 0;
        /// MADV_DONTNEED, truncation, holes, copy-on-write, and a number of false alarms.
        const CLEAR = 1 << 1;
        /// mprotect, NUMA scans.
        const PROTECTION_VMA = 1 << 2;
        /// fork.
        const PROTECTION_PAGE = 1 << 3;
        /// clear_refs.
        const SOFT_DIRTY = 1 << 4;
        /// Migration to a device.
        const MIGRATE = 1 << 5;
        /// Exclusive access by a device.
        const EXCLUSIVE = 1 << 6;
        /// Any other; also a range that was reported because `register` could not wait.
        const OTHER = 1 << 7;

        /// Those that take no page away from who has pinned it for long (FOLL_PIN | FOLL_LONGTERM,
        /// as RDMA and io_uring do).
        const FILTERABLE = Self::PROTECTION_VMA.bits()
            | Self::PROTECTION_PAGE.bits()
            | Self::SOFT_DIRTY.bits()
            | Self::MIGRATE.bits()
            | Self::EXCLUSIVE.bits();
    }
}

/// How a device is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) path: PathBuf,
    pub(crate) features: Features,
    pub(crate) slots: u32,
}

impl Options {
    /// [`DEVICE_PATH`](crate::DEVICE_PATH), and nothing beyond the interface of 2009.
    pub fn new() -> Options {
        Options { path: crate::DEVICE_PATH.into(), features: Features::empty(), slots: 0 }
    }

    /// The device at `path`.
    pub fn path(mut self, path: impl AsRef<Path>) -> Options {
        self.path = path.as_ref().to_path_buf();
        self
    }

    /// Asks for `features`, besides those asked for before. The kernel grants those that it has.
    pub fn features(mut self, features: Features) -> Options {
        self.features |= features;
        self
    }

    /// Asks for [`Features::GENSLOT`] with this many slots. The kernel may grant fewer, or more.
    pub fn slots(mut self, slots: u32) -> Options {
        self.slots = slots;
        self.features(Features::GENSLOT)
    }

    /// Opens the device.
    pub fn open(&self) -> Result<Device, Error> {
        Device::open_with(self)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

/// How a range is watched.
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "it does nothing until it is given to Device::register_with"]
pub struct Watch {
    pub(crate) ignore: Kinds,
    pub(crate) slot: Option<u32>,
    oneshot: bool,
    nowake: bool,
}

impl Watch {
    /// As in 2009.
    pub fn new() -> Watch {
        Watch::default()
    }

    /// Changes of these kinds do not count. Sound for memory that is pinned for long; of others
    /// than [`Kinds::FILTERABLE`] an error.
    pub fn ignore(mut self, kinds: Kinds) -> Watch {
        self.ignore = kinds;
        self
    }

    /// Invalidations of the range move this slot.
    pub fn slot(mut self, slot: u32) -> Watch {
        self.slot = Some(slot);
        self
    }

    /// One event, and the range is forgotten.
    pub fn oneshot(mut self) -> Watch {
        self.oneshot = true;
        self
    }

    /// Its events wake nobody who waits for the device.
    pub fn nowake(mut self) -> Watch {
        self.nowake = true;
        self
    }

    pub(crate) fn needs(self) -> Features {
        let mut needs = Features::empty();
        needs.set(Features::FILTER, !self.ignore.is_empty());
        needs.set(Features::GENSLOT, self.slot.is_some());
        needs.set(Features::ONESHOT, self.oneshot);
        needs.set(Features::NOWAKE, self.nowake);
        needs
    }

    pub(crate) fn flags(self) -> u32 {
        let slot = if self.slot.is_some() { REGISTER_SLOT } else { 0 };
        self.ignore.bits() | (u32::from(self.oneshot) << 8) | (u32::from(self.nowake) << 9) | slot
    }
}
