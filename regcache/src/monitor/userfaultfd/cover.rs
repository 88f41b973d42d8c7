//! How many watches lie on each address, so that the end of one does not end the events of another.

use std::collections::BTreeMap;

use crate::range::AddressRange;

/// Disjoint pieces by their start, each with its end and the number of watches on it.
#[derive(Debug, Default)]
pub(super) struct Cover(BTreeMap<usize, (usize, usize)>);

impl Cover {
    /// One watch more on `range`.
    pub(super) fn add(&mut self, range: AddressRange) {
        self.split_at(range.start());
        self.split_at(range.end());
        let mut gaps = Vec::new();
        let mut at = range.start();
        for (&start, (end, watches)) in self.0.range_mut(range.start()..range.end()) {
            if at < start {
                gaps.push((at, start));
            }
            *watches += 1;
            at = *end;
        }
        if at < range.end() {
            gaps.push((at, range.end()));
        }
        self.0.extend(gaps.into_iter().map(|(start, end)| (start, (end, 1))));
    }

    /// One watch less on `range`, which was added. Returns the parts that have none left.
    pub(super) fn remove(&mut self, range: AddressRange) -> Vec<AddressRange> {
        self.split_at(range.start());
        self.split_at(range.end());
        let mut pieces = Vec::new();
        for (&start, (end, watches)) in self.0.range_mut(range.start()..range.end()) {
            *watches -= 1;
            if *watches == 0 {
                pieces.push((start, *end));
            }
        }
        let mut bare: Vec<(usize, usize)> = Vec::new();
        for (start, end) in pieces {
            self.0.remove(&start);
            match bare.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => bare.push((start, end)),
            }
        }
        bare.into_iter().filter_map(|(start, end)| AddressRange::new(start, end - start)).collect()
    }

    /// Whether a watch lies on a part of `range`.
    pub(super) fn touches(&self, range: AddressRange) -> bool {
        let before = self.0.range(..range.end()).next_back();
        before.is_some_and(|(_, (end, _))| *end > range.start())
    }

    /// The parts of `range` that no watch lies on.
    pub(super) fn bare(&self, range: AddressRange) -> Vec<AddressRange> {
        let mut bare = Vec::new();
        let mut at = range.start();
        let before = self.0.range(..range.start()).next_back();
        for (&start, &(end, _)) in
            before.into_iter().chain(self.0.range(range.start()..range.end()))
        {
            bare.extend(start.checked_sub(at).and_then(|len| AddressRange::new(at, len)));
            at = at.max(end);
        }
        bare.extend(range.end().checked_sub(at).and_then(|len| AddressRange::new(at, len)));
        bare
    }

    /// No piece goes across `addr` any more.
    fn split_at(&mut self, addr: usize) {
        let before = self.0.range_mut(..addr).next_back();
        if let Some((_, (end, watches))) = before.filter(|(_, (end, _))| *end > addr) {
            let rest = (*end, *watches);
            *end = addr;
            self.0.insert(addr, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: usize, end: usize) -> AddressRange {
        AddressRange::new(start, end - start).unwrap()
    }

    #[test]
    fn the_end_of_one_watch_leaves_the_others() {
        let mut cover = Cover::default();
        cover.add(range(10, 50));
        cover.add(range(20, 30));
        cover.add(range(40, 60));
        assert_eq!(cover.remove(range(10, 50)), [range(10, 20), range(30, 40)]);
        assert_eq!(cover.bare(range(0, 70)), [range(0, 20), range(30, 40), range(60, 70)]);
        assert_eq!(cover.bare(range(25, 45)), [range(30, 40)]);
        assert!(cover.touches(range(29, 40)) && cover.touches(range(30, 41)));
        assert!(!cover.touches(range(30, 40)) && !cover.touches(range(60, 70)));
        assert_eq!(cover.remove(range(20, 30)), [range(20, 30)]);
        assert_eq!(cover.remove(range(40, 60)), [range(40, 60)]);
        assert!(cover.0.is_empty());
    }

    /// Against a count for each address.
    #[test]
    fn random_watches() {
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut cover, mut model, mut held) = (Cover::default(), [0_usize; 65], Vec::new());
        for _ in 0..5000 {
            if held.len() < 12 && next(2) == 0 {
                let start = next(60) as usize;
                let r = range(start, start + 1 + next(64 - start as u64) as usize);
                cover.add(r);
                (r.start()..r.end()).for_each(|a| model[a] += 1);
                held.push(r);
            } else if !held.is_empty() {
                let r = held.swap_remove(next(held.len() as u64) as usize);
                let bare: Vec<_> =
                    cover.remove(r).iter().flat_map(|r| r.start()..r.end()).collect();
                (r.start()..r.end()).for_each(|a| model[a] -= 1);
                let expected: Vec<_> = (r.start()..r.end()).filter(|a| model[*a] == 0).collect();
                assert_eq!(bare, expected);
            }
            let bare: Vec<_> =
                cover.bare(range(0, 65)).iter().flat_map(|r| r.start()..r.end()).collect();
            assert_eq!(bare, (0..65).filter(|a| model[*a] == 0).collect::<Vec<_>>());
        }
    }
}
