//! Where to look first: a hash table from places in memory to slots, read without a lock.
//!
//! It is a hint. A lookup that is sent to the wrong slot finds out when it holds the slot, and one
//! that is sent nowhere asks the index under the table's lock. So entries may be missing, doubled or
//! old, and reading them needs no order.
//!
//! A registration of a length between 4^(k-1) and 4^k pages stands in the table under *level* k,
//! once for each aligned granule of 4^k pages that it touches: one or two. A lookup looks at the
//! levels in use that can hold what it asks for, in the granule of its first byte.

use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::access::Access;
#[cfg(not(loom))]
use crate::pages::ZeroedSlice;
use crate::range::AddressRange;
use crate::slot::SlotId;
use crate::sync::AtomicU32;

/// log2 of the granule of level 0, and of the factor between levels.
pub(crate) const GRANULE_BITS: u32 = 12;
const LEVEL_BITS: u32 = 2;
/// Enough for 64 bits of address.
const LEVELS: usize = 27;

/// Granules that have buckets side by side.
const RUN: u64 = 64;

/// Entries that are looked at for one granule: half a cache line of them.
const WAYS: usize = 8;

#[repr(C, align(32))]
struct Bucket([AtomicU32; WAYS]);

/// The upper bits of an entry are a tag of the place; the lower ones the slot plus one, or 0.
const SLOT_BITS: u32 = 25;

/// Slots that entries can name.
pub(crate) const MOST_SLOTS: u32 = (1 << SLOT_BITS) - 1;

/// A product whose high bits depend on all bits of the key, and which no other key has.
#[inline(always)]
pub(crate) fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a granule's entries stand, and what marks them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Modulo the number of buckets.
    bucket: u64,
    tag: u32,
}

impl Place {
    /// A level and the granule of `addr` in it, for what `access` can serve: a local read may be
    /// served by a registration that is written too.
    ///
    /// Neighbouring granules have neighbouring buckets, so that who walks through memory walks
    /// through the table too, where the processor fetches ahead.
    #[inline]
    fn of(level: u32, addr: usize, access: Access) -> Place {
        let class = if access.is_remote() { access } else { access - Access::LOCAL_WRITE };
        let granule = (addr as u64).checked_shr(GRANULE_BITS + LEVEL_BITS * level).unwrap_or(0);
        let (run, step) = (granule / RUN, granule % RUN);
        let key = run ^ u64::from(class.bits()) << 53 ^ u64::from(level) << 48;
        let product = spread(key);
        let tag = (product >> 32) as u32 >> SLOT_BITS << SLOT_BITS;
        Place { bucket: (product >> 30) + step, tag }
    }

    fn entry(self, slot: SlotId) -> u32 {
        debug_assert!(slot < MOST_SLOTS);
        self.tag | (slot + 1)
    }
}

#[cfg(not(loom))]
type Buckets = ZeroedSlice<Bucket>;
#[cfg(loom)]
type Buckets = Box<[Bucket]>;

#[cfg(not(loom))]
fn new_buckets(count: usize) -> Result<Buckets, Errno> {
    // SAFETY: zeros are integers.
    unsafe { ZeroedSlice::new(count) }
}

#[cfg(loom)]
fn new_buckets(count: usize) -> Result<Buckets, Errno> {
    Ok((0..count).map(|_| Bucket(std::array::from_fn(|_| AtomicU32::new(0)))).collect())
}

pub(crate) struct Hints {
    buckets: Buckets,
    /// Which levels have registrations.
    levels: AtomicU32,
    /// How many each has. Written under the table's lock.
    counts: [AtomicU32; LEVELS],
}

impl Hints {
    /// For up to `regions` registrations.
    pub(crate) fn new(regions: u32) -> Result<Hints, Errno> {
        // Two entries for each, and half of the ways free for luck.
        let buckets = (regions as usize * 4 / WAYS).next_power_of_two();
        Ok(Hints {
            buckets: new_buckets(buckets)?,
            levels: AtomicU32::new(0),
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        })
    }

    #[inline]
    fn ways(&self, place: Place) -> &[AtomicU32; WAYS] {
        &self.buckets[place.bucket as usize & (self.buckets.len() - 1)].0
    }

    /// Calls `look` for slots that may hold `len` bytes at `addr`, until it returns something.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        addr: usize,
        len: usize,
        access: Access,
        mut look: impl FnMut(SlotId) -> Option<T>,
    ) -> Option<T> {
        // Relaxed, here and below: a hint.
        let mut levels = self.levels.load(Ordering::Relaxed) >> level(len) << level(len);
        while levels != 0 {
            let place = Place::of(levels.trailing_zeros(), addr, access);
            for way in self.ways(place) {
                let found = way.load(Ordering::Relaxed) ^ place.tag;
                if found >> SLOT_BITS != 0 {
                    continue;
                }
                if let Some(found) = found.checked_sub(1).and_then(&mut look) {
                    return Some(found);
                }
            }
            levels &= levels - 1;
        }
        None
    }

    /// The table's lock is held.
    pub(crate) fn insert(&self, range: AddressRange, access: Access, slot: SlotId) {
        let level = level(range.len());
        let count = &self.counts[level as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.levels.store(self.levels.load(Ordering::Relaxed) | 1 << level, Ordering::Relaxed);
        self.place(range, access, slot);
    }

    /// Puts the entries of an inserted registration back where others have taken their ways. The
    /// table's lock is held.
    pub(crate) fn place(&self, range: AddressRange, access: Access, slot: SlotId) {
        for place in places(range, access) {
            let entry = place.entry(slot);
            let ways = self.ways(place);
            let mut free = &ways[slot as usize % WAYS];
            for way in ways.iter().rev() {
                match way.load(Ordering::Relaxed) {
                    0 => free = way,
                    found if found == entry => {
                        free = way;
                        break;
                    }
                    _ => {}
                }
            }
            free.store(entry, Ordering::Relaxed);
        }
    }

    /// The table's lock is held.
    pub(crate) fn remove(&self, range: AddressRange, access: Access, slot: SlotId) {
        let level = level(range.len());
        let count = &self.counts[level as usize];
        let left = count.load(Ordering::Relaxed) - 1;
        count.store(left, Ordering::Relaxed);
        if left == 0 {
            self.levels
                .store(self.levels.load(Ordering::Relaxed) & !(1 << level), Ordering::Relaxed);
        }
        for place in places(range, access) {
            for way in self.ways(place) {
                if way.load(Ordering::Relaxed) == place.entry(slot) {
                    way.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The lowest level whose granule is at least `len` bytes.
#[inline]
fn level(len: usize) -> u32 {
    let bits = usize::BITS - len.saturating_sub(1).leading_zeros();
    bits.saturating_sub(GRANULE_BITS).div_ceil(LEVEL_BITS)
}

/// Under what a registration stands.
fn places(range: AddressRange, access: Access) -> impl Iterator<Item = Place> {
    let level = level(range.len());
    let first = Place::of(level, range.start(), access);
    let last = Place::of(level, range.end() - 1, access);
    std::iter::once(first).chain((last != first).then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(hints: &Hints, addr: usize, len: usize, access: Access) -> Vec<SlotId> {
        let mut found = Vec::new();
        hints.find(addr, len, access, |slot| {
            found.push(slot);
            None::<()>
        });
        found
    }

    #[test]
    fn every_byte_of_a_registration_leads_to_it() {
        let hints = Hints::new(64).unwrap();
        for (slot, (start, len)) in
            [(0x1000, 0x1000), (0x12_3000, 0x7_5000), (0x4000_0007, 3), (0x8000_0000, 1 << 30)]
                .into_iter()
                .enumerate()
        {
            let (slot, access) = (slot as SlotId, Access::LOCAL_WRITE);
            let range = AddressRange::new(start, len).unwrap();
            hints.insert(range, access, slot);
            for addr in [start, start + len / 2, start + len - 1] {
                assert!(find(&hints, addr, 1, access).contains(&slot), "{addr:#x} in {range}");
                assert!(find(&hints, addr, 1, Access::empty()).contains(&slot));
            }
            assert!(find(&hints, start, len, access).contains(&slot));
            hints.remove(range, access, slot);
            assert!(find(&hints, start, 1, access).is_empty());
        }
        assert_eq!(hints.levels.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_crowded_granule_keeps_the_newest_and_forgets_without_harm() {
        let hints = Hints::new(8).unwrap();
        let range = |n: u32| AddressRange::new(0x1000 + n as usize, 8).unwrap();
        (0..20).for_each(|n| hints.insert(range(n), Access::empty(), n));
        assert!(find(&hints, 0x1000 + 19, 1, Access::empty()).contains(&19));
        assert_eq!(find(&hints, 0x1000, 1, Access::empty()).len(), WAYS);
        (0..20).for_each(|n| hints.remove(range(n), Access::empty(), n));
        assert!(find(&hints, 0x1000, 1, Access::empty()).is_empty());
    }
}
