//! What a monitor is polled by.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use rustix::event::{Timespec, epoll};

use crate::descriptor::Descriptor;

/// Readable from a write to the event thread's file until [`clear`](News::clear): an epoll(7) of each
/// monitor's own, edge-triggered, so that one of them takes no news away from another.
#[derive(Debug)]
pub(super) struct News(Descriptor);

impl News {
    pub(super) fn of(written: BorrowedFd<'_>) -> Result<News, Errno> {
        let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, written, epoll::EventData::new_u64(0), flags).map_err(errno)?;
        let news = News(Descriptor::new(epoll)?);
        // Of what was written before.
        news.clear();
        Ok(news)
    }

    /// Not readable any more, until the next write.
    pub(super) fn clear(&self) {
        // Code of the process may have closed it, and the number be another epoll's.
        if self.0.is_ours() {
            let mut event = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            // It fails for a signal at most: then the next call clears it.
            let _ = epoll::wait(&self.0, &mut event, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
