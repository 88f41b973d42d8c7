//! Makes a program that fails smaller, as long as it still fails.

use super::operation::Operation;
use super::program::Program;

/// The smallest program found for which `fails` says yes; `program` itself is known to.
///
/// First whole lanes go, then runs of operations, from halves down to single ones (Zeller and
/// Hildebrandt's delta debugging), then what a single operation has too much of. `fails` may give up
/// by saying no to everything.
pub fn shrink(program: Program, mut fails: impl FnMut(&Program) -> bool) -> Program {
    let mut best = program;
    let mut lane = 0;
    while best.lanes.len() > 1 && lane < best.lanes.len() {
        let mut smaller = best.clone();
        smaller.lanes.remove(lane);
        if fails(&smaller) {
            best = smaller;
        } else {
            lane += 1;
        }
    }
    loop {
        let before = best.operations();
        shrink_runs(&mut best, &mut fails);
        if best.operations() == before || before > 200 {
            break;
        }
    }
    simplify(&mut best, &mut fails);
    best
}

/// Takes runs of operations out, each half as long as the one before.
fn shrink_runs(best: &mut Program, fails: &mut impl FnMut(&Program) -> bool) {
    let mut run = best.operations().div_ceil(2);
    while run > 0 {
        // From the end, where what follows the failure is.
        let mut end = best.operations();
        while end > 0 {
            let start = end.saturating_sub(run);
            let smaller = without(best, start, end);
            if fails(&smaller) {
                *best = smaller;
            }
            end = start.min(best.operations());
        }
        run /= 2;
    }
}

/// The program without the operations from `start` to `end`, counted through all lanes; without
/// the lanes that have none left, too.
fn without(program: &Program, start: usize, end: usize) -> Program {
    let mut number = 0;
    let mut smaller = program.clone();
    for lane in &mut smaller.lanes {
        lane.retain(|_| {
            number += 1;
            !(start..end).contains(&(number - 1))
        });
    }
    smaller.lanes.retain(|lane| !lane.is_empty());
    smaller
}

/// Takes from single operations what they do not need.
fn simplify(best: &mut Program, fails: &mut impl FnMut(&Program) -> bool) {
    for lane in 0..best.lanes.len() {
        for index in 0..best.lanes[lane].len() {
            let Operation::Get { cache, arena, at, len, write, hold } = best.lanes[lane][index]
            else {
                continue;
            };
            let candidates = [
                Operation::Get { cache, arena, at, len, write, hold: None },
                Operation::Get { cache, arena, at, len: 1, write, hold },
            ];
            for candidate in candidates {
                if candidate == best.lanes[lane][index] {
                    continue;
                }
                let mut smaller = best.clone();
                smaller.lanes[lane][index] = candidate;
                if fails(&smaller) {
                    *best = smaller;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::generate::{Abilities, generate};

    #[test]
    fn what_is_needed_stays_and_all_else_goes() {
        let program = generate(4, 400, Abilities::default());
        let is_fork = |o: &Operation| matches!(o, Operation::Fork { .. });
        let is_flush = |o: &Operation| matches!(o, Operation::Flush { .. });
        let mut tries = 0;
        let small = shrink(program, |p| {
            tries += 1;
            let all = || p.lanes.iter().flatten();
            all().any(is_fork) && all().any(is_flush)
        });
        assert_eq!(small.operations(), 2, "{small}");
        assert!(tries < 200, "{tries} tries");
    }

    #[test]
    fn what_fails_by_itself_only_stays_whole() {
        let program = generate(1, 20, Abilities::default());
        let whole = program.clone();
        assert_eq!(shrink(program, |_| false), whole);
    }
}
