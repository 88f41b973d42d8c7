//! Compiles what C has to say to the peers: the layout of their structures, and functions that exist
//! only in their headers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ucx")]
    {
        peer("src/ucx/shim.c", "ucx_shim", &["ucs", "ucm"]);
        version("UCX_VERSION", "ucx-ucs");
    }
    #[cfg(feature = "libfabric")]
    {
        peer("src/libfabric/shim.c", "libfabric_shim", &["fabric"]);
        version("LIBFABRIC_VERSION", "libfabric");
    }
}

#[cfg(any(feature = "ucx", feature = "libfabric"))]
fn peer(source: &str, name: &str, libraries: &[&str]) {
    println!("cargo::rerun-if-changed={source}");
    cc::Build::new().file(source).opt_level(2).warnings(true).compile(name);
    for library in libraries {
        println!("cargo::rustc-link-lib={library}");
    }
}

#[cfg(any(feature = "ucx", feature = "libfabric"))]
fn version(variable: &str, package: &str) {
    let output = std::process::Command::new("pkg-config").args(["--modversion", package]).output();
    let output = output.expect("pkg-config runs");
    let version = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "pkg-config does not know {package}");
    println!("cargo::rustc-env={variable}={}", version.trim());
}
