//! Hits: how many regions, in which order, on how many threads.

use regcache_benches::clock::Clock;
use regcache_benches::comparison::{Comparison, OURS};
use regcache_benches::course::{Pattern, count};
use regcache_benches::rounds::{Rounds, Samples};

use crate::contestants::{Kind, Scene, hits};
use crate::{Report, Result};

/// One thread.
pub fn of_one_thread(report: &mut Report) -> Result<()> {
    for regions in [1, 16, 1 << 10, 1 << 16, 1 << 20] {
        for pattern in [Pattern::Same, Pattern::Random, Pattern::Sequential] {
            if regions > 1 || pattern == Pattern::Same {
                one_thread(report, regions, pattern)?;
            }
        }
    }
    Ok(())
}

fn one_thread(report: &mut Report, regions: usize, pattern: Pattern) -> Result<()> {
    let what = format!("{}, {}", pattern.name(), count(regions));
    if !report.wants(&format!("hit, {what}")) {
        return Ok(());
    }
    // The floors are of any size; the other ways of use are measured where something is promised.
    let is_main = regions == 1 << 10 && pattern == Pattern::Same;
    let kinds: &[Kind] = match regions {
        _ if is_main => {
            use Kind::*;
            &[Shared, Handle, Fallback, Ucx, CounterLoad, AddSub]
        }
        1_024 | 65_536 => &[Kind::Shared, Kind::Handle, Kind::Fallback, Kind::Ucx],
        _ => &[Kind::Shared, Kind::Ucx],
    };
    let scene = Scene { regions, pattern, threads: 1, clock: Clock::Thread, time: report.time() };
    let mut rounds = Rounds::default();
    for kind in kinds.iter().copied() {
        rounds.add(kind.name(), || hits(kind, scene))?;
    }
    let samples = rounds.run(report.turns());

    let bar = match (pattern, regions) {
        (Pattern::Same, _) => Some(0.10),
        (Pattern::Random, 1_024) => Some(0.15),
        (Pattern::Random, 65_536) => Some(0.25),
        _ => None,
    };
    let on_main = |bar: f64| is_main.then_some(bar);
    let mut row = |name: &str, kind: Kind, peer: Kind, bar: Option<f64>| {
        if let Some(outcome) = samples.outcome(kind.name(), peer.name()) {
            let measure = format!("{name}, {what}");
            report.add(Comparison::new(measure, peer.name(), outcome).at_most(bar));
        }
    };
    row("hit", Kind::Shared, Kind::Ucx, bar);
    row("hit", Kind::Shared, Kind::AddSub, on_main(0.50));
    row("hit", Kind::Shared, Kind::CounterLoad, None);
    row("hit by a per-thread handle", Kind::Handle, Kind::Ucx, on_main(0.07));
    row("hit without membarrier", Kind::Fallback, Kind::Ucx, on_main(0.35));
    report.floors(&samples);
    Ok(())
}

/// Two and four threads, each against one alone and against as many of UCX's.
pub fn of_many_threads(report: &mut Report) -> Result<()> {
    for threads in [2, 4] {
        for (pattern, bar) in [
            (Pattern::Same, Some(1.15)),
            (Pattern::Own, Some(1.15)),
            (Pattern::Random, None),
            (Pattern::RandomShare, None),
        ] {
            // With more threads than processors, nothing can be promised of each.
            let bar = bar.filter(|_| threads == 2);
            many_threads(report, pattern, threads, bar)?;
        }
    }
    Ok(())
}

fn many_threads(
    report: &mut Report,
    pattern: Pattern,
    threads: usize,
    bar: Option<f64>,
) -> Result<()> {
    let regions = 1 << 10;
    let measure = format!("hit, {}, {}, {threads} threads, each", pattern.name(), count(regions));
    if !report.wants(&measure) {
        return Ok(());
    }
    let samples = {
        // One alone by the same clock as many, who wait for each other.
        let (clock, time) = (Clock::Wall, report.time());
        let scene = |threads| Scene { regions, pattern, threads, clock, time };
        let mut rounds = Rounds::default();
        rounds.add(ALONE, || hits(Kind::Shared, scene(1)))?;
        rounds.add(Kind::Shared.name(), || hits(Kind::Shared, scene(threads)))?;
        rounds.add(Kind::Ucx.name(), || hits(Kind::Ucx, scene(threads)))?;
        rounds.add(LOADS_ALONE, || hits(Kind::CounterLoad, scene(1)))?;
        rounds.add(Kind::CounterLoad.name(), || hits(Kind::CounterLoad, scene(threads)))?;
        rounds.run(report.turns())
    };
    say_if_the_machine_does_not_scale(&samples, threads);
    let peer = format!("{OURS}, 1 thread");
    if let Some(outcome) = samples.outcome(Kind::Shared.name(), ALONE) {
        report.add(Comparison::new(&measure, &peer, outcome).at_most(bar));
    }
    if let Some(outcome) = samples.outcome(Kind::Shared.name(), Kind::Ucx.name()) {
        report.add(Comparison::new(&measure, Kind::Ucx.name(), outcome));
    }
    Ok(())
}

const ALONE: &str = "alone";
const LOADS_ALONE: &str = "loads alone";

/// Threads that only load, each a word of its own, show what the machine itself takes from them.
fn say_if_the_machine_does_not_scale(samples: &Samples, threads: usize) {
    let outcome = samples.outcome(Kind::CounterLoad.name(), LOADS_ALONE);
    if let Some(outcome) = outcome.filter(|outcome| outcome.ratio > 1.05) {
        println!(
            "  (with {threads} threads, even loads of a word of their own take {:.2} times as long)",
            outcome.ratio
        );
    }
}
