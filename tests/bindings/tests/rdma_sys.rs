//! A protection domain of the crate `rdma-sys`.

use std::ptr::{self, NonNull};

use rdma_sys as ffi;

#[test]
#[ignore = "needs an RDMA device and /dev/ummunotify"]
fn its_protection_domain_serves_the_cache() {
    // SAFETY: the calls are in the order that verbs ask for; every pointer is checked, and the list,
    // the domain and the context are ended once, after what needs them.
    unsafe {
        let list = ffi::ibv_get_device_list(ptr::null_mut());
        assert!(!list.is_null() && !(*list).is_null(), "no RDMA device");
        let context = ffi::ibv_open_device(*list);
        ffi::ibv_free_device_list(list);
        assert!(!context.is_null(), "ibv_open_device");
        let pd: *mut ffi::ibv_pd = ffi::ibv_alloc_pd(context);
        let pd = NonNull::new(pd).expect("ibv_alloc_pd");
        regcache_bindings_tests::check(pd.cast());
        assert_eq!(ffi::ibv_dealloc_pd(pd.as_ptr()), 0);
        assert_eq!(ffi::ibv_close_device(context), 0);
    }
}
