//! An ordered list of ranges: sorted blocks in a sorted list.
//!
//! Against the standard library's ordered map it halves the cost of a miss: what is asked for is
//! always a neighbour (the last range that starts before an address), for which that map has only
//! its two-ended range search; and a block is a few cache lines that are searched and shifted whole.

use crate::range::AddressRange;
use crate::slot::SlotId;

/// Entries of a full block.
const FULL: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub range: AddressRange,
    pub slot: SlotId,
}

/// Ranges whose starts all differ, by start.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    /// The start of each block's first range.
    starts: Vec<usize>,
    /// Never empty ones.
    blocks: Vec<Vec<Entry>>,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: usize,
    at: usize,
}

impl Ordered {
    /// The last entry that starts before `addr`.
    fn place_before(&self, addr: usize) -> Option<Place> {
        let block = self.starts.partition_point(|start| *start < addr).checked_sub(1)?;
        let at = self.blocks[block].partition_point(|entry| entry.range.start() < addr) - 1;
        Some(Place { block, at })
    }

    /// The entries that start before `addr`, the last one first.
    pub(crate) fn before(&self, addr: usize) -> impl Iterator<Item = Entry> {
        let mut place = self.place_before(addr);
        std::iter::from_fn(move || {
            let Place { block, at } = place?;
            place = match (block, at) {
                (0, 0) => None,
                (_, 0) => Some(Place { block: block - 1, at: self.blocks[block - 1].len() - 1 }),
                _ => Some(Place { block, at: at - 1 }),
            };
            Some(self.blocks[block][at])
        })
    }

    /// Adds an entry; no other has its start.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.insert_after(self.place_before(entry.range.start()), entry);
    }

    /// Adds an entry if it overlaps no other, where no entry lies inside another; says whether.
    pub(crate) fn insert_alone(&mut self, entry: Entry) -> bool {
        let place = self.place_before(entry.range.end());
        let last = place.map(|Place { block, at }| self.blocks[block][at]);
        let alone = last.is_none_or(|last| last.range.end() <= entry.range.start());
        if alone {
            self.insert_after(place, entry);
        }
        alone
    }

    fn insert_after(&mut self, place: Option<Place>, entry: Entry) {
        let Some(Place { block, at }) = place else {
            // Before all others.
            match self.blocks.first_mut().filter(|block| block.len() < FULL) {
                Some(block) => {
                    block.insert(0, entry);
                    self.starts[0] = entry.range.start();
                }
                None => self.insert_block(0, vec![entry]),
            }
            return;
        };
        self.blocks[block].insert(at + 1, entry);
        if self.blocks[block].len() > FULL {
            let half = self.blocks[block].split_off(FULL / 2);
            self.insert_block(block + 1, half);
        }
    }

    fn insert_block(&mut self, at: usize, block: Vec<Entry>) {
        self.starts.insert(at, block[0].range.start());
        self.blocks.insert(at, block);
    }

    /// Removes the entry of this range and slot, if there is one.
    pub(crate) fn remove(&mut self, range: AddressRange, slot: SlotId) {
        let Some(Place { block, at }) = self.place_before(range.start() + 1) else { return };
        let found = self.blocks[block][at];
        if found.range != range || found.slot != slot {
            return;
        }
        self.blocks[block].remove(at);
        match self.blocks[block].first() {
            None => self.remove_block(block),
            Some(first) => {
                self.starts[block] = first.range.start();
                self.unite(block);
            }
        }
    }

    /// Unites a small block with the one after it, if that is small too.
    fn unite(&mut self, block: usize) {
        let small = |n: usize| self.blocks.get(n).is_some_and(|b| b.len() <= FULL / 4);
        if small(block) && small(block + 1) {
            let mut next = std::mem::take(&mut self.blocks[block + 1]);
            self.remove_block(block + 1);
            self.blocks[block].append(&mut next);
        }
    }

    fn remove_block(&mut self, block: usize) {
        self.blocks.remove(block);
        self.starts.remove(block);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, btree_map};

    use super::*;

    /// Against the standard library's map.
    #[test]
    fn agrees_with_a_map() {
        let mut seed = 3_u64;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % n
        };
        let mut ordered = Ordered::default();
        let mut model: BTreeMap<usize, Entry> = BTreeMap::new();
        for round in 0..40_000 {
            // It grows, and shrinks, and grows.
            let start = 1 + random(3000);
            let range = AddressRange::between(start, start + 1 + random(9));
            if random(10) < if round / 10_000 % 2 == 0 { 7 } else { 3 } {
                if let btree_map::Entry::Vacant(vacant) = model.entry(start) {
                    let entry = Entry { range, slot: round };
                    vacant.insert(entry);
                    ordered.insert(entry);
                }
            } else if let Some(entry) = model.remove(&start) {
                ordered.remove(entry.range, entry.slot + 1);
                ordered.remove(entry.range, entry.slot);
            }
            let addr = random(3010);
            let found = ordered.before(addr).take(70).map(|e| e.slot);
            let expected = model.range(..addr).rev().take(70).map(|(_, e)| e.slot);
            if round % 16 == 0 {
                assert!(found.eq(expected));
            }
        }
        assert!(
            ordered.before(usize::MAX).map(|e| e.slot).eq(model.values().rev().map(|e| e.slot))
        );
        assert!(ordered.blocks.iter().all(|block| (1..=FULL).contains(&block.len())));
        for entry in model.values() {
            ordered.remove(entry.range, entry.slot);
        }
        assert!(ordered.blocks.is_empty() && ordered.starts.is_empty());
    }
}
