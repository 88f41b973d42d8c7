//! Where things are, and what runs them.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// This package's directory.
pub fn here() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// A directory of this test program's own.
pub fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("a directory below target/");
    directory
}

/// The static library that was built with this test.
pub fn static_library() -> PathBuf {
    let program = env::current_exe().expect("a path");
    let directory = program.parent().expect("a directory");
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libregcache_ffi") && name.ends_with(".a")
    };
    let entries = fs::read_dir(directory).expect("a directory").flatten().map(|e| e.path());
    let modified = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    entries.filter(is_library).max_by_key(modified).expect("cargo built the static library")
}

/// Whether a program is installed. What a test needs besides a compiler is installed by
/// `cargo xtask test`; without it, the test says that it was skipped.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

/// C compilers that are there.
pub fn compilers() -> Vec<&'static str> {
    let clangs = ["clang", "clang-19", "clang-16", "clang-15", "clang-14"];
    let clang = clangs.into_iter().find(|c| Command::new(c).arg("--version").output().is_ok());
    ["gcc"].into_iter().chain(clang).collect()
}

/// Runs it, shows what it says, and expects success.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it can be run");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text
}

/// The Makefile, with a directory for what it builds.
pub fn make(out: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(here()).env_remove("MAKEFLAGS").arg("-s");
    make.arg(format!("OUT={}", out.display()));
    make.arg(format!("STATIC={}", static_library().display()));
    make
}

/// The names after this word in a text, sorted.
pub fn names(text: &str, is_name: impl Fn(&str) -> bool) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<_> = words.filter(|word| is_name(word)).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}
