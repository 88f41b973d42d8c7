//! Where the sources are, and where everything that is built goes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::Run;

/// The repository and its target directory.
#[derive(Clone)]
pub struct Workspace {
    /// The repository's root.
    pub root: PathBuf,
    /// Cargo's target directory: the only place that is ever written to.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo, since the target directory can be configured in many
    /// places.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().unwrap_or(Path::new("/")).to_path_buf();
        let metadata = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(&root)
            .read()?;
        let metadata: Value =
            serde_json::from_str(&metadata).context("cargo metadata printed no valid JSON")?;
        let Some(target) = metadata["target_directory"].as_str() else {
            bail!("cargo metadata names no target_directory; is cargo older than 1.85?");
        };
        Ok(Self { root, target: PathBuf::from(target) })
    }
}

/// The cargo that runs this task, or the one in PATH.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
