//! LRU: out goes what was used least recently.

use std::collections::{BTreeMap, HashMap};

use crate::policy::Policy;

/// Least recently used.
pub struct Lru {
    capacity: usize,
    now: u64,
    last_use: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
}

impl Lru {
    /// A cache of that many keys.
    pub fn new(capacity: usize) -> Lru {
        Lru { capacity, now: 0, last_use: HashMap::new(), by_use: BTreeMap::new() }
    }
}

impl Policy for Lru {
    fn request(&mut self, key: u64) -> bool {
        self.now += 1;
        let before = self.last_use.insert(key, self.now);
        self.by_use.insert(self.now, key);
        if let Some(before) = before {
            self.by_use.remove(&before);
            return true;
        }
        if self.last_use.len() > self.capacity {
            if let Some((_, oldest)) = self.by_use.pop_first() {
                self.last_use.remove(&oldest);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hits;

    #[test]
    fn the_least_recently_used_goes() {
        assert_eq!(hits(Lru::new(2), "aba"), "..x");
        // c takes the place of b, since a was used after it.
        assert_eq!(hits(Lru::new(2), "abacab"), "..x.x.");
    }

    #[test]
    fn a_loop_that_does_not_fit_never_hits() {
        assert_eq!(hits(Lru::new(3), "abcdabcd"), "........");
    }
}
