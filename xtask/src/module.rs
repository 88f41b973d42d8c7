//! Builds the kernel module out of its source tree, for any unpacked kernel.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::Run;
use crate::kernel::{self, Kernel};
use crate::workspace::Workspace;

/// The module and its test helpers, built for one kernel.
pub struct Modules {
    /// `ummunotify.ko`.
    pub main: PathBuf,
    /// Modules that only tests load.
    pub helpers: Vec<PathBuf>,
}

/// Copies the sources below the target directory and compiles them there. Any
/// warning is an error. Nothing happens if the sources are those of the last
/// build.
pub fn build(workspace: &Workspace, kernel: &Kernel) -> Result<Modules> {
    let _lock = kernel::lock(&kernel.directory)?;
    let sources = Sources::read(&workspace.root.join("ummunotify-kmod"))?;
    let directory = kernel.directory.join("module");
    let marker = directory.join(".built");
    let fingerprint = format!("{} {:x}", kernel.release, sources.fingerprint());
    if fs::read_to_string(&marker).ok().as_ref() != Some(&fingerprint) {
        eprintln!("xtask: building the kernel module for {} ...", kernel.release);
        sources.copy_to(&directory)?;
        let (success, text) = make(kernel, &directory, &["-s"])?;
        if !success {
            bail!("the kernel module does not compile without warnings:\n{text}");
        }
        let warnings = warnings(&text);
        if !warnings.is_empty() {
            bail!("warnings from the kernel module's build:\n{}", warnings.join("\n"));
        }
        fs::write(&marker, fingerprint)?;
    }
    let mut modules = find(&directory, "ko")?;
    let main = modules.iter().position(|path| path.ends_with("ummunotify.ko"));
    let Some(main) = main.map(|index| modules.remove(index)) else {
        bail!(
            "the kernel module's build made no ummunotify.ko in {}; does its Kbuild name it?",
            directory.display()
        );
    };
    Ok(Modules { main, helpers: modules })
}

/// Those of modpost, which stop no build.
pub fn warnings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.to_lowercase().contains("warning")).collect()
}

/// Runs sparse over the module that [`build`] compiled; what it says about the
/// kernel's own headers does not count.
pub fn sparse(kernel: &Kernel) -> Result<()> {
    let _lock = kernel::lock(&kernel.directory)?;
    let directory = kernel.directory.join("module");
    // Debian's kernel packages lack the script with which newer makefiles find
    // out whether sparse is there, so C=2 is not enough; and sparse does not
    // know a word that newer headers use.
    let (success, text) = make(
        kernel,
        &directory,
        &["C=2", "KBUILD_CHECKSRC=2", "CF=-D__typeof_unqual__=__typeof__", "V=0"],
    )?;
    if !success || !text.contains("  CHECK ") {
        bail!("sparse did not run:\n{text}");
    }
    let found: Vec<_> = text.lines().filter(|line| is_finding(line, &directory)).collect();
    if !found.is_empty() {
        bail!("sparse complains:\n{}", found.join("\n"));
    }
    Ok(())
}

/// `main.c:12:3: warning: ...`; newer makefiles name the files of a module
/// relative to its directory.
fn is_finding(line: &str, directory: &Path) -> bool {
    let Some((file, text)) = line.split_once(':') else {
        return false;
    };
    let is_source = file.ends_with(".c") || file.ends_with(".h");
    is_source
        && directory.join(file).starts_with(directory)
        && (text.contains("warning:") || text.contains("error:"))
        // Said of newer kernels' MODULE_INFO(), since sparse does not compute
        // what it asserts; the compiler, who says the same where it is true,
        // was content.
        && !text.ends_with("error: bad constant expression")
}

/// The same as [`make_by`], where the kernel's modules are built.
fn make(kernel: &Kernel, directory: &Path, more: &[&str]) -> Result<(bool, String)> {
    make_by(&|| kernel.make(), &kernel.headers(), directory, more)
}

/// The sources, copied to a directory that is theirs.
pub fn copy_sources(workspace: &Workspace, directory: &Path) -> Result<()> {
    Sources::read(&workspace.root.join("ummunotify-kmod"))?.copy_to(directory)
}

/// Builds the module, then its test helpers, and returns whether that went
/// well and all that was printed. Any warning is an error.
pub fn make_by(
    make: &dyn Fn() -> Result<Command>,
    headers: &Path,
    directory: &Path,
    more: &[&str],
) -> Result<(bool, String)> {
    let mut text = String::new();
    for part in [directory, &directory.join("testmod")] {
        if !part.join("Kbuild").exists() {
            continue;
        }
        let mut command = make()?;
        command
            .arg("-C")
            .arg(headers)
            .arg(format!("M={}", part.display()))
            .args(["-j2", "W=1", "KCFLAGS=-Werror", "modules"])
            // The module's types for BPF: nobody asks, and pahole would be needed.
            .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
            .args(more)
            .env("LC_ALL", "C")
            // Variables of a make that runs this task are not meant for the kernel.
            .env_remove("MAKEFLAGS")
            .stdin(Stdio::null());
        let output =
            command.output().with_context(|| format!("cannot run `{}`", command.line()))?;
        text += &String::from_utf8_lossy(&output.stdout);
        text += &String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Ok((false, text));
        }
    }
    Ok((true, text))
}

/// The directories that are not for the kernel: programs with a makefile of
/// their own, the package, and what a build in the source tree has left.
const OTHER: &[&str] = &["selftests", "packaging", "bench", "generated"];

/// The module's source files, by path and content.
struct Sources(Vec<(PathBuf, Vec<u8>)>);

impl Sources {
    fn read(root: &Path) -> Result<Self> {
        if !root.join("Kbuild").exists() {
            bail!("no kernel module's sources in {}: there is no Kbuild", root.display());
        }
        let mut files = Vec::new();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(root.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                let kind = entry.file_type()?;
                if kind.is_dir() && !OTHER.contains(&path.to_str().unwrap_or_default()) {
                    directories.push(path);
                } else if kind.is_file() {
                    files.push((path, fs::read(entry.path())?));
                }
            }
        }
        files.sort();
        Ok(Self(files))
    }

    /// Another compiler's other hash only builds once more.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, content) in &self.0 {
            hasher.write(path.as_os_str().as_encoded_bytes());
            hasher.write(content);
        }
        hasher.finish()
    }

    /// An empty directory first: what an earlier build left must not take part.
    fn copy_to(&self, directory: &Path) -> Result<()> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        for (path, content) in &self.0 {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap_or(directory))?;
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Every file below `directory` with this extension, sorted.
fn find(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the probes with a compiler that is a shell's script; returns what the header says, or
    /// what the user is told.
    fn probe(compiler: &str) -> Result<String, String> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ummunotify-kmod");
        let directory = std::env::temp_dir().join(format!("probe-{}", std::process::id()));
        let header = directory.join("generated/has.h");
        let mut command = Command::new("sh");
        command.arg(module.join("probes/probe.sh")).arg(&header).arg(module.join("probes"));
        let output = command.args(["sh", "-c", compiler, "cc"]).output().unwrap();
        let answers = fs::read_to_string(directory.join("generated/has.h.answers")).unwrap();
        let said = fs::read_to_string(&header);
        fs::remove_dir_all(&directory).unwrap();
        if output.status.success() {
            return Ok(said.unwrap());
        }
        assert!(said.is_err(), "there is a header, and the next build would believe it");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(&answers), "{told}");
        Err(told)
    }

    #[test]
    fn a_probe_has_two_answers_and_no_third() {
        let has = |number: u8| Ok(format!("#define HAS_VM_FLAGS_MOD {number}\n"));
        assert_eq!(probe("true"), has(1));
        assert_eq!(probe(r#"case "$*" in *PROBE_HAS*) exit 1; esac"#), has(0));
        for (compiler, answer) in [
            (r#"case "$*" in *vm_flags_mod.c) echo no such member; exit 1; esac"#, "neither"),
            (r#"case "$*" in *nofault.c) exit 1; esac"#, "not for this kernel, which has no FOLL"),
            ("echo no such file; exit 1", "nothing compiles"),
        ] {
            let told = probe(compiler).unwrap_err();
            assert!(told.contains(answer), "{told}");
        }
    }
}
