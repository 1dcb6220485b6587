//! The writer's connection to its database: transactions, and statements that change many rows. SQLite runs statements
//! one after the other; PostgreSQL gets them pipelined.

use std::error::Error;

use bytes::BytesMut;
use rusqlite::types::ToSqlOutput;
use tenantry_model::Datum;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::address::Address;
use super::failed::{Cause, Failed};
use super::postgres::{self, Session};
use super::query::to_sqlite;
use super::row::{Kind, Row};
use super::sqlite;
use super::statement::{Shape, Statements};
use super::table::Table;

/// Reads the registry's epoch.
const EPOCH: &str = "SELECT epoch FROM leader WHERE id = 1";
/// Reads the registry's epoch and locks it against changes until the transaction ends. PostgreSQL only.
const EPOCH_LOCKED: &str = "SELECT CAST(epoch AS text) FROM leader WHERE id = 1 FOR SHARE";

/// A connection that can write.
pub enum Connection {
    /// To SQLite. Every call blocks the thread until it has ended.
    Sqlite(Box<rusqlite::Connection>),
    /// To PostgreSQL.
    Postgres(Box<Session>),
}

/// A statement of a transaction.
pub(super) enum Request<'a> {
    /// Reads and locks the registry's epoch, which is returned as the only key.
    Epoch,
    /// Changes or checks these rows: the values of each.
    Rows(Shape, Vec<&'a [Datum]>),
}

/// An error, and the index of the request that failed; none if the commit failed.
pub(super) type Failure = (Failed, Option<usize>);

impl Connection {
    /// Opens a connection. On SQLite, blocks the thread while it opens the file.
    pub async fn open(address: &Address) -> Result<Self, Failed> {
        Ok(match address {
            Address::Sqlite(path) => Self::Sqlite(Box::new(sqlite::open(path, sqlite::Access::Write)?)),
            Address::Postgres(server) => {
                Self::Postgres(Box::new(Session::open(server, postgres::Access::Write).await?))
            }
        })
    }

    /// Returns the timeline of the PostgreSQL server; 0 on SQLite.
    pub async fn timeline(&mut self) -> Result<i32, Failed> {
        match self {
            Self::Sqlite(_) => Ok(0),
            Self::Postgres(session) => session.timeline().await,
        }
    }

    /// Begins a transaction that may write.
    pub async fn begin(&mut self) -> Result<(), Failed> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch("BEGIN IMMEDIATE")?),
            // Not pipelined: if BEGIN failed, each of the following statements would commit by itself.
            Self::Postgres(session) => session.execute("BEGIN").await,
        }
    }

    /// Commits the transaction; it is durable afterwards.
    pub async fn commit(&mut self) -> Result<(), Failed> {
        self.execute("COMMIT").await
    }

    /// Rolls the transaction back.
    pub async fn rollback(&mut self) -> Result<(), Failed> {
        self.execute("ROLLBACK").await
    }

    /// Runs statements without parameters, separated by semicolons.
    pub async fn execute(&mut self, sql: &str) -> Result<(), Failed> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(session) => session.execute(sql).await,
        }
    }

    /// Runs a query without parameters; returns the first column, a text, of each row.
    pub async fn texts(&mut self, sql: &str) -> Result<Vec<String>, Failed> {
        match self {
            Self::Sqlite(connection) => sqlite::query(connection, sql, &[], |row| row.get(0)),
            Self::Postgres(session) => {
                session.query(sql, &[]).await?.iter().map(|row| Row::Postgres(row).get(0)).collect()
            }
        }
    }

    /// Whether requests are sent before the responses to earlier ones have arrived.
    pub(super) const fn pipelines(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs requests of one transaction in order, and then commits if `commit` is set. Returns the keys that each
    /// request returned.
    pub(super) async fn run(
        &mut self,
        statements: &mut Statements,
        requests: &[Request<'_>],
        commit: bool,
    ) -> Result<Vec<Vec<String>>, Failure> {
        match self {
            Self::Sqlite(connection) => {
                let mut keys = Vec::with_capacity(requests.len());
                for (n, request) in requests.iter().enumerate() {
                    let run = run_on_sqlite(connection, statements, request);
                    keys.push(run.map_err(|failed| (failed, Some(n)))?);
                }
                if commit {
                    connection.execute_batch("COMMIT").map_err(|failed| (failed.into(), None))?;
                }
                Ok(keys)
            }
            Self::Postgres(session) => run_on_postgres(session, statements, requests, commit).await,
        }
    }

    /// Takes the registry's lock for this session. Returns false if another session has it. Always true on SQLite,
    /// where only one process has the file open.
    pub async fn lock(&mut self) -> Result<bool, Failed> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(session) => session.lock().await,
        }
    }

    /// Returns the registry's epoch. An error if the registry has none.
    pub async fn epoch(&mut self) -> Result<i64, Failed> {
        let epochs = match self {
            Self::Sqlite(connection) => sqlite::query(connection, EPOCH, &[], |row| row.get(0))?,
            Self::Postgres(session) => {
                let rows = session.query(EPOCH, &[]).await?;
                rows.iter().map(|row| Row::Postgres(row).get(0)).collect::<Result<_, _>>()?
            }
        };
        epochs.first().copied().ok_or_else(no_epoch)
    }

    /// Closes the connection. SQLite then copies its write-ahead log into the file.
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => {
                if let Err((_, error)) = connection.close() {
                    tracing::debug!(%error, "closing the writer's connection failed");
                }
            }
            Self::Postgres(session) => session.close().await,
        }
    }
}

fn no_epoch() -> Failed {
    Failed { cause: Cause::Refused, message: "the registry has no epoch".to_owned() }
}

fn run_on_sqlite(
    connection: &rusqlite::Connection,
    statements: &mut Statements,
    request: &Request<'_>,
) -> Result<Vec<String>, Failed> {
    let Request::Rows(shape, rows) = request else {
        return sqlite::query(connection, EPOCH, &[], |row| row.get::<i64>(0).map(|epoch| epoch.to_string()));
    };
    let mut keys = Vec::new();
    let mut rest = rows.as_slice();
    while let Some(first) = rest.first() {
        let (now, later) = rest.split_at(sqlite_rows(rest.len(), first.len()));
        let mut statement = connection.prepare_cached(&statements.text(*shape, now.len()))?;
        for (n, cell) in (1..).zip(now.iter().copied().flatten()) {
            statement.raw_bind_parameter(n, Cell(cell))?;
        }
        if shape.returns_keys() {
            let mut returned = statement.raw_query();
            while let Some(row) = returned.next()? {
                keys.push(row.get(0)?);
            }
        } else {
            statement.raw_execute()?;
        }
        rest = later;
    }
    Ok(keys)
}

/// Number of rows in the next SQLite statement, of `rows` rows with `columns` values each. It is a power of two, so
/// that there are few different texts, and keeps within SQLite's maximum number of parameters.
fn sqlite_rows(rows: usize, columns: usize) -> usize {
    const MOST_ROWS: usize = 64;
    const MOST_PARAMETERS: usize = 32_766;
    let most = rows.min(MOST_ROWS).min(MOST_PARAMETERS / columns.max(1)).max(1);
    1 << most.ilog2()
}

/// A value of a row, as a parameter for SQLite.
struct Cell<'a>(&'a Datum);

impl rusqlite::ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(to_sqlite(self.0))
    }
}

async fn run_on_postgres(
    session: &mut Session,
    statements: &mut Statements,
    requests: &[Request<'_>],
    commit: bool,
) -> Result<Vec<Vec<String>>, Failure> {
    let mut texts = Vec::with_capacity(requests.len());
    for request in requests {
        texts.push(match request {
            Request::Epoch => (EPOCH_LOCKED.into(), Vec::new()),
            Request::Rows(shape, rows) => {
                (statements.text(*shape, 0), arrays(statements.schema.at(shape.table), *shape, rows))
            }
        });
    }
    let sent = texts.iter_mut().map(|(text, values)| (&**text, std::mem::take(values))).collect();
    let last = requests.len();
    let answers = session.pipeline(sent, commit).await.map_err(|failed| (failed, Some(0)))?;
    let mut keys = Vec::with_capacity(last);
    for (n, answer) in answers.into_iter().enumerate() {
        let request = Some(n).filter(|n| *n < last);
        let rows = answer.map_err(|failed| (failed, request))?;
        let texts = rows.iter().map(|row| Row::Postgres(row).get(0)).collect::<Result<_, _>>();
        keys.push(texts.map_err(|failed| (failed, request))?);
    }
    Ok(keys)
}

/// The values of one column in many rows, as a parameter for PostgreSQL.
struct Array<'a> {
    kind: Kind,
    cells: Vec<&'a Datum>,
}

/// Turns rows into one array per column.
fn arrays<'a>(table: &Table, shape: Shape, rows: &[&'a [Datum]]) -> Vec<Array<'a>> {
    let columns = shape.columns().enumerate();
    let array = |(n, i): (usize, usize)| Array {
        kind: table.columns[i].kind,
        cells: rows.iter().map(|row| &row[n]).collect(),
    };
    columns.map(array).collect()
}

/// Hides the values, because the driver logs parameters by their debug form.
impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows", self.cells.len())
    }
}

impl ToSql for Array<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let cells = self.cells.iter();
        match self.kind {
            Kind::Int | Kind::BigInt => cells.map(|cell| cell.int()).collect::<Vec<_>>().to_sql(kind, out),
            Kind::Bool => cells.map(|cell| cell.bool()).collect::<Vec<_>>().to_sql(kind, out),
            Kind::Text | Kind::Json | Kind::Time => {
                cells.map(|cell| cell.text()).collect::<Vec<_>>().to_sql(kind, out)
            }
        }
    }

    /// Accepts every type: the statement's text casts the parameter to the type of the same column.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use tenantry_testkit::TestDatabase;
    use tenantry_testkit::database::execute;

    use super::*;

    #[tokio::test]
    async fn a_commit_is_at_least_locally_durable() {
        let Some(database) = TestDatabase::postgres().await else { return };
        let name = database.url().rsplit('/').next().unwrap().split('?').next().unwrap();
        for (set, wanted) in [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")] {
            let sql = format!("ALTER DATABASE \"{name}\" SET synchronous_commit = {set}");
            execute(database.url(), sql).await.unwrap();
            let mut connection = Connection::open(&database.url().parse().unwrap()).await.unwrap();
            let is = connection.texts("SELECT current_setting('synchronous_commit')").await.unwrap();
            assert_eq!(is, [wanted]);
        }
    }
}
