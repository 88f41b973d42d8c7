//! What the kernel reports.

use crate::error::Error;
use crate::options::Kinds;
use crate::sys::{
    EVENT_FLAG_HINT, EVENT_INVAL, EVENT_KINDS_SHIFT, EVENT_LAST, EVENT_SIZE, RawEvent,
};

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A range was hit.
    Invalid(Invalid),
    /// No event was left when the counter stood at `generation`.
    Last {
        /// The value of the counter at that moment.
        generation: u64,
    },
}

/// A range whose mappings changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid {
    /// The cookie under which the range was registered.
    pub cookie: u64,
    /// First address that was hit.
    pub start: u64,
    /// First address after those that were hit.
    pub end: u64,
    /// Whether `start..end` is what was hit. If not, the range was hit more than once, and
    /// `start..end` is all of it.
    pub exact: bool,
    /// By which kinds of change, with [`Features::KINDS`](crate::Features::KINDS); else empty.
    pub kinds: Kinds,
}

/// Room for the events of one [`Device::read`](crate::Device::read): 128, as many as the kernel
/// returns at a time.
#[derive(Debug, Clone)]
pub struct EventBuffer {
    bytes: Box<[u8; EventBuffer::EVENTS * EVENT_SIZE]>,
}

impl EventBuffer {
    /// The number of events that fit.
    pub const EVENTS: usize = 128;

    /// An empty buffer.
    pub fn new() -> EventBuffer {
        EventBuffer { bytes: Box::new([0; EventBuffer::EVENTS * EVENT_SIZE]) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..]
    }

    /// The first `len` bytes as events.
    pub(crate) fn events(&self, len: usize) -> Result<Events<'_>, Error> {
        let bytes = &self.bytes[..len];
        // All are checked before the first is handed out, so that none is lost to a later error.
        for raw in bytes.chunks_exact(EVENT_SIZE).map(parse) {
            if raw.kind != EVENT_INVAL && raw.kind != EVENT_LAST {
                return Err(Error::UnknownEvent { kind: raw.kind });
            }
        }
        Ok(Events { bytes })
    }
}

impl Default for EventBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The events of one read, in the order in which the ranges were hit.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    bytes: &'a [u8],
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (first, rest) = self.bytes.split_at_checked(EVENT_SIZE)?;
        self.bytes = rest;
        let raw = parse(first);
        Some(match raw.kind {
            EVENT_LAST => Event::Last { generation: raw.user_cookie_counter },
            _ => Event::Invalid(Invalid {
                cookie: raw.user_cookie_counter,
                start: raw.hint_start,
                end: raw.hint_end,
                exact: raw.flags & EVENT_FLAG_HINT != 0,
                kinds: Kinds::from_bits_retain(raw.flags >> EVENT_KINDS_SHIFT),
            }),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.bytes.len() / EVENT_SIZE;
        (n, Some(n))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Reads `struct ummunotify_event`, which the kernel writes in the machine's byte order.
fn parse(bytes: &[u8]) -> RawEvent {
    let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    RawEvent {
        kind: u32_at(0),
        flags: u32_at(4),
        hint_start: u64_at(8),
        hint_end: u64_at(16),
        user_cookie_counter: u64_at(24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(events: &[RawEvent]) -> (EventBuffer, usize) {
        let mut buffer = EventBuffer::new();
        for (raw, bytes) in events.iter().zip(buffer.bytes.chunks_exact_mut(EVENT_SIZE)) {
            bytes[0..4].copy_from_slice(&raw.kind.to_ne_bytes());
            bytes[4..8].copy_from_slice(&raw.flags.to_ne_bytes());
            bytes[8..16].copy_from_slice(&raw.hint_start.to_ne_bytes());
            bytes[16..24].copy_from_slice(&raw.hint_end.to_ne_bytes());
            bytes[24..32].copy_from_slice(&raw.user_cookie_counter.to_ne_bytes());
        }
        (buffer, events.len() * EVENT_SIZE)
    }

    const HIT: RawEvent = RawEvent {
        kind: EVENT_INVAL,
        flags: 1 | (2 << 8),
        hint_start: 10,
        hint_end: 20,
        user_cookie_counter: 7,
    };
    const LAST: RawEvent = RawEvent {
        kind: EVENT_LAST,
        flags: 0,
        hint_start: 0,
        hint_end: 0,
        user_cookie_counter: u64::MAX - 1,
    };

    #[test]
    fn events_come_out_as_the_kernel_put_them_in() {
        let (buffer, len) = buffer(&[HIT, RawEvent { flags: 2 << 8, ..HIT }, LAST]);
        let events: Vec<_> = buffer.events(len).unwrap().collect();
        let hit = Invalid { cookie: 7, start: 10, end: 20, exact: true, kinds: Kinds::CLEAR };
        assert_eq!(
            events,
            [
                Event::Invalid(hit),
                Event::Invalid(Invalid { exact: false, ..hit }),
                Event::Last { generation: u64::MAX - 1 }
            ]
        );
    }

    #[test]
    fn an_unknown_type_is_an_error_and_not_an_event() {
        let (buffer, len) = buffer(&[HIT, RawEvent { kind: 9, ..HIT }]);
        assert_eq!(buffer.events(len).unwrap_err(), Error::UnknownEvent { kind: 9 });
    }
}
