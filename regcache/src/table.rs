//! The registrations that the cache holds, and what state each is in: the truth behind the hints.
//! All of it is under one lock, and no registrar and no monitor is called meanwhile.
//!
//! A registration ends in three steps. It is made stale, so that no lookup finds it any more; then
//! the caller goes through the far side of the barrier; then it is *settled*: dead if nobody holds
//! it, a *zombie* if somebody does. Who lets go of a zombie settles it again.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cells::Blocks;
use crate::flight::Flight;
use crate::hints::Hints;
use crate::index::{Index, Look};
use crate::monitor::Cookie;
use crate::outside::Refused;
use crate::range::AddressRange;
use crate::request::Request;
use crate::slot::{Body, Phase, SlotId, Slots};
use crate::tls;

/// Evicted at a time: the cache's size by this, so that the barrier is shared.
const EVICTION_SHARE: u64 = 64;

/// Slots that are looked at for something to evict, where a look at all has lately found nothing.
const FEW: u64 = 64;

/// A registration that nobody can find or holds any more: unwatch, deregister, then
/// [`Table::free`].
pub(crate) struct Dead<T> {
    pub cookie: Cookie,
    pub slot: SlotId,
    pub body: Body<T>,
}

/// What the registrations in the table may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub regions: u32,
    pub bytes: u64,
}

impl Limits {
    /// Slots of a cache with these limits: some more than registrations, since a slot is free again
    /// only when its registration is gone.
    pub(crate) const fn slots(self) -> u32 {
        self.regions + self.regions / 8 + 64
    }
}

/// One thread is registering.
#[derive(Debug)]
struct Pending {
    slot: SlotId,
    /// [`Table::reservations`] with this one.
    number: u64,
    asked: Request,
    /// What is registered: `asked`, or that and its neighbours.
    request: Request,
    /// Made when somebody waits.
    flight: Option<Arc<Flight>>,
    /// [`tls::this_thread`] of the one that does.
    by: usize,
    /// An event came that may be older than the pin.
    dirty: bool,
}

/// What a registration in the making means for who wants one like it.
#[derive(Debug)]
pub(crate) enum InFlight {
    /// With the thread that registers it.
    Wait(Arc<Flight>, Failure, usize),
    /// It is the caller's own: it must not wait for itself.
    Own,
}

/// What the failure of a registration in the making says to who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The same range was tried after the waiter had asked for it: so it has failed for both.
    Shared,
    /// The same range, but perhaps tried before the waiter asked, and mapped in between.
    Earlier,
    /// A wider range, which says nothing of what the waiter asked for.
    Wider,
}

pub(crate) struct Table<T> {
    slots: Slots<T>,
    hints: Arc<Hints>,
    index: Index,
    free: Vec<SlotId>,
    /// Slots from here on have never been used.
    unused: SlotId,
    /// How many registrations have been begun.
    reservations: u64,
    /// As many as there are threads that register.
    pending: Vec<Pending>,
    /// Stale, past the barrier, and held by somebody.
    zombies: HashSet<SlotId>,
    /// Taken out, and being deregistered.
    dying: Vec<(SlotId, AddressRange)>,
    /// Stale, and the barrier was refused.
    unfenced: Vec<SlotId>,
    /// Once the barrier has been refused, the registrations of before, which may be held by cells that
    /// nobody sees; `None` where it was never refused.
    before_refusal: Option<HashSet<SlotId>>,
    hand: SlotId,
    /// Looks in a row that found nothing to evict.
    fruitless: u32,
    limits: Limits,
    /// Slots that are not free or dying, and their bytes.
    regions: u32,
    bytes: u64,
}

impl<T> Table<T> {
    pub(crate) fn new(limits: Limits, slots: Slots<T>, hints: Arc<Hints>) -> Table<T> {
        Table {
            slots,
            hints,
            index: Index::default(),
            free: Vec::new(),
            unused: 0,
            reservations: 0,
            pending: Vec::new(),
            zombies: HashSet::new(),
            dying: Vec::new(),
            unfenced: Vec::new(),
            before_refusal: None,
            hand: 0,
            fruitless: 0,
            limits,
            regions: 0,
            bytes: 0,
        }
    }

    pub(crate) fn regions(&self) -> u32 {
        self.regions
    }

    /// Bytes of what is registered: not of what is in the making.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let pending = self.pending.iter().map(|pending| pending.request.range.len() as u64);
        self.bytes - pending.sum::<u64>()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn body(&self, id: SlotId) -> &Body<T> {
        // SAFETY: the table's lock is held, and the callers ask for slots that are valid, suspect or
        // stale: `publish` has filled them, and only `settle` takes the body, under the lock.
        unsafe { self.slots[id].body() }
    }

    fn is(&self, id: SlotId, phase: Phase) -> bool {
        self.slots[id].state().is(phase)
    }

    fn set(&self, id: SlotId, phase: Phase) {
        let slot = &self.slots[id];
        slot.set(slot.state().to(phase));
    }

    /// The phase of what can be found.
    fn live(&self) -> Phase {
        if self.before_refusal.is_some() { Phase::Counted } else { Phase::Valid }
    }

    fn is_live(&self, id: SlotId) -> bool {
        self.slots[id].state().is_live()
    }

    /// From now on holds are by count. The caller then makes it known.
    pub(crate) fn count_holds(&mut self) {
        if self.before_refusal.is_some() {
            return;
        }
        let is_free = |id: &SlotId| self.is(*id, Phase::Free) || self.is(*id, Phase::Pending);
        self.before_refusal = Some((0..self.unused).filter(|id| !is_free(id)).collect());
        for id in (0..self.unused).filter(|id| self.is(*id, Phase::Valid)) {
            self.set(id, Phase::Counted);
        }
    }

    /// Whether the slot's holders are all seen with no barrier. Only where holds are by count.
    fn is_seen(&self, id: SlotId, all_count: bool) -> bool {
        all_count || self.before_refusal.as_ref().is_some_and(|before| !before.contains(&id))
    }

    /// The indexed registration that serves `request`, valid or suspect. Otherwise, whether there is
    /// something to merge it with.
    pub(crate) fn find(&self, request: &Request) -> Result<(SlotId, Phase), Look> {
        let mut own = Look::Nothing;
        for access in request.served_by() {
            match self.index.look(access, request.exact) {
                Look::Covered(id) if self.is(id, Phase::Suspect) => {
                    return Ok((id, Phase::Suspect));
                }
                Look::Covered(id) => {
                    let body = self.body(id);
                    self.hints.place(body.range, body.access, id);
                    return Ok((id, Phase::Valid));
                }
                look if access == request.access => own = look,
                _ => {}
            }
        }
        Err(own)
    }

    /// How many registrations have been begun.
    pub(crate) fn reservations(&self) -> u64 {
        self.reservations
    }

    /// A registration in the making that will serve `request`; where `wider` is not wanted, only one
    /// that was asked for by the same range. The caller began when there were `since`
    /// [`reservations`](Table::reservations).
    pub(crate) fn find_pending(
        &mut self,
        request: &Request,
        wider: bool,
        since: u64,
    ) -> Option<InFlight> {
        let same = |p: &Pending| p.asked.range == request.range && p.asked.access == request.access;
        let serves = |p: &&mut Pending| {
            same(p) || wider && request.is_served_by(p.request.range, p.request.access)
        };
        let pending = self.pending.iter_mut().find(serves)?;
        let failure = match same(pending) {
            true if pending.number > since => Failure::Shared,
            true => Failure::Earlier,
            false => Failure::Wider,
        };
        if pending.by == tls::this_thread() {
            return Some(InFlight::Own);
        }
        let by = pending.by;
        Some(InFlight::Wait(pending.flight.get_or_insert_default().clone(), failure, by))
    }

    /// `request` widened to the registrations that it overlaps, while that at most doubles it.
    pub(crate) fn merge(&self, request: Request, look: Look) -> Request {
        // What touches the pages but not the bytes is a neighbour of them, or inside.
        if !request.may_widen || look == Look::Nothing && request.exact == request.range {
            return request;
        }
        let union = self.index.union(request.access, request.range);
        let affordable = union.len() <= request.range.len().saturating_mul(2)
            && union.len() as u64 <= self.limits.bytes;
        if affordable { Request { range: union, pages: union, ..request } } else { request }
    }

    /// Whether `bytes` can be added, beside what the registrar would not deregister.
    pub(crate) fn has_room(&self, bytes: u64, refused: Refused) -> bool {
        self.regions.saturating_add(refused.regions) < self.limits.regions
            && self.bytes.saturating_add(refused.bytes).saturating_add(bytes) <= self.limits.bytes
    }

    /// Makes registrations stale until `bytes` and some more fit, or nothing idle is left.
    pub(crate) fn evict_for(
        &mut self,
        bytes: u64,
        refused: Refused,
        blocks: &Blocks,
    ) -> Vec<SlotId> {
        let Limits { regions, bytes: limit } = self.limits;
        let spare_regions = regions - (regions / EVICTION_SHARE as u32).max(1).min(regions);
        let spare_regions = spare_regions.saturating_sub(refused.regions);
        let spare_bytes =
            (limit - limit / EVICTION_SHARE).saturating_sub(bytes).saturating_sub(refused.bytes);
        self.evict(blocks, |regions, bytes| regions <= spare_regions && bytes <= spare_bytes)
    }

    /// Makes registrations of at least `bytes` stale, or all that is idle.
    pub(crate) fn evict_bytes(&mut self, bytes: u64, blocks: &Blocks) -> Vec<SlotId> {
        let target = self.bytes.saturating_sub(bytes);
        self.evict(blocks, |_, bytes| bytes <= target)
    }

    /// How many slots are looked at. Where all is in use, a look at all of a large table is made at
    /// the misses number 1, 2, 4 to 64, and then at each 64th; the hand goes on in between.
    fn steps(&self) -> u64 {
        let all = 2 * u64::from(self.unused);
        let few = self.fruitless > 0
            && !(self.fruitless.is_power_of_two() && self.fruitless <= FEW as u32)
            && self.fruitless % FEW as u32 != 0;
        if few { all.min(2 * FEW) } else { all }
    }

    /// CLOCK: the hand passes over what was found since it last came by, once. What is held is spared
    /// (one that is taken up at this very moment may be caught: it lives until it is let go of).
    fn evict(&mut self, blocks: &Blocks, enough: impl Fn(u32, u64) -> bool) -> Vec<SlotId> {
        // Asked for when the first slot comes that nothing else spares.
        let mut held = None;
        // What cannot be ended is not evicted.
        let all_seen = self.before_refusal.is_none() || blocks.all_count();
        let (mut regions, mut bytes) = (self.regions, self.bytes);
        let mut stale = Vec::new();
        for _ in 0..self.steps() {
            if enough(regions, bytes) {
                break;
            }
            self.hand = (self.hand + 1) % self.unused;
            let (id, slot) = (self.hand, &self.slots[self.hand]);
            if !slot.state().is_live()
                || !self.is_seen(id, all_seen)
                || slot.take_visited()
                || slot.seems_referenced()
                || held.get_or_insert_with(|| blocks.held()).binary_search(&id).is_ok()
            {
                continue;
            }
            regions -= 1;
            bytes -= self.body(id).range.len() as u64;
            self.make_stale(id);
            stale.push(id);
        }
        self.fruitless = if stale.is_empty() { self.fruitless.saturating_add(1) } else { 0 };
        stale
    }

    /// Takes a slot for a registration in the making.
    pub(crate) fn reserve(&mut self, asked: Request, request: Request) -> Option<SlotId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.unused < self.slots.len() => {
                self.unused += 1;
                self.unused - 1
            }
            None => return None,
        };
        self.set(id, Phase::Pending);
        self.reservations += 1;
        self.pending.push(Pending {
            slot: id,
            number: self.reservations,
            asked,
            request,
            flight: None,
            by: tls::this_thread(),
            dirty: false,
        });
        self.regions += 1;
        self.bytes += request.range.len() as u64;
        Some(id)
    }

    fn pending(&mut self, id: SlotId) -> &mut Pending {
        let pending = self.pending.iter_mut().find(|p| p.slot == id);
        pending.expect("a slot is pending until it is published or cancelled")
    }

    fn land(&mut self, id: SlotId) -> Pending {
        let at = self.pending.iter().position(|p| p.slot == id);
        self.pending.swap_remove(at.expect("a slot is pending until it is published or cancelled"))
    }

    /// Registers less than was reserved for.
    pub(crate) fn narrow(&mut self, id: SlotId, request: Request) {
        let wide = std::mem::replace(&mut self.pending(id).request, request);
        self.bytes -= (wide.range.len() - request.range.len()) as u64;
    }

    /// Makes a pending registration valid; or gives it back, because an event came since its watch
    /// began. The caller holds the slot already.
    pub(crate) fn publish(
        &mut self,
        id: SlotId,
        body: Body<T>,
        generation: u64,
    ) -> Result<Published, Body<T>> {
        if self.pending(id).dirty {
            return Err(body);
        }
        let (range, access) = (body.range, body.access);
        let slot = &self.slots[id];
        slot.set_generation(generation);
        slot.take_visited();
        // SAFETY: the slot is pending, and who registers in it calls this.
        unsafe { slot.fill(body) };
        let flight = self.land(id).flight;
        let Some(replaced) = self.index.insert(access, range, id) else {
            // Another thread has published a wider one meanwhile: this one serves its maker only.
            self.set(id, Phase::Stale);
            self.zombies.insert(id);
            return Ok(Published { flight, replaced: Vec::new() });
        };
        replaced.iter().for_each(|id| self.hide(*id));
        self.set(id, self.live());
        self.hints.insert(range, access, id);
        Ok(Published { flight, replaced })
    }

    /// Gives the pending registration a new name, so that events of its old one are no matter.
    /// `None` if there are no names left.
    pub(crate) fn rename(&mut self, id: SlotId) -> Option<Cookie> {
        let slot = &self.slots[id];
        slot.set(slot.state().next(Phase::Pending)?);
        self.pending(id).dirty = false;
        Some(self.slots.cookie(id))
    }

    /// Gives up a pending registration, and returns who waits for it.
    pub(crate) fn cancel(&mut self, id: SlotId) -> Option<Arc<Flight>> {
        let pending = self.land(id);
        self.regions -= 1;
        self.bytes -= pending.request.range.len() as u64;
        self.free(id);
        pending.flight
    }

    /// An event came for `cookie`. Returns the slot if that was a valid registration, which is now
    /// suspect.
    pub(crate) fn suspect(&mut self, cookie: Cookie) -> Option<SlotId> {
        let id = cookie.slot();
        if self.slots.get(id.into()).is_none() || self.slots.cookie(id) != cookie {
            return None;
        }
        if self.is(id, Phase::Pending) {
            self.pending(id).dirty = true;
        }
        if !self.is_live(id) {
            return None;
        }
        self.set(id, Phase::Suspect);
        Some(id)
    }

    /// The mapping of `range` changed. Returns the registrations that this makes suspect.
    pub(crate) fn suspect_range(&mut self, range: AddressRange) -> Vec<SlotId> {
        // Events are for pages, registrations may begin and end inside one.
        let pages = range.touched_pages();
        for pending in &mut self.pending {
            pending.dirty |= pending.request.pages.overlaps(pages);
        }
        let mut hit = self.index.overlapping(pages);
        hit.retain(|id| self.is_live(*id));
        hit.iter().for_each(|id| self.set(*id, Phase::Suspect));
        hit
    }

    /// A suspect is as good as ever, as of `generation`, unless it has been ended meanwhile. Returns
    /// whether it had not.
    pub(crate) fn acquit(&mut self, id: SlotId, generation: u64) -> bool {
        let suspect = self.is(id, Phase::Suspect);
        if suspect {
            self.slots[id].set_generation(generation);
            self.set(id, self.live());
        }
        suspect
    }

    /// A suspect is stale, unless it has been ended meanwhile. Returns whether it had not.
    pub(crate) fn condemn(&mut self, id: SlotId) -> bool {
        let suspect = self.is(id, Phase::Suspect);
        if suspect {
            self.make_stale(id);
        }
        suspect
    }

    /// Makes what touches `range` stale.
    pub(crate) fn revoke(&mut self, range: AddressRange) -> Vec<SlotId> {
        let hit = self.index.overlapping(range);
        hit.iter().for_each(|id| self.make_stale(*id));
        hit
    }

    /// Takes a valid or suspect registration out of reach.
    pub(crate) fn make_stale(&mut self, id: SlotId) {
        debug_assert!(self.is_live(id) || self.is(id, Phase::Suspect));
        let (range, access) = (self.body(id).range, self.body(id).access);
        self.index.remove(access, range, id);
        self.hide(id);
    }

    /// Makes what is not indexed any more stale.
    fn hide(&self, id: SlotId) {
        let body = self.body(id);
        self.hints.remove(body.range, body.access, id);
        self.set(id, Phase::Stale);
    }

    /// Makes everything stale: nothing is known of any registration any more.
    pub(crate) fn make_all_stale(&mut self) -> Vec<SlotId> {
        self.pending.iter_mut().for_each(|p| p.dirty = true);
        let live = |id: &SlotId| self.is_live(*id) || self.is(*id, Phase::Suspect);
        let all: Vec<_> = (0..self.unused).filter(live).collect();
        all.iter().for_each(|id| self.make_stale(*id));
        all
    }

    /// Whether something waits that can be ended now.
    pub(crate) fn can_end_postponed(&self, blocks: &Blocks) -> bool {
        !self.unfenced.is_empty() && blocks.all_count()
    }

    /// The bytes of what waits.
    pub(crate) fn postponed_bytes(&self) -> u64 {
        self.unfenced.iter().map(|id| self.body(*id).range.len() as u64).sum()
    }

    /// Whether somebody holds what is stale, and may have let go of it unseen.
    pub(crate) fn has_zombies_unseen(&self) -> bool {
        self.before_refusal.is_some() && !self.zombies.is_empty()
    }

    /// What was stale and could not be ended, because some thread does not know yet that holds are
    /// counted; and, where `zombies` are wanted or holds are counted, what is held, since its
    /// holder's last look may have come too early.
    pub(crate) fn take_postponed(&mut self, zombies: bool) -> Vec<SlotId> {
        let mut postponed = std::mem::take(&mut self.unfenced);
        if zombies || self.before_refusal.is_some() {
            postponed.extend(self.zombies.drain());
        }
        postponed
    }

    /// [`settle`](Table::settle) with no barrier, where holds are by count.
    pub(crate) fn settle_counted(&mut self, stale: Vec<SlotId>, blocks: &Blocks) -> Vec<Dead<T>> {
        let all_seen = blocks.all_count();
        let (seen, unseen) = stale.into_iter().partition(|id| self.is_seen(*id, all_seen));
        self.unfenced.extend::<Vec<_>>(unseen);
        self.settle(seen, blocks)
    }

    /// Ends what was made stale before the caller went through the barrier, as far as nobody holds
    /// it.
    pub(crate) fn settle(&mut self, stale: Vec<SlotId>, blocks: &Blocks) -> Vec<Dead<T>> {
        if stale.is_empty() {
            return Vec::new();
        }
        let held = blocks.held();
        let mut dead = Vec::with_capacity(stale.len());
        for id in stale {
            // Cells come first and counts last: a clone counts while a cell still holds.
            if held.binary_search(&id).is_ok() || self.slots[id].references() > 0 {
                self.zombies.insert(id);
            } else {
                dead.push(self.bury(id));
            }
        }
        dead
    }

    /// Somebody let go of `id` and found it stale.
    pub(crate) fn settle_zombie(&mut self, id: SlotId, blocks: &Blocks) -> Vec<Dead<T>> {
        // If it is not a zombie, who made it stale has not settled it yet, and will.
        match (self.zombies.remove(&id), &self.before_refusal) {
            (false, _) => Vec::new(),
            (true, None) => self.settle(vec![id], blocks),
            (true, Some(_)) => self.settle_counted(vec![id], blocks),
        }
    }

    /// Everything, whoever held it: nobody does any more.
    pub(crate) fn bury_all(&mut self) -> Vec<Dead<T>> {
        let mut all = self.make_all_stale();
        all.extend(self.zombies.drain());
        all.append(&mut self.unfenced);
        all.into_iter().map(|id| self.bury(id)).collect()
    }

    fn bury(&mut self, id: SlotId) -> Dead<T> {
        debug_assert!(self.is(id, Phase::Stale));
        self.set(id, Phase::Dying);
        // SAFETY: nobody holds the slot, and it is not valid, so nobody begins to.
        let body = unsafe { self.slots[id].take() };
        self.regions -= 1;
        self.bytes -= body.range.len() as u64;
        self.dying.push((id, body.range));
        Dead { cookie: self.slots.cookie(id), slot: id, body }
    }

    /// What [`settle`](Table::settle) found dead is deregistered, or known to be refused.
    pub(crate) fn bury_done(&mut self, mut done: Vec<SlotId>) {
        done.sort_unstable();
        self.dying.retain(|(id, _)| done.binary_search(id).is_err());
        done.into_iter().for_each(|id| self.free(id));
    }

    /// Registrations that touch `range` and are being deregistered.
    pub(crate) fn dying_in(&self, range: AddressRange) -> usize {
        self.dying.iter().filter(|(_, other)| other.overlaps(range)).count()
    }

    /// Makes a slot whose tenant is gone available again.
    pub(crate) fn free(&mut self, id: SlotId) {
        // A slot that has used up its names is never used again.
        if let Some(before) = &mut self.before_refusal {
            before.remove(&id);
        }
        if let Some(state) = self.slots[id].state().next(Phase::Free) {
            self.slots[id].set(state);
            self.free.push(id);
        }
    }

    /// Registrations in the making that touch `range`.
    pub(crate) fn pending_in(&self, range: AddressRange) -> usize {
        self.pending.iter().filter(|pending| pending.request.range.overlaps(range)).count()
    }

    /// Every registration that can be found or is held.
    pub(crate) fn list(&self) -> impl Iterator<Item = (SlotId, Phase, &Body<T>)> {
        (0..self.unused).filter_map(|id| {
            let state = self.slots[id].state();
            let phase = [Phase::Valid, Phase::Counted, Phase::Suspect, Phase::Stale];
            let phase = phase.into_iter().find(|p| state.is(*p))?;
            Some((id, phase, self.body(id)))
        })
    }
}

/// A registration became valid.
pub(crate) struct Published {
    /// Who waits for it.
    pub flight: Option<Arc<Flight>>,
    /// Stale, because it covers them: to be settled.
    pub replaced: Vec<SlotId>,
}
