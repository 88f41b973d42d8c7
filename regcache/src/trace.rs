//! What the cache tells a program's log: `tracing` events, off the path of a hit, where the feature
//! `tracing` is on; else nothing.

macro_rules! event {
    ($level:ident, $($fields:tt)*) => {
        #[cfg(feature = "tracing")]
        ::tracing::$level!(target: "regcache", $($fields)*);
    };
}
