//! Events, announced by the program itself: what they cost a hit elsewhere, and how fast they are
//! acted on.

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

/// A subject that can be told that a page is about to be unmapped.
trait Told: Subject + Copy + Send + Sync + 'static {
    fn tell(&self, addr: usize);
}

impl Told for Ours {
    #[inline(never)]
    fn tell(&self, addr: usize) {
        self.cache.monitor().invalidate(Arena::page(addr));
    }
}

impl Told for Ucx {
    #[inline(never)]
    fn tell(&self, addr: usize) {
        self.announce(addr);
    }
}

/// An event where nothing is registered, then a hit: the two together.
pub fn elsewhere(report: &mut Report) -> Result<()> {
    let regions = 1 << 10;
    let measure = format!("event elsewhere then a hit, both, {}", count(regions));
    let time = report.time();
    compare(
        report,
        &measure,
        || event_and_hit(Ours::new(cache(regions, |builder| builder)), regions, time),
        || event_and_hit(Ucx::new(regions), regions, time),
    )
}

/// All regions are hit by an event each, and the next lookup acts on them.
pub fn drain(report: &mut Report) -> Result<()> {
    for regions in [1 << 10, 1 << 14] {
        let measure = format!("drain, {} hit, each", count(regions));
        compare(
            report,
            &measure,
            || drain_all(Ours::new(cache(regions, |builder| builder)), regions),
            || drain_all(Ucx::new(regions), regions),
        )?;
    }
    Ok(())
}

fn compare(
    report: &mut Report,
    measure: &str,
    ours: impl FnOnce() -> Turn,
    ucx: impl FnOnce() -> Turn,
) -> Result<()> {
    if !report.wants(measure) {
        return Ok(());
    }
    let mut rounds = Rounds::default();
    rounds.add(Kind::Shared.name(), ours)?;
    rounds.add(Kind::Ucx.name(), ucx)?;
    let samples = rounds.run(report.turns());
    if let Some(outcome) = samples.outcome(Kind::Shared.name(), Kind::Ucx.name()) {
        report.add(Comparison::new(measure, Kind::Ucx.name(), outcome));
    }
    Ok(())
}

/// Before each lookup, tells of a page that is not registered.
#[derive(Clone, Copy)]
struct AfterEvent<S> {
    subject: S,
    elsewhere: usize,
}

impl<S: Told> Subject for AfterEvent<S> {
    #[inline(always)]
    fn look_up(&mut self, addr: usize) {
        self.subject.tell(self.elsewhere);
        self.subject.look_up(addr);
    }
}

fn event_and_hit<S: Told>(mut subject: S, regions: usize, time: Duration) -> Turn {
    let arena = Arena::map(regions).expect("mmap");
    walk_once(&mut subject, &Course::new(arena, Pattern::Sequential, 0, 1));
    team(1, Clock::Thread, time, move |_| {
        let course = Course::new(arena, Pattern::Same, 0, 1);
        let mut subject = AfterEvent { subject, elsewhere: arena.gap(0) };
        Box::new(move |stop| walk(&mut subject, &course, stop))
    })
}

fn drain_all<S: Told>(subject: S, regions: usize) -> Turn {
    let arena = Arena::map(regions).expect("mmap");
    team(1, Clock::Thread, Duration::ZERO, move |_| {
        let mut subject = subject;
        Box::new(move |stop| {
            for index in 0..regions {
                subject.look_up(arena.region(index));
            }
            let start = stop.clock().nanos();
            for index in 0..regions {
                subject.tell(arena.region(index));
            }
            subject.look_up(arena.region(0));
            (stop.clock().nanos() - start) as f64 / regions as f64
        })
    })
}
