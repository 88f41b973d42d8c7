//! A short run of the truth machine, and of the machine against caches that are not true. A long
//! run is `cargo xtask fuzz-truth`.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// Where a program that fails is kept.
fn failed(name: &str) -> PathBuf {
    env::temp_dir().join(format!("regcache-{name}-{}.program", std::process::id()))
}

/// Runs the machine, shows what it prints, and says whether all was good.
fn machine(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz-truth"))
        .args(arguments)
        .output()
        .expect("run the truth machine");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// No sandbox without io_uring can show anything.
fn has_io_uring() -> bool {
    let has = regcache::registrar::IoUring::new(1).is_ok();
    if !has {
        println!("this machine has no io_uring");
    }
    has
}

/// The program tells the caches of what it changes: the cache alone is under test.
#[test]
fn a_cache_that_the_program_tells_is_never_stale() {
    if has_io_uring() {
        let (good, _) =
            machine(&["--teller", "program", "--operations", "4000", "--program", "2000"]);
        assert!(good);
    }
}

/// The kernel tells: all is under test.
#[cfg(feature = "guest")]
#[test]
fn a_cache_that_the_kernel_tells_is_never_stale() {
    let (good, _) = machine(&["--teller", "kernel", "--operations", "6000", "--program", "2000"]);
    assert!(good);
}

/// Nobody tells. The machine must notice, show it by a program of three operations (register,
/// change, look up), and show it again by the text of that program.
#[test]
fn a_cache_that_nobody_tells_is_caught() {
    if !has_io_uring() {
        return;
    }
    let path = failed("untold");
    let file = path.to_str().expect("a path in UTF-8");
    let (good, text) = machine(&[
        "--teller",
        "nobody",
        "--operations",
        "5000",
        "--program",
        "1000",
        "--seed",
        "1",
        "--failed",
        file,
    ]);
    assert!(!good && text.contains("STALE"), "nothing was found");
    let program = fs::read_to_string(&path).expect("the program was kept");
    let operations = program.lines().filter(|line| line.starts_with("  ")).count();
    assert!(operations <= 3, "{program}");

    let (good, text) = machine(&["--teller", "nobody", "--replay", file]);
    assert!(!good && text.contains("STALE"), "the program does not fail again");
    let (good, _) = machine(&["--teller", "program", "--replay", file]);
    assert!(good, "a cache that is told passes the same program");
    fs::remove_file(path).expect("remove the program");
}
