//! `tenantry operation`: lists, follows and controls operations.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use tenantry_engine::OperationState;

use super::output::Column;
use super::progress::Board;
use super::{Exit, Session, tenant};
use crate::client::{Client, path_segment};

/// Columns of a list of operations.
pub const COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("TENANT", "/tenant_id"),
    ("KIND", "/kind"),
    ("STATE", "/state"),
    ("PROGRESS", "/progress"),
    ("UPDATED", "/updated_at"),
];
const STEPS: [Column; 8] = [
    ("STEP", "/key"),
    ("KIND", "/kind"),
    ("PROVIDER", "/provider"),
    ("STATE", "/state"),
    ("ATTEMPTS", "/attempts"),
    ("FAILING SINCE", "/failing_since"),
    ("WAITS FOR", "/waits_for"),
    ("ERROR", "/error/message"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List operations, newest first
    List {
        /// Filter by tenant, by id or slug
        #[arg(long)]
        tenant: Option<String>,
        /// Filter by state
        #[arg(long)]
        state: Option<String>,
        /// Maximum number of operations
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Show an operation and its steps
    Get {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
    /// Follow an operation until it is done or needs attention
    Watch {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
    /// Pause an operation: running attempts finish, no new ones start
    Pause {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
    /// Resume a paused operation
    Resume {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
    /// Cancel an operation and roll it back
    Cancel {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Retry the failed steps of an operation
    Retry {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
    /// Skip a step permanently
    Skip {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
        /// Step key
        #[arg(long)]
        step: String,
        /// Reason, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// Approve a step that waits for approval
    Approve {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
        /// Step key
        #[arg(long)]
        step: String,
    },
    /// Reject a step that waits for approval; the operation is rolled back
    Reject {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
        /// Step key
        #[arg(long)]
        step: String,
        /// Reason, for the audit trail
        #[arg(long)]
        reason: String,
    },
    /// Print the secrets of an operation; they are revealed once
    Credentials {
        /// Operation id, or a tenant's id or slug for its latest operation
        operation: String,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    let signal = async |operation: &str, verb: &str, body: Option<Value>| {
        let path = format!("{}/{verb}", path(&client, operation).await?);
        show(session, &client.post(&path, body.as_ref()).await?)
    };
    match command {
        Command::List { tenant, state, limit } => {
            let filters = [("tenant", tenant), ("state", state)]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", path_segment(&value?))));
            let path = format!("/v1/operations?{}", filters.collect::<Vec<_>>().join("&"));
            session.output.list(&client.list(path.trim_end_matches(['?', '&']), limit).await?, &COLUMNS)
        }
        Command::Get { operation } => show(session, &client.get(&path(&client, &operation).await?).await?),
        Command::Watch { operation } => {
            let path = path(&client, &operation).await?;
            watch(session, &client, path.trim_start_matches(OPERATIONS)).await
        }
        Command::Pause { operation } => signal(&operation, "pause", None).await,
        Command::Resume { operation } => signal(&operation, "resume", None).await,
        Command::Cancel { operation, yes } => {
            session.confirm(&format!("Cancel {operation} and roll back everything it created?"), yes)?;
            signal(&operation, "cancel", None).await
        }
        Command::Retry { operation } => signal(&operation, "retry", None).await,
        Command::Skip { operation, step, reason } => {
            signal(&operation, "skip", Some(json!({ "step": step, "reason": reason }))).await
        }
        Command::Approve { operation, step } => {
            signal(&operation, "approve", Some(json!({ "step": step }))).await
        }
        Command::Reject { operation, step, reason } => {
            signal(&operation, "reject", Some(json!({ "step": step, "reason": reason }))).await
        }
        Command::Credentials { operation } => {
            let path = format!("{}/credentials", path(&client, &operation).await?);
            let answer = client.post(&path, None).await?;
            let credentials =
                answer.get("credentials").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            eprintln!("The server does not reveal these again.");
            session.output.list(credentials, &[("NAME", "/name"), ("VALUE", "/value")])
        }
    }
}

const OPERATIONS: &str = "/v1/operations/";

/// The path of an operation, given by its id or by its tenant: then it is the tenant's latest operation that
/// no other operation has detached.
async fn path(client: &Client, named: &str) -> Result<String> {
    if named.starts_with("op_") {
        return Ok(format!("{OPERATIONS}{}", path_segment(named)));
    }
    let of_tenant = client.list(&format!("/v1/operations?tenant={}", path_segment(named)), 100).await?;
    let latest = of_tenant.iter().find(|operation| operation["parent_id"].is_null());
    match latest.and_then(|operation| operation["id"].as_str()) {
        Some(id) => Ok(format!("{OPERATIONS}{}", path_segment(id))),
        None => Err(Exit::NotFound.with(format!("{named} has no operation"))),
    }
}

/// Follows an operation on the terminal; returns an error unless it succeeds.
pub async fn watch(session: &Session, client: &Client, id: &str) -> Result<()> {
    let board = Board::new(1);
    let mut row = board.row(id);
    let view = client.follow(&path_segment(id), |view| row.show(view)).await?;
    row.end(&format!("{id}: {}", tenant::ended(&view)));
    show(session, &serde_json::to_value(&view)?)?;
    match view.state {
        OperationState::Succeeded => Ok(()),
        OperationState::NeedsAttention => Err(Exit::Conflict.with(format!(
            "operation {id} needs attention: run `tenantry operation retry {id}`, or skip the step, or \
             cancel it"
        ))),
        state => {
            let state = state.as_str().replace('_', " ");
            Err(Exit::OperationFailed.with(format!("operation {id} was {state}")))
        }
    }
}

/// Prints an operation; as a table, its fields and then its steps.
fn show(session: &Session, operation: &Value) -> Result<()> {
    if session.output.format != super::Format::Table {
        return session.output.value(operation);
    }
    let mut fields = operation.clone();
    let steps = fields.as_object_mut().and_then(|fields| fields.remove("steps"));
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("response");
    }
    session.output.one(&fields)?;
    let steps = steps.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    session.output.text("")?;
    session.output.list(steps, &STEPS)
}
