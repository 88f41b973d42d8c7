//! Builds the shared library whose static buffer the demonstration loads and unloads.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "rdma")]
    static_buffer();
}

#[cfg(feature = "rdma")]
fn static_buffer() {
    use std::env;
    use std::path::PathBuf;

    const SOURCE: &str = "src/bin/demo/static_buffer.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let library = PathBuf::from(out_dir).join("libstatic_buffer.so");
    let mut compiler = cc::Build::new().pic(true).get_compiler().to_command();
    // No libc: the loader then has nothing else to load, and unloads all of it.
    compiler.args(["-shared", "-nostdlib", SOURCE, "-o"]).arg(library);
    let status = compiler.status().expect("a C compiler runs");
    assert!(status.success(), "{compiler:?}: {status}");
}
