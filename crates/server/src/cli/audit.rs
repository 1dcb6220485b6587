//! `tenantry audit`: verifies the audit trail offline, on the registry itself.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::{Exit, Session};
use crate::config::Config;
use crate::process;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify the hash chain and signatures of the audit trail (offline: on the registry of --data or --config)
    Verify {
        /// Configuration file with the registry's and keyring's URLs
        #[arg(long, value_name = "FILE", conflicts_with = "data")]
        config: Option<PathBuf>,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Verify { config } = command;
    let mut loaded = Config::load(config.as_deref()).map_err(|faults| Exit::Usage.with(faults))?;
    if config.is_none() {
        loaded.data_dir = session.folder();
    }
    let report = process::verify_audit(&loaded).await?;
    session.output.one(&serde_json::to_value(&report)?)?;
    if report.unsealed > 0 {
        eprintln!("{} records at the end are not sealed yet and were not verified", report.unsealed);
    }
    match report.broken {
        None => Ok(()),
        Some(_) => Err(Exit::Failure.with("the audit trail is broken: see `broken` in the report")),
    }
}
