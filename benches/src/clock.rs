//! By which time something is measured.

use std::mem::MaybeUninit;

/// A clock of clock_gettime(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The calling thread's time on a processor: who works alone does not pay for what else the
    /// machine does meanwhile.
    Thread,
    /// The time of day: threads that wait for each other pay for it.
    Wall,
}

impl Clock {
    /// The clock for a team of that many threads.
    pub fn of_team(threads: usize) -> Clock {
        if threads == 1 { Clock::Thread } else { Clock::Wall }
    }

    /// Now, in nanoseconds since some time that stays the same.
    pub fn nanos(self) -> u64 {
        let id = match self {
            Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
            Clock::Wall => libc::CLOCK_MONOTONIC,
        };
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the structure is writable.
        let result = unsafe { libc::clock_gettime(id, time.as_mut_ptr()) };
        assert_eq!(result, 0, "Linux has this clock");
        // SAFETY: the call succeeded, so it has filled the structure.
        let time = unsafe { time.assume_init() };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_wall_clock_counts_sleep() {
        let start = [Clock::Thread, Clock::Wall].map(Clock::nanos);
        thread::sleep(Duration::from_millis(50));
        assert!(Clock::Wall.nanos() - start[1] >= 50_000_000);
        assert!(Clock::Thread.nanos() - start[0] < 50_000_000);
    }
}
