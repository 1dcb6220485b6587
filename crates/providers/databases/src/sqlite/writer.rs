//! The one writer of a database file. It runs all waiting jobs in one transaction, commits once, and then
//! replies: the disk is flushed once per batch, not once per tenant. A job that fails is rolled back alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Executor, Row, SqliteConnection};
use tenantry_model::{Failure, FailureClass};
use tokio::sync::{mpsc, oneshot};

use super::catalogue;
use super::client::failure;
use crate::content::Ensure;
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
    /// Opens the file and starts the task.
    pub async fn start(options: SqliteConnectOptions, catalogue: Arc<Catalogue>) -> Result<Self, Failure> {
        let connection = options.connect().await.map_err(failure)?;
        let file = identity(options.get_filename()).ok_or_else(|| {
            Failure::retryable("cannot_open", "the database file was removed while it was opened; try again")
        })?;
        let (jobs, waiting) = mpsc::channel(4 * BATCH);
        let task = Task { options, catalogue, file, connection: Some(connection) };
        tokio::spawn(task.run(waiting));
        Ok(Self { jobs })
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

struct Task {
    options: SqliteConnectOptions,
    catalogue: Arc<Catalogue>,
    /// Identity of the file that was opened.
    file: Identity,
    connection: Option<SqliteConnection>,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let (work, replies): (Vec<Work>, Vec<_>) =
                batch.drain(..).map(|job| (job.work, job.reply)).unzip();
            let answers = match self.commit(&work).await {
                // A batch that does not fit may contain jobs that do, such as deletions: run them one by one.
                Err(failure) if failure.code == "disk_full" && work.len() > 1 => {
                    let mut answers = Vec::with_capacity(work.len());
                    for one in work.chunks(1) {
                        answers.extend(self.commit(one).await.unwrap_or_else(|failure| vec![Err(failure)]));
                    }
                    answers
                }
                answers => answers.unwrap_or_else(|failure| vec![Err(failure); work.len()]),
            };
            for (reply, answer) in replies.into_iter().zip(answers) {
                // The caller may have given up.
                let _ = reply.send(answer);
            }
            // Lets the callers queue their next job before the next batch.
            tokio::task::yield_now().await;
        }
    }

    /// Runs one transaction. On an error nothing of it is written.
    async fn commit(&mut self, work: &[Work]) -> Result<Vec<Result<Value, Failure>>, Failure> {
        if identity(self.options.get_filename()) != Some(self.file) {
            return Err(Failure::fatal(
                "file_replaced",
                "the database file was removed or replaced while it was open: restore it and restart Tenantry",
            ));
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(failure)?,
        };
        let done = transaction(&mut connection, &self.catalogue, work).await;
        // After an I/O error the connection's state is unknown.
        if done.is_ok() {
            self.connection = Some(connection);
        }
        done
    }
}

/// Runs the work in one transaction.
pub async fn transaction(
    connection: &mut SqliteConnection,
    catalogue: &Catalogue,
    work: &[Work],
) -> Result<Vec<Result<Value, Failure>>, Failure> {
    connection.execute("BEGIN IMMEDIATE").await.map_err(failure)?;
    let answers = all(connection, catalogue, work).await?;
    connection.execute("COMMIT").await.map_err(failure)?;
    Ok(answers)
}

/// Runs the work in its order. Adjacent tenants are written together.
async fn all(
    connection: &mut SqliteConnection,
    catalogue: &Catalogue,
    work: &[Work],
) -> Result<Vec<Result<Value, Failure>>, Failure> {
    let mut answers = Vec::with_capacity(work.len());
    let mut rest = work;
    while let Some(first) = rest.first() {
        let together = side_by_side(rest);
        rest = rest.get(together.len().max(1)..).unwrap_or_default();
        if together.is_empty() {
            save(connection).await?;
            let done = one(connection, catalogue, first).await;
            answers.push(settle(connection, done).await?);
            continue;
        }
        save(connection).await?;
        let made = ensure(connection, &together).await;
        match settle(connection, made).await? {
            Ok(made) => answers.extend(made),
            Err(_) => {
                for tenant in together {
                    save(connection).await?;
                    let made = ensure(connection, &[tenant]).await;
                    answers.push(
                        settle(connection, made)
                            .await?
                            .and_then(|made| made.into_iter().next().unwrap_or(Ok(Value::Null))),
                    );
                }
            }
        }
    }
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

/// Opens a job's savepoint.
async fn save(connection: &mut SqliteConnection) -> Result<(), Failure> {
    connection.execute("SAVEPOINT job").await.map(drop).map_err(failure)
}

/// Closes a job's savepoint. The outer error concerns the database as a whole and ends the transaction; the
/// inner one is the job's own, which is rolled back.
async fn settle<T>(
    connection: &mut SqliteConnection,
    done: Result<T, Failure>,
) -> Result<Result<T, Failure>, Failure> {
    match &done {
        Err(failure)
            if failure.class == FailureClass::Retryable || failure.class == FailureClass::Unknown =>
        {
            return Err(failure.clone());
        }
        Err(_) => {
            connection.execute("ROLLBACK TO job").await.map_err(failure)?;
        }
        Ok(_) => {}
    }
    connection.execute("RELEASE job").await.map_err(failure)?;
    Ok(done)
}

/// Writes tenants with one statement per table. An error concerns one of them, or the database.
async fn ensure(
    connection: &mut SqliteConnection,
    tenants: &[&Ensure],
) -> Result<Vec<Result<Value, Failure>>, Failure> {
    let keys: Vec<Value> = tenants.iter().map(|t| json!([t.tenant, t.name])).collect();
    let keys = Value::from(keys).to_string();
    let rows = sqlx::query(
        "SELECT tenant_id, name, claim, completed IS NOT NULL AS done FROM _tenants WHERE tenant_id IN (SELECT value ->> 0 FROM json_each(?1))
         UNION
         SELECT tenant_id, name, claim, completed IS NOT NULL AS done FROM _tenants WHERE name IN (SELECT value ->> 1 FROM json_each(?1))",
    )
    .bind(&keys)
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    let (mut by_tenant, mut by_name) = (BTreeMap::new(), BTreeMap::new());
    for row in &rows {
        let (tenant, name, claim): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        by_name.insert(name, tenant);
        by_tenant.insert(tenant, (name, claim, row.get::<bool, _>(3)));
    }
    let mut answers = Vec::with_capacity(tenants.len());
    let mut missing = Vec::new();
    for tenant in tenants {
        let there = by_tenant.get(&*tenant.tenant);
        let own = there.is_none_or(|(name, claim, _)| *name == tenant.name && *claim == tenant.tag)
            && by_name.get(&*tenant.name).is_none_or(|owner| *owner == tenant.tenant);
        answers.push(if own { Ok(Value::Null) } else { Err(name_taken()) });
        if own && there.is_none_or(|(_, _, done)| !done) {
            missing.push(*tenant);
        }
    }
    if !missing.is_empty() {
        insert(connection, &missing).await?;
    }
    Ok(answers)
}

fn name_taken() -> Failure {
    Failure::fatal(
        "name_taken",
        "the database holds a tenant of this name with another owner tag, which was not touched; remove that tenant, or change `names` in the template",
    )
}

async fn insert(connection: &mut SqliteConnection, tenants: &[&Ensure]) -> Result<(), Failure> {
    let owners: Vec<Value> =
        tenants.iter().map(|t| json!([t.tenant, t.name, t.tag, t.resource, t.seed, t.at])).collect();
    sqlx::query(
        "INSERT INTO _tenants (tenant_id, name, claim, resource_id, seed, completed)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) WHERE true
         ON CONFLICT (tenant_id) DO UPDATE SET seed = excluded.seed, completed = excluded.completed",
    )
    .bind(Value::from(owners).to_string())
    .execute(&mut *connection)
    .await
    .map_err(failure)?;
    // Statements at the same place of different seeds are mostly equal.
    let mut statements: BTreeMap<(usize, &Arc<str>), String> = BTreeMap::new();
    for tenant in tenants {
        for (place, (sql, rows)) in tenant.rows.iter().enumerate() {
            let all = statements.entry((place, sql)).or_default();
            all.push(if all.is_empty() { '[' } else { ',' });
            all.push_str(rows);
        }
    }
    for ((_, sql), mut rows) in statements {
        rows.push(']');
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(rows)
            .execute(&mut *connection)
            .await
            .map_err(failure)?;
    }
    Ok(())
}

/// The statement that inserts a block of a seed: its parameter is a JSON array of rows.
pub fn insert_statement(table: &str, columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let values: Vec<String> = (1..=columns.len()).map(|i| format!("value ->> {i}")).collect();
    format!(
        "INSERT INTO {} (tenant_id, {}) SELECT value ->> 0, {} FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
        quoted(table),
        names.join(", "),
        values.join(", "),
    )
}

async fn one(
    connection: &mut SqliteConnection,
    catalogue: &Catalogue,
    work: &Work,
) -> Result<Value, Failure> {
    match work {
        Work::Ensure(tenant) => {
            ensure(connection, &[tenant]).await?.into_iter().next().unwrap_or(Ok(Value::Null))
        }
        Work::Remove { tenant, tag } => remove(connection, tenant, tag).await,
        Work::RemoveSamples { tenant } => {
            let mut counts = Map::new();
            for table in &catalogue.deletion_order {
                if catalogue.tables.get(table).is_some_and(|t| t.column("sample").is_some()) {
                    count(connection, &mut counts, table, "tenant_id = ?1 AND sample = 1", tenant).await?;
                }
            }
            Ok(Value::Object(counts))
        }
        Work::Insert { tenant, sql, values } => {
            let mut arguments = SqliteArguments::default();
            let bound = arguments
                .add(tenant)
                .and_then(|()| values.iter().try_for_each(|value| bind(&mut arguments, value)));
            bound.map_err(|_| Failure::invalid("too_big", "a value is too big for the database"))?;
            let row = sqlx::query_with(AssertSqlSafe(sql.as_str()), arguments)
                .fetch_optional(connection)
                .await
                .map_err(failure)?
                .ok_or_else(|| {
                    Failure::invalid(
                        "no_such_tenant",
                        "the tenant has no rows in this database; repair the tenant if it should",
                    )
                })?;
            let text: String = row.get(0);
            serde_json::from_str(&text)
                .map_err(|_| Failure::fatal("database", "the database returned a row that is not JSON"))
        }
        Work::Delete { tenant, table, id } => {
            let sql = format!("DELETE FROM {} WHERE tenant_id = ?1 AND id = ?2", quoted(table));
            let done = sqlx::query(AssertSqlSafe(sql))
                .bind(tenant)
                .bind(id)
                .execute(connection)
                .await
                .map_err(failure)?;
            Ok(Value::Bool(done.rows_affected() > 0))
        }
        Work::Touch => {
            connection
                .execute("UPDATE _tenants SET completed = completed WHERE claim = 'canary'")
                .await
                .map_err(failure)?;
            Ok(Value::Null)
        }
    }
}

fn bind(arguments: &mut SqliteArguments, value: &Value) -> Result<(), sqlx::error::BoxDynError> {
    match value {
        Value::Null => arguments.add(None::<String>),
        Value::Bool(flag) => arguments.add(i64::from(*flag)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => arguments.add(integer),
            None if number.is_u64() => Err("too big".into()),
            None => arguments.add(number.as_f64()),
        },
        Value::String(text) => arguments.add(text),
        Value::Array(_) | Value::Object(_) => arguments.add(value.to_string()),
    }
}

/// Deletes the tenant's rows in every table that the file has, and counts them by table. Deletes rows of a
/// tenant that is no longer listed, too.
async fn remove(connection: &mut SqliteConnection, tenant: &str, tag: &str) -> Result<Value, Failure> {
    let found: Option<String> = sqlx::query_scalar("SELECT claim FROM _tenants WHERE tenant_id = ?1")
        .bind(tenant)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failure)?;
    let mut counts = Map::new();
    if found.is_none_or(|found| found == tag) {
        // Another process may have migrated the file since this one opened it.
        for table in &catalogue::read(connection).await?.deletion_order {
            count(connection, &mut counts, table, "tenant_id = ?1", tenant).await?;
        }
        count(connection, &mut Map::new(), "_tenants", "tenant_id = ?1", tenant).await?;
    }
    Ok(Value::Object(counts))
}

async fn count(
    connection: &mut SqliteConnection,
    counts: &mut Map<String, Value>,
    table: &str,
    condition: &str,
    tenant: &str,
) -> Result<(), Failure> {
    let sql = format!("DELETE FROM {} WHERE {condition}", quoted(table));
    let done = sqlx::query(AssertSqlSafe(sql)).bind(tenant).execute(connection).await.map_err(failure)?;
    counts.insert(table.to_owned(), done.rows_affected().into());
    Ok(())
}
