//! `tenantry tenant`: creates tenants from files of requests, lists and shows them, and begins operations on
//! them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tenantry_control::FieldError;
use tenantry_control::ledger::OperationKind;
use tenantry_control::operations::rotate_credentials::RotateCredentials;
use tenantry_control::view::OperationView;
use tenantry_engine::OperationState;

use super::output::Column;
use super::progress::{Board, length};
use super::{Entry, Exit, Session, clone, drift, export, operation, read_entries};
use crate::client::{Client, ClientError, path_segment};

const COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("SLUG", "/slug"),
    ("NAME", "/name"),
    ("PLAN", "/plan"),
    ("STATUS", "/status"),
    ("CREATED", "/created_at"),
];
const PLANNED: [Column; 5] = [
    ("SLUG", "/slug"),
    ("PLAN", "/plan"),
    ("TEMPLATE", "/template"),
    ("VERSION", "/template_version"),
    ("REGION", "/region"),
];
const PLANNED_STEPS: [Column; 6] = [
    ("STEP", "/key"),
    ("KIND", "/kind"),
    ("PROVIDER", "/provider"),
    ("NEEDS", "/needs"),
    ("MODE", "/mode"),
    ("NAME", "/name"),
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create tenants from a file of requests; submitting the file again creates nothing twice
    Create {
        /// YAML (documents or a list), JSON (an object or an array) or JSON lines; `-` reads stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Wait until every tenant is active and show progress
        #[arg(long)]
        wait: bool,
        /// Print the plan of each tenant without creating it
        #[arg(long, conflicts_with = "wait")]
        dry_run: bool,
        /// Requests at the same time
        #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        concurrency: u16,
    },
    /// List tenants, newest first
    List {
        /// Filter by status
        #[arg(long)]
        status: Option<String>,
        /// Filter by plan
        #[arg(long)]
        plan: Option<String>,
        /// Maximum number of tenants
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Show a tenant
    Get {
        /// Tenant id or slug
        tenant: String,
    },
    /// Retry onboarding after a rollback
    Provision {
        /// Tenant id or slug
        tenant: String,
        /// Wait until the tenant is active and show progress
        #[arg(long)]
        wait: bool,
    },
    /// Compare a tenant's resources with the plan of its onboarding; exit code 1 unless it is healthy
    Status {
        /// Tenant id or slug
        tenant: String,
    },
    /// Reconcile a tenant's resources with the plan of its onboarding
    Repair {
        /// Tenant id or slug
        tenant: String,
        /// Repair only this step and the steps it needs; repeatable
        #[arg(long = "step", value_name = "KEY")]
        steps: Vec<String>,
        /// Wait until the operation is done and show progress
        #[arg(long)]
        wait: bool,
    },
    /// Rotate the credentials of a tenant's applications
    RotateCredentials {
        /// Tenant id or slug
        tenant: String,
        /// Hours for which the old secrets stay valid
        #[arg(long, value_name = "N", default_value_t = RotateCredentials::default().grace_hours)]
        grace_hours: u32,
        /// Invalidate the old secrets and end their sessions at once, for example after a leak
        #[arg(long, conflicts_with = "grace_hours")]
        now: bool,
        /// Wait until the operation is done and show progress
        #[arg(long)]
        wait: bool,
    },
    /// Export all data of a tenant
    Export(export::Export),
    /// Back up all data of a tenant and verify that the backup can be restored
    Backup(export::Backup),
    /// Replace a tenant's data with an archive's
    Restore(export::Restore),
    /// Import an export into a new or an existing tenant
    Import(export::Import),
    /// Clone a tenant into a sandbox with masked data, without mail and billing
    Clone(clone::Clone),
    /// Suspend a tenant for a reason; its data stays
    Suspend {
        /// Tenant id or slug
        tenant: String,
        /// Reason: payment, policy, admin or quota
        #[arg(long)]
        reason: String,
        /// Denied access: `read_only` (writes), `no_login` (users), `blocked` (everything)
        #[arg(long, default_value = "blocked")]
        mode: String,
    },
    /// Clear one reason for a tenant's suspension, or all of them
    Resume {
        /// Tenant id or slug
        tenant: String,
        /// Reason to clear [default: all]
        #[arg(long)]
        reason: Option<String>,
    },
    /// Offboard a tenant: end its access, stop billing after a final export, and delete its data after a hold
    Offboard {
        /// Tenant id or slug
        tenant: String,
        /// Reason; kept forever, so it must not contain personal data
        #[arg(long)]
        reason: String,
        /// Days of the hold [default: from the contract or the plan]
        #[arg(long, value_name = "N")]
        hold_days: Option<u32>,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Stop the offboarding of a tenant in its hold and restore its access
    Reconsider {
        /// Tenant id or slug
        tenant: String,
    },
    /// Delete a tenant at once and permanently, and issue a deletion certificate
    Erase {
        /// Tenant id or slug
        tenant: String,
        /// Reason; kept forever, so it must not contain personal data
        #[arg(long)]
        reason: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
        /// Wait until the tenant is deleted and show progress
        #[arg(long)]
        wait: bool,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Create { file, wait, dry_run, concurrency } => {
            let (name, entries) = read(&file)?;
            let batch =
                Batch { name, client: session.client()?, board: Board::new(entries.len()), wait, dry_run };
            batch.run(session, entries, concurrency.into()).await
        }
        Command::List { status, plan, limit } => {
            let filters = [("status", status), ("plan", plan)]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", path_segment(&value?))));
            let path = format!("/v1/tenants?{}", filters.collect::<Vec<_>>().join("&"));
            let path = path.trim_end_matches(['?', '&']);
            session.output.list(&session.client()?.list(path, limit).await?, &COLUMNS)
        }
        Command::Get { tenant } => session
            .output
            .one(&session.client()?.get(&format!("/v1/tenants/{}", path_segment(&tenant))).await?),
        Command::Provision { tenant, wait } => {
            begin(session, &format!("/v1/tenants/{}/provision", path_segment(&tenant)), None, wait).await
        }
        Command::Status { tenant } => drift::status(&tenant, session).await,
        Command::Repair { tenant, steps, wait } => {
            let body = json!({ "steps": steps });
            begin(session, &format!("/v1/tenants/{}/repair", path_segment(&tenant)), Some(&body), wait).await
        }
        Command::RotateCredentials { tenant, grace_hours, now, wait } => {
            let body = json!(RotateCredentials { grace_hours: if now { 0 } else { grace_hours } });
            let path = format!("/v1/tenants/{}/rotate-credentials", path_segment(&tenant));
            begin(session, &path, Some(&body), wait).await
        }
        Command::Export(command) => export::export(command, session).await,
        Command::Backup(command) => export::backup(command, session).await,
        Command::Restore(command) => export::restore(command, session).await,
        Command::Import(command) => export::import(command, session).await,
        Command::Clone(command) => {
            let path = format!("/v1/tenants/{}/clones", path_segment(&command.tenant));
            begin(session, &path, Some(&command.document()), command.wait).await
        }
        Command::Suspend { tenant, reason, mode } => {
            let path = format!("/v1/tenants/{}/suspend", path_segment(&tenant));
            let body = json!({ "reason": reason, "mode": mode });
            session.output.one(&session.client()?.post(&path, Some(&body)).await?)
        }
        Command::Resume { tenant, reason } => {
            let path = format!("/v1/tenants/{}/resume", path_segment(&tenant));
            let body = json!({ "reason": reason });
            session.output.one(&session.client()?.post(&path, Some(&body)).await?)
        }
        Command::Offboard { tenant, reason, hold_days, yes } => {
            session.confirm(&format!("End all access to {tenant} and delete it after its hold?"), yes)?;
            let body = json!({ "reason": reason, "hold_days": hold_days });
            begin(session, &format!("/v1/tenants/{}/offboard", path_segment(&tenant)), Some(&body), false)
                .await
        }
        Command::Reconsider { tenant } => {
            let path = format!("/v1/tenants/{}/reconsider", path_segment(&tenant));
            session.output.one(&session.client()?.post(&path, None).await?)
        }
        Command::Erase { tenant, reason, yes, wait } => {
            session.confirm(&format!("Permanently delete all data of {tenant}?"), yes)?;
            let body = json!({ "reason": reason });
            begin(session, &format!("/v1/tenants/{}/erase", path_segment(&tenant)), Some(&body), wait).await
        }
    }
}

/// Begins an operation and, with `wait`, follows it.
async fn begin(session: &Session, path: &str, body: Option<&Value>, wait: bool) -> Result<()> {
    let client = session.client()?;
    let operation = client.post(path, body).await?;
    for clone in operation.get("clones").and_then(Value::as_array).into_iter().flatten() {
        let clone = clone.as_str().unwrap_or_default();
        eprintln!(
            "Not deleted: {clone}, a clone with copies of the tenant's rows; erase it separately if required"
        );
    }
    match operation.get("id").and_then(Value::as_str).filter(|_| wait) {
        Some(id) => operation::watch(session, &client, id).await,
        None => session.output.one(&operation),
    }
}

fn read(file: &Path) -> Result<(String, Vec<Entry>)> {
    let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    match name.as_str() {
        "stdin" => std::io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?,
        _ => std::fs::File::open(file)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {name}"))?,
    };
    let text = String::from_utf8(bytes)
        .map_err(|error| Exit::Failure.with(format!("{name} is not UTF-8: {error}")))?;
    let entries =
        read_entries(&name, &text).map_err(|error| Exit::Failure.with(format!("{name}: {error}")))?;
    Ok((name, entries))
}

/// The requests of one file.
struct Batch {
    name: String,
    client: Client,
    board: Board,
    wait: bool,
    dry_run: bool,
}

/// Result of one request: what to print, and the exit code of a failure.
struct Outcome {
    shown: Value,
    failed: Option<Exit>,
}

impl Batch {
    async fn run(&self, session: &Session, entries: Vec<Entry>, concurrency: usize) -> Result<()> {
        let count = entries.len();
        let outcomes: Vec<Outcome> =
            stream::iter(entries).map(|entry| self.one(entry)).buffered(concurrency).collect().await;
        self.board.clear();
        let failures: Vec<Exit> = outcomes.iter().filter_map(|outcome| outcome.failed).collect();
        let shown: Vec<Value> =
            outcomes.into_iter().map(|outcome| outcome.shown).filter(|shown| !shown.is_null()).collect();
        self.print(session, &shown)?;
        match failures.as_slice() {
            [] => Ok(()),
            // If all failures have one exit code, it is the command's.
            [first, rest @ ..] => {
                let exit = if rest.iter().all(|exit| exit == first) { *first } else { Exit::Failure };
                Err(exit.with(format!("{} of {count} requests failed", failures.len())))
            }
        }
    }

    fn print(&self, session: &Session, shown: &[Value]) -> Result<()> {
        match (self.dry_run, self.wait) {
            (true, _) if session.output.format == super::Format::Table => {
                for planned in shown {
                    session.output.list(std::slice::from_ref(planned), &PLANNED)?;
                    let steps = planned.get("steps").and_then(Value::as_array).map(Vec::as_slice);
                    session.output.list(steps.unwrap_or_default(), &PLANNED_STEPS)?;
                }
                Ok(())
            }
            (true, _) => session.output.value(&Value::from(shown.to_vec())),
            (false, true) => session.output.list(shown, &COLUMNS),
            (false, false) => session.output.list(shown, &operation::COLUMNS),
        }
    }

    async fn one(&self, entry: Entry) -> Outcome {
        let label = format!(
            "{} (entry {})",
            entry.name().chars().take(40).collect::<String>().escape_debug(),
            entry.number
        );
        match self.send(&entry, &label).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.board.line(&format!("{}, entry {}: {}", self.name, entry.number, explain(&error)));
                self.board.count();
                Outcome { shown: Value::Null, failed: Some(Exit::of(&error.into())) }
            }
        }
    }

    async fn send(&self, entry: &Entry, label: &str) -> Result<Outcome, ClientError> {
        if self.dry_run {
            let shown = self.client.post("/v1/tenants?dry_run=true", Some(&entry.document)).await?;
            return Ok(Outcome { shown, failed: None });
        }
        let (_, operation) = self.client.post_once("/v1/tenants", &entry.document, &entry.key()).await?;
        if !self.wait {
            self.board.count();
            return Ok(Outcome { shown: operation, failed: None });
        }
        let view: OperationView = read_view(operation)?;
        let mut row = self.board.row(label);
        let view = self.client.follow(&view.id.to_string(), |view| row.show(view)).await?;
        row.end(&format!("{label}: {}", ended(&view)));
        if view.state != OperationState::Succeeded {
            let exit = if view.done { Exit::OperationFailed } else { Exit::Conflict };
            return Ok(Outcome { shown: Value::Null, failed: Some(exit) });
        }
        let shown = self.client.get(&format!("/v1/tenants/{}", view.tenant_id)).await?;
        Ok(Outcome { shown, failed: None })
    }
}

fn read_view(operation: Value) -> Result<OperationView, ClientError> {
    serde_json::from_value(operation).map_err(|error| ClientError::InvalidResponse(error.to_string()))
}

/// The message of an error; a problem with one invalid field is shown as `field: message`.
fn explain(error: &ClientError) -> String {
    match error {
        ClientError::Problem { errors, .. } if errors.len() == 1 && !errors[0].path.is_empty() => {
            let FieldError { path, message } = &errors[0];
            format!("{path}: {message}")
        }
        other => other.to_string(),
    }
}

/// The result of an operation in one line.
pub fn ended(view: &OperationView) -> String {
    let took = view.finished_at.map(|end| end.since(view.created_at));
    let took = took.map(|took: Duration| format!(" in {}", length(took))).unwrap_or_default();
    match (view.state, &view.error) {
        (OperationState::Succeeded, _) => {
            let what = match OperationKind::read(&view.kind, view.parent_id.is_some()) {
                OperationKind::Onboard | OperationKind::Repair => "active",
                OperationKind::Erase | OperationKind::Offboard => "deleted",
                _ => "done",
            };
            format!("{what}{took}")
        }
        (state, Some(error)) => {
            let step = error.step.as_deref().map(|step| format!(" at {step}")).unwrap_or_default();
            format!("{}{step}{took}: {}", state.as_str().replace('_', " "), error.message)
        }
        (state, None) => format!("{}{took}", state.as_str().replace('_', " ")),
    }
}
