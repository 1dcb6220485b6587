//! `tenantry key`: API keys. A secret is printed when it is made, and never again.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::Session;
use super::output::Column;
use crate::client::part;

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
    /// Create a key and print its secret, this once
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it may do: admin, operator, viewer, signup, guard or tenant; may be given more than once
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// The one tenant that it sees, by id or slug; with the scope `tenant`
        #[arg(long)]
        tenant: Option<String>,
        /// When it ends by itself, such as 2030-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List keys, newest first
    List {
        /// At most this many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// End a key at once
    Revoke {
        /// Its id
        key: String,
        /// Do not ask
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
            session.confirm(&format!("End {key}? Whoever uses it is refused from now on."), yes)?;
            session.output.one(&client.post(&format!("/v1/keys/{}/revoke", part(&key)), None).await?)
        }
    }
}
