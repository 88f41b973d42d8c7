//! Makes a program from a seed: the same one from the same seed, everywhere.

use regcache::page_size;

use super::arena::Kind;
use super::operation::{How, Operation};
use super::program::{CHILDREN, CacheKind, HOLDS, Pins, Program};

/// What programs may use of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Abilities {
    /// An RDMA device pins, too.
    pub verbs: bool,
}

/// A program of about `operations` operations.
pub fn generate(seed: u64, operations: usize, abilities: Abilities) -> Program {
    let mut random = Random(seed);
    let ring = |regions| CacheKind { pins: Pins::Ring, regions };
    // The second one is too small for what is asked of it, so that it evicts.
    let mut caches = vec![ring(256), ring(12)];
    if abilities.verbs {
        let verbs = |regions| CacheKind { pins: Pins::Verbs, regions };
        caches.extend([verbs(64), verbs(8)]);
    }
    let arenas = ARENAS.iter().map(|(kind, _)| *kind).collect();
    let contested = random.below(3) == 0;
    let (lanes, jitter, focus) = if contested {
        let focus =
            Focus { arenas: [random.below(5), random.below(5)], cache: random.below(caches.len()) };
        (2 + random.below(3), 4, Some(focus))
    } else {
        (*random.pick(&[(1, 4), (2, 3), (3, 2), (4, 1)]), 0, None)
    };
    let hot = vec![(0, 1); ARENAS.len()];
    let mut generator = Generator { random, caches: caches.len(), hot, lanes, focus };
    let lanes = (0..lanes)
        .map(|lane| (0..operations / lanes).map(|_| generator.operation(lane)).collect())
        .collect();
    Program { seed, rounds: 1, jitter, caches, arenas, lanes }
}

/// Every kind of memory, and how often it is used. What is slow is seldom.
const ARENAS: &[(Kind, u32)] = &[
    (Kind::Anonymous, 16),
    (Kind::Shared, 12),
    (Kind::PrivateFile, 10),
    (Kind::Anonymous, 16),
    (Kind::Shared, 12),
    (Kind::Brk, 4),
    (Kind::SystemV, 3),
    (Kind::TransparentHuge, 3),
    (Kind::Hugetlb, 1),
    (Kind::SharedHugetlb, 1),
];

/// How often each change is made. What is slow is seldom.
fn weight(how: How) -> u32 {
    match how {
        How::Unmap | How::MapOver | How::Dontneed | How::LeaveHole => 12,
        How::UnmapByLibc | How::UnmapOneByte | How::PunchHole | How::Truncate | How::Brk => 8,
        How::MremapAway
        | How::MremapOnto
        | How::MremapDontunmap
        | How::MremapShrink
        | How::MremapExchange => 8,
        How::ShmAgain | How::ShmOther => 20,
        How::UnmapByClone | How::DontneedByUring | How::Pageout | How::PageoutByOther => 2,
        How::PunchHoleByOther | How::TruncateByOther | How::RemoveByOther => 5,
        How::ClearRefs | How::MigratePages | How::Collapse | How::Mergeable => 1,
        _ => 4,
    }
}

/// What all lanes of a program mostly work on, so that they meet.
struct Focus {
    arenas: [usize; 2],
    cache: usize,
}

struct Generator {
    random: Random,
    lanes: usize,
    focus: Option<Focus>,
    caches: usize,
    /// The range, in bytes, that each arena was last looked up for: the next lookups and changes
    /// are near it.
    hot: Vec<(usize, usize)>,
}

impl Generator {
    fn operation(&mut self, lane: usize) -> Operation {
        match self.random.below(1000) {
            0..700 => self.get(lane),
            700..860 => self.change(lane),
            860..930 => Operation::Drop { hold: self.random.below(HOLDS) },
            930..970 => Operation::Use { hold: self.random.below(HOLDS) },
            970..985 => Operation::Drain { cache: self.random.below(self.caches) },
            985..992 => Operation::Stats { cache: self.random.below(self.caches) },
            992..998 => Operation::Flush { cache: self.random.below(self.caches) },
            _ => Operation::Fork { child: self.random.below(CHILDREN) },
        }
    }

    /// Mostly one that other lanes seldom use, so that most lookups can be judged; or the contrary.
    fn arena(&mut self, lane: usize) -> usize {
        let usual = self.random.below(8) > 1;
        if let (true, Some(focus)) = (usual, &self.focus) {
            return focus.arenas[self.random.below(2)];
        }
        loop {
            let numbers: Vec<_> = (0..ARENAS.len()).map(|n| (n, ARENAS[n].1)).collect();
            let arena = *self.random.pick(&numbers);
            if !usual || self.focus.is_some() || arena % self.lanes == lane {
                return arena;
            }
        }
    }

    fn get(&mut self, lane: usize) -> Operation {
        let arena = self.arena(lane);
        let (at, len) = self.range(arena);
        // Mostly the same for the same memory, or nothing would ever be found again.
        let usual = self.focus.as_ref().map_or(arena % self.caches, |focus| focus.cache);
        let cache = if self.random.below(4) > 0 { usual } else { self.random.below(self.caches) };
        let write = self.random.below(3) > 0;
        let hold = (self.random.below(8) == 0).then(|| self.random.below(HOLDS));
        Operation::Get { cache, arena, at, len, write, hold }
    }

    /// Bytes of an arena: often the last ones again, or a part of them, or their neighbours.
    fn range(&mut self, arena: usize) -> (usize, usize) {
        let bytes = ARENAS[arena].0.pages() * page_size();
        let random = &mut self.random;
        let (hot_at, hot_len) = self.hot[arena];
        let (at, len) = match random.below(20) {
            0..8 => (hot_at, hot_len),
            8..12 => {
                let skip = random.below(hot_len);
                (hot_at + skip, 1 + random.below(hot_len - skip))
            }
            // What lies before, overlaps the end, or comes after.
            12 => (hot_at.saturating_sub(page_size()), page_size() + 1),
            13 => (hot_at + hot_len / 2, hot_len),
            14 => (hot_at + hot_len, hot_len),
            // Across the border of two pages.
            15 => ((1 + random.below(bytes / page_size() - 1)) * page_size() - 8, 16),
            16..19 => (
                random.below(bytes / page_size()) * page_size(),
                (1 + random.below(4)) * page_size(),
            ),
            _ => (random.below(bytes), 1 + random.below(12 * page_size())),
        };
        let at = at.min(bytes - 1);
        let len = len.clamp(1, bytes - at);
        // Now and then all of what is not too large.
        let (at, len) =
            if bytes <= 32 * page_size() && random.below(40) == 0 { (0, bytes) } else { (at, len) };
        self.hot[arena] = (at, len);
        (at, len)
    }

    fn change(&mut self, lane: usize) -> Operation {
        let arena = self.arena(lane);
        let kind = ARENAS[arena].0;
        let all: Vec<_> = How::ALL
            .iter()
            .filter(|how| kind.allows(**how))
            .map(|how| (*how, weight(*how)))
            .collect();
        let how = *self.random.pick(&all);
        let random = &mut self.random;
        let (at, len) = self.hot[arena];
        let (first, last) = (at / page_size(), (at + len - 1) / page_size());
        let (page, pages) = match random.below(8) {
            0..3 => (first, last - first + 1),
            3..6 => (first + random.below(last - first + 1), 1),
            6 => (last, 2),
            _ => (random.below(kind.pages()), 1 + random.below(6)),
        };
        let pages = pages.min(kind.pages() - page);
        Operation::Change { arena, page, pages, how }
    }
}

/// Random numbers: SplitMix64.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// One of these, as often as its weight says.
    fn pick<'a, T>(&mut self, all: &'a [(T, u32)]) -> &'a T {
        let sum: u32 = all.iter().map(|(_, weight)| weight).sum();
        let mut left = self.below(sum as usize) as u32;
        for (value, weight) in all {
            if left < *weight {
                return value;
            }
            left -= weight;
        }
        unreachable!("the number is below the sum of the weights")
    }
}
