//! A handle for one thread.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::access::Access;
use crate::cache::Cache;
use crate::cells::{Block, BlockPages, Owned};
use crate::error::Error;
use crate::guard::Guard;
use crate::monitor::Monitor;
use crate::registrar::Registrar;
use crate::request::refuse_remote;

/// A cache, for a thread that keeps the handle: the worker of a transport, a core of an executor.
///
/// It may be sent to another thread, but not shared. Its guards borrow the cache, not the handle,
/// and may be dropped anywhere.
pub struct Local<'c, R: Registrar, M: Monitor> {
    cache: &'c Cache<R, M>,
    /// `None` where there was no memory for one, or in a forked child: all lookups take the long
    /// way.
    block: Option<Arc<BlockPages>>,
    /// Only one thread at a time has the block.
    not_sync: PhantomData<Cell<()>>,
}

impl<'c, R: Registrar, M: Monitor> Local<'c, R, M> {
    pub(crate) fn new(cache: &'c Cache<R, M>) -> Self {
        let shared = cache.shared();
        let block = shared.may_lock().ok().and_then(|()| shared.blocks.claim());
        Local { cache, block, not_sync: PhantomData }
    }

    #[inline]
    fn block(&self) -> Option<Owned<'c>> {
        let block: *const Block = &***self.block.as_ref()?;
        // SAFETY: this handle claimed the block, is not `Sync`, and abandons it when it is dropped. The
        // cache, which lives for at least `'c`, keeps a block as long as it is owned or something is
        // held by it.
        Some(unsafe { (*block).owned() })
    }

    /// As [`Cache::get_or_register`].
    #[inline(always)]
    pub fn get_or_register(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'c, R, M>, Error> {
        refuse_remote(access)?;
        // SAFETY: no peer can reach memory that is registered for local access.
        unsafe { self.get_or_register_remote(addr, len, access) }
    }

    /// As [`Cache::get_or_register_remote`].
    ///
    /// # Safety
    ///
    /// The same.
    #[inline(always)]
    pub unsafe fn get_or_register_remote(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'c, R, M>, Error> {
        self.cache.look_up(self.block(), addr, len, access)
    }

    /// The cache itself.
    pub fn cache(&self) -> &'c Cache<R, M> {
        self.cache
    }
}

impl<R: Registrar, M: Monitor> Drop for Local<'_, R, M> {
    fn drop(&mut self) {
        if let Some(block) = &self.block {
            block.abandon();
        }
    }
}
