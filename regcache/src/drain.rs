//! Events, and how registrations end.
//!
//! # When the barrier is refused
//!
//! A seccomp filter that comes after the cache was made may refuse membarrier(2). Then nothing may be
//! concluded from the cells any more, and from that time on every hold is by count: valid slots
//! become *counted*, which is valid for who holds by count only. A thread's look at a slot fails as
//! long as it holds it by a cell, so that it takes the long way, where it learns of it and says so in
//! its block. Registrations of before are ended once every thread has said so: what a thread had
//! stored into its cells until then is seen by then. Later ones need not wait for that. None of this
//! needs a system call.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::lock;
use crate::monitor::{Cookie, Invalid, Monitor, MonitorError};
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::shared::{BodyOf, DeadOf, Shared, SlotOf};
use crate::slot::SlotId;
use crate::tls;
use crate::unwinding::FirstPanic;

/// How often the monitor is asked about registrations that are hit again and again.
const VERIFY_ROUNDS: usize = 3;

impl<R: Registrar, M: Monitor> Shared<R, M> {
    /// Marks what is stale, if there is news.
    pub(crate) fn refresh(&self) {
        if !self.is_fresh() && !self.blind.load(Ordering::Relaxed) {
            self.mark_stale();
        }
    }

    /// Whether every event up to now has been marked, as a load that comes after this sees.
    #[inline(always)]
    pub(crate) fn is_fresh(&self) -> bool {
        // Acquire pairs with the Release in `mark_stale`: who sees its value sees its marks. It is
        // loaded before the generation, so that a drain in between shows as a difference.
        self.seen.load(Ordering::Acquire) == self.monitor.generation()
    }

    /// Drains the monitor: one thread at a time, marking included.
    ///
    /// What is hit becomes *suspect*, which no lookup takes. The monitor may say that a suspect has
    /// the pages that it had (VERIFY of the kernel module); it is acquitted if the next drain has no
    /// further event of it. All else becomes stale.
    #[cold]
    pub(crate) fn mark_stale(&self) {
        let mut hits = self.drainer.lock();
        if self.blind.load(Ordering::Relaxed) {
            return;
        }
        let mut stale = Vec::new();
        // Verified, as of this generation of the slot, by a verification that came after the events
        // known so far.
        let mut verified: HashMap<SlotId, u64> = HashMap::new();
        let mut generation = None;
        let mut panic = FirstPanic::default();
        for round in 1.. {
            let drained = panic
                .catch(|| self.monitor.drain(&mut |invalid| hits.push(invalid)))
                .unwrap_or_else(|| Err(MonitorError::Other("drain() panicked".into())));
            let mut suspects = Vec::new();
            {
                let mut table = self.table.lock();
                for invalid in hits.drain(..) {
                    match invalid {
                        Invalid::Watch(cookie) => match table.suspect(cookie) {
                            Some(id) => suspects.push((id, cookie)),
                            None => {
                                if verified.remove(&cookie.slot()).is_some() {
                                    suspects.push((cookie.slot(), cookie));
                                }
                            }
                        },
                        Invalid::Range(range) => stale.extend(table.suspect_range(range)),
                    }
                }
                generation = drained.map_err(|error| self.blinded_by.set(error)).ok();
                if generation.is_none() {
                    // Under the lock, so that who finds the table untouched finds this as well.
                    self.blind.store(true, Ordering::Relaxed);
                    stale = table.make_all_stale();
                    break;
                }
            }
            let before = verified.len();
            for (id, cookie) in suspects {
                // Loaded after the verification, before the drain that follows.
                let word = || self.monitor.slot_generation(id).unwrap_or(0);
                let verified_now = || (round <= VERIFY_ROUNDS && self.verify(cookie)).then(word);
                match panic.catch(verified_now).flatten() {
                    Some(word) => _ = verified.insert(id, word),
                    None => stale.push(id),
                }
            }
            if verified.len() == before {
                break;
            }
        }
        if let Some(generation) = generation {
            let mut table = self.table.lock();
            stale.retain(|id| table.condemn(*id));
            let acquitted = verified.into_iter().filter(|(id, word)| table.acquit(*id, *word));
            self.counters.verified.add(acquitted.count() as u64);
            // Release pairs with the Acquire in `is_fresh`: the marks are visible before
            // this is.
            self.seen.store(generation, Ordering::Release);
        }
        drop(hits);
        if let Some(_error) = self.blinded_by.get() {
            event!(error, error = %_error, "the monitor has failed: nothing is cached any more");
        }
        self.counters.stale.add(stale.len() as u64);
        if !stale.is_empty() {
            event!(debug, stale = stale.len(), "mappings changed");
        }
        panic.catch(|| self.reclaim(stale));
        panic.resume();
    }

    fn verify(&self, cookie: Cookie) -> bool {
        self.settings.verify && self.monitor.verify(cookie)
    }

    /// Ends what was made stale, as far as nobody holds it.
    pub(crate) fn reclaim(&self, stale: Vec<SlotId>) {
        if stale.is_empty() {
            return;
        }
        // Relaxed: it is stored under the table's lock, and a second refusal is no matter.
        let counted = self.counted.load(Ordering::Relaxed);
        let dead = if !counted && self.barrier.fence().is_ok() {
            self.table.lock().settle(stale, &self.blocks)
        } else {
            if !counted {
                self.count_holds();
            }
            self.table.lock().settle_counted(stale, &self.blocks)
        };
        self.bury(dead);
    }

    /// The barrier was refused.
    #[cold]
    fn count_holds(&self) {
        self.counters.barrier_failures.add(1);
        event!(warn, "membarrier(2) is refused: registrations are held by count from now on");
        let mut table = self.table.lock();
        table.count_holds();
        // Release pairs with the Acquire in `hold`.
        self.counted.store(true, Ordering::Release);
    }

    /// Ends what touches `range`.
    pub(crate) fn revoke(&self, range: AddressRange) {
        let revoked = self.table.lock().revoke(range);
        self.counters.revoked.add(revoked.len() as u64);
        self.reclaim(revoked);
    }

    /// Registrations that touch `range` and are not gone, or are being made.
    pub(crate) fn alive(&self, range: AddressRange) -> usize {
        let alive = |body: &BodyOf<R>| body.range.overlaps(range);
        // In this order, and both at once: a registration is outside before it leaves the table.
        let table = self.table.lock();
        let outside = self.outside.lock();
        let listed = table.list().filter(|(_, _, body)| alive(body)).count();
        listed + table.pending_in(range) + table.dying_in(range) + outside.touching(range)
    }

    /// The end of the cache: nobody else has it any more.
    pub(crate) fn close(&self) {
        let dead = self.table.lock().bury_all();
        self.bury(dead);
        self.retry();
    }

    /// What could not be ended before.
    pub(crate) fn retry(&self) {
        self.retry_postponed();
        self.retry_refused(usize::MAX);
    }

    /// Ends what had to wait for threads to learn that holds are counted, and says whether that was
    /// anything.
    pub(crate) fn retry_postponed(&self) -> bool {
        self.learn_of_counting(tls::near(self.id, &self.blocks));
        let postponed = {
            let mut table = self.table.lock();
            let unsettled = self.unsettled.swap(false, Ordering::Relaxed);
            if !unsettled && !table.can_end_postponed(&self.blocks) && !table.has_zombies_unseen() {
                return false;
            }
            table.take_postponed(unsettled)
        };
        let before = self.counters.deregistrations.get();
        self.reclaim(postponed);
        self.counters.deregistrations.get() > before
    }

    /// Tries to deregister what the registrar refused before, `most` of it, and says whether any is
    /// gone.
    pub(crate) fn retry_refused(&self, most: usize) -> bool {
        let count = self.outside.lock().refused().regions as usize;
        let mut any = false;
        let mut panic = FirstPanic::default();
        for _ in 0..count.min(most) {
            let Some(body) = self.outside.lock().next() else { break };
            let range = body.range;
            match self.deregister(body, &mut panic) {
                Ok(()) => {
                    any = true;
                    self.outside.lock().gone(range);
                }
                Err((body, errno)) => self.outside.lock().refuse_again(body, errno),
            }
        }
        panic.resume();
        any
    }

    /// Somebody let go of the slot and found it stale.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle_zombie(&self, slot: &SlotOf<R>) {
        if self.owner.is_foreign() {
            return;
        }
        if lock::is_inside() {
            // Whoever retries finds it. Relaxed: under the lock it is found in any case.
            self.unsettled.store(true, Ordering::Relaxed);
            return;
        }
        let dead = self.table.lock().settle_zombie(self.slots.id_of(slot), &self.blocks);
        self.bury(dead);
    }

    /// Unwatches and deregisters what no one can reach, and frees the slots.
    pub(crate) fn bury(&self, dead: Vec<DeadOf<R>>) {
        let mut slots = Vec::with_capacity(dead.len());
        // One callback that panics does not keep the others from being called.
        let mut panic = FirstPanic::default();
        for dead in dead {
            panic.catch(|| self.unwatch(dead.cookie));
            self.end(dead.body, &mut panic);
            slots.push(dead.slot);
        }
        if !slots.is_empty() {
            self.table.lock().bury_done(slots);
        }
        panic.resume();
    }

    pub(crate) fn unwatch(&self, cookie: Cookie) {
        // It fails only where the monitor has gone; its events are not listened to any more, and
        // the cookie is never used again.
        let _ = self.monitor.unwatch(cookie);
    }

    /// Deregisters. What the registrar refuses is kept, and counts, until it does not.
    pub(crate) fn let_go(&self, bodies: impl IntoIterator<Item = BodyOf<R>>) {
        let mut panic = FirstPanic::default();
        bodies.into_iter().for_each(|body| self.end(body, &mut panic));
        panic.resume();
    }

    pub(crate) fn end(&self, body: BodyOf<R>, panic: &mut FirstPanic) {
        if let Err((body, errno)) = self.deregister(body, panic) {
            self.outside.lock().refuse(body, errno);
        }
    }

    /// Gives the registration back where the registrar does not deregister it, or panics.
    fn deregister(
        &self,
        body: BodyOf<R>,
        panic: &mut FirstPanic,
    ) -> Result<(), (BodyOf<R>, Errno)> {
        match panic.catch(|| self.registrar.deregister(&body.region)) {
            Some(Ok(())) => {
                self.counters.deregistrations.add(1);
                // The region's own destructor is the user's too.
                panic.catch(|| drop(body));
                Ok(())
            }
            refused => {
                let errno = refused.and_then(Result::err).unwrap_or(Errno::EIO);
                self.counters.deregister_failures.add(1);
                event!(warn, range = %body.range, errno = %errno, "not deregistered yet");
                Err((body, errno))
            }
        }
    }
}
