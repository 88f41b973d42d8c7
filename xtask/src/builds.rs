//! What builds programs for a guest: this machine's cargo and make, or those for the guest's
//! architecture.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::foreign::Foreign;
use crate::workspace::{Workspace, cargo};

/// Builds programs for one architecture.
pub struct Builds {
    /// Whose programs they are.
    pub workspace: Workspace,
    foreign: Option<Foreign>,
}

impl Builds {
    /// What builds on this machine, for itself.
    pub fn here(workspace: &Workspace) -> Self {
        Self { workspace: workspace.clone(), foreign: None }
    }

    /// What builds for an architecture; made, the first time.
    pub fn provide(workspace: &Workspace, architecture: &'static Architecture) -> Result<Self> {
        let mut builds = Self::here(workspace);
        if !architecture.is_here() {
            builds.foreign = Some(Foreign::provide(workspace, architecture)?);
        }
        Ok(builds)
    }

    /// Whether this machine can run what is built.
    pub fn is_here(&self) -> bool {
        self.foreign.is_none()
    }

    /// `cargo TASK`, in the workspace.
    pub fn cargo(&self, task: &str) -> Result<Command> {
        if let Some(foreign) = &self.foreign {
            return foreign.cargo(task);
        }
        let mut command = Command::new(cargo());
        command.arg(task).current_dir(&self.workspace.root);
        Ok(command)
    }

    /// `make`, told the compiler for C programs.
    pub fn make(&self) -> Result<Command> {
        let mut make = match &self.foreign {
            Some(foreign) => foreign.make()?,
            None => Command::new("make"),
        };
        make.env_remove("MAKEFLAGS");
        Ok(make)
    }

    /// Where makefiles build.
    pub fn target(&self) -> PathBuf {
        match &self.foreign {
            Some(foreign) => foreign.target(),
            None => self.workspace.target.clone(),
        }
    }

    /// Where cargo puts what it builds for `debug` or for `release`.
    pub fn profile(&self, name: &str) -> PathBuf {
        match &self.foreign {
            Some(foreign) => foreign.profile(name),
            None => self.workspace.target.join(name),
        }
    }
}
