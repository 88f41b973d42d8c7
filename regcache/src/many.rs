//! Several lookups at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::access::Access;
use crate::cache::Cache;
use crate::error::Error;
use crate::guard::Guard;
use crate::monitor::Monitor;
use crate::registrar::Registrar;
use crate::tls;
use crate::waiting::Waiting;

/// A thread is worth its while for about this many bytes that have to be pinned.
const BYTES_A_THREAD: usize = 1 << 20;

pub(crate) fn get_or_register_many<'c, R: Registrar, M: Monitor>(
    cache: &'c Cache<R, M>,
    ranges: &[(usize, usize)],
    access: Access,
) -> Result<Vec<Guard<'c, R, M>>, Error> {
    let shared = &**cache.shared();
    shared.may_lock()?;
    let block = tls::own(shared.id, &shared.blocks);
    let mut guards: Vec<_> =
        ranges.iter().map(|(addr, len)| shared.hit(block?, *addr, *len, access)).collect();

    let missing: Vec<usize> = (0..ranges.len()).filter(|n| guards[*n].is_none()).collect();
    let bytes: usize = missing.iter().fold(0, |sum, n| sum.saturating_add(ranges[*n].1));
    let threads = (bytes / BYTES_A_THREAD).min(missing.len()).min(shared.settings.max_parallel);
    let next = AtomicUsize::new(0);
    // Takes from the list until it is empty or something fails.
    let parent = tls::this_thread();
    let register = || {
        // The parent joins its helpers, and so waits for each. It does not wait for itself.
        let _joined = Waiting::begin(parent, tls::this_thread());
        let mut made = Vec::new();
        // Relaxed: a ticket; the threads' results are joined.
        while let Some(n) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (addr, len) = ranges[*n];
            let guard = cache.get_or_register(addr, len, access).inspect_err(|_| {
                next.store(missing.len(), Ordering::Relaxed);
            })?;
            made.push((*n, guard));
        }
        Ok::<_, Error>(made)
    };
    let made = thread::scope(|scope| {
        // Where no thread can be had (RLIMIT_NPROC, pids.max), the others do its part.
        let helpers: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, register).ok())
            .collect();
        let own = register();
        let others = helpers
            .into_iter()
            .map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(own).chain(others).collect::<Result<Vec<_>, _>>()
    })?;
    for (n, guard) in made.into_iter().flatten() {
        guards[n] = Some(guard);
    }
    Ok(guards.into_iter().flatten().collect())
}
