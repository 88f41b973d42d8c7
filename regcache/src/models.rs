//! loom models of the protocols between lookups and those who end registrations. Run with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p regcache --lib models
//! ```
//!
//! The slot and the cells are the real ones; the fences are as strong as membarrier(2) makes them and
//! no stronger (see [`crate::sync::model`]). The table's lock is loom's, and what the
//! table does under it (make stale, settle, settle a zombie) is written out here in a few lines. The
//! region is a cell that loom watches: a reader that runs together with the deregistration is an
//! error.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::barrier::Barrier;
use crate::cells::{BlockPages, Blocks, HoldCell};
use crate::slot::{Phase, Slot};
use crate::sync::model::{far_fence, this_is_thread};

/// Checks all orders of two threads; of three, those with up to three preemptions.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

/// A cache of one slot.
struct Model {
    slot: Slot<()>,
    blocks: Blocks,
    /// The table's lock; and whether the slot is a zombie.
    table: Mutex<bool>,
    /// The registration: its version while it is registered.
    region: UnsafeCell<Option<u32>>,
}

// SAFETY: loom checks every access to the region, which is what the models are for.
unsafe impl Sync for Model {}
// SAFETY: as above.
unsafe impl Send for Model {}

impl Model {
    /// With one valid registration.
    fn new() -> Model {
        let slot = Slot::new();
        slot.set(slot.state().to(Phase::Valid));
        let region = UnsafeCell::new(Some(slot.state().version()));
        Model { slot, blocks: Blocks::new(Barrier::Membarrier), table: Mutex::new(false), region }
    }

    fn make_stale(&self) {
        let _table = self.table.lock().unwrap();
        self.slot.set(self.slot.state().to(Phase::Stale));
    }

    /// The far side of the barrier, then what `Table::settle` does.
    fn settle(&self) {
        far_fence();
        let mut zombie = self.table.lock().unwrap();
        *zombie = !self.try_end();
    }

    /// What `Table::settle_zombie` does.
    fn kick(&self) {
        let mut zombie = self.table.lock().unwrap();
        if *zombie {
            *zombie = !self.try_end();
        }
    }

    fn try_end(&self) -> bool {
        let held = self.blocks.held();
        if held.contains(&0) || self.slot.references() > 0 {
            return false;
        }
        self.slot.set(self.slot.state().to(Phase::Dying));
        self.region.with_mut(|region| {
            // SAFETY: loom watches.
            let was = unsafe { (*region).take() };
            assert!(was.is_some(), "deregistered twice");
        });
        true
    }

    /// Registers anew in a slot that was ended.
    fn reuse(&self) {
        let _table = self.table.lock().unwrap();
        if !self.slot.state().is(Phase::Dying) {
            return;
        }
        let state = self.slot.state().next(Phase::Pending).unwrap();
        self.slot.set(state);
        // SAFETY: loom watches.
        self.region.with_mut(|region| unsafe { *region = Some(state.version()) });
        self.slot.set(state.to(Phase::Valid));
    }

    /// Uses what is held and was found valid.
    fn read(&self) {
        self.region.with(|region| {
            // SAFETY: loom watches.
            assert!(unsafe { *region }.is_some(), "used after it was deregistered");
        });
    }

    /// A lookup by a cell, and its release.
    fn look_up(&self, block: &BlockPages) {
        // SAFETY: each model's thread has a block of its own.
        let cell = unsafe { block.owned() }.free_cell().expect("a cell");
        cell.hold(0);
        if self.slot.state().is(Phase::Valid) {
            self.read();
        }
        cell.release();
        self.after_release();
    }

    /// What a holder does when it has let go.
    fn after_release(&self) {
        if self.slot.state().is(Phase::Stale) {
            self.kick();
        }
    }

    /// A lookup by count, and its release.
    fn look_up_counted(&self) {
        self.slot.add_reference();
        if self.slot.state().is(Phase::Valid) {
            self.read();
        }
        self.slot.release_reference();
        self.after_release();
    }

    /// A lookup by a cell, whose clone outlives it.
    fn look_up_and_clone(&self, block: &BlockPages) {
        // SAFETY: each model's thread has a block of its own.
        let cell = unsafe { block.owned() }.free_cell().expect("a cell");
        cell.hold(0);
        let found = self.slot.state().is(Phase::Valid);
        if found {
            self.slot.add_reference();
        }
        cell.release();
        self.after_release();
        if found {
            self.read();
            self.slot.release_reference();
            self.after_release();
        }
    }

    fn assert_ended(&self) {
        // SAFETY: loom watches.
        let left = self.region.with(|region| unsafe { *region });
        assert_eq!(left, None, "nobody holds it, and it is still registered");
    }
}

/// A thread of a model; the one that begins it is number 0.
fn spawn(number: usize, work: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        this_is_thread(number);
        work();
    })
}

/// Does `work` on a thread of its own while the registration is ended. Every thread's block is
/// claimed before: the lock around their list is not loom's.
fn while_it_is_ended(work: fn(&Model, &BlockPages)) -> Arc<Model> {
    let model = Arc::new(Model::new());
    let block = model.blocks.claim().unwrap();
    let worker = {
        let model = model.clone();
        spawn(1, move || work(&model, &block))
    };
    model.make_stale();
    model.settle();
    worker.join().unwrap();
    model
}

#[test]
fn a_hit_against_an_invalidation() {
    loom::model(|| while_it_is_ended(Model::look_up).assert_ended());
}

#[test]
fn a_hit_by_count_against_an_invalidation() {
    loom::model(|| while_it_is_ended(|model, _| model.look_up_counted()).assert_ended());
}

#[test]
fn a_clone_that_outlives_the_cell_it_came_from() {
    loom::model(|| while_it_is_ended(Model::look_up_and_clone).assert_ended());
}

#[test]
fn two_holders_and_the_last_one_ends_it() {
    check(|| {
        let model = Arc::new(Model::new());
        let threads: Vec<_> = (1..=2)
            .map(|n| {
                let (model, block) = (model.clone(), model.blocks.claim().unwrap());
                spawn(n, move || model.look_up(&block))
            })
            .collect();
        model.make_stale();
        model.settle();
        threads.into_iter().for_each(|t| t.join().unwrap());
        model.assert_ended();
    });
}

#[test]
fn a_lookup_that_comes_upon_the_next_tenant() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let block = model.blocks.claim().unwrap();
        let looker = {
            let model = model.clone();
            spawn(1, move || model.look_up(&block))
        };
        model.make_stale();
        model.settle();
        model.reuse();
        looker.join().unwrap();
    });
}

/// A guard is dropped by another thread, whose release of the cell the owner sees before it uses the
/// cell again: what that thread did with the registration comes before its end, though the scan
/// finds only what the owner wrote into the cell last.
#[test]
fn a_cell_that_another_thread_has_let_go_of_is_used_again() {
    check(|| {
        let model = Arc::new(Model::new());
        let block = model.blocks.claim().unwrap();
        // SAFETY: only this thread uses the block, but for the cell that it hands on.
        let owned = unsafe { block.owned() };
        let cell: *const HoldCell = owned.next_cell().expect("a cell");
        // SAFETY: the block lives until the end of the model.
        let cell: &'static HoldCell = unsafe { &*cell };
        cell.hold(0);
        assert!(model.slot.state().is(Phase::Valid));
        let other = {
            let model = model.clone();
            spawn(1, move || {
                model.read();
                cell.release();
                model.after_release();
            })
        };
        let ender = {
            let model = model.clone();
            spawn(2, move || {
                model.make_stale();
                model.settle();
            })
        };
        if let Some(cell) = owned.next_cell() {
            cell.hold(0);
            if model.slot.state().is(Phase::Valid) {
                model.read();
            }
            cell.release();
            model.after_release();
        }
        other.join().unwrap();
        ender.join().unwrap();
        model.assert_ended();
    });
}

/// The barrier is refused: without it a registration is ended only when the thread that may hold it by
/// a cell has said that it counts, and that thread finds nothing valid by a cell any more.
#[test]
fn a_hit_against_an_invalidation_when_the_barrier_is_refused() {
    check(|| {
        let model = Arc::new(Model::new());
        let counted = Arc::new(AtomicBool::new(false));
        let block = model.blocks.claim().unwrap();
        let worker = {
            let (model, counted) = (model.clone(), counted.clone());
            spawn(1, move || {
                model.look_up(&block);
                // `Shared::learn_of_counting`.
                if counted.load(Ordering::Acquire) {
                    // SAFETY: only this thread uses the block.
                    unsafe { block.owned() }.counts_from_now_on();
                }
                model.look_up(&block);
            })
        };
        {
            // `Table::count_holds`.
            let _table = model.table.lock().unwrap();
            model.slot.set(model.slot.state().to(Phase::Counted));
        }
        counted.store(true, Ordering::Release);
        model.make_stale();
        if model.blocks.all_count() {
            // `Table::settle_counted`: what is held is looked at again later.
            let _table = model.table.lock().unwrap();
            model.try_end();
        }
        worker.join().unwrap();
    });
}

/// The order of the freshness check: `seen`, then the generation, then the state.
#[test]
fn a_lookup_after_a_change_against_a_drain() {
    check(|| {
        let model = Arc::new(Model::new());
        let generation = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(AtomicU64::new(0));
        let changed = Arc::new(AtomicBool::new(false));
        let kernel = {
            let (generation, changed) = (generation.clone(), changed.clone());
            thread::spawn(move || {
                // The generation moves before the mapping changes.
                generation.store(1, Ordering::Release);
                changed.store(true, Ordering::Release);
            })
        };
        let drainer = {
            let (model, generation, seen) = (model.clone(), generation.clone(), seen.clone());
            thread::spawn(move || {
                let up_to = generation.load(Ordering::Acquire);
                if up_to == 1 {
                    model.make_stale();
                }
                seen.store(up_to, Ordering::Release);
            })
        };
        if changed.load(Ordering::Acquire) {
            let seen = seen.load(Ordering::Acquire);
            let fresh = seen == generation.load(Ordering::Relaxed);
            let valid = model.slot.state().is(Phase::Valid);
            assert!(!(fresh && valid), "a hit on what had changed before the lookup began");
        }
        kernel.join().unwrap();
        drainer.join().unwrap();
    });
}

/// The order on a miss: generation, watch, pin, check, publish.
#[test]
fn a_registration_against_a_change_while_it_is_made() {
    loom::model(|| {
        let generation = Arc::new(AtomicU64::new(0));
        // What the memory is, and whether it is watched: the kernel's, under its lock.
        let kernel = Arc::new(Mutex::new((0_u64, false)));
        let change = {
            let (generation, kernel) = (generation.clone(), kernel.clone());
            thread::spawn(move || {
                let mut kernel = kernel.lock().unwrap();
                if kernel.1 {
                    generation.fetch_add(1, Ordering::Release);
                }
                kernel.0 = 1;
            })
        };
        let before = generation.load(Ordering::Acquire);
        kernel.lock().unwrap().1 = true;
        let pinned = kernel.lock().unwrap().0;
        let published = generation.load(Ordering::Acquire) == before;
        change.join().unwrap();
        let noticed = generation.load(Ordering::Acquire) != before;
        let now = kernel.lock().unwrap().0;
        assert!(pinned == now || !published || noticed, "pinned the old, and will never know");
    });
}

/// What the kernel has of one region, under its lock: the same steps as the module's.
#[derive(Default)]
struct Kernel {
    watched: bool,
    /// A change is between its start and its end.
    in_flight: bool,
    /// An event that was not read.
    event: bool,
    /// Which pages are mapped there.
    pages: u64,
}

/// A region with a word of its own.
struct Region {
    kernel: Mutex<Kernel>,
    word: AtomicU64,
}

impl Region {
    fn new() -> Arc<Region> {
        Arc::new(Region { kernel: Mutex::new(Kernel::default()), word: AtomicU64::new(0) })
    }

    fn hit(&self, kernel: &mut Kernel) {
        self.word.fetch_add(1, Ordering::Release);
        kernel.event = true;
    }

    fn change(&self) {
        {
            let mut kernel = self.kernel.lock().unwrap();
            kernel.in_flight = true;
            if kernel.watched {
                self.hit(&mut kernel);
            }
        }
        let mut kernel = self.kernel.lock().unwrap();
        kernel.pages += 1;
        kernel.in_flight = false;
    }

    /// REGISTER; where a change is in flight it does not wait, and says "invalid" instead.
    fn watch(&self) {
        let mut kernel = self.kernel.lock().unwrap();
        kernel.watched = true;
        if kernel.in_flight {
            self.hit(&mut kernel);
        }
    }

    fn pages(&self) -> u64 {
        self.kernel.lock().unwrap().pages
    }

    /// A lookup that begins now: no drain, only the word is compared.
    fn assert_not_stale(&self, pinned: u64, generation: u64) {
        let hit = self.word.load(Ordering::Acquire) == generation;
        assert!(!hit || pinned == self.pages(), "a hit, and other pages are mapped there");
    }
}

/// The order on a miss where each slot has a word: it is loaded before the watch, since REGISTER may
/// move it.
#[test]
fn a_word_is_loaded_before_the_watch() {
    loom::model(|| {
        let region = Region::new();
        let changer = {
            let region = region.clone();
            thread::spawn(move || region.change())
        };
        let generation = region.word.load(Ordering::Acquire);
        region.watch();
        let pinned = region.pages();
        changer.join().unwrap();
        region.assert_not_stale(pinned, generation);
    });
}

/// The order of an acquittal: VERIFY, the word, then a drain that finds nothing.
#[test]
fn a_word_is_loaded_between_a_verification_and_a_drain() {
    loom::model(|| {
        let region = Region::new();
        region.watch();
        let pinned = region.pages();
        let changer = {
            let region = region.clone();
            thread::spawn(move || region.change())
        };
        let same = {
            let mut kernel = region.kernel.lock().unwrap();
            // It waits for what is in flight, or says no.
            kernel.event = false;
            !kernel.in_flight && kernel.pages == pinned
        };
        let generation = region.word.load(Ordering::Acquire);
        let quiet = !region.kernel.lock().unwrap().event;
        changer.join().unwrap();
        if same && quiet {
            region.assert_not_stale(pinned, generation);
        }
    });
}
