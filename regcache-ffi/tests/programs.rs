//! Programs in C: with the shared library, under valgrind, and with the address sanitizer.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{compilers, has, here, make, names, run, scratch};

/// Everything that the Makefile makes by default, once.
fn built() -> &'static Path {
    static OUT: OnceLock<PathBuf> = OnceLock::new();
    OUT.get_or_init(|| {
        let out = scratch("programs");
        run(make(&out).args(["all", "programs", "asan"]));
        out
    })
}

fn programs() -> Vec<String> {
    let list = run(make(built()).arg("list-host"));
    let programs: Vec<_> = list.split_whitespace().map(str::to_owned).collect();
    assert!(programs.len() > 4);
    programs
}

/// Runs a program, which must say of each test that it went well.
fn expect_ok(command: &mut Command) {
    let text = run(command);
    assert!(!text.contains("not ok"), "{command:?}\n{text}");
    if let Some(plan) = text.lines().find_map(|line| line.strip_prefix("1..")) {
        let passed = text.lines().filter(|line| line.starts_with("ok ")).count();
        assert_eq!(plan.parse(), Ok(passed), "{command:?}\n{text}");
    }
}

#[test]
fn run_with_the_shared_library() {
    for program in programs() {
        expect_ok(&mut Command::new(built().join(program)));
    }
}

#[test]
fn the_library_is_closed_while_threads_live_that_used_it() {
    run(Command::new(built().join("unload")).arg(built().join("libregcache.so")));
}

#[test]
fn run_with_the_address_sanitizer() {
    for program in programs() {
        expect_ok(&mut Command::new(built().join(format!("asan-{program}"))));
    }
}

#[test]
fn run_under_valgrind() {
    if !has("valgrind") {
        return;
    }
    // It runs one thread at a time, so those that wait for each other take long.
    for program in programs().into_iter().filter(|program| program != "threads") {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["-q", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]);
        valgrind.args(["--error-exitcode=9", "--fair-sched=yes"]).arg(built().join(program));
        expect_ok(&mut valgrind);
    }
}

#[test]
fn compile_with_every_compiler() {
    for compiler in compilers() {
        let out = scratch(&format!("programs-{compiler}"));
        run(make(&out).args(["all", "programs"]).arg(format!("CC={compiler}")));
        expect_ok(&mut Command::new(out.join("cache")));
    }
}

#[test]
fn the_shared_library_has_a_name_versions_and_nothing_else() {
    let library = built().join("libregcache.so");
    let dynamic = run(Command::new("objdump").arg("-p").arg(&library));
    assert!(dynamic.contains("SONAME               libregcache.so.0"), "{dynamic}");
    assert!(dynamic.contains("REGCACHE_0"), "{dynamic}");
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let mut exported: Vec<_> =
        symbols.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect();
    exported.retain(|name| name != "REGCACHE_0" && name != "REGCACHE_0@@REGCACHE_0");
    exported.sort();
    let script = std::fs::read_to_string(here().join("libregcache.map")).unwrap();
    let names: Vec<_> = names(&script, |word| word.starts_with("regcache_"))
        .into_iter()
        .map(|name| format!("{name}@@REGCACHE_0"))
        .collect();
    assert_eq!(exported, names);
}

#[test]
fn what_is_installed_serves_a_program() {
    let root = scratch("installed");
    let out = scratch("programs-installed");
    run(make(&out).arg("all"));
    run(make(&out).arg("install").arg(format!("PREFIX={}", root.display())));
    if !has("pkg-config") {
        return;
    }
    let mut flags = Command::new("pkg-config");
    flags.args(["--cflags", "--libs", "regcache"]);
    let flags = run(flags.env("PKG_CONFIG_PATH", root.join("lib/pkgconfig")));
    let program = root.join("example");
    let mut cc = Command::new("gcc");
    cc.arg(here().join("c/example.c")).args(flags.split_whitespace()).arg("-o").arg(&program);
    run(&mut cc);
    let text = run(Command::new(&program).env("LD_LIBRARY_PATH", root.join("lib")));
    assert!(text.contains("998 hits, 2 misses, 1 stale"), "{text}");
    assert!(root.join("share/man/man3/regcache.3").exists());
}
