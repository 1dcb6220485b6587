//! `cargo xtask bench`: starts a PostgreSQL that is as durable as in production, and runs the release
//! build of the bench crate, which contains the measurements. It installs the Python packages to compare with
//! on demand; without them their figures are skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::postgres::{Cluster, Durability};
use crate::services::{self, INSTALL};
use crate::{Error, cargo, phase, usage};

const PACKAGE: &str = "tenantry-bench";

/// The package of the program that is measured; the bench finds it beside itself.
const MEASURED: &str = "tenantry";

/// A Python package of the same purpose, measured beside Tenantry.
struct Rival {
    /// Benches that measure it.
    benches: &'static [&'static str],
    /// Its name on PyPI, and as a module.
    package: &'static str,
    module: &'static str,
    /// Environment variable that names a Python with the package.
    variable: &'static str,
}

const RIVALS: [Rival; 2] = [
    Rival { benches: &["onboard"], package: "dbos", module: "dbos", variable: "TENANTRY_BENCH_DBOS_PYTHON" },
    Rival {
        benches: &["postgres", "schemas"],
        package: "django-tenants",
        module: "django_tenants",
        variable: "TENANTRY_BENCH_DJANGO_PYTHON",
    },
];

/// Exit code when there is nothing to run.
const NO_BENCH: u8 = 2;

/// Entry point of the command; the arguments go to the bench program.
pub fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    if arguments.iter().any(|argument| argument.starts_with('-') && argument != "--full") {
        return Err(usage("bench takes the name of a bench and --full"));
    }
    if !Path::new("crates/bench/Cargo.toml").is_file() {
        println!("no bench yet");
        return Ok(ExitCode::from(NO_BENCH));
    }
    let built = phase::run("build", || {
        phase::succeeds(&mut cargo::command(&["build", "--release", "-p", MEASURED, "-p", PACKAGE]))
    });
    if !built {
        return Ok(ExitCode::FAILURE);
    }
    // `cargo run` would build the dependencies again, with the features of the bench alone.
    let mut command = Command::new(cargo::target_directory().join("release").join(PACKAGE));
    command.args(arguments);
    let names: Vec<&String> = arguments.iter().filter(|argument| *argument != "--full").collect();
    for rival in RIVALS {
        if names.is_empty() || names.iter().any(|name| rival.benches.contains(&name.as_str())) {
            match rival.python() {
                Ok(python) => drop(command.env(rival.variable, python)),
                Err(reason) => println!("    skipped {}: {reason}", rival.package),
            }
        }
    }
    let cluster = match services::find_postgres() {
        Ok(found) => {
            let cluster = Cluster::start(&found, Durability::Full)?;
            println!("    PostgreSQL {} at {}", found.version, cluster.url());
            command.env("TENANTRY_BENCH_POSTGRES", cluster.url());
            Some(cluster)
        }
        Err(reason) => {
            println!("    skipped PostgreSQL: {reason}; get it by `{INSTALL}`");
            None
        }
    };
    let passed = phase::run("bench", || phase::succeeds(&mut command));
    drop(cluster);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Rival {
    /// A Python with the package, installed once below the target folder. The error says why there is none.
    fn python(&self) -> Result<PathBuf, String> {
        let system = services::find_python().ok_or("there is no python3")?;
        let folder = cargo::target_directory().join(format!("bench-venv-{}", self.package));
        let python = folder.join("bin/python3");
        let python = std::path::absolute(&python)
            .map_err(|error| format!("cannot name {}: {error}", python.display()))?;
        if self.works(&python) {
            return Ok(python);
        }
        println!("\n==> install {}, once", self.package);
        let mut create = Command::new(system);
        create.args(["-m", "venv"]).arg(&folder);
        let mut fill = Command::new(&python);
        fill.args(["-m", "pip", "install", "--quiet", self.package, "psycopg[binary]"]);
        for mut step in [create, fill] {
            if !phase::succeeds(&mut step)? {
                return Err(format!("command failed: {step:?}"));
            }
        }
        if self.works(&python) {
            Ok(python)
        } else {
            Err("it is installed but cannot be imported".to_owned())
        }
    }

    fn works(&self, python: &Path) -> bool {
        python.is_file()
            && Command::new(python)
                .args(["-c", &format!("import {}, psycopg", self.module)])
                .output()
                .is_ok_and(|output| output.status.success())
    }
}
