//! The one writer of a database file. It runs all waiting jobs in one transaction, commits once, and then
//! replies: the disk is flushed once per batch, not once per tenant. A job that fails is rolled back alone.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Params, params_from_iter};
use serde_json::{Map, Value, json};
use tenantry_model::{Failure, FailureClass};
use tokio::sync::{mpsc, oneshot};

use super::catalogue;
use super::client::{self, batch, execute, failure, first, query};
use super::rows::parsed;
use crate::content::{Ensure, Insert};
use crate::tables::{Catalogue, quoted};
use tenantry_provider::open_files::{Identity, identity};

/// Maximum number of jobs in one transaction.
const BATCH: usize = 256;

/// A write.
pub enum Work {
    /// Writes a tenant's row in `_tenants` and the rows of its seed.
    Ensure(Box<Ensure>),
    /// Deletes everything of a tenant, if it carries this owner tag.
    Remove { tenant: String, tag: String },
    /// Deletes every row of a tenant that is marked as a sample.
    RemoveSamples { tenant: String },
    /// Inserts a row: a statement whose first parameter is the tenant's id, and the other parameters.
    Insert { tenant: String, sql: String, values: Vec<Value> },
    /// Deletes a row from an existing table.
    Delete { tenant: String, table: String, id: String },
    /// Writes nothing new, durably: tests that writing works.
    Touch,
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Value, Failure>>,
}

/// Handle of the writer's task, which ends when this is dropped.
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the task.
    pub fn start(session: Session) -> Self {
        let (jobs, waiting) = mpsc::channel(4 * BATCH);
        tokio::spawn(run(session, waiting));
        Self { jobs }
    }

    /// Queues the work and returns when it is on the disk. If this future is dropped the work may still be
    /// done, but before any work that is queued later.
    pub async fn run(&self, work: Work) -> Result<Value, Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| Failure::retryable("stopped", "the database is shutting down; try again");
        self.jobs.send(Job { work, reply }).await.map_err(|_| gone(()))?;
        answer.await.unwrap_or_else(|_| {
            Err(Failure::unknown("stopped", "the database was shut down during the write"))
        })
    }
}

/// The task. Each batch is handed over to a blocking thread, with the connection.
async fn run(mut session: Session, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.recv_many(&mut jobs, BATCH).await > 0 {
        let (work, replies): (Vec<Work>, Vec<_>) = jobs.drain(..).map(|job| (job.work, job.reply)).unzip();
        let again = session.reopened();
        let written = tokio::task::spawn_blocking(move || {
            for (reply, answer) in replies.into_iter().zip(session.write(&work)) {
                // The caller may have given up.
                let _ = reply.send(answer);
            }
            session
        });
        session = match written.await {
            Ok(session) => session,
            // A defect. Its batch is rolled back with its connection; its callers learn that the outcome is unknown.
            Err(error) if error.is_panic() => {
                tracing::error!("the writer of a database file panicked");
                again
            }
            // The process shuts down.
            Err(_) => return,
        };
        // Lets the callers queue their next job before the next batch.
        tokio::task::yield_now().await;
    }
    // Closing the file may write.
    tokio::task::spawn_blocking(move || drop(session));
}

/// The connection that writes, and what it takes to open it again.
pub struct Session {
    pub file: PathBuf,
    pub max_bytes: Option<u64>,
    pub catalogue: Arc<Catalogue>,
    /// Identity of the file that was opened.
    pub opened: Identity,
    pub connection: Option<Connection>,
}

impl Session {
    /// The same without its connection: the next batch opens one.
    fn reopened(&self) -> Self {
        let (file, catalogue) = (self.file.clone(), self.catalogue.clone());
        Self { file, max_bytes: self.max_bytes, catalogue, opened: self.opened, connection: None }
    }

    /// Runs a batch. Returns an answer for each job.
    fn write(&mut self, work: &[Work]) -> Vec<Result<Value, Failure>> {
        match self.commit(work) {
            Ok(answers) => answers,
            // A batch that does not fit may contain jobs that do, such as deletions: run them one by one.
            Err(failure) if failure.code == "disk_full" && work.len() > 1 => {
                work.chunks(1).flat_map(|one| self.write(one)).collect()
            }
            Err(failure) => vec![Err(failure); work.len()],
        }
    }

    /// Runs one transaction. On an error nothing of it is written.
    fn commit(&mut self, work: &[Work]) -> Result<Vec<Result<Value, Failure>>, Failure> {
        if identity(&self.file) != Some(self.opened) {
            return Err(Failure::fatal(
                "file_replaced",
                "the database file was removed or replaced while it was open: restore it and restart Tenantry",
            ));
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => client::open(&self.file, self.max_bytes)?,
        };
        let done = transaction(&connection, &self.catalogue, work)?;
        // Only now: after an I/O error the connection's state is unknown.
        self.connection = Some(connection);
        Ok(done)
    }
}

/// Runs the work in one transaction, in its order. Adjacent tenants are written together.
pub fn transaction(
    connection: &Connection,
    catalogue: &Catalogue,
    work: &[Work],
) -> Result<Vec<Result<Value, Failure>>, Failure> {
    let transaction = client::begin(connection)?;
    let mut answers = Vec::with_capacity(work.len());
    let mut rest = work;
    while let Some(first) = rest.first() {
        let together = side_by_side(rest);
        rest = rest.get(together.len().max(1)..).unwrap_or_default();
        if together.is_empty() {
            answers.push(job(connection, || one(connection, catalogue, first))?);
            continue;
        }
        match job(connection, || ensure(connection, &together))? {
            Ok(made) => answers.extend(made),
            Err(_) => {
                for tenant in together {
                    answers.push(job(connection, || ensure_one(connection, tenant))?);
                }
            }
        }
    }
    transaction.commit().map_err(failure)?;
    Ok(answers)
}

/// The tenants to write at the beginning of the work, each once.
fn side_by_side(work: &[Work]) -> Vec<&Ensure> {
    let mut seen = HashSet::new();
    work.iter()
        .map_while(|work| match work {
            Work::Ensure(ensure) if seen.insert(&ensure.tenant) => Some(&**ensure),
            _ => None,
        })
        .collect()
}

/// Runs a job in a savepoint. The outer error concerns the database as a whole and ends the transaction; the
/// inner one is the job's own, which is rolled back.
fn job<T>(
    connection: &Connection,
    run: impl FnOnce() -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Failure> {
    execute(connection, "SAVEPOINT job", [])?;
    let done = run();
    match &done {
        Err(failure) if matches!(failure.class, FailureClass::Retryable | FailureClass::Unknown) => {
            return Err(failure.clone());
        }
        Err(_) => batch(connection, "ROLLBACK TO job")?,
        Ok(_) => {}
    }
    execute(connection, "RELEASE job", [])?;
    Ok(done)
}

/// Writes tenants with one statement per table. An error concerns one of them, or the database.
fn ensure(connection: &Connection, tenants: &[&Ensure]) -> Result<Vec<Result<Value, Failure>>, Failure> {
    let keys: Vec<Value> = tenants.iter().map(|t| json!([t.tenant, t.name])).collect();
    let rows: Vec<(String, String, String, bool)> = query(
        connection,
        "SELECT tenant_id, name, claim, completed IS NOT NULL FROM _tenants WHERE tenant_id IN (SELECT value ->> 0 FROM json_each(?1))
         UNION
         SELECT tenant_id, name, claim, completed IS NOT NULL FROM _tenants WHERE name IN (SELECT value ->> 1 FROM json_each(?1))",
        [Value::from(keys).to_string()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let (mut by_tenant, mut by_name) = (BTreeMap::new(), BTreeMap::new());
    for (tenant, name, claim, done) in &rows {
        by_name.insert(name, tenant);
        by_tenant.insert(tenant, (name, claim, done));
    }
    let mut answers = Vec::with_capacity(tenants.len());
    let mut missing = Vec::new();
    for tenant in tenants {
        let there = by_tenant.get(&tenant.tenant);
        let own = there.is_none_or(|(name, claim, _)| **name == tenant.name && **claim == tenant.tag)
            && by_name.get(&tenant.name).is_none_or(|owner| **owner == tenant.tenant);
        answers.push(if own { Ok(Value::Null) } else { Err(name_taken()) });
        if own && there.is_none_or(|(_, _, done)| !**done) {
            missing.push(*tenant);
        }
    }
    if !missing.is_empty() {
        insert(connection, &missing)?;
    }
    Ok(answers)
}

fn ensure_one(connection: &Connection, tenant: &Ensure) -> Result<Value, Failure> {
    ensure(connection, &[tenant])?.into_iter().next().unwrap_or(Ok(Value::Null))
}

fn name_taken() -> Failure {
    Failure::fatal(
        "name_taken",
        "the database holds a tenant of this name with another owner tag, which was not touched; remove that tenant, or change `names` in the template",
    )
}

fn insert(connection: &Connection, tenants: &[&Ensure]) -> Result<(), Failure> {
    let owners: Vec<Value> =
        tenants.iter().map(|t| json!([t.tenant, t.name, t.tag, t.resource, t.seed, t.at])).collect();
    execute(
        connection,
        "INSERT INTO _tenants (tenant_id, name, claim, resource_id, seed, completed)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) WHERE true
         ON CONFLICT (tenant_id) DO UPDATE SET seed = excluded.seed, completed = excluded.completed",
        [Value::from(owners).to_string()],
    )?;
    // Statements at the same place of different seeds are mostly equal.
    let mut statements: BTreeMap<(usize, &Insert), String> = BTreeMap::new();
    for tenant in tenants {
        for (place, (insert, rows)) in tenant.rows.iter().enumerate() {
            let all = statements.entry((place, insert)).or_default();
            all.push(if all.is_empty() { '[' } else { ',' });
            all.push_str(rows);
        }
    }
    for ((_, insert), mut rows) in statements {
        rows.push(']');
        execute(connection, &insert_statement(insert), [rows])?;
    }
    Ok(())
}

/// The statement that inserts rows of a seed: its parameter is a JSON array of them.
fn insert_statement(Insert { table, columns }: &Insert) -> String {
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let values: Vec<String> = (1..=columns.len()).map(|i| format!("value ->> {i}")).collect();
    format!(
        "INSERT INTO {} (tenant_id, {}) SELECT value ->> 0, {} FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
        quoted(table),
        names.join(", "),
        values.join(", "),
    )
}

fn one(connection: &Connection, catalogue: &Catalogue, work: &Work) -> Result<Value, Failure> {
    match work {
        Work::Ensure(tenant) => ensure_one(connection, tenant),
        Work::Remove { tenant, tag } => remove(connection, tenant, tag),
        Work::RemoveSamples { tenant } => {
            let mut counts = Map::new();
            for table in catalogue.deletion_order.iter().flatten() {
                if catalogue.tables.get(table).is_some_and(|t| t.column("sample").is_some()) {
                    let rows = delete(connection, table, "tenant_id = ?1 AND sample = 1", [tenant])?;
                    counts.insert(table.clone(), rows.into());
                }
            }
            Ok(Value::Object(counts))
        }
        Work::Insert { tenant, sql, values } => {
            let values = values.iter().map(bound).collect::<Result<Vec<_>, _>>()?;
            let values = std::iter::once(SqlValue::from(tenant.clone())).chain(values);
            let row = first(connection, sql, params_from_iter(values), |row| row.get::<_, String>(0))?;
            parsed(&row.ok_or_else(|| {
                Failure::invalid(
                    "no_such_tenant",
                    "the tenant has no rows in this database; repair the tenant if it should",
                )
            })?)
        }
        Work::Delete { tenant, table, id } => {
            Ok(Value::Bool(delete(connection, table, "tenant_id = ?1 AND id = ?2", [tenant, id])? > 0))
        }
        Work::Touch => {
            execute(connection, "UPDATE _tenants SET completed = completed WHERE claim = 'canary'", [])?;
            Ok(Value::Null)
        }
    }
}

/// A JSON value as a parameter.
fn bound(value: &Value) -> Result<SqlValue, Failure> {
    Ok(match value {
        Value::Null => SqlValue::Null,
        Value::Bool(flag) => SqlValue::from(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => SqlValue::from(integer),
            None if number.is_u64() => {
                return Err(Failure::invalid("too_big", "a value is too big for the database"));
            }
            None => SqlValue::from(number.as_f64()),
        },
        Value::String(text) => SqlValue::from(text.clone()),
        Value::Array(_) | Value::Object(_) => SqlValue::from(value.to_string()),
    })
}

/// Deletes the tenant's rows in every table that the file has, and counts them by table. Deletes rows of a
/// tenant that is no longer listed, too.
fn remove(connection: &Connection, tenant: &str, tag: &str) -> Result<Value, Failure> {
    let found = "SELECT claim FROM _tenants WHERE tenant_id = ?1";
    let found: Option<String> = first(connection, found, [tenant], |row| row.get(0))?;
    let mut counts = Map::new();
    if found.is_none_or(|found| found == tag) {
        // Another process may have migrated the file since this one opened it.
        for table in catalogue::read(connection)?.deletion_order.into_iter().flatten() {
            let rows = delete(connection, &table, "tenant_id = ?1", [tenant])?;
            counts.insert(table, rows.into());
        }
        delete(connection, "_tenants", "tenant_id = ?1", [tenant])?;
    }
    Ok(Value::Object(counts))
}

/// Deletes rows and returns their number.
fn delete(
    connection: &Connection,
    table: &str,
    condition: &str,
    values: impl Params,
) -> Result<usize, Failure> {
    execute(connection, &format!("DELETE FROM {} WHERE {condition}", quoted(table)), values)
}
