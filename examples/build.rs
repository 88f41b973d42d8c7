//! Compiles the calls into libibverbs, and the shared library whose static buffer the demonstration
//! loads and unloads.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "rdma")]
    if let Err(error) = rdma::build() {
        // One sentence, where a panic would show its place in this file.
        println!("cargo::error={error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(feature = "rdma")]
mod rdma {
    use std::env;
    use std::path::PathBuf;

    const SHIM: &str = "src/rdma/shim.c";
    const STATIC_BUFFER: &str = "src/bin/demo/static_buffer.c";

    pub fn build() -> Result<(), String> {
        for source in [SHIM, STATIC_BUFFER] {
            println!("cargo::rerun-if-changed={source}");
        }
        let mut shim = cc::Build::new();
        shim.file(SHIM).std("gnu11").warnings(true).extra_warnings(true).warnings_into_errors(true);
        let compiler = shim.try_get_compiler().map_err(|error| {
            format!("no C compiler ({error}): install gcc, or name one in the variable CC")
        })?;
        let mut header = compiler.to_command();
        header.args(["-fsyntax-only", "-include", "infiniband/verbs.h", "-x", "c", "/dev/null"]);
        if !header.output().is_ok_and(|output| output.status.success()) {
            return Err(
                "the C compiler does not find <infiniband/verbs.h>: install libibverbs-dev \
                        (Debian, Ubuntu), rdma-core-devel (Fedora, RHEL, SUSE) or rdma-core (Arch)"
                    .to_owned(),
            );
        }
        shim.try_compile("regcache_examples_shim")
            .map_err(|error| format!("{SHIM} does not compile: {error}"))?;
        println!("cargo::rustc-link-lib=ibverbs");

        let out_dir = env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
        let library = PathBuf::from(out_dir).join("libstatic_buffer.so");
        let mut command = cc::Build::new().pic(true).get_compiler().to_command();
        // No libc: the loader then has nothing else to load, and unloads all of it.
        command.args(["-shared", "-nostdlib", STATIC_BUFFER, "-o"]).arg(library);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{command:?}: {status}")),
            Err(error) => Err(format!("{command:?}: {error}")),
        }
    }
}
