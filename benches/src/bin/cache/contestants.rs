//! Who takes part: the ways to use our cache, UCX's, and the floors.

use std::hint::black_box;
use std::time::Duration;

use regcache::monitor::Manual;
use regcache::{Access, Barrier, Builder, Cache, Local, page_size};
use regcache_benches::clock::Clock;
use regcache_benches::course::{Arena, Course, Pattern};
use regcache_benches::floor::{AddSub, CounterLoad};
use regcache_benches::free::Free;
use regcache_benches::subject::{Subject, walk, walk_once};
use regcache_benches::team::team;
use regcache_benches::ucx::Ucx;
use regcache_benches::worker::Turn;

/// A contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our cache, shared by reference.
    Shared,
    /// Our cache by a per-thread handle.
    Handle,
    /// Our cache where membarrier(2) is not to be had.
    Fallback,
    /// UCX's cache.
    Ucx,
    /// A floor: one load of a counter.
    CounterLoad,
    /// A floor: one uncontended atomic add and sub.
    AddSub,
}

impl Kind {
    /// Names it in samples.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Shared => "shared",
            Kind::Handle => "handle",
            Kind::Fallback => "fallback",
            Kind::Ucx => regcache_benches::ucx::NAME,
            Kind::CounterLoad => "one counter load",
            Kind::AddSub => "one atomic add + sub",
        }
    }
}

/// What is looked up, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub regions: usize,
    pub pattern: Pattern,
    pub threads: usize,
    /// By which time.
    pub clock: Clock,
    /// How long a turn takes.
    pub time: Duration,
}

/// Turns of nothing but hits.
pub fn hits(kind: Kind, scene: Scene) -> Turn {
    match kind {
        Kind::Shared => {
            let cache = cache(scene.regions, |builder| builder);
            hits_of(scene, move || Ours::new(cache), move || cache.stats().registrations)
        }
        Kind::Fallback => {
            let cache = cache(scene.regions, |builder| builder.barrier(Barrier::Atomic));
            hits_of(scene, move || Ours::new(cache), move || cache.stats().registrations)
        }
        Kind::Handle => {
            let cache = cache(scene.regions, |builder| builder);
            hits_of(scene, move || Handle::new(cache), move || cache.stats().registrations)
        }
        Kind::Ucx => {
            let ucx = Ucx::new(scene.regions);
            hits_of(scene, move || ucx, move || ucx.registrations())
        }
        Kind::CounterLoad => hits_of(scene, CounterLoad::default, || 0),
        Kind::AddSub => hits_of(scene, AddSub::default, || 0),
    }
}

/// Registers all, then lets a team hit, and makes sure that it does nothing else.
fn hits_of<S: Subject + 'static>(
    scene: Scene,
    subject: impl Fn() -> S + Send + Sync + 'static,
    registrations: impl Fn() -> u64 + 'static,
) -> Turn {
    let arena = Arena::map(scene.regions).expect("mmap");
    walk_once(&mut subject(), &Course::new(arena, Pattern::Sequential, 0, 1));
    let registered = registrations();
    let mut turn = team(scene.threads, scene.clock, scene.time, move |thread| {
        let mut subject = subject();
        let course = Course::new(arena, scene.pattern, thread, scene.threads);
        // What a thread does at its first lookups is not what is measured.
        walk_once(&mut subject, &course);
        Box::new(move |stop| walk(&mut subject, &course, stop))
    });
    Box::new(move || {
        let nanos = turn();
        assert_eq!(registrations(), registered, "every lookup is a hit");
        nanos
    })
}

/// A cache with a free registrar that lives as long as the process.
pub fn cache(
    regions: usize,
    configure: impl FnOnce(Builder<Free, Manual>) -> Builder<Free, Manual>,
) -> &'static Cache<Free, Manual> {
    let builder = Cache::builder(Free, Manual::new()).max_regions(regions).max_bytes(u64::MAX);
    Box::leak(Box::new(configure(builder).build().expect("a cache")))
}

/// Our cache, shared by reference.
#[derive(Clone, Copy)]
pub struct Ours {
    pub cache: &'static Cache<Free, Manual>,
    page_size: usize,
}

impl Ours {
    /// Looks up in `cache`.
    pub fn new(cache: &'static Cache<Free, Manual>) -> Ours {
        Ours { cache, page_size: page_size() }
    }
}

impl Subject for Ours {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        let guard = self.cache.get_or_register(addr, self.page_size, Access::LOCAL_WRITE);
        black_box(guard.expect("registering is free").lkey());
    }
}

/// Our cache, by a handle of the thread that uses it.
struct Handle {
    local: Local<'static, Free, Manual>,
    page_size: usize,
}

impl Handle {
    fn new(cache: &'static Cache<Free, Manual>) -> Handle {
        Handle { local: cache.local(), page_size: page_size() }
    }
}

impl Subject for Handle {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        let guard = self.local.get_or_register(addr, self.page_size, Access::LOCAL_WRITE);
        black_box(guard.expect("registering is free").lkey());
    }
}
