//! Makes the shared library that the tests open and close.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "guest")]
    if let Err(error) = static_buffer() {
        // One sentence, where a panic would show its place in this file.
        println!("cargo::error={error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(feature = "guest")]
fn static_buffer() -> Result<(), String> {
    use std::path::Path;
    use std::{env, fs};

    let out = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let source = Path::new(&out).join("static_buffer.c");
    fs::write(&source, "char static_buffer[1 << 20];\n")
        .map_err(|error| format!("cannot write {}: {error}", source.display()))?;
    let compiler = cc::Build::new()
        .pic(true)
        .try_get_compiler()
        .map_err(|error| format!("no C compiler ({error}): install gcc"))?;
    let status = compiler
        .to_command()
        // Where a loader must align to more than a page, the library may come back elsewhere.
        .args(["-shared", "-Wl,-z,max-page-size=16384", "-o"])
        .arg(Path::new(&out).join("libregcache-static-buffer.so"))
        .arg(&source)
        .status()
        .map_err(|error| format!("cannot run the C compiler: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the C compiler failed: {status}")) }
}
