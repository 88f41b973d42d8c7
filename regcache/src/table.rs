//! The registrations that the cache holds, and what state each is in. The caller holds the one lock
//! around it, and calls no registrar and no monitor meanwhile.

use std::mem;
use std::sync::Arc;

use crate::access::Access;
use crate::flight::Flight;
use crate::index::Index;
use crate::monitor::Cookie;
use crate::range::AddressRange;
use crate::registrar::Keys;
use crate::request::Request;

pub(crate) type SlotId = u32;

/// A registration, from pin to unpin.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub region: T,
    pub keys: Keys,
    pub range: AddressRange,
    pub access: Access,
    /// Where the cache holds it; `None` for one that is not cached.
    pub slot: Option<SlotId>,
}

/// A registration that nobody can find or holds any more: unwatch, deregister, then
/// [`Table::free`].
#[derive(Debug)]
pub(crate) struct Dead<T> {
    pub cookie: Cookie,
    pub slot: SlotId,
    pub entry: Arc<Entry<T>>,
}

#[derive(Debug)]
enum State<T> {
    Free,
    /// One thread is registering. `dirty`: an event came that may be older than the pin.
    Pending {
        request: Request,
        flight: Arc<Flight>,
        dirty: bool,
    },
    /// In the index. `visited` since the clock's hand last came by.
    Valid {
        entry: Arc<Entry<T>>,
        visited: bool,
    },
    /// Out of the index, and held by somebody; dies at the last release.
    Stale {
        entry: Arc<Entry<T>>,
    },
    /// Handed out as [`Dead`].
    Dying,
}

#[derive(Debug)]
struct Slot<T> {
    /// Part of the cookie, so that an event of an earlier tenant is told from one of this.
    version: u32,
    /// Guards on the entry.
    guards: usize,
    state: State<T>,
}

/// What the registrations in the table may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub regions: usize,
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<SlotId>,
    /// Slots in state `Pending`: as many as there are threads that register.
    pending: Vec<SlotId>,
    index: Index,
    hand: usize,
    /// Slots in state `Valid` without guards: what can be evicted.
    idle: usize,
    /// Slots that are pending, valid or stale, and their bytes.
    regions: usize,
    bytes: u64,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            index: Index::default(),
            hand: 0,
            idle: 0,
            regions: 0,
            bytes: 0,
        }
    }

    pub(crate) fn regions(&self) -> usize {
        self.regions
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn slot(&mut self, id: SlotId) -> &mut Slot<T> {
        &mut self.slots[id as usize]
    }

    /// A valid registration that serves `request`, with one more guard on it.
    pub(crate) fn find(&mut self, request: &Request) -> Option<Arc<Entry<T>>> {
        let id =
            request.served_by().find_map(|access| self.index.covering(access, request.range))?;
        let slot = &mut self.slots[id as usize];
        let State::Valid { entry, visited } = &mut slot.state else {
            unreachable!("an indexed slot is valid");
        };
        *visited = true;
        if slot.guards == 0 {
            self.idle -= 1;
        }
        slot.guards += 1;
        Some(entry.clone())
    }

    /// A registration in the making that will serve `request`.
    pub(crate) fn find_pending(&self, request: &Request) -> Option<Arc<Flight>> {
        self.pending.iter().find_map(|id| match &self.slots[*id as usize].state {
            State::Pending { request: other, flight, .. }
                if request.is_served_by(other.range, other.access) =>
            {
                Some(flight.clone())
            }
            _ => None,
        })
    }

    /// Evicts until `bytes` more fit, or nothing idle is left. The second half tells whether they
    /// fit.
    pub(crate) fn make_room(&mut self, limits: Limits, bytes: u64) -> (Vec<Dead<T>>, bool) {
        let mut dead = Vec::new();
        loop {
            let fits =
                self.regions < limits.regions && self.bytes.saturating_add(bytes) <= limits.bytes;
            if fits {
                return (dead, true);
            }
            match self.evict() {
                Some(evicted) => dead.push(evicted),
                None => return (dead, false),
            }
        }
    }

    /// Evicts at least `bytes`, or all that is idle.
    pub(crate) fn evict_bytes(&mut self, bytes: u64) -> Vec<Dead<T>> {
        let mut dead = Vec::new();
        let mut evicted_bytes = 0;
        while evicted_bytes < bytes
            && let Some(evicted) = self.evict()
        {
            evicted_bytes += evicted.entry.range.len() as u64;
            dead.push(evicted);
        }
        dead
    }

    /// CLOCK: the hand passes over what was used since it last came by, once.
    fn evict(&mut self) -> Option<Dead<T>> {
        if self.idle == 0 {
            return None;
        }
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            let id = self.hand as SlotId;
            match self.slot(id) {
                Slot { guards: 0, state: State::Valid { visited, .. }, .. } => {
                    if !mem::take(visited) {
                        return self.retire(id);
                    }
                }
                _ => continue,
            }
        }
    }

    /// Takes a slot for a registration in the making.
    pub(crate) fn reserve(&mut self, request: Request) -> (SlotId, Arc<Flight>) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { version: 0, guards: 0, state: State::Free });
            (self.slots.len() - 1) as SlotId
        });
        let flight = Arc::new(Flight::new());
        self.slot(id).state = State::Pending { request, flight: flight.clone(), dirty: false };
        self.pending.push(id);
        self.regions += 1;
        self.bytes += request.range.len() as u64;
        (id, flight)
    }

    /// The name of the slot's present tenant.
    pub(crate) fn cookie(&self, id: SlotId) -> Cookie {
        Cookie(u64::from(self.slots[id as usize].version) << 32 | u64::from(id))
    }

    /// Makes a pending registration valid, with one guard on it; or gives `pinned` back, because an
    /// event came since its watch began. Registrations that it covers and replaces are returned if
    /// they are dead.
    pub(crate) fn publish(
        &mut self,
        id: SlotId,
        pinned: Entry<T>,
    ) -> Result<Published<T>, Entry<T>> {
        let State::Pending { dirty, .. } = self.slot(id).state else {
            unreachable!("a slot is pending until it is published");
        };
        if dirty {
            return Err(pinned);
        }
        self.pending.retain(|p| *p != id);
        self.slot(id).guards = 1;
        let entry = Arc::new(Entry { slot: Some(id), ..pinned });
        if self.index.covering(entry.access, entry.range).is_some() {
            // Another thread has published a wider one meanwhile: this one serves its maker only.
            self.slot(id).state = State::Stale { entry: entry.clone() };
            return Ok(Published { entry, replaced: Vec::new() });
        }
        let replaced = self.index.insert(entry.access, entry.range, id);
        self.slot(id).state = State::Valid { entry: entry.clone(), visited: false };
        let replaced = replaced.into_iter().filter_map(|id| self.retire(id)).collect();
        Ok(Published { entry, replaced })
    }

    /// Gives the pending registration a new name, so that events of its old one are no matter.
    pub(crate) fn rename(&mut self, id: SlotId) -> Cookie {
        let slot = self.slot(id);
        slot.version = slot.version.wrapping_add(1);
        if let State::Pending { dirty, .. } = &mut slot.state {
            *dirty = false;
        }
        self.cookie(id)
    }

    /// Gives up a pending registration.
    pub(crate) fn cancel(&mut self, id: SlotId) {
        if let State::Pending { request, .. } = self.slot(id).state {
            self.regions -= 1;
            self.bytes -= request.range.len() as u64;
            self.pending.retain(|p| *p != id);
            self.free(id);
        }
    }

    /// An event came for `cookie`.
    pub(crate) fn invalidate(&mut self, cookie: Cookie) -> Hit<T> {
        let id = cookie.0 as SlotId;
        if self.slots.len() <= id as usize || self.cookie(id) != cookie {
            return Hit::Nothing;
        }
        match &mut self.slot(id).state {
            State::Pending { dirty, .. } => {
                *dirty = true;
                Hit::Nothing
            }
            State::Valid { .. } => Hit::Stale(self.retire(id)),
            State::Free | State::Stale { .. } | State::Dying => Hit::Nothing,
        }
    }

    /// The mapping of `range` changed. Returns how many registrations that made stale, and those
    /// that are dead.
    pub(crate) fn invalidate_range(&mut self, range: AddressRange) -> (u64, Vec<Dead<T>>) {
        for slot in &mut self.slots {
            if let State::Pending { request, dirty, .. } = &mut slot.state {
                *dirty |= request.pages.overlaps(range);
            }
        }
        let (mut valid, mut dead) = (0, Vec::new());
        for id in self.index.overlapping(range) {
            valid += 1;
            dead.extend(self.retire(id));
        }
        (valid, dead)
    }

    /// Every registration may be stale. Returns how many were valid, and those that are dead.
    pub(crate) fn invalidate_all(&mut self) -> (u64, Vec<Dead<T>>) {
        let (mut valid, mut dead) = (0, Vec::new());
        for id in 0..self.slots.len() as SlotId {
            if let Hit::Stale(d) = self.invalidate(self.cookie(id)) {
                valid += 1;
                dead.extend(d);
            }
        }
        (valid, dead)
    }

    /// Takes a valid registration out of reach. It is dead at once if nobody holds it.
    fn retire(&mut self, id: SlotId) -> Option<Dead<T>> {
        let slot = &mut self.slots[id as usize];
        let State::Valid { entry, .. } = mem::replace(&mut slot.state, State::Dying) else {
            unreachable!("only a valid slot retires");
        };
        self.index.remove(entry.access, entry.range, id);
        if slot.guards > 0 {
            slot.state = State::Stale { entry };
            return None;
        }
        self.idle -= 1;
        Some(self.bury(id, entry))
    }

    /// One guard less on a cached registration.
    pub(crate) fn release(&mut self, id: SlotId) -> Option<Dead<T>> {
        let slot = &mut self.slots[id as usize];
        slot.guards -= 1;
        if slot.guards > 0 {
            return None;
        }
        match mem::replace(&mut slot.state, State::Dying) {
            State::Stale { entry } => Some(self.bury(id, entry)),
            state => {
                slot.state = state;
                self.idle += 1;
                None
            }
        }
    }

    fn bury(&mut self, slot: SlotId, entry: Arc<Entry<T>>) -> Dead<T> {
        self.regions -= 1;
        self.bytes -= entry.range.len() as u64;
        Dead { cookie: self.cookie(slot), slot, entry }
    }

    /// Makes a slot whose tenant is gone available again.
    pub(crate) fn free(&mut self, id: SlotId) {
        let slot = self.slot(id);
        slot.state = State::Free;
        // A slot that has used up its names is never used again.
        if let Some(version) = slot.version.checked_add(1) {
            slot.version = version;
            self.free.push(id);
        }
    }
}

/// A registration that became valid, and those that it replaced and nobody holds.
#[derive(Debug)]
pub(crate) struct Published<T> {
    pub entry: Arc<Entry<T>>,
    pub replaced: Vec<Dead<T>>,
}

/// What an event did.
#[derive(Debug)]
pub(crate) enum Hit<T> {
    /// It was for nothing that anybody could find.
    Nothing,
    /// It made a valid registration stale, which is dead if nobody holds it.
    Stale(Option<Dead<T>>),
}
