//! Makes the shared library that the tests open and close.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_GUEST").is_none() {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let source = Path::new(&out).join("static_buffer.c");
    fs::write(&source, "char static_buffer[1 << 20];\n").expect("write the source");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o"])
        .arg(Path::new(&out).join("libregcache-static-buffer.so"))
        .arg(&source)
        .status()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(status.success(), "{compiler} failed");
}
