//! Measurements of [`regcache`](https://docs.rs/regcache) against its peers. Not begun: every claim of speed waits for a
//! command here that makes it.
