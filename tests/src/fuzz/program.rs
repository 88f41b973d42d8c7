//! A program: what it works on, and what each of its threads does.

use std::fmt;
use std::str::FromStr;

use super::arena::Kind;
use super::operation::{Operation, named};

/// How many guards a program can hold at a time.
pub const HOLDS: usize = 24;
/// How many forked children it can have at a time.
pub const CHILDREN: usize = 3;

/// A program, complete: its text runs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What it was made from.
    pub seed: u64,
    /// How often each lane does all that it does.
    pub rounds: usize,
    /// One of so many calls of a registrar or a monitor takes longer than it must, so that threads
    /// meet inside of the cache; 0 for none.
    pub jitter: u64,
    /// Its caches. One that no operation names is not made, nor is such an arena.
    pub caches: Vec<CacheKind>,
    /// Its memory.
    pub arenas: Vec<Kind>,
    /// What each thread does.
    pub lanes: Vec<Vec<Operation>>,
}

named! {
    /// Who pins for a cache.
    Pins {
        /// An io_uring.
        Ring = "ring",
        /// An RDMA device, in a protection domain of its own.
        Verbs = "verbs",
    }
}

/// A cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKind {
    /// Who pins.
    pub pins: Pins,
    /// How many registrations it may hold.
    pub regions: usize,
}

impl Program {
    /// How many operations it has.
    pub fn operations(&self) -> usize {
        self.lanes.iter().map(Vec::len).sum()
    }

    /// Whether any operation names this arena.
    pub fn uses_arena(&self, number: usize) -> bool {
        self.lanes.iter().flatten().any(|operation| match *operation {
            Operation::Get { arena, .. } | Operation::Change { arena, .. } => arena == number,
            _ => false,
        })
    }

    /// Whether any operation names this cache.
    pub fn uses_cache(&self, number: usize) -> bool {
        self.lanes.iter().flatten().any(|operation| match *operation {
            Operation::Get { cache, .. }
            | Operation::Drain { cache }
            | Operation::Flush { cache }
            | Operation::Stats { cache } => cache == number,
            _ => false,
        })
    }

    /// Whether all that the operations name is there.
    fn check(&self) -> Result<(), String> {
        let below = |what: &str, number: usize, limit: usize| match number < limit {
            true => Ok(()),
            false => Err(format!("there is no {what} {number}")),
        };
        for operation in self.lanes.iter().flatten() {
            match *operation {
                Operation::Get { cache, arena, hold, len, .. } => {
                    below("cache", cache, self.caches.len())?;
                    below("arena", arena, self.arenas.len())?;
                    below("hold", hold.unwrap_or(0), HOLDS)?;
                    below("lookup of length", len.wrapping_sub(1), usize::MAX)?;
                }
                Operation::Change { arena, .. } => below("arena", arena, self.arenas.len())?,
                Operation::Use { hold } | Operation::Drop { hold } => below("hold", hold, HOLDS)?,
                Operation::Fork { child } => below("child", child, CHILDREN)?,
                Operation::Drain { cache }
                | Operation::Flush { cache }
                | Operation::Stats { cache } => below("cache", cache, self.caches.len())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "rounds {}", self.rounds)?;
        writeln!(f, "jitter {}", self.jitter)?;
        for cache in &self.caches {
            writeln!(f, "cache {} {}", cache.pins, cache.regions)?;
        }
        for arena in &self.arenas {
            writeln!(f, "arena {arena}")?;
        }
        for lane in &self.lanes {
            writeln!(f, "lane")?;
            for operation in lane {
                writeln!(f, "  {operation}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Program {
    type Err = String;

    /// Empty lines, and what follows a `#`, say nothing.
    fn from_str(text: &str) -> Result<Program, String> {
        let (caches, arenas, lanes) = (Vec::new(), Vec::new(), Vec::new());
        let mut program = Program { seed: 0, rounds: 1, jitter: 0, caches, arenas, lanes };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let bad = || format!("{line:?} is not understood");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [] => (),
                ["seed", seed] => program.seed = seed.parse().map_err(|_| bad())?,
                ["rounds", rounds] => program.rounds = rounds.parse().map_err(|_| bad())?,
                ["jitter", jitter] => program.jitter = jitter.parse().map_err(|_| bad())?,
                ["cache", pins, regions] => {
                    let regions = regions.parse().map_err(|_| bad())?;
                    program.caches.push(CacheKind { pins: pins.parse()?, regions });
                }
                ["arena", kind] => program.arenas.push(kind.parse()?),
                ["lane"] => program.lanes.push(Vec::new()),
                _ => program.lanes.last_mut().ok_or_else(bad)?.push(line.parse()?),
            }
        }
        program.check()?;
        Ok(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::generate::{Abilities, generate};

    #[test]
    fn the_text_of_a_program_is_the_program() {
        for seed in 0..20 {
            let program = generate(seed, 500, Abilities { verbs: true });
            assert_eq!(program.to_string().parse(), Ok(program));
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["get 0 0 0+1 r", "lane\nget 0 0 0+1 r", "lane\njump 3", "lane\nuse 99"] {
            assert!(text.parse::<Program>().is_err(), "{text}");
        }
    }
}
