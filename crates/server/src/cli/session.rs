//! `tenantry session`: lists and ends sessions of tenants' members.

use anyhow::Result;
use clap::Subcommand;

use super::Session;
use super::output::Column;
use crate::client::path_segment;

const COLUMNS: [Column; 7] = [
    ("ID", "/id"),
    ("MEMBER", "/member_id"),
    ("METHOD", "/method"),
    ("CLIENT", "/user_agent"),
    ("BEGUN", "/created_at"),
    ("LAST USED", "/last_used_at"),
    ("ENDED", "/end_reason"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sessions of a tenant's members, newest first
    List {
        /// Tenant id or slug
        tenant: String,
        /// Maximum number of sessions
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// End a session at once
    Revoke {
        /// Session id
        session: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    match command {
        Command::List { tenant, limit } => {
            let path = format!("/v1/tenants/{}/sessions", path_segment(&tenant));
            session.output.list(&client.list(&path, limit).await?, &COLUMNS)
        }
        Command::Revoke { session: id, yes } => {
            session.confirm(&format!("End {id}? Its member must sign in again."), yes)?;
            session
                .output
                .one(&client.post(&format!("/v1/sessions/{}/revoke", path_segment(&id)), None).await?)
        }
    }
}
