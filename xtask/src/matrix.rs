//! `cargo xtask matrix`: the kernel module compiled for every kernel whose headers Debian serves, and
//! for headers whose version number does not say what they have.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{Apt, Suite};
use crate::command::Run;
use crate::debian::{
    BOOKWORM_BACKPORTS, BOOKWORM_SUITES, CROSS, CROSS_NEWEST, Release, TRIXIE_BACKPORTS,
    TRIXIE_SUITES,
};
use crate::series::Series;
use crate::tree::Tree;
use crate::workspace::Workspace;
use crate::{host, kernel, module, support};

/// What `cargo xtask matrix` is told.
#[derive(clap::Args)]
pub struct Args {
    /// Only rows whose name holds this, for instance `rt-arm64`
    filter: Option<String>,
    /// Write it to the support table, docs/kernels.md
    #[arg(long, conflicts_with = "filter")]
    write: bool,
}

/// Where kernels come from.
struct Source {
    /// For people, and a directory.
    name: &'static str,
    suites: &'static [Suite],
    /// Whose compilers are new enough, and the suffix of their names.
    tools: (&'static Release, &'static str),
    /// Flavours beside the plain one.
    flavours: &'static [Flavour],
}

/// A kind of kernel, and the one architecture that has it, if only one has.
struct Flavour {
    name: &'static str,
    of: Option<&'static str>,
}

const PLAIN: Flavour = Flavour { name: "", of: None };
const RT: Flavour = Flavour { name: "rt", of: None };
const PAGES_OF_16K: Flavour = Flavour { name: "16k", of: Some("arm64") };

const UNTIL_6_12: &[Flavour] = &[PLAIN, RT];
const SINCE_6_12: &[Flavour] = &[PLAIN, RT, PAGES_OF_16K];

const GCC_14: (&Release, &str) = (&CROSS, "-14");
const NEWEST: (&Release, &str) = (&CROSS_NEWEST, "");

const SOURCES: &[Source] = &[
    Source {
        name: "bullseye",
        tools: GCC_14,
        suites: &[Suite { archive: "debian", name: "bullseye" }],
        flavours: UNTIL_6_12,
    },
    Source { name: "bookworm", tools: GCC_14, suites: BOOKWORM_SUITES, flavours: UNTIL_6_12 },
    Source {
        name: "bookworm-backports",
        tools: GCC_14,
        suites: BOOKWORM_BACKPORTS,
        flavours: UNTIL_6_12,
    },
    Source { name: "trixie", tools: GCC_14, suites: TRIXIE_SUITES, flavours: SINCE_6_12 },
    Source {
        name: "trixie-backports",
        tools: GCC_14,
        suites: TRIXIE_BACKPORTS,
        flavours: SINCE_6_12,
    },
    Source {
        name: "sid",
        tools: NEWEST,
        suites: &[Suite { archive: "debian", name: "sid" }],
        flavours: SINCE_6_12,
    },
    Source {
        name: "experimental",
        tools: NEWEST,
        suites: &[Suite { archive: "debian", name: "experimental" }],
        flavours: SINCE_6_12,
    },
];

/// The architecture whose programs the build runs.
const BUILD: &str = "amd64";
const ARCHITECTURES: &[&str] = &["amd64", "arm64"];

/// Version numbers that say other than what the headers have.
const PLANTED: &[(&str, &str)] = &[("planted-older", "5,15,0"), ("planted-newer", "99,0,0")];

/// One kernel.
struct Row {
    source: &'static Source,
    flavour: &'static Flavour,
    architecture: &'static str,
}

/// What came of it.
struct Compiled {
    row: Row,
    release: String,
    outcome: Outcome,
}

impl Compiled {
    /// For the support table.
    fn record(&self, date: &str) -> support::Compiled {
        support::Compiled {
            row: self.row.name(),
            release: self.release.clone(),
            architecture: self.row.architecture.to_owned(),
            pages: self.row.page_size(),
            outcome: match &self.outcome {
                Outcome::Compiled => "yes".to_owned(),
                Outcome::Refused(lacks) => format!("no: it has no {lacks}"),
                Outcome::Failed(_) => "**no**".to_owned(),
                Outcome::Unavailable(_) => "its headers could not be had".to_owned(),
            },
            date: date.to_owned(),
        }
    }
}

/// The name of the row that is a guest's kernel.
pub fn row_of(series: Series) -> String {
    let properties = series.properties();
    let source = SOURCES.iter().find(|source| source.suites == properties.suites);
    format!("{}/{}", source.map_or("elsewhere", |source| source.name), properties.kind)
}

enum Outcome {
    Compiled,
    /// The probes say what the kernel lacks.
    Refused(String),
    /// What the build said.
    Failed(String),
    /// The archive does not have what its lists name.
    Unavailable(String),
}

/// What the probes say of a kernel that lacks what the module cannot do without.
const REFUSAL: &str = "ummunotify: not for this kernel, which has no ";

impl Row {
    fn all() -> Vec<Row> {
        let mut rows = Vec::new();
        for source in SOURCES {
            for flavour in source.flavours {
                for architecture in ARCHITECTURES {
                    if flavour.of.is_none_or(|only| only == *architecture) {
                        rows.push(Row { source, flavour, architecture });
                    }
                }
            }
        }
        rows
    }

    /// As the end of the name of Debian's metapackages.
    fn kind(&self) -> String {
        match self.flavour.name {
            "" => self.architecture.to_owned(),
            "16k" => format!("{}-16k", self.architecture),
            flavour => format!("{flavour}-{}", self.architecture),
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.source.name, self.kind())
    }

    /// KiB.
    fn page_size(&self) -> u32 {
        if self.flavour.name == "16k" { 16 } else { 4 }
    }

    /// For make: whatever compiler built the kernel.
    fn compiler(&self) -> [String; 2] {
        let prefix = if self.architecture == "arm64" { "aarch64-linux-gnu-" } else { "" };
        let (_, suffix) = self.source.tools;
        [format!("CC={prefix}gcc{suffix}"), format!("CROSS_COMPILE={prefix}")]
    }
}

/// Runs the task.
pub fn main(args: Args) -> Result<u8> {
    host::provide(&[host::TREE])?;
    let workspace = Workspace::find()?;
    let mut all = Vec::new();
    for row in Row::all() {
        if args.filter.as_ref().is_some_and(|filter| !row.name().contains(filter.as_str())) {
            continue;
        }
        let name = row.name();
        let (tools, _) = row.source.tools;
        let tree = Tree::provide(&workspace, tools)?;
        let compiled = compile(&workspace, &tree, row).with_context(|| name.clone())?;
        let release = &compiled.release;
        match &compiled.outcome {
            Outcome::Compiled => println!("{name}: {release}: compiled"),
            Outcome::Refused(lacks) => println!("{name}: {release}: refused, has no {lacks}"),
            Outcome::Failed(text) => println!("{name}: {release}: FAILED\n{text}"),
            Outcome::Unavailable(why) => println!("{name}: skipped: {why}"),
        }
        all.push(compiled);
    }
    if all.is_empty() {
        bail!("no row is called {:?}", args.filter.unwrap_or_default());
    }
    let count = |is: fn(&Outcome) -> bool| all.iter().filter(|one| is(&one.outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let refused = count(|outcome| matches!(outcome, Outcome::Refused(_)));
    let compiled = count(|outcome| matches!(outcome, Outcome::Compiled));
    let skipped = all.len() - compiled - refused - failed;
    println!("{compiled} compiled, {refused} refused, {failed} failed, {skipped} skipped");
    if skipped == all.len() {
        bail!("no kernel's headers could be had");
    }
    if args.write {
        let date = support::today()?;
        let rows = all.iter().map(|one| one.record(&date)).collect();
        support::write_matrix(&workspace, rows)?;
    }
    Ok(u8::from(failed > 0))
}

/// Compiles the module for one kernel, as its headers are and with planted version numbers.
fn compile(workspace: &Workspace, tree: &Tree, row: Row) -> Result<Compiled> {
    let directory = workspace.target.join("matrix").join(row.source.name);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let _lock = kernel::lock(&directory)?;
    let release = match unpack(&row, &directory) {
        Ok(release) => release,
        Err(error) => {
            let outcome = Outcome::Unavailable(format!("{error:#}"));
            return Ok(Compiled { row, release: "?".to_owned(), outcome });
        }
    };
    let headers = directory.join(format!("root/usr/src/linux-headers-{release}"));
    let outcome = match try_compile(workspace, tree, &row, &directory, &headers)? {
        Outcome::Compiled => planted(workspace, tree, &row, &directory, &headers)?,
        other => other,
    };
    Ok(Compiled { row, release, outcome })
}

fn try_compile(
    workspace: &Workspace,
    tree: &Tree,
    row: &Row,
    directory: &Path,
    headers: &Path,
) -> Result<Outcome> {
    let built = directory.join("module");
    module::copy_sources(workspace, &built)?;
    let make = || tree.command("make", directory);
    let mut more = vec!["-s"];
    let compiler = row.compiler();
    more.extend(compiler.iter().map(String::as_str));
    let (success, text) = module::make_by(&make, headers, &built, &more)?;
    let warnings = module::warnings(&text);
    // One set of tools serves all kernels here, whatever built them.
    let warnings: Vec<_> = warnings
        .into_iter()
        .filter(|line| !line.contains("differs from the one used to build the kernel"))
        .collect();
    let refusal = text.lines().find_map(|line| line.strip_prefix(REFUSAL));
    Ok(match refusal.and_then(|lacks| lacks.split_once(". ")) {
        Some((lacks, _)) => Outcome::Refused(lacks.to_owned()),
        None if success && warnings.is_empty() => Outcome::Compiled,
        None => Outcome::Failed(text),
    })
}

/// The same headers under numbers of kernels that had or have other interfaces: as a distribution
/// that brings newer ones to an older kernel, and the other way round.
fn planted(
    workspace: &Workspace,
    tree: &Tree,
    row: &Row,
    directory: &Path,
    headers: &Path,
) -> Result<Outcome> {
    for (name, version) in PLANTED {
        let copy = headers.with_file_name(name);
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        Command::new("cp").arg("-a").arg(headers).arg(&copy).run()?;
        // Newer makefiles say where they are.
        let makefile = fs::read_to_string(copy.join("Makefile"))?;
        let file = headers.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let makefile = makefile.replace(&format!("{file}\n"), &format!("{name}\n"));
        fs::write(copy.join("Makefile"), makefile)?;
        let header = copy.join("include/generated/uapi/linux/version.h");
        let text = fs::read_to_string(&header)
            .with_context(|| format!("cannot read {}", header.display()))?;
        let mut planted = String::new();
        for line in text.lines() {
            if line.starts_with("#define LINUX_VERSION_CODE") {
                let _ = writeln!(planted, "#define LINUX_VERSION_CODE KERNEL_VERSION({version})");
            } else {
                let _ = writeln!(planted, "{line}");
            }
        }
        fs::write(&header, planted)?;
        let outcome = try_compile(workspace, tree, row, directory, &copy)?;
        fs::remove_dir_all(&copy)?;
        if let Outcome::Failed(text) | Outcome::Refused(text) = outcome {
            return Ok(Outcome::Failed(format!("with a version of {version}:\n{text}")));
        }
    }
    Ok(Outcome::Compiled)
}

/// Downloads and unpacks the headers, unless that was done before; returns the kernel's release.
fn unpack(row: &Row, directory: &Path) -> Result<String> {
    let marker = directory.join(format!("release-{}", row.kind()));
    if let Ok(release) = fs::read_to_string(&marker) {
        return Ok(release);
    }
    let apt = |architecture: &str| {
        let lists = directory.join(format!("apt-{architecture}"));
        Apt::update_for(architecture, lists, row.source.suites)
    };
    let apt_of_kernel = apt(row.architecture)?;
    let metapackage = format!("linux-headers-{}", row.kind());
    let depends = apt_of_kernel.depends(&metapackage)?;
    let headers = depends.into_iter().find(|name| name.starts_with("linux-headers-"));
    let headers = headers.with_context(|| format!("{metapackage} stands for no headers"))?;
    let mut packages = vec![headers.clone()];
    packages.extend(apt_of_kernel.depends(&headers)?);
    packages.retain(|name| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-"));
    // Programs that run here.
    let (tools, packages): (Vec<_>, Vec<_>) =
        packages.into_iter().partition(|name| name.starts_with("linux-kbuild-"));
    let (downloads, root) = (directory.join("packages"), directory.join("root"));
    apt_of_kernel.unpack(&packages, &downloads, &root)?;
    apt(BUILD)?.unpack(&tools, &downloads, &root)?;
    let release = headers.trim_start_matches("linux-headers-").to_owned();
    let directory: PathBuf = root.join("usr/src").join(&headers);
    kernel::relocate(&directory)?;
    fs::write(&marker, &release).with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(release)
}
