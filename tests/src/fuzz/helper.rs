//! Another process that changes this one's memory, by the files that both have.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::unistd::{ForkResult, Pid, fork, getpid};
use parking_lot::Mutex;

use crate::{attempt, raw};

/// What it can do.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// fallocate(2): file, offset, length.
    Punch,
    /// ftruncate(2): file, length, and length again.
    Truncate,
    /// madvise(2) in its own mapping, which is at the same address.
    Remove,
    /// process_madvise(2) of its parent's memory. The kernel may say no.
    Pageout,
}

const ORDERS: [Order; 4] = [Order::Punch, Order::Truncate, Order::Remove, Order::Pageout];

/// The other process. It ends with this one, or when this is dropped.
pub struct Helper {
    socket: Mutex<OwnedFd>,
    pid: Pid,
}

impl Helper {
    /// Forks it, while this process still has one thread. It inherits all arenas.
    pub fn fork() -> Helper {
        let mut ends = [0_i32; 2];
        raw!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr());
        // SAFETY: the kernel has just made these descriptors, and nothing else knows of them.
        let [here, there] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let parent = getpid();
        // SAFETY: the child makes system calls only, and leaves by _exit.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                drop(here);
                serve(&there, parent);
                // SAFETY: _exit(2) runs no code of this process any more.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => Helper { socket: Mutex::new(here), pid: child },
        }
    }

    /// Has it done, and waits until it is.
    pub fn run(&self, order: Order, file: usize, a: usize, b: usize) {
        let socket = self.socket.lock();
        let order = [order as usize, file, a, b];
        let mut answer = 0_usize;
        raw!(SYS_write, socket.as_raw_fd(), order.as_ptr(), size_of_val(&order));
        let read = raw!(SYS_read, socket.as_raw_fd(), &raw mut answer, size_of::<usize>());
        assert_eq!((read, answer), (size_of::<usize>(), 0), "what the other process did");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        raw!(SYS_shutdown, self.socket.lock().as_raw_fd(), libc::SHUT_RDWR);
        raw!(SYS_wait4, self.pid.as_raw(), 0, 0, 0);
    }
}

/// Answers 0 to each order, or an errno.
fn serve(socket: &OwnedFd, parent: Pid) {
    let pidfd = raw!(SYS_pidfd_open, parent.as_raw(), 0);
    let mut order = [0_usize; 4];
    loop {
        let got = attempt!(SYS_read, socket.as_raw_fd(), order.as_mut_ptr(), size_of_val(&order));
        if !matches!(got, Ok(n) if n == size_of_val(&order)) {
            return;
        }
        let [number, file, a, b] = order;
        let result = match ORDERS[number] {
            Order::Punch => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                attempt!(SYS_fallocate, file, mode, a, b)
            }
            Order::Truncate => {
                attempt!(SYS_ftruncate, file, a).and_then(|_| attempt!(SYS_ftruncate, file, b))
            }
            Order::Remove => attempt!(SYS_madvise, a, b, libc::MADV_REMOVE),
            Order::Pageout => {
                let iovec = libc::iovec { iov_base: a as *mut _, iov_len: b };
                let advice = libc::MADV_PAGEOUT;
                let _ = attempt!(SYS_process_madvise, pidfd, &raw const iovec, 1, advice, 0);
                Ok(0)
            }
        };
        let answer = result.map_or_else(|error| error.raw_os_error().unwrap_or(-1) as usize, |_| 0);
        raw!(SYS_write, socket.as_raw_fd(), &raw const answer, size_of::<usize>());
    }
}
