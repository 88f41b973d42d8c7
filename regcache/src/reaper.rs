//! Gives memory back as soon as it is stale, with no lookup.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cache::Cache;
use crate::fork::Owner;
use crate::monitor::Monitor;
use crate::registrar::Registrar;

/// A thread that drains a cache whenever its monitor has news. It stops, and lets go of the cache,
/// when this is dropped.
#[derive(Debug)]
#[must_use = "the thread stops when this is dropped"]
pub struct Reaper {
    /// The thread belongs to one process, and a child has a copy of the rest.
    owner: Owner,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread. `EOPNOTSUPP` where the monitor has nothing to wait for
    /// ([`Monitor::pollable`]); `EAGAIN` where no thread can be had (pthread_create(3)): the cache
    /// works without, and gives stale memory back at its next lookup that misses.
    pub fn start<R, M>(cache: &Arc<Cache<R, M>>) -> io::Result<Reaper>
    where
        R: Registrar + 'static,
        M: Monitor + 'static,
    {
        let owner = Owner::current()?;
        let news = cache.monitor().pollable().ok_or(Errno::EOPNOTSUPP)?.try_clone_to_owned()?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let stopped = stop.as_fd().try_clone_to_owned()?;
        let cache = cache.clone();
        let thread = thread::Builder::new()
            .name("regcache-reaper".into())
            .spawn(move || drain_until(&stopped, &news, &cache))?;
        Ok(Reaper { owner, stop, thread: Some(thread) })
    }
}

fn drain_until<R: Registrar, M: Monitor>(stop: &OwnedFd, news: &OwnedFd, cache: &Cache<R, M>) {
    loop {
        let mut fds = [stop, news].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if fds[0].any() != Some(false) {
            return;
        }
        let failed = fds[1].revents().is_none_or(|r| r.intersects(!PollFlags::POLLIN));
        // A device that has failed makes the cache distrust all it holds; after that there is nothing
        // to wait for.
        if cache.drain().is_err() || failed {
            return;
        }
    }
}

impl Drop for Reaper {
    /// In a forked child, whose copy of the eventfd is the parent's too, nothing is stopped.
    fn drop(&mut self) {
        if self.owner.is_foreign() {
            return;
        }
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked in a callback has reaped its last; the cache is as good as
            // without it.
            let _ = thread.join();
        }
    }
}
