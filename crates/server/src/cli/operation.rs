//! `tenantry operation`: follow operations and step in.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use tenantry_engine::OperationState;

use super::output::Column;
use super::progress::Board;
use super::{Exit, Session, tenant};
use crate::client::{Client, part};

/// What a list of operations shows.
pub const COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("TENANT", "/tenant_id"),
    ("KIND", "/kind"),
    ("STATE", "/state"),
    ("PROGRESS", "/progress"),
    ("UPDATED", "/updated_at"),
];
const STEPS: [Column; 6] = [
    ("STEP", "/key"),
    ("KIND", "/kind"),
    ("PROVIDER", "/provider"),
    ("STATE", "/state"),
    ("ATTEMPTS", "/attempts"),
    ("ERROR", "/error/message"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List operations, newest first
    List {
        /// Only those of this tenant, by id or slug
        #[arg(long)]
        tenant: Option<String>,
        /// Only those in this state
        #[arg(long)]
        state: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Show an operation with its steps
    Get {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
    },
    /// Follow an operation live until it is done or needs a person
    Watch {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
    },
    /// Start nothing new
    Pause {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
    },
    /// Go on after a pause
    Resume {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
    },
    /// End it and undo what it made
    Cancel {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Try the failed steps again
    Retry {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
    },
    /// Leave a step out for good
    Skip {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
        /// The step
        #[arg(long)]
        step: String,
        /// Why; it is audited
        #[arg(long)]
        reason: String,
    },
    /// Let a step go on that waits for approval
    Approve {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
        /// The step
        #[arg(long)]
        step: String,
    },
    /// Refuse a step that waits for approval: the operation is rolled back
    Reject {
        /// Its id, or a tenant's id or slug for the tenant's latest
        operation: String,
        /// The step
        #[arg(long)]
        step: String,
        /// Why; it is audited
        #[arg(long)]
        reason: String,
    },
    /// Take the secrets that it made; they are handed out once
    Credentials {
        /// Its id, or a tenant's id or slug for the tenant's latest
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
                .filter_map(|(name, value)| Some(format!("{name}={}", part(&value?))));
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
            session.confirm(&format!("Undo everything that {operation} made?"), yes)?;
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
            eprintln!("These are not handed out again.");
            session.output.list(credentials, &[("NAME", "/name"), ("VALUE", "/value")])
        }
    }
}

const OPERATIONS: &str = "/v1/operations/";

/// The path of an operation, which may be named by its tenant: then it is that tenant's latest, not counting those that
/// another one has detached.
async fn path(client: &Client, named: &str) -> Result<String> {
    if named.starts_with("op_") {
        return Ok(format!("{OPERATIONS}{}", part(named)));
    }
    let of_tenant = client.list(&format!("/v1/operations?tenant={}", part(named)), 100).await?;
    let latest = of_tenant.iter().find(|operation| operation["parent_id"].is_null());
    match latest.and_then(|operation| operation["id"].as_str()) {
        Some(id) => Ok(format!("{OPERATIONS}{}", part(id))),
        None => Err(Exit::NotFound.with(format!("{named} has no operation"))),
    }
}

/// Follows an operation on the terminal; fails unless it succeeds.
pub async fn watch(session: &Session, client: &Client, id: &str) -> Result<()> {
    let board = Board::new(1);
    let mut place = board.place(id);
    let view = client.follow(&part(id), |view| place.show(view)).await?;
    place.end(&format!("{id}: {}", tenant::ended(&view)));
    show(session, &serde_json::to_value(&view)?)?;
    match view.state {
        OperationState::Succeeded => Ok(()),
        OperationState::NeedsAttention => Err(Exit::Conflict
            .with(format!("it needs a person: tenantry operation retry {id}, or skip a step, or cancel it"))),
        state => {
            Err(Exit::OperationFailed.with(format!("the operation was {}", state.as_str().replace('_', " "))))
        }
    }
}

/// An operation: for people, its fields and a table of its steps.
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
