//! `tenantry member`: invites members of a tenant again. A token is printed once.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::Session;
use crate::client::path_segment;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Invite a member again, end the previous invitation, and print the token once
    Invite {
        /// Tenant id or slug
        tenant: String,
        /// E-mail address of the member [default: the tenant's first member]
        #[arg(long)]
        email: Option<String>,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Invite { tenant, email } = command;
    let request = email.map_or(json!({}), |email| json!({ "email": email }));
    let path = format!("/v1/tenants/{}/invitations", path_segment(&tenant));
    let invitation = session.client()?.post(&path, Some(&request)).await?;
    eprintln!("The token is not shown again.");
    session.output.one(&invitation)
}
