//! `tenantry certificate`: fetches deletion certificates from the server and verifies them offline.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::Value;
use tenantry_control::operations::offboard::certificate::{NotSearched, check};

use super::{Exit, Format, Session};
use crate::client::path_segment;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the deletion certificate of a tenant as JSON; store it unchanged
    Get {
        /// Tenant id, or the slug it had
        tenant: String,
    },
    /// Print the public key that verifies certificates, as PEM
    PublicKey,
    /// Verify a certificate (offline); exit code 1 if it differs in any byte from the issued one
    Verify {
        /// Certificate file
        file: PathBuf,
        /// Public key file (PEM) from a source that you trust
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Get { tenant } => {
            let path = format!("/v1/tenants/{}/certificate", path_segment(&tenant));
            let document = session.client()?.get(&path).await?;
            // JSON for every --output: the signature covers this form.
            session.output.text(&serde_json::to_string_pretty(&document)?)
        }
        Command::PublicKey => {
            let key = session.client()?.get("/v1/certificates/public-key").await?;
            session.output.text(key.get("pem").and_then(Value::as_str).unwrap_or_default().trim_end())
        }
        Command::Verify { file, public_key } => {
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            let checked = check(&read(&file)?, &read(&public_key)?);
            let certificate =
                checked.map_err(|why| Exit::Failure.with(format!("{}: {why}", file.display())))?;
            if session.output.format != Format::Table {
                return session.output.value(&serde_json::to_value(&certificate)?);
            }
            let (tenant, at) = (certificate.tenant_id, certificate.issued_at);
            let resources = certificate.resources.len();
            let mut text = format!(
                "genuine: {tenant} was deleted with {resources} resources, none of which was found again; \
                 issued {at}"
            );
            for clone in &certificate.clones {
                let masked = Vec::from_iter(clone.masked.iter().map(String::as_str)).join(", ");
                let masked =
                    if masked.is_empty() { "nothing masked".to_owned() } else { format!("masked: {masked}") };
                let _ = write!(
                    text,
                    "\nnot deleted: its clone {}, made {} ({masked})",
                    clone.tenant_id, clone.cloned_at
                );
            }
            for NotSearched { place, what } in &certificate.not_searched {
                let _ = write!(text, "\nnot looked through: {place}: {what}");
            }
            session.output.text(&text)
        }
    }
}
