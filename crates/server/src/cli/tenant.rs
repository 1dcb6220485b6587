//! `tenantry tenant`: create from files, list, get, status, provision, repair, rotate-credentials, export and what belongs to it,
//! clone, suspend, resume, offboard, reconsider, erase.

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
use crate::client::{Client, ClientError, part};

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
    /// Create tenants from a file of requests; giving the same file again makes nothing twice
    Create {
        /// YAML (documents or a list), JSON (an object or an array) or JSON lines; `-` is stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Wait until every tenant is active, and show the progress
        #[arg(long)]
        wait: bool,
        /// Show what would be done, and do nothing
        #[arg(long, conflicts_with = "wait")]
        dry_run: bool,
        /// Requests under way at the same time
        #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        concurrency: u16,
    },
    /// List tenants, newest first
    List {
        /// Only those in this status
        #[arg(long)]
        status: Option<String>,
        /// Only those on this plan
        #[arg(long)]
        plan: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Show a tenant
    Get {
        /// Its id or slug
        tenant: String,
    },
    /// Make a tenant again whose onboarding was rolled back
    Provision {
        /// Its id or slug
        tenant: String,
        /// Wait until it is active, and show the progress
        #[arg(long)]
        wait: bool,
    },
    /// Ask the providers how a tenant really stands; exit code 1 unless it is healthy
    Status {
        /// Its id or slug
        tenant: String,
    },
    /// Make an active tenant's resources as they should be; what is so already stays as it is
    Repair {
        /// Its id or slug
        tenant: String,
        /// Only what this step made, with what that needs; may be given more than once
        #[arg(long = "step", value_name = "KEY")]
        steps: Vec<String>,
        /// Wait until it is done, and show the progress
        #[arg(long)]
        wait: bool,
    },
    /// Give a tenant's own applications new secrets; the former ones are good for a while longer
    RotateCredentials {
        /// Its id or slug
        tenant: String,
        /// How long the former secret is good, in hours
        #[arg(long, value_name = "N", default_value_t = RotateCredentials::default().grace_hours)]
        grace_hours: u32,
        /// End the former secret at once, and every session with it: somebody has it who should not
        #[arg(long, conflicts_with = "grace_hours")]
        now: bool,
        /// Wait until it is done, and show the progress
        #[arg(long)]
        wait: bool,
    },
    /// Export all that a tenant has
    Export(export::Export),
    /// Back up all that a tenant has, and prove that it can be restored
    Backup(export::Backup),
    /// Put an archive's content in the place of what the tenant has
    Restore(export::Restore),
    /// Put an export into a tenant, a new one or one that is there
    Import(export::Import),
    /// Make a sandbox with a tenant's content under masks; it mails nobody and bills nobody
    Clone(clone::Clone),
    /// Deny a tenant access for a reason; everything it has stays
    Suspend {
        /// Its id or slug
        tenant: String,
        /// Why: payment, policy, admin or quota
        #[arg(long)]
        reason: String,
        /// What is denied: `read_only` writing, `no_login` people, `blocked` everything
        #[arg(long, default_value = "blocked")]
        grade: String,
    },
    /// Clear a reason for a tenant's suspension; without one, all
    Resume {
        /// Its id or slug
        tenant: String,
        /// The reason that is gone
        #[arg(long)]
        reason: Option<String>,
    },
    /// End a tenant: no more access and no more bills at once, everything held for a while, and then deleted
    Offboard {
        /// Its id or slug
        tenant: String,
        /// Why; kept for ever, so it should name nobody
        #[arg(long)]
        reason: String,
        /// How many days everything is held [default: what the contract or the plan says]
        #[arg(long, value_name = "N")]
        hold_days: Option<u32>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Bring a tenant back, as it was, that is in its hold
    Reconsider {
        /// Its id or slug
        tenant: String,
    },
    /// Delete a tenant for good, at once, and have that certified; it cannot be taken back
    Erase {
        /// Its id or slug
        tenant: String,
        /// Why; kept for ever, so it should name nobody
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Wait until it is gone, and show the progress
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
                .filter_map(|(name, value)| Some(format!("{name}={}", part(&value?))));
            let path = format!("/v1/tenants?{}", filters.collect::<Vec<_>>().join("&"));
            let path = path.trim_end_matches(['?', '&']);
            session.output.list(&session.client()?.list(path, limit).await?, &COLUMNS)
        }
        Command::Get { tenant } => {
            session.output.one(&session.client()?.get(&format!("/v1/tenants/{}", part(&tenant))).await?)
        }
        Command::Provision { tenant, wait } => {
            begin(session, &format!("/v1/tenants/{}/provision", part(&tenant)), None, wait).await
        }
        Command::Status { tenant } => drift::status(&tenant, session).await,
        Command::Repair { tenant, steps, wait } => {
            let what = json!({ "steps": steps });
            begin(session, &format!("/v1/tenants/{}/repair", part(&tenant)), Some(&what), wait).await
        }
        Command::RotateCredentials { tenant, grace_hours, now, wait } => {
            let what = RotateCredentials { grace_hours: if now { 0 } else { grace_hours } };
            let path = format!("/v1/tenants/{}/rotate-credentials", part(&tenant));
            begin(session, &path, Some(&json!(what)), wait).await
        }
        Command::Export(command) => export::export(command, session).await,
        Command::Backup(command) => export::backup(command, session).await,
        Command::Restore(command) => export::restore(command, session).await,
        Command::Import(command) => export::import(command, session).await,
        Command::Clone(command) => {
            let path = format!("/v1/tenants/{}/clones", part(&command.tenant));
            begin(session, &path, Some(&command.document()), command.wait).await
        }
        Command::Suspend { tenant, reason, grade } => {
            let (path, what) = (
                format!("/v1/tenants/{}/suspend", part(&tenant)),
                json!({ "reason": reason, "grade": grade }),
            );
            session.output.one(&session.client()?.post(&path, Some(&what)).await?)
        }
        Command::Resume { tenant, reason } => {
            let (path, what) = (format!("/v1/tenants/{}/resume", part(&tenant)), json!({ "reason": reason }));
            session.output.one(&session.client()?.post(&path, Some(&what)).await?)
        }
        Command::Offboard { tenant, reason, hold_days, yes } => {
            session
                .confirm(&format!("Lock everybody out of {tenant}, and delete it after its hold?"), yes)?;
            let what = json!({ "reason": reason, "hold_days": hold_days });
            begin(session, &format!("/v1/tenants/{}/offboard", part(&tenant)), Some(&what), false).await
        }
        Command::Reconsider { tenant } => {
            let path = format!("/v1/tenants/{}/reconsider", part(&tenant));
            session.output.one(&session.client()?.post(&path, None).await?)
        }
        Command::Erase { tenant, reason, yes, wait } => {
            session.confirm(&format!("Delete everything of {tenant}, for good?"), yes)?;
            let what = json!({ "reason": reason });
            begin(session, &format!("/v1/tenants/{}/erase", part(&tenant)), Some(&what), wait).await
        }
    }
}

/// Begins an operation; follows it if asked to.
async fn begin(session: &Session, path: &str, body: Option<&Value>, wait: bool) -> Result<()> {
    let client = session.client()?;
    let operation = client.post(path, body).await?;
    for clone in operation.get("clones").and_then(Value::as_array).into_iter().flatten() {
        let clone = clone.as_str().unwrap_or_default();
        eprintln!("Not deleted: {clone}, a clone with copies of its rows; erase it too, or say why not");
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
    let text =
        String::from_utf8(bytes).map_err(|why| Exit::Failure.with(format!("{name} is not UTF-8: {why}")))?;
    let entries = read_entries(&name, &text).map_err(|why| Exit::Failure.with(format!("{name}: {why}")))?;
    Ok((name, entries))
}

/// Requests that are sent together.
struct Batch {
    name: String,
    client: Client,
    board: Board,
    wait: bool,
    dry_run: bool,
}

/// What came of one request: what to show, and whether it is a failure.
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
            // One reason for all of them is the exit code; of several, none is.
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
            entry.place
        );
        match self.send(&entry, &label).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.board.line(&format!("{}, entry {}: {}", self.name, entry.place, explain(&error)));
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
        let mut place = self.board.place(label);
        let view = self.client.follow(&view.id.to_string(), |view| place.show(view)).await?;
        place.end(&format!("{label}: {}", ended(&view)));
        if view.state != OperationState::Succeeded {
            let exit = if view.done { Exit::OperationFailed } else { Exit::Conflict };
            return Ok(Outcome { shown: Value::Null, failed: Some(exit) });
        }
        let shown = self.client.get(&format!("/v1/tenants/{}", view.tenant_id)).await?;
        Ok(Outcome { shown, failed: None })
    }
}

fn read_view(operation: Value) -> Result<OperationView, ClientError> {
    serde_json::from_value(operation).map_err(|why| ClientError::Foreign(why.to_string()))
}

/// A refusal with the name of every faulty field.
fn explain(error: &ClientError) -> String {
    match error {
        ClientError::Refused { errors, .. } if errors.len() == 1 && !errors[0].path.is_empty() => {
            let FieldError { path, message } = &errors[0];
            format!("{path}: {message}")
        }
        other => other.to_string(),
    }
}

/// How an operation ended, in one line.
pub fn ended(view: &OperationView) -> String {
    let took = view.finished_at.map(|end| end.since(view.created_at));
    let took = took.map(|took: Duration| format!(" in {}", length(took))).unwrap_or_default();
    match (view.state, &view.error) {
        (OperationState::Succeeded, _) => {
            let what = match OperationKind::read(&view.kind, view.parent_id.is_some()) {
                OperationKind::Onboard | OperationKind::Repair => "active",
                OperationKind::Erase | OperationKind::Offboard => "gone",
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
