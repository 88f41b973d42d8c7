//! The header, the library, the version script and the manual page tell the same.

mod common;

use std::fs;
use std::mem::offset_of;
use std::process::Command;

use common::{compilers, has, here, names, run, scratch};
use regcache_ffi::monitor::MonitorHandle;
use regcache_ffi::{
    Callbacks, Event, MonitorOptions, Options, Region, Statistics, Ticket, create, monitor,
};

fn read(path: &str) -> String {
    fs::read_to_string(here().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The header without its comments.
fn declarations() -> String {
    let header = read("include/regcache.h");
    let parts = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
    parts.collect()
}

/// Compiles a piece of C after the header, as C and as C++.
fn compile(name: &str, code: &str) {
    let directory = scratch("header");
    let include = here().join("include");
    for compiler in compilers() {
        for (language, standard) in [("c", "-std=c11"), ("c++", "-std=c++11")] {
            let source = directory.join(format!("{name}-{compiler}.{language}"));
            fs::write(&source, format!("#include <regcache.h>\n{code}\n")).unwrap();
            let mut command = Command::new(compiler);
            command.args(["-x", language, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
            command.arg("-fsyntax-only").arg("-I").arg(&include).arg(&source);
            run(&mut command);
        }
    }
}

#[test]
fn it_is_valid_c_and_cxx_and_its_macros_initialise() {
    compile(
        "macros",
        "struct regcache_options options = REGCACHE_OPTIONS_INIT;\n\
         struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;\n\
         struct regcache_stats stats = REGCACHE_STATS_INIT;\n\
         struct regcache_monitor_options kind = REGCACHE_MONITOR_OPTIONS_INIT;\n\
         int f(struct regcache_monitor *m);\n\
         int f(struct regcache_monitor *m) { return regcache_monitor_changed(m); }",
    );
}

macro_rules! layout {
    ($($c:literal = $rust:ty { $($field:ident $(= $name:literal)?),* })*) => {{
        let mut code = String::from(
            "#ifdef __cplusplus\n#define SAME(a, b) static_assert((a) == (b), #a)\n#else\n\
             #define SAME(a, b) _Static_assert((a) == (b), #a)\n#endif\n");
        $(
            code += &format!("SAME(sizeof(struct {}), {});\n", $c, size_of::<$rust>());
            $(
                let name = [$($name,)? stringify!($field)][0];
                let offset = offset_of!($rust, $field);
                code += &format!("SAME(offsetof(struct {}, {name}), {offset});\n", $c);
            )*
        )*
        code
    }};
}

#[test]
fn structures_are_laid_out_as_in_rust() {
    let code = layout! {
        "regcache_options" = Options {
            type_size, monitor, flags, max_regions, max_bytes, payload_size, reserved
        }
        "regcache_callbacks" = Callbacks { type_size, mem_reg, mem_dereg, context, reserved }
        "regcache_region" = Region {
            addr, len, access, lkey, rkey, reserved, mr, payload
        }
        "regcache_ticket" = Ticket { lease, region }
        "regcache_stats" = Statistics {
            type_size, hits, misses, joined, registrations, deregistrations, register_failures,
            deregister_failures, stale, verified, revoked, barrier_failures, evicted, repinned,
            uncached_too_large, uncached_full, uncached_contested, uncached_reentered,
            uncached_unwatchable, uncached_unmonitored, regions, bytes, tickets
        }
        "regcache_monitor" = MonitorHandle { counter, seen, body }
        "regcache_monitor_options" = MonitorOptions { type_size, monitor, flags, reserved }
        "regcache_event" = Event { kind = "type", changes, cookie, addr, len }
    };
    assert!(code.matches("SAME(").count() > 60);
    compile("layout", &code);
}

#[test]
fn constants_are_the_same() {
    let mut code = String::from("#define SAME(a, b) typedef char same_##a[(a) == (b) ? 1 : -1]\n");
    for (name, value) in [
        ("MONITOR_UMMUNOTIFY", create::MONITOR_UMMUNOTIFY.into()),
        ("MONITOR_MANUAL", create::MONITOR_MANUAL.into()),
        ("TRUST_PEERS", create::TRUST_PEERS.into()),
        ("REAPER", create::REAPER.into()),
        ("NO_VERIFY", create::NO_VERIFY.into()),
        ("NO_REAPER", create::NO_REAPER.into()),
        ("DESTROY_FORCE", create::DESTROY_FORCE.into()),
        ("UNCACHED", create::UNCACHED),
        ("WATCH_UNPINNED", monitor::WATCH_UNPINNED.into()),
        ("EVENT_WATCH", monitor::EVENT_WATCH.into()),
        ("EVENT_RANGE", monitor::EVENT_RANGE.into()),
        ("EVENT_ALL", monitor::EVENT_ALL.into()),
    ] {
        code += &format!("SAME(REGCACHE_{name}, {value}u);\n");
    }
    compile("constants", &code.replace(&format!("{}u", u64::MAX), "UINT64_MAX"));
}

/// The C type that a type in a signature stands for.
fn c_type(rust: &str) -> String {
    if let Some(of) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(of));
    }
    if let Some(of) = rust.strip_prefix("*const ") {
        return format!("const {} *", c_type(of));
    }
    match rust {
        "c_void" => "void",
        "c_char" => "char",
        "c_int" => "int",
        "usize" => "size_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "CacheHandle" => "struct regcache",
        "LocalHandle" => "struct regcache_local",
        "MonitorHandle" => "struct regcache_monitor",
        "IbvPd" => "struct ibv_pd",
        "Ticket" => "struct regcache_ticket",
        "Options" => "struct regcache_options",
        "Callbacks" => "struct regcache_callbacks",
        "Statistics" => "struct regcache_stats",
        "MonitorOptions" => "struct regcache_monitor_options",
        "Option<CompletionFn>" => "regcache_completion",
        "Option<SinkFn>" => "regcache_sink",
        other => panic!("what is {other} in C?"),
    }
    .to_owned()
}

/// The functions of the library, from its sources, as C declares them.
fn prototypes() -> Vec<(String, String)> {
    let sources = fs::read_dir(here().join("src")).unwrap().flatten();
    let mut found = Vec::new();
    for source in sources {
        let text = fs::read_to_string(source.path()).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let signature = function.split(" {").next().unwrap();
            let (_, signature) = signature.split_once("extern \"C\" fn ").expect("a C function");
            let (name, rest) = signature.split_once('(').unwrap();
            let (arguments, result) = rest.rsplit_once(") -> ").unwrap();
            let types: Vec<_> = arguments
                .split(',')
                .filter_map(|argument| Some(c_type(argument.split_once(": ")?.1.trim())))
                .collect();
            let types = if types.is_empty() { "void".to_owned() } else { types.join(", ") };
            found.push((name.to_owned(), format!("{} {name}({types});", c_type(result.trim()))));
        }
    }
    found.sort();
    found
}

#[test]
fn functions_are_declared_as_they_are_defined() {
    let prototypes = prototypes();
    assert!(prototypes.len() > 20);
    // A declaration that differs from the header's is an error, in C++ if both are extern "C".
    let code: Vec<_> = prototypes.into_iter().map(|(_, prototype)| prototype).collect();
    let code = code.join("\n");
    let cxx = ("#ifdef __cplusplus\nextern \"C\" {\n#endif\n", "\n#ifdef __cplusplus\n}\n#endif");
    compile("prototypes", &format!("{}{code}{}", cxx.0, cxx.1));
}

#[test]
fn the_header_the_script_and_the_page_name_the_same_functions() {
    let defined: Vec<_> = prototypes().into_iter().map(|(name, _)| name).collect();
    let header = declarations();
    let called = |word: &str| {
        let call = format!("{word}(");
        word.starts_with("regcache_") && header.contains(&call)
    };
    let mut declared = names(&header, called);
    // An inline function.
    declared.retain(|name| name != "regcache_monitor_changed");
    assert_eq!(declared, defined);
    let script = read("libregcache.map");
    assert_eq!(names(&script, |word| word.starts_with("regcache_")), defined);
    let page = read("../man/regcache.3");
    for name in defined.iter().map(String::as_str).chain(["regcache_monitor_changed"]) {
        assert!(page.contains(&format!(".Fn {name}")), "the page does not tell of {name}");
        assert!(page.contains(&format!(".Fo {name}")), "the page does not show {name}");
    }
    for line in header.lines().filter_map(|line| line.strip_prefix("#define REGCACHE_")) {
        let name = line.split([' ', '\t', '(']).next().unwrap();
        let told = name == "H" || page.contains(&format!("REGCACHE_{name}"));
        assert!(told, "the page does not tell of REGCACHE_{name}");
    }
}

#[test]
fn the_example_of_the_readme_compiles() {
    let readme = read("../README.md");
    let (_, example) = readme.split_once("```c\n").expect("an example in C");
    let (example, _) = example.split_once("```").expect("its end");
    let source = scratch("header").join("readme.c");
    fs::write(&source, example).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]);
    run(gcc.arg(here().join("include")).arg(source));
}

#[test]
fn the_page_is_well_formed() {
    if has("mandoc") {
        let page = here().join("../man/regcache.3");
        let mut lint = Command::new("mandoc");
        run(lint.args(["-Tlint", "-Wwarning"]).arg(page));
    }
}
