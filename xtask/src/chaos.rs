//! `cargo xtask chaos`: builds everything as the tests do and starts the program of crates/chaos, which runs servers, customers
//! and faults, on the server in `TENANTRY_TEST_POSTGRES` or on a temporary one.

use std::process::{Command, ExitCode};

use crate::postgres::{Cluster, Durability};
use crate::services::{self, INSTALL};
use crate::test::POSTGRES;
use crate::{Error, cargo, phase, usage};

const PACKAGE: &str = "tenantry-chaos";

/// Entry point of the command; the arguments go to the program.
pub fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    let mut names = arguments.iter().step_by(2);
    if !names.all(|name| ["--seed", "--minutes", "--seconds"].contains(&name.as_str())) {
        return Err(usage("chaos takes --seed N, --minutes M and --seconds S"));
    }
    let build = ["build", "--workspace", "--all-targets"];
    if !phase::run("build", || phase::succeeds(&mut cargo::command(&build))) {
        return Ok(ExitCode::FAILURE);
    }
    let server = Server::find().map_err(|reason| format!("{reason}; get it by `{INSTALL}`"))?;
    let passed = phase::run("chaos", || server.run(arguments));
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The PostgreSQL server of a run; none of its own if the environment names one.
pub struct Server(Option<Cluster>);

impl Server {
    /// Finds a server or starts one. The error says why there is none.
    pub fn find() -> Result<Self, String> {
        if std::env::var_os(POSTGRES).is_some() {
            return Ok(Self(None));
        }
        Cluster::start(&services::find_postgres()?, Durability::None).map(|cluster| Self(Some(cluster)))
    }

    /// Runs the program, which is built, with these arguments; true if every invariant holds.
    pub fn run(&self, arguments: &[String]) -> Result<bool, String> {
        let mut command = Command::new(cargo::target_directory().join("debug").join(PACKAGE));
        if let Some(cluster) = &self.0 {
            command.env(POSTGRES, cluster.url());
        }
        phase::succeeds(command.args(arguments))
    }
}
