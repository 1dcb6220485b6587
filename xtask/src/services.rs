//! `cargo xtask services`: finds the servers and tools that tests and benches use, and installs missing ones.
//! It starts no server.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::releases::{RELEASES, Release};
use crate::{Error, cargo, phase, usage};

/// The oldest PostgreSQL that the product supports.
const OLDEST_POSTGRES: u32 = 15;

/// Command that installs missing servers.
pub const INSTALL: &str = "cargo xtask services install";

/// Command that installs missing lint tools.
pub const INSTALL_LINT_TOOLS: &str = "cargo xtask services install --with-lint-tools";

/// Subcommands of cargo that `cargo xtask test` runs where they are installed: `deny` checks licences and
/// bans, `machete` finds unused dependencies.
const LINT_TOOLS: [&str; 2] = ["deny", "machete"];

/// An installed PostgreSQL.
pub struct Postgres {
    /// Folder of `initdb`, `pg_ctl` and `postgres`.
    pub programs: PathBuf,
    /// Major version.
    pub version: u32,
}

/// Entry point of the command.
pub fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] | ["--print"] => {
            print();
            Ok(ExitCode::SUCCESS)
        }
        ["install"] => install(false),
        ["install", "--with-lint-tools"] => install(true),
        _ => Err(usage("services takes --print, or install [--with-lint-tools]")),
    }
}

fn print() {
    match find_postgres() {
        Ok(found) => println!("postgresql  {} in {}", found.version, found.programs.display()),
        Err(reason) => println!("postgresql  missing: {reason}; get it by `{INSTALL}`"),
    }
    for release in RELEASES {
        match release.find() {
            Ok(found) => println!("  release   {} in {}", found.version, found.programs.display()),
            Err(reason) => println!("  release   {reason}: tests on it are skipped; get it by `{INSTALL}`"),
        }
    }
    match pgbouncer_installed() {
        true => println!("pgbouncer   found"),
        false => println!("pgbouncer   missing: tests through a pooler are skipped; get it by `{INSTALL}`"),
    }
    match find_python() {
        Some(path) => println!("python3     {} (only for bench, to compare with dbos)", path.display()),
        None => println!("python3     missing; only bench uses it, to compare with dbos"),
    }
    for (tool, installed) in LINT_TOOLS.map(|tool| (tool, lint_tool_installed(tool))) {
        let missing = format!("missing; get it by `{INSTALL_LINT_TOOLS}` (takes minutes)");
        println!("{:<11} {}", format!("cargo-{tool}"), if installed { "found" } else { &missing });
    }
}

fn install(with_lint_tools: bool) -> Result<ExitCode, Error> {
    let mut complete = true;
    if find_postgres().is_err() {
        complete &= phase::run("install postgresql", || apt_install("postgresql"));
    }
    for release in RELEASES.iter().filter(|release| release.find().is_err()) {
        // Optional: without it the tests on it are skipped.
        phase::run(&format!("install postgresql {}", release.version), || release.install());
    }
    if !pgbouncer_installed() {
        // Optional: without it some tests are skipped.
        phase::run("install pgbouncer", || apt_install("pgbouncer"));
    }
    for tool in LINT_TOOLS.into_iter().filter(|tool| with_lint_tools && !lint_tool_installed(tool)) {
        let package = format!("cargo-{tool}");
        complete &= phase::run(&format!("install {package}"), || {
            phase::succeeds(&mut cargo::command(&["install", &package, "--locked"]))
        });
    }
    print();
    Ok(if complete && find_postgres().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs one Debian package and keeps its services stopped. The error says what the user must run instead.
fn apt_install(package: &str) -> Result<bool, String> {
    const SCRIPT: &str = "xtask/apt-install.sh";
    if !on_path("apt-get") {
        return Err(format!(
            "this machine has no apt-get; install {package} with your package manager \
             (PostgreSQL {OLDEST_POSTGRES} or later, with its server programs)"
        ));
    }
    if is_root() {
        phase::succeeds(Command::new("sh").args([SCRIPT, package]))
    } else if quiet(Command::new("sudo").args(["-n", "true"])) {
        phase::succeeds(Command::new("sudo").args(["-n", "sh", SCRIPT, package]))
    } else {
        Err(format!("this needs root; run: sudo sh {SCRIPT} {package}"))
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    quiet(Command::new("sh").args(["-c", "test \"$(id -u)\" = 0"]))
}

/// A PostgreSQL that is new enough: the first of the installed ones, or else the oldest from npm. The error says
/// why there is none.
pub fn find_postgres() -> Result<Postgres, String> {
    let mut found = installed_postgres();
    found.extend(RELEASES.iter().filter_map(Release::downloaded));
    let newest = found.iter().map(|postgres| postgres.version).max();
    found.into_iter().find(|postgres| postgres.version >= OLDEST_POSTGRES).ok_or_else(|| match newest {
        Some(version) => {
            format!("PostgreSQL {OLDEST_POSTGRES} or later is needed, and the newest here is {version}")
        }
        None => "no PostgreSQL server programs (initdb, pg_ctl, postgres) on this machine".to_owned(),
    })
}

/// Each PostgreSQL of this machine: first those on PATH, then those in the folders of packages, newest first.
pub fn installed_postgres() -> Vec<Postgres> {
    let mut found = Vec::new();
    for folder in path_folders() {
        found.extend(postgres_in(&folder));
    }
    let mut packaged = Vec::new();
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
    ] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                packaged.extend(postgres_in(&entry.path().join(suffix)));
            }
        }
    }
    packaged.sort_by_key(|postgres| std::cmp::Reverse(postgres.version));
    found.extend(packaged);
    found
}

/// The PostgreSQL whose programs are all in this folder. Follows links, because the server looks for its
/// files beside its real path.
pub fn postgres_in(folder: &Path) -> Option<Postgres> {
    let server = folder.join("postgres").canonicalize().ok()?;
    let programs = server.parent()?.to_path_buf();
    if !["initdb", "pg_ctl"].iter().all(|program| programs.join(program).is_file()) {
        return None;
    }
    let output = Command::new(&server).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(Postgres { version: major_version(&String::from_utf8_lossy(&output.stdout))?, programs })
}

/// `15` of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, `18` of `postgres (PostgreSQL) 18beta1`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Checks `/usr/sbin` as well, where packages install it and which only root has on PATH.
fn pgbouncer_installed() -> bool {
    on_path("pgbouncer") || Path::new("/usr/sbin/pgbouncer").is_file()
}

/// The first `python3` on PATH.
pub fn find_python() -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join("python3")).find(|path| path.is_file())
}

/// True when `cargo TOOL` can be called.
pub fn lint_tool_installed(tool: &str) -> bool {
    quiet(&mut cargo::command(&[tool, "--version"]))
}

pub fn on_path(program: &str) -> bool {
    path_folders().iter().any(|folder| folder.join(program).is_file())
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Runs a command without output; true when it succeeds.
fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_version("postgres (PostgreSQL) 17\n"), Some(17));
        assert_eq!(major_version("mysqld 8.0"), None);
        assert_eq!(major_version("postgres (PostgreSQL) devel"), None);
    }
}
