//! regcache itself: the cache is driven, nothing is modelled.

use regcache::monitor::Manual;
use regcache::{Access, Cache, page_size};
use regcache_benches::free::Free;

use crate::policy::Policy;

/// A cache whose registrations cost nothing.
pub struct Real {
    cache: Cache<Free, Manual>,
}

impl Real {
    /// A cache of that many regions of a page.
    pub fn new(capacity: usize) -> Real {
        let builder = Cache::builder(Free, Manual::new()).max_regions(capacity);
        Real { cache: builder.max_bytes(u64::MAX).build().expect("a cache") }
    }
}

impl Policy for Real {
    fn request(&mut self, key: u64) -> bool {
        let before = self.cache.stats().registrations;
        // Every other page, so that nothing could be merged; the memory need not exist.
        let addr = (1 << 40) + 2 * key as usize * page_size();
        let guard = self.cache.get_or_register(addr, page_size(), Access::LOCAL_WRITE);
        drop(guard.expect("registering is free"));
        self.cache.stats().registrations == before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::hits;

    #[test]
    fn what_fits_stays_and_the_limit_holds() {
        assert_eq!(hits(Real::new(3), "abcabcabc"), "...xxxxxx");
        let mut real = Real::new(3);
        for key in 0..100 {
            assert!(!real.request(key));
        }
        assert_eq!(real.cache.stats().regions, 3);
    }
}
