//! Ranges that the caller announces.

use parking_lot::Mutex;
use regcache::AddressRange;

/// More than this, and everything is announced: what nobody asks for takes no more memory.
const MOST: usize = 1024;

/// Announcements that have not been drained.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    ranges: Vec<AddressRange>,
    /// All memory.
    all: bool,
}

impl Feed {
    pub(crate) fn push(&mut self, range: AddressRange) {
        if self.ranges.len() < MOST && !self.all {
            // Often the same again, or the neighbour.
            if self.ranges.last().is_none_or(|last| !last.covers(range)) {
                self.ranges.push(range);
            }
        } else {
            self.push_all();
        }
    }

    pub(crate) fn push_all(&mut self) {
        self.all = true;
        self.ranges = Vec::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.all
    }

    /// What there is: `None` for all memory.
    pub(crate) fn take(&mut self) -> Option<Vec<AddressRange>> {
        let ranges = std::mem::take(&mut self.ranges);
        if std::mem::take(&mut self.all) { None } else { Some(ranges) }
    }
}

/// A feed that threads share.
pub(crate) type SharedFeed = Mutex<Feed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_nothing() {
        let mut feed = Feed::default();
        for n in 1..=MOST {
            feed.push(AddressRange::new(n * 0x2000, 1).unwrap());
        }
        assert_eq!(feed.ranges.len(), MOST);
        feed.push(AddressRange::new(1, 1).unwrap());
        assert!(!feed.is_empty());
        assert_eq!(feed.take(), None);
        assert!(feed.is_empty());
        assert_eq!(feed.take(), Some(Vec::new()));
    }
}
