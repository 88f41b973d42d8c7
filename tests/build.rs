//! Makes the shared library that the tests open and close.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_GUEST").is_none() {
        return ExitCode::SUCCESS;
    }
    match static_buffer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, where a panic would show its place in this file.
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn static_buffer() -> Result<(), String> {
    let out = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let source = Path::new(&out).join("static_buffer.c");
    fs::write(&source, "char static_buffer[1 << 20];\n")
        .map_err(|error| format!("cannot write {}: {error}", source.display()))?;
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o"])
        .arg(Path::new(&out).join("libregcache-static-buffer.so"))
        .arg(&source)
        .status()
        .map_err(|error| format!("cannot run the C compiler {compiler}: {error}; install gcc"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the C compiler {compiler} failed: {status}"))
    }
}
