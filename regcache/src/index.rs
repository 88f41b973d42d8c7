//! Finds the registration that covers a range.
//!
//! Within one class of access no indexed registration lies inside another: a wider one takes the
//! place of those that it covers, and one that is covered is not added. So both the starts and the
//! ends ascend, and the registration with the greatest start at or before an address is also the
//! one that reaches farthest: one step in an ordered map decides, however ranges overlap.

use crate::access::Access;
use crate::ordered::{Entry, Ordered};
use crate::range::AddressRange;
use crate::slot::SlotId;

/// The registrations of each class of access. Classes are few: a program uses two or three
/// combinations of rights.
#[derive(Debug, Default)]
pub(crate) struct Index(Vec<(Access, Ordered)>);

impl Index {
    fn class(&self, access: Access) -> Option<&Ordered> {
        self.0.iter().find(|(a, _)| *a == access).map(|(_, class)| class)
    }

    fn class_mut(&mut self, access: Access) -> &mut Ordered {
        let at = self.0.iter().position(|(a, _)| *a == access).unwrap_or_else(|| {
            self.0.push((access, Ordered::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// What there is of exactly this access where `range` is.
    pub(crate) fn look(&self, access: Access, range: AddressRange) -> Look {
        let Some(class) = self.class(access) else { return Look::Nothing };
        let mut overlapping = overlapping(class, range).peekable();
        if overlapping.peek().is_none() {
            return Look::Nothing;
        }
        // Of those that start at or before the range, the last one reaches farthest.
        match overlapping.find(|entry| entry.range.start() <= range.start()) {
            Some(entry) if entry.range.covers(range) => Look::Covered(entry.slot),
            _ => Look::Overlapped,
        }
    }

    /// Adds a registration, and returns those that it covers and replaces; or leaves it out, because
    /// another covers it.
    pub(crate) fn insert(
        &mut self,
        access: Access,
        range: AddressRange,
        slot: SlotId,
    ) -> Option<Vec<SlotId>> {
        let entry = Entry { range, slot };
        if self.class_mut(access).insert_alone(entry) {
            return Some(Vec::new());
        }
        if let Look::Covered(_) = self.look(access, range) {
            return None;
        }
        let class = self.class_mut(access);
        let covered: Vec<_> =
            overlapping(class, range).filter(|entry| range.covers(entry.range)).collect();
        for entry in &covered {
            class.remove(entry.range, entry.slot);
        }
        class.insert(entry);
        Some(covered.into_iter().map(|entry| entry.slot).collect())
    }

    /// All that overlap `range`, of whatever access.
    pub(crate) fn overlapping(&self, range: AddressRange) -> Vec<SlotId> {
        self.0.iter().flat_map(|(_, class)| overlapping(class, range)).map(|e| e.slot).collect()
    }

    /// The smallest range around `range` and all of this access that overlap it.
    pub(crate) fn union(&self, access: Access, range: AddressRange) -> AddressRange {
        let Some(class) = self.class(access) else { return range };
        overlapping(class, range).fold(range, |union, entry| union.union(entry.range))
    }

    /// Removes a registration if it is the one that is indexed for its range.
    pub(crate) fn remove(&mut self, access: Access, range: AddressRange, slot: SlotId) {
        self.class_mut(access).remove(range, slot);
    }
}

/// What lies where a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Nothing,
    /// Others, of which none covers it.
    Overlapped,
    Covered(SlotId),
}

/// Those that overlap `range`, the last one first: neighbours in the order.
fn overlapping(class: &Ordered, range: AddressRange) -> impl Iterator<Item = Entry> {
    class.before(range.end()).take_while(move |entry| entry.range.end() > range.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Index {
        fn covering(&self, access: Access, range: AddressRange) -> Option<SlotId> {
            match self.look(access, range) {
                Look::Covered(slot) => Some(slot),
                _ => None,
            }
        }
    }

    fn range(start: usize, end: usize) -> AddressRange {
        AddressRange::new(start, end - start).unwrap()
    }

    #[test]
    fn nested_intervals_do_not_hide_the_one_around_them() {
        let mut index = Index::default();
        let access = Access::empty();
        index.insert(access, range(1, 100), 0);
        // [50, 60) and [62, 64) are covered, so they never get in; the classic query then works.
        assert_eq!(index.covering(access, range(50, 60)), Some(0));
        assert_eq!(index.covering(access, range(70, 80)), Some(0));
    }

    #[test]
    fn a_wider_registration_replaces_exactly_those_that_it_covers() {
        let mut index = Index::default();
        let access = Access::LOCAL_WRITE;
        for (slot, (start, end)) in [(1, 4), (2, 6), (5, 8), (7, 12)].into_iter().enumerate() {
            assert_eq!(index.insert(access, range(start, end), slot as SlotId), Some(vec![]));
        }
        assert_eq!(index.insert(access, range(2, 9), 4), Some(vec![2, 1]));
        assert_eq!(index.insert(access, range(3, 5), 5), None);
        assert_eq!(index.covering(access, range(3, 9)), Some(4));
        assert_eq!(index.covering(access, range(1, 2)), Some(0));
        assert_eq!(index.covering(access, range(8, 11)), Some(3));
        assert_eq!(index.covering(access, range(8, 13)), None);
        assert_eq!(index.covering(Access::empty(), range(3, 4)), None);
    }

    /// Against the obvious model, over all small ranges.
    #[test]
    fn agrees_with_a_linear_search() {
        let mut seed = 7_u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        for _ in 0..20 {
            let mut index = Index::default();
            let mut model: Vec<(AddressRange, SlotId)> = Vec::new();
            for slot in 0..60 {
                let start = 1 + random(30) as usize;
                let new = range(start, start + 1 + random(12) as usize);
                if random(4) == 0 && !model.is_empty() {
                    let (gone, id) = model.swap_remove(random(model.len() as u64) as usize);
                    index.remove(Access::empty(), gone, id);
                } else if !model.iter().any(|(r, _)| r.covers(new)) {
                    let mut covered: Vec<_> =
                        model.iter().filter(|(r, _)| new.covers(*r)).map(|(_, s)| *s).collect();
                    model.retain(|(r, _)| !new.covers(*r));
                    model.push((new, slot));
                    let mut replaced = index.insert(Access::empty(), new, slot).unwrap();
                    covered.sort();
                    replaced.sort();
                    assert_eq!(replaced, covered);
                }
                for start in 1..32 {
                    for end in start + 1..34 {
                        let query = range(start, end);
                        let found = index.covering(Access::empty(), query);
                        assert_eq!(
                            found.is_some(),
                            model.iter().any(|(r, _)| r.covers(query)),
                            "{query} in {model:?}"
                        );
                        let mut overlapping = index.overlapping(query);
                        overlapping.sort();
                        let mut expected: Vec<_> =
                            model.iter().filter(|(r, _)| r.overlaps(query)).map(|m| m.1).collect();
                        expected.sort();
                        assert_eq!(overlapping, expected);
                        if let Some(slot) = found {
                            assert!(model.iter().any(|(r, s)| *s == slot && r.covers(query)));
                        }
                    }
                }
            }
        }
    }
}
