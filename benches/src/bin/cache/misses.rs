//! Misses in a full cache: each registers, which is free, and evicts.

use std::time::Duration;

use regcache_benches::clock::Clock;
use regcache_benches::comparison::Comparison;
use regcache_benches::course::{Arena, Course, Pattern, count};
use regcache_benches::rounds::Rounds;
use regcache_benches::subject::{Subject, walk, walk_once};
use regcache_benches::team::team;
use regcache_benches::ucx::Ucx;
use regcache_benches::worker::Turn;

use crate::contestants::{Kind, Ours, cache};
use crate::{Report, Result};

/// A small cache and one of the usual size.
pub fn with_eviction(report: &mut Report) -> Result<()> {
    for (limit, bar) in [(16, None), (1 << 14, Some(1.0))] {
        let measure = format!("miss and evict, limit {}", count(limit));
        if !report.wants(&measure) {
            continue;
        }
        let time = report.time();
        let mut rounds = Rounds::default();
        rounds.add(Kind::Shared.name(), || {
            let cache = cache(limit, |builder| builder);
            misses(Ours::new(cache), limit, time, || cache.stats().registrations)
        })?;
        rounds.add(Kind::Ucx.name(), || {
            let ucx = Ucx::new(limit);
            misses(ucx, limit, time, || ucx.registrations())
        })?;
        let samples = rounds.run(report.turns());
        if let Some(outcome) = samples.outcome(Kind::Shared.name(), Kind::Ucx.name()) {
            report.add(Comparison::new(measure, Kind::Ucx.name(), outcome).at_most(bar));
        }
    }
    Ok(())
}

/// Goes round so many more regions than there may be that no order of eviction can keep what comes
/// next.
const ROUND: usize = 64;

fn misses<S: Subject + Copy + Send + Sync + 'static>(
    mut subject: S,
    limit: usize,
    time: Duration,
    registrations: impl Fn() -> u64,
) -> Turn {
    let arena = Arena::map(ROUND * limit).expect("mmap");
    let course = Course::new(arena, Pattern::Sequential, 0, 1);
    for _ in 0..2 {
        let before = registrations();
        walk_once(&mut subject, &course);
        let hits = course.steps() as u64 - (registrations() - before);
        assert!(hits <= (course.steps() / ROUND) as u64, "{hits} hits where there should be none");
    }
    team(1, Clock::Thread, time, move |_| {
        let (mut subject, course) = (subject, course.clone());
        Box::new(move |stop| walk(&mut subject, &course, stop))
    })
}
