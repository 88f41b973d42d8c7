//! The C interface of [`regcache`]. Not begun: this crate holds its place in the workspace and
//! exports nothing yet.
