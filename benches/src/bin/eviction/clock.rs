//! CLOCK: a hand goes round the keys, spares those used since it last came by, and evicts the first
//! that was not.

use std::collections::HashMap;

use crate::policy::Policy;

/// Second chance.
pub struct Clock {
    capacity: usize,
    ring: Vec<(u64, bool)>,
    places: HashMap<u64, usize>,
    hand: usize,
}

impl Clock {
    /// A cache of that many keys.
    pub fn new(capacity: usize) -> Clock {
        Clock { capacity, ring: Vec::new(), places: HashMap::new(), hand: 0 }
    }
}

impl Policy for Clock {
    fn request(&mut self, key: u64) -> bool {
        if let Some(place) = self.places.get(&key) {
            self.ring[*place].1 = true;
            return true;
        }
        if self.ring.len() < self.capacity {
            self.places.insert(key, self.ring.len());
            self.ring.push((key, false));
            return false;
        }
        while self.ring[self.hand].1 {
            self.ring[self.hand].1 = false;
            self.hand = (self.hand + 1) % self.capacity;
        }
        self.places.remove(&self.ring[self.hand].0);
        self.places.insert(key, self.hand);
        self.ring[self.hand] = (key, false);
        self.hand = (self.hand + 1) % self.capacity;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hits;

    #[test]
    fn what_was_used_gets_a_second_chance() {
        // The hand spares a and takes b.
        assert_eq!(hits(Clock::new(2), "abacab"), "..x.x.");
    }

    #[test]
    fn if_all_were_used_the_oldest_goes() {
        // All lose their mark in one round; d takes the place of a, then b goes for a.
        assert_eq!(hits(Clock::new(3), "abcabcdba"), "...xxx.x.");
    }
}
