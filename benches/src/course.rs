//! The addresses that are looked up, in which order.

use std::io;
use std::sync::Arc;

use regcache::{AddressRange, page_size};

/// Memory of which every other page is to be registered: no two of them can be merged.
///
/// It is mapped and never touched, so a million regions cost no memory of their own. It stays mapped
/// while the process lives.
#[derive(Debug, Clone, Copy)]
pub struct Arena {
    base: usize,
    regions: usize,
}

impl Arena {
    /// Maps memory for that many regions, and as many pages between them.
    pub fn map(regions: usize) -> io::Result<Arena> {
        let bytes = 2 * (regions + 1) * page_size();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Arena { base: base as usize, regions })
    }

    /// How many regions it has.
    pub fn regions(&self) -> usize {
        self.regions
    }

    /// The address of a region; it is a page long.
    #[inline]
    pub fn region(&self, index: usize) -> usize {
        self.base + 2 * index * page_size()
    }

    /// The page behind a region, which is never registered.
    pub fn gap(&self, index: usize) -> usize {
        self.region(index) + page_size()
    }

    /// A page that starts at `addr`.
    pub fn page(addr: usize) -> AddressRange {
        AddressRange::new(addr, page_size()).expect("the arena ends before the address space")
    }
}

/// In which order regions are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Every thread the one in the middle.
    Same,
    /// Each thread one of its own.
    Own,
    /// Any, uniformly.
    Random,
    /// Any of the thread's own share, uniformly.
    RandomShare,
    /// One after the other.
    Sequential,
}

impl Pattern {
    /// For the name of a measure.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Same => "same region",
            Pattern::Own => "a region each",
            Pattern::Random => "random",
            Pattern::RandomShare => "random, disjoint",
            Pattern::Sequential => "sequential",
        }
    }
}

/// The addresses that one thread looks up, over and over.
#[derive(Debug, Clone)]
pub struct Course {
    order: Arc<[usize]>,
}

/// A course is walked in pieces of this many steps; its length is a multiple.
pub const PIECE: usize = 1024;
/// Long enough that branch predictors do not learn it.
const SHORTEST: usize = 1 << 14;

impl Course {
    /// The course of one of `threads` threads.
    pub fn new(arena: Arena, pattern: Pattern, thread: usize, threads: usize) -> Course {
        let regions = arena.regions();
        // The same numbers in each process, other ones in each thread.
        let mut random = Random::new(thread as u64);
        let share = regions / threads;
        let order: Vec<usize> = match pattern {
            Pattern::Same => vec![regions / 2; PIECE],
            Pattern::Own => vec![(regions / 2 + thread) % regions; PIECE],
            Pattern::Random | Pattern::RandomShare => {
                let (first, count) = match pattern {
                    Pattern::RandomShare => (thread * share, share),
                    _ => (0, regions),
                };
                let steps = count.next_multiple_of(PIECE).max(SHORTEST);
                (0..steps).map(|_| first + random.below(count)).collect()
            }
            Pattern::Sequential => {
                // Whole rounds, so that every region comes equally often.
                let steps = regions * PIECE / gcd(regions, PIECE);
                (0..steps).map(|step| (step + thread * share) % regions).collect()
            }
        };
        Course { order: order.into_iter().map(|index| arena.region(index)).collect() }
    }

    /// The pieces, in order.
    #[inline]
    pub fn pieces(&self) -> impl Iterator<Item = &[usize]> + Clone {
        self.order.chunks_exact(PIECE)
    }

    /// How many steps one round has.
    pub fn steps(&self) -> usize {
        self.order.len()
    }
}

/// A number of regions in words, short.
pub fn count(regions: usize) -> String {
    match regions {
        1 => "1 region".into(),
        n if n % (1 << 20) == 0 => format!("{}M regions", n >> 20),
        n if n % (1 << 10) == 0 => format!("{}k regions", n >> 10),
        n => format!("{n} regions"),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// SplitMix64: the same numbers in every run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// A number from 0 inclusive to 1 exclusive.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn visited(pattern: Pattern, thread: usize) -> HashSet<usize> {
        let arena = Arena { base: 0, regions: 48 };
        let course = Course::new(arena, pattern, thread, 2);
        assert_eq!(course.pieces().flatten().count(), course.steps(), "whole pieces");
        course.pieces().flatten().map(|addr| addr / page_size() / 2).collect()
    }

    #[test]
    fn courses_visit_what_their_pattern_says() {
        assert_eq!(visited(Pattern::Same, 0), visited(Pattern::Same, 1));
        assert!(visited(Pattern::Own, 0).is_disjoint(&visited(Pattern::Own, 1)));
        assert_eq!(visited(Pattern::Random, 0).len(), 48);
        assert!(visited(Pattern::RandomShare, 0).is_disjoint(&visited(Pattern::RandomShare, 1)));
        assert_eq!(visited(Pattern::RandomShare, 1).len(), 24);
        assert_eq!(visited(Pattern::Sequential, 0).len(), 48);
    }

    #[test]
    fn counts_are_short() {
        let texts = [1, 16, 1000, 1024, 1 << 16, 1 << 20].map(count);
        let words = ["1 region", "16 regions", "1000 regions", "1k regions", "64k regions"];
        assert_eq!(texts[..5], words);
        assert_eq!(texts[5], "1M regions");
    }

    #[test]
    fn a_course_is_the_same_in_every_process() {
        let arena = Arena { base: 0, regions: 1000 };
        let order = |thread| Course::new(arena, Pattern::Random, thread, 2).order;
        assert_eq!(order(0), order(0));
        assert_ne!(order(0), order(1));
    }
}
