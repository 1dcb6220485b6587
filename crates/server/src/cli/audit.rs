//! `tenantry audit`: proof that the record of what was done is whole. Works offline, on the registry itself.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::{Exit, Session};
use crate::config::Config;
use crate::process;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the hash chain and its signatures (offline: on the registry of --data or of a configuration)
    Verify {
        /// The configuration that says where registry and keyring are
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
        eprintln!("{} records at the end have no number yet, and so no proof", report.unsealed);
    }
    match report.broken {
        None => Ok(()),
        Some(_) => Err(Exit::Failure.with("the audit trail is not as it was written")),
    }
}
