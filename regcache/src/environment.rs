//! Settings from the environment, for who runs a program and cannot change it.
//!
//! | variable | value | see |
//! |---|---|---|
//! | `REGCACHE_MAX_REGIONS` | a number | [`Builder::max_regions`](crate::Builder::max_regions) |
//! | `REGCACHE_MAX_BYTES` | a number, or one with `K`, `M`, `G`, `T` (powers of 1024) | [`Builder::max_bytes`](crate::Builder::max_bytes) |
//! | `REGCACHE_BARRIER` | `membarrier`, `atomic` | [`Builder::barrier`](crate::Builder::barrier) |
//! | `REGCACHE_VERIFY` | `0`, `1` | [`Builder::verify`](crate::Builder::verify) |
//! | `REGCACHE_PLUGIN_LOG` | `0` keeps the middleware's plug-ins silent while they work | their README |
//!
//! What the program sets itself comes first. A value that is not understood is an error when the
//! cache is built, and so is a name that is at most two letters from one in the table: a setting
//! that is silently ignored would be worse than none. Other variables `REGCACHE_…` belong to others
//! (CMake and module files set `REGCACHE_ROOT`, Kubernetes `REGCACHE_PORT`) and are ignored.

use std::env;

use crate::barrier::Barrier;
use crate::error::Error;

/// The table's.
const NAMES: [&str; 5] = [
    "REGCACHE_MAX_REGIONS",
    "REGCACHE_MAX_BYTES",
    "REGCACHE_BARRIER",
    "REGCACHE_VERIFY",
    "REGCACHE_PLUGIN_LOG",
];

/// A name so many letters away from a known one is taken for a slip.
const SLIP: usize = 2;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub max_regions: Option<usize>,
    pub max_bytes: Option<u64>,
    pub barrier: Option<Barrier>,
    pub verify: Option<bool>,
}

pub(crate) fn read() -> Result<Environment, Error> {
    let variables = env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.to_owned();
        name.starts_with("REGCACHE_").then(|| (name, value.to_string_lossy().into_owned()))
    });
    parse(variables)
}

fn parse(variables: impl Iterator<Item = (String, String)>) -> Result<Environment, Error> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        let bad =
            |expected| Error::BadSetting { name: name.clone(), value: value.clone(), expected };
        match name.as_str() {
            "REGCACHE_MAX_REGIONS" => {
                let regions = value.parse().map_err(|_| bad("a number"))?;
                environment.max_regions = Some(regions);
            }
            "REGCACHE_MAX_BYTES" => {
                let parsed = bytes(&value);
                let expected = "a number of bytes, which K, M, G or T may follow";
                environment.max_bytes = Some(parsed.ok_or_else(|| bad(expected))?);
            }
            "REGCACHE_BARRIER" => {
                environment.barrier = Some(match value.as_str() {
                    "membarrier" => Barrier::Membarrier,
                    "atomic" => Barrier::Atomic,
                    _ => return Err(bad("membarrier or atomic")),
                });
            }
            "REGCACHE_VERIFY" => {
                environment.verify = Some(match value.as_str() {
                    "0" => false,
                    "1" => true,
                    _ => return Err(bad("0 or 1")),
                });
            }
            // The plug-ins', which are in the same process.
            "REGCACHE_PLUGIN_LOG" => {}
            _ => {
                let capitals = name.to_ascii_uppercase();
                let near = |known: &&str| strsim::osa_distance(&capitals, known) <= SLIP;
                if let Some(known) = NAMES.into_iter().find(near) {
                    let error = Error::UnknownSetting { name: name.clone(), known };
                    return Err(error);
                }
            }
        }
    }
    Ok(environment)
}

fn bytes(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &value[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Environment, Error> {
        parse([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn values_are_understood() {
        assert_eq!(one("REGCACHE_MAX_REGIONS", "7").unwrap().max_regions, Some(7));
        assert_eq!(one("REGCACHE_MAX_BYTES", "7").unwrap().max_bytes, Some(7));
        assert_eq!(one("REGCACHE_MAX_BYTES", "3G").unwrap().max_bytes, Some(3 << 30));
        let atomic = one("REGCACHE_BARRIER", "atomic").unwrap();
        assert_eq!(atomic.barrier, Some(Barrier::Atomic));
        assert_eq!(one("REGCACHE_VERIFY", "0").unwrap().verify, Some(false));
        assert_eq!(one("REGCACHE_PLUGIN_LOG", "0").unwrap(), Environment::default());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, value) in [
            ("REGCACHE_MAX_REGIONS", "many"),
            ("REGCACHE_MAX_REGIONS", "-1"),
            ("REGCACHE_MAX_BYTES", "1KK"),
            ("REGCACHE_MAX_BYTES", ""),
            ("REGCACHE_MAX_BYTES", "99999999T"),
            ("REGCACHE_BARRIER", "Atomic"),
            ("REGCACHE_VERIFY", "yes"),
        ] {
            let error = one(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_slip_is_an_error_that_names_what_was_meant() {
        for (slip, known) in [
            ("REGCACHE_MAX_REGION", "REGCACHE_MAX_REGIONS"),
            ("REGCACHE_MAXBYTES", "REGCACHE_MAX_BYTES"),
            ("REGCACHE_BARIER", "REGCACHE_BARRIER"),
            ("REGCACHE_VERFIY", "REGCACHE_VERIFY"),
            ("REGCACHE_verify", "REGCACHE_VERIFY"),
            ("REGCACHE_PLUGINLOG", "REGCACHE_PLUGIN_LOG"),
        ] {
            let error = one(slip, "1").unwrap_err().to_string();
            assert!(error.contains(slip) && error.contains(known), "{error}");
        }
    }

    #[test]
    fn variables_of_others_are_ignored() {
        for name in [
            "REGCACHE_ROOT",
            "REGCACHE_DIR",
            "REGCACHE_PORT",
            "REGCACHE_SERVICE_HOST",
            "REGCACHE_PORT_8080_TCP_ADDR",
            "REGCACHE_VERSION",
            "REGCACHE_",
        ] {
            assert_eq!(one(name, "tcp://10.0.0.1:80").unwrap(), Environment::default(), "{name}");
        }
    }
}
