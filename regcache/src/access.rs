//! What a registration allows.

use bitflags::bitflags;

bitflags! {
    /// Access rights of a registration: `enum ibv_access_flags` of `<infiniband/verbs.h>`, with its
    /// values ([ibv_reg_mr(3)](https://man7.org/linux/man-pages/man3/ibv_reg_mr.3.html)).
    ///
    /// The empty set is a local read: the device may send from the memory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
    pub struct Access: u32 {
        /// The device may write to the memory, as a receive does.
        const LOCAL_WRITE = 1;
        /// A peer may write to the memory by RDMA. Needs `LOCAL_WRITE`.
        const REMOTE_WRITE = 1 << 1;
        /// A peer may read the memory by RDMA.
        const REMOTE_READ = 1 << 2;
        /// A peer may do atomic operations on the memory. Needs `LOCAL_WRITE`.
        const REMOTE_ATOMIC = 1 << 3;
        /// A memory window may be bound to the registration.
        const MW_BIND = 1 << 4;
        /// Addresses count from zero at the start of the registration. The cache refuses it: two
        /// users of one registration would disagree on where it starts.
        const ZERO_BASED = 1 << 5;
        /// Paged on demand, not pinned. The cache refuses it: there is nothing to cache.
        const ON_DEMAND = 1 << 6;
        /// The memory is made of huge pages.
        const HUGETLB = 1 << 7;
        /// A peer may flush writes to global visibility.
        const FLUSH_GLOBAL = 1 << 8;
        /// A peer may flush writes to persistence.
        const FLUSH_PERSISTENT = 1 << 9;
        /// The device may reorder writes on the bus.
        const RELAXED_ORDERING = 1 << 20;
    }
}

impl Access {
    /// The rights that let a peer reach the memory without this process's help.
    pub const REMOTE: Access = Access::REMOTE_WRITE
        .union(Access::REMOTE_READ)
        .union(Access::REMOTE_ATOMIC)
        .union(Access::FLUSH_GLOBAL)
        .union(Access::FLUSH_PERSISTENT)
        .union(Access::MW_BIND);

    /// Whether a peer can reach memory that is registered so.
    pub fn is_remote(self) -> bool {
        self.intersects(Access::REMOTE)
    }

    /// Whether the device writes to the memory.
    pub(crate) fn writes(self) -> bool {
        self.intersects(Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC)
    }

    /// Whether a registration with these rights serves a local read, or the like, for `wanted`: it
    /// differs only in that it may be written too.
    #[inline]
    pub(crate) fn serves_read(self, wanted: Access) -> bool {
        !wanted.is_remote() && self == wanted | Access::LOCAL_WRITE
    }
}
