//! SIEVE: one queue in order of arrival, in which nothing moves. A hand goes from the oldest to the
//! newest, spares what was used since it last came by, and evicts the first that was not; new keys
//! arrive behind it (Zhang and others, NSDI 2024).

use std::collections::HashMap;

use crate::policy::Policy;

/// Where a key stands in the queue.
#[derive(Clone, Copy)]
struct Node {
    key: u64,
    visited: bool,
    newer: Option<usize>,
    older: Option<usize>,
}

/// SIEVE.
pub struct Sieve {
    capacity: usize,
    nodes: Vec<Node>,
    places: HashMap<u64, usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    hand: Option<usize>,
}

impl Sieve {
    /// A cache of that many keys.
    pub fn new(capacity: usize) -> Sieve {
        let (nodes, places) = (Vec::new(), HashMap::new());
        Sieve { capacity, nodes, places, newest: None, oldest: None, hand: None }
    }

    /// Evicts one, and returns where it was.
    fn evict(&mut self) -> usize {
        let mut place = self.hand.or(self.oldest).expect("evicts only from a full cache");
        while self.nodes[place].visited {
            self.nodes[place].visited = false;
            place = self.nodes[place].newer.or(self.oldest).expect("the cache is full");
        }
        let Node { key, newer, older, .. } = self.nodes[place];
        self.hand = newer;
        match newer {
            Some(newer) => self.nodes[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.nodes[older].newer = newer,
            None => self.oldest = newer,
        }
        self.places.remove(&key);
        place
    }
}

impl Policy for Sieve {
    fn request(&mut self, key: u64) -> bool {
        if let Some(place) = self.places.get(&key) {
            self.nodes[*place].visited = true;
            return true;
        }
        let evicted = (self.places.len() == self.capacity).then(|| self.evict());
        let node = Node { key, visited: false, newer: None, older: self.newest };
        let place = match evicted {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        match self.newest {
            Some(newest) => self.nodes[newest].newer = Some(place),
            None => self.oldest = Some(place),
        }
        self.newest = Some(place);
        self.places.insert(key, place);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hits;

    #[test]
    fn the_oldest_that_was_not_used_goes() {
        assert_eq!(hits(Sieve::new(2), "abacab"), "..x.x.");
    }

    #[test]
    fn the_hand_stays_where_it_was() {
        // For d, the hand spares a, takes b, and stays at c. For e it takes c, and for f it takes d:
        // a, which is older, is behind it.
        assert_eq!(hits(Sieve::new(3), "abcadefa"), "...x...x");
    }

    #[test]
    fn a_cache_of_one_works() {
        assert_eq!(hits(Sieve::new(1), "aabba"), ".x.x.");
    }
}
