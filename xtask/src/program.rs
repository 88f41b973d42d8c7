//! A program of the project, built and run here or where the device is.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::command::Run;
use crate::guest::{Guest, Job, Options};
use crate::host::Need;
use crate::kernel::Kernel;
use crate::workspace::{Workspace, cargo};
use crate::{host, module};

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
        let series = options.kernel.unwrap_or_default();
        host::provide(&[host::WORKSPACE, self.needs, host::GUEST, series.properties().needs])?;
        let rdma = self.rdma;
        let job = self.build(&workspace)?;
        let kernel = Kernel::provide(&workspace, series)?;
        let modules = module::build(&workspace, &kernel)?;
        eprintln!("xtask: booting a guest ...");
        let guest = Guest {
            workspace,
            kernel,
            insert: vec![modules.main],
            rdma,
            memory: options.memory,
            timeout,
        };
        guest.run(&job, &mut |_| ())?.status()
    }

    /// Builds it for release and runs it on this machine. Returns its exit status.
    pub fn run_here(self, workspace: &Workspace) -> Result<u8> {
        host::provide(&[host::WORKSPACE, self.needs])?;
        self.build(workspace)?.run_here(&mut |_| ())?.status()
    }

    fn build(self, workspace: &Workspace) -> Result<Job> {
        let mut build = Command::new(cargo());
        build.args(["build", "--release", "-p", self.package, "--bin", self.name]);
        build.args(["--features", self.features]).current_dir(&workspace.root);
        if let Some(libclang) = host::libclang() {
            build.env("LIBCLANG_PATH", libclang);
        }
        build.run()?;
        let program = workspace.target.join("release").join(self.name);
        let mut words = vec![program.to_string_lossy().into_owned()];
        words.extend(self.arguments);
        Ok(Job { words, directory: workspace.root.clone() })
    }
}
