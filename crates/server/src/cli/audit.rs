//! `tenantry audit`: verifies the audit trail offline, on the registry and the keyring themselves, and accepts its cuts.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use tenantry_store::keyring::Cut;
use tenantry_store::{AuditReport, Fault};

use super::{Exit, Session};
use crate::config::Config;
use crate::process;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify the hash chain, signatures and anchor of the audit trail (offline: on the registry of --data or --config)
    Verify(Databases),
    /// Accept that records at the end of the audit trail are gone, such as after a backup of the registry was restored
    Accept {
        /// Reason, which the keyring keeps and `verify` shows
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        databases: Databases,
    },
}

#[derive(Debug, Args)]
pub struct Databases {
    /// Configuration file with the registry's and keyring's URLs
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
}

impl Databases {
    fn load(&self, session: &Session) -> Result<Config> {
        let mut loaded = Config::load(self.config.as_deref()).map_err(|faults| Exit::Usage.with(faults))?;
        if self.config.is_none() {
            loaded.data_dir = session.folder();
        }
        Ok(loaded)
    }
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Verify(databases) => {
            let report = process::verify_audit(&databases.load(session)?).await?;
            session.output.one(&serde_json::to_value(&report)?)?;
            if report.unsealed > 0 {
                eprintln!("{} records at the end are not sealed yet and were not verified", report.unsealed);
            }
            fault(&report).map_or(Ok(()), |fault| Err(Exit::Failure.with(fault)))
        }
        Command::Accept { reason, databases } => {
            let accepted = process::accept_cuts(&databases.load(session)?, &reason).await?;
            if accepted.is_empty() {
                return Err(Exit::Conflict.with("the audit trail has no cut that is not accepted yet"));
            }
            session.output.one(&json!({ "accepted": accepted }))
        }
    }
}

/// The fault of a broken audit trail, in words.
fn fault(report: &AuditReport) -> Option<String> {
    let broken = report.broken.as_ref()?;
    let is_named = |cut: &&Cut| cut.accepted_at.is_none() && cut.first_missing() == broken.seq;
    let Some(cut) = report.cuts.iter().find(is_named).filter(|_| broken.fault == Fault::Cut) else {
        return Some("the audit trail is broken: see `broken` in the report".to_owned());
    };
    Some(format!(
        "the audit trail was cut: the keyring's anchor of {} counts {} records, and the registry had {} of them at {}. \
         If you restored the registry from a backup, run `tenantry audit accept --reason TEXT`",
        cut.anchored_at.0,
        cut.anchored_seq,
        broken.seq - 1,
        cut.found_at.0
    ))
}
