//! Gives memory back as soon as it is stale, with no lookup.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

use crate::cache::Cache;
use crate::descriptor::Descriptor;
use crate::fork::Owner;
use crate::monitor::Monitor;
use crate::registrar::Registrar;

/// How long the thread waits after it was woken for nothing, in milliseconds: at first, and at most.
const PAUSE: u16 = 1;
const PAUSE_MAX: u16 = 100;

/// A thread that drains a cache whenever its monitor has news. It stops, and lets go of the cache,
/// when this is dropped.
#[derive(Debug)]
#[must_use = "the thread stops when this is dropped"]
pub struct Reaper {
    /// The thread belongs to one process, and a child has a copy of the rest.
    owner: Owner,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// How the thread is told to end.
#[derive(Debug)]
struct Stop {
    wanted: AtomicBool,
    /// An eventfd that wakes the thread. Other code may close it.
    bell: Descriptor,
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
        let news = cache.monitor().pollable().ok_or(Errno::EOPNOTSUPP)?;
        let news = Descriptor::duplicate_of(news)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let bell = Descriptor::new(bell.into())?;
        let stop = Arc::new(Stop { wanted: AtomicBool::new(false), bell });
        let (stopped, cache) = (stop.clone(), cache.clone());
        let thread = thread::Builder::new()
            .name("regcache-reaper".into())
            .spawn(move || drain_until(&stopped, &news, &cache))?;
        Ok(Reaper { owner, stop, thread: Some(thread) })
    }
}

fn drain_until<R: Registrar, M: Monitor>(stop: &Stop, news: &Descriptor, cache: &Cache<R, M>) {
    let mut pause = PAUSE;
    let mut last = None;
    loop {
        let mut fds =
            [stop.bell.as_fd(), news.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        // Relaxed: nothing else is told by it.
        if stop.wanted.load(Ordering::Relaxed) || fds[0].any() != Some(false) {
            return;
        }
        let failed = fds[1].revents().is_none_or(|r| r.intersects(!PollFlags::POLLIN));
        let generation = cache.monitor().generation();
        // A device that has failed makes the cache distrust all it holds; after that there is nothing
        // to wait for.
        if cache.drain().is_err() || failed || cache.shared().blind.load(Ordering::Relaxed) {
            return;
        }
        if last.replace(generation) != Some(generation) {
            pause = PAUSE;
            continue;
        }
        // Woken for nothing: other code has closed the descriptor, and the number is another file's.
        let _ = poll(&mut fds[..1], pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Drop for Reaper {
    /// In a forked child, whose copy of the eventfd is the parent's too, nothing is stopped.
    fn drop(&mut self) {
        if self.owner.is_foreign() {
            return;
        }
        self.stop.wanted.store(true, Ordering::Relaxed);
        if !self.stop.bell.is_ours() {
            // The thread is not waited for: it ends when it is next woken.
            return;
        }
        let _ = unistd::write(&self.stop.bell, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked in a callback has reaped its last; the cache is as good as
            // without it.
            let _ = thread.join();
        }
    }
}
