//! Compiles what C has to say to the peers: the layout of their structures, and functions that exist
//! only in their headers.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(ucx_alignment_by_lookup)");
    let built = build();
    if let Err(error) = &built {
        // One sentence, where a panic would show its place in this file.
        println!("cargo::error={error}");
    }
    if built.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn build() -> Result<(), String> {
    #[cfg(feature = "ucx")]
    peers::ucx()?;
    #[cfg(feature = "libfabric")]
    peers::libfabric()?;
    Ok(())
}

#[cfg(any(feature = "ucx", feature = "libfabric"))]
mod peers {
    use std::process::Command;

    #[cfg(feature = "ucx")]
    pub fn ucx() -> Result<(), String> {
        const ALIGNMENT_BY_LOOKUP: &str = "UCX_ALIGNMENT_BY_LOOKUP";
        let source = "src/ucx/shim.c";
        version("UCX_VERSION", "ucx-ucs", "libucx-dev (Debian, Ubuntu), ucx-devel (Fedora, RHEL)")?;
        // The header has one of two forms, and the source compiles with the right one only.
        let mut by_lookup = compiler(source);
        by_lookup.define(ALIGNMENT_BY_LOOKUP, None).cargo_warnings(false);
        if by_lookup.try_compile("ucx_shim").is_ok() {
            println!("cargo::rustc-cfg=ucx_alignment_by_lookup");
        } else {
            compile(&compiler(source), source, "ucx_shim")?;
        }
        link(&["ucs", "ucm"]);
        Ok(())
    }

    #[cfg(feature = "libfabric")]
    pub fn libfabric() -> Result<(), String> {
        let source = "src/libfabric/shim.c";
        let packages = "libfabric-dev (Debian, Ubuntu), libfabric-devel (Fedora, RHEL, SUSE)";
        version("LIBFABRIC_VERSION", "libfabric", packages)?;
        compile(&compiler(source), source, "libfabric_shim")?;
        link(&["fabric"]);
        Ok(())
    }

    fn compiler(source: &str) -> cc::Build {
        println!("cargo::rerun-if-changed={source}");
        let mut build = cc::Build::new();
        build.file(source).opt_level(2).warnings(true);
        build
    }

    fn compile(build: &cc::Build, source: &str, name: &str) -> Result<(), String> {
        build.try_compile(name).map_err(|error| format!("{source} does not compile: {error}"))
    }

    fn link(libraries: &[&str]) {
        for library in libraries {
            println!("cargo::rustc-link-lib={library}");
        }
    }

    fn version(variable: &str, package: &str, packages: &str) -> Result<(), String> {
        let output = Command::new("pkg-config").args(["--modversion", package]).output();
        let output =
            output.map_err(|error| format!("cannot run pkg-config: {error}; install it"))?;
        if !output.status.success() {
            return Err(format!("pkg-config does not know {package}: install {packages}"));
        }
        let version = String::from_utf8_lossy(&output.stdout);
        println!("cargo::rustc-env={variable}={}", version.trim());
        Ok(())
    }
}
