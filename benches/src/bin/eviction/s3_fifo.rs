//! S3-FIFO: new keys pass a small queue, and only what is used there gets into the main one; a third
//! queue remembers what did not, and lets it into the main one if it comes again (Yang and others,
//! SOSP 2023).

use std::collections::{HashMap, HashSet, VecDeque};

use crate::policy::Policy;

/// How often a key was used, at most as counted.
const MOST: u8 = 3;

/// S3-FIFO with a tenth of its room for the small queue.
pub struct S3Fifo {
    capacity: usize,
    small_capacity: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    /// Uses of each key in the two queues since it came in.
    uses: HashMap<u64, u8>,
    ghosts: VecDeque<u64>,
    is_ghost: HashSet<u64>,
}

impl S3Fifo {
    /// A cache of that many keys.
    pub fn new(capacity: usize) -> S3Fifo {
        S3Fifo {
            capacity,
            small_capacity: (capacity / 10).max(1),
            small: VecDeque::new(),
            main: VecDeque::new(),
            uses: HashMap::new(),
            ghosts: VecDeque::new(),
            is_ghost: HashSet::new(),
        }
    }

    fn evict(&mut self) {
        while self.uses.len() >= self.capacity {
            if self.small.len() >= self.small_capacity || self.main.is_empty() {
                self.leave_small();
            } else {
                self.leave_main();
            }
        }
    }

    /// The oldest of the small queue moves on, or becomes a ghost.
    fn leave_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        // One use may be a burst of one; the paper asks for more than one.
        if self.uses[&key] > 1 {
            self.uses.insert(key, 0);
            self.main.push_back(key);
            return;
        }
        self.uses.remove(&key);
        self.ghosts.push_back(key);
        self.is_ghost.insert(key);
        while self.ghosts.len() > self.capacity - self.small_capacity.min(self.capacity - 1) {
            if let Some(ghost) = self.ghosts.pop_front() {
                self.is_ghost.remove(&ghost);
            }
        }
    }

    /// The oldest of the main queue goes round again, one use poorer, or out.
    fn leave_main(&mut self) {
        let Some(key) = self.main.pop_front() else { return };
        match self.uses.get_mut(&key) {
            Some(uses) if *uses > 0 => {
                *uses -= 1;
                self.main.push_back(key);
            }
            _ => {
                self.uses.remove(&key);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, key: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(MOST);
            return true;
        }
        self.evict();
        if self.is_ghost.remove(&key) {
            self.ghosts.retain(|ghost| *ghost != key);
            self.main.push_back(key);
        } else {
            self.small.push_back(key);
        }
        self.uses.insert(key, 0);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hits;

    #[test]
    fn what_is_used_twice_outlives_a_scan() {
        let scan: String = ('b'..='z').collect();
        let trace = format!("aaa{scan}a");
        assert!(hits(S3Fifo::new(10), &trace).ends_with('x'));
        // Used once, it does not.
        assert!(hits(S3Fifo::new(10), &format!("aa{scan}a")).ends_with('.'));
    }

    #[test]
    fn a_ghost_comes_back_into_the_main_queue() {
        // a leaves the small queue, comes again, and then outlives a scan longer than the cache.
        let mut cache = S3Fifo::new(10);
        for key in "abcdefghijka".chars() {
            assert!(!cache.request(key as u64));
        }
        assert_eq!(cache.main, ['a' as u64]);
        for key in 1000..1040 {
            cache.request(key);
        }
        assert!(cache.request('a' as u64));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let mut cache = S3Fifo::new(10);
        for step in 0..1000_u64 {
            cache.request(step * step % 37);
            assert!(cache.uses.len() <= 10);
            assert_eq!(cache.uses.len(), cache.small.len() + cache.main.len());
            assert_eq!(cache.ghosts.len(), cache.is_ghost.len());
            assert!(cache.ghosts.len() <= 9);
        }
    }
}
