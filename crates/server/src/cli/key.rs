//! `tenantry key`: creates, lists and revokes API keys. A key's secret is printed once, when the key is
//! created.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::Session;
use super::output::Column;
use crate::client::path_segment;

const COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("NAME", "/name"),
    ("SCOPES", "/scopes"),
    ("TENANT", "/tenant_id"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key and print its secret once
    Create {
        /// Display name
        #[arg(long)]
        name: String,
        /// Scope: admin, operator, viewer, signup or tenant; repeatable
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// Id or slug of the only tenant that a key with the scope `tenant` can access
        #[arg(long)]
        tenant: Option<String>,
        /// Expiry, such as 2030-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List keys, newest first
    List {
        /// Maximum number of keys
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Revoke a key at once
    Revoke {
        /// Key id
        key: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    match command {
        Command::Create { name, scopes, tenant, expires_at } => {
            let mut request = json!({ "name": name, "scopes": scopes });
            for (field, value) in [("tenant", tenant), ("expires_at", expires_at)] {
                if let Some(value) = value {
                    request[field] = value.into();
                }
            }
            let key = client.post("/v1/keys", Some(&request)).await?;
            eprintln!("The secret is not shown again.");
            session.output.one(&key)
        }
        Command::List { limit } => session.output.list(&client.list("/v1/keys", limit).await?, &COLUMNS),
        Command::Revoke { key, yes } => {
            session.confirm(&format!("Revoke {key}? Requests with it fail from now on."), yes)?;
            session.output.one(&client.post(&format!("/v1/keys/{}/revoke", path_segment(&key)), None).await?)
        }
    }
}
