//! A program of the project, built and run here or where the device is.

use std::time::Duration;

use anyhow::Result;

use crate::builds::Builds;
use crate::command::Run;
use crate::guest::{Guest, Job, Options};
use crate::host::Need;
use crate::kernel::Kernel;
use crate::workspace::Workspace;
use crate::{guest, host, module};

/// A program to be run.
pub struct Program {
    /// The package that it belongs to.
    pub package: &'static str,
    /// Features of the package; may be empty.
    pub features: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is told.
    pub arguments: Vec<String>,
    /// Whether it needs an RDMA device.
    pub rdma: bool,
    /// The guest's memory if nothing else is said, in MiB.
    pub memory: u32,
    /// What it needs that the workspace does not.
    pub needs: &'static [Need],
}

impl Program {
    /// Builds it for release and runs it here, if this machine has what it needs, or in a guest.
    /// Returns its exit status.
    pub fn run(self, workspace: Workspace, options: &Options, timeout: Duration) -> Result<u8> {
        if options.stays_here() {
            return self.run_here(&workspace);
        }
        let memory = options.memory(self.memory);
        guest::require(memory)?;
        let series = options.kernel.unwrap_or_default();
        host::provide(&[
            host::WORKSPACE,
            self.needs,
            host::GUEST,
            series.properties().release.needs(),
        ])?;
        let rdma = self.rdma;
        let builds = Builds::provide(&workspace, series.properties().architecture)?;
        let job = self.build(&builds)?;
        let kernel = Kernel::provide(&workspace, series)?;
        let modules = module::build(&workspace, &kernel)?;
        eprintln!("xtask: booting a guest ...");
        let guest = Guest { workspace, kernel, insert: vec![modules.main], rdma, memory, timeout };
        guest.run(&job, &mut |_| ())?.status()
    }

    /// Builds it for release and runs it on this machine. Returns its exit status.
    pub fn run_here(self, workspace: &Workspace) -> Result<u8> {
        host::provide(&[host::WORKSPACE, self.needs])?;
        self.build(&Builds::here(workspace))?.run_here(&mut |_| ())?.status()
    }

    fn build(self, builds: &Builds) -> Result<Job> {
        let mut build = builds.cargo("build")?;
        build.args(["--release", "-p", self.package, "--bin", self.name]);
        build.args(["--features", self.features]);
        build.run()?;
        let program = builds.profile("release").join(self.name);
        let mut words = vec![program.to_string_lossy().into_owned()];
        words.extend(self.arguments);
        Ok(Job { words, directory: builds.workspace.root.clone() })
    }
}
