//! The writer's one connection to its database.

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

/// The registry's epoch; on PostgreSQL held against change until the transaction ends.
const EPOCH: &str = "SELECT epoch FROM leader WHERE id = 1";
const EPOCH_HELD: &str = "SELECT CAST(epoch AS text) FROM leader WHERE id = 1 FOR SHARE";

/// The connection that writes.
pub enum Connection {
    /// To SQLite. Every call blocks until it is answered.
    Sqlite(Box<rusqlite::Connection>),
    /// To PostgreSQL.
    Postgres(Box<Session>),
}

/// A statement of a transaction.
pub(super) enum Request<'a> {
    /// The registry's epoch, held against change: its only key.
    Epoch,
    /// A change of these rows.
    Rows(Shape, Vec<&'a [Datum]>),
}

/// The number of the request that failed; none: the commit.
pub(super) type Failure = (Failed, Option<usize>);

impl Connection {
    /// Opens it. Blocks while a SQLite file is opened.
    pub async fn open(address: &Address) -> Result<Self, Failed> {
        Ok(match address {
            Address::Sqlite(path) => Self::Sqlite(Box::new(sqlite::open(path, sqlite::Access::Write)?)),
            Address::Postgres(server) => {
                Self::Postgres(Box::new(Session::open(server, postgres::Access::Write).await?))
            }
        })
    }

    /// The timeline of the server; a SQLite file has one.
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
            // By itself: without it, what follows would be committed one by one.
            Self::Postgres(session) => session.execute("BEGIN").await,
        }
    }

    /// Makes it durable.
    pub async fn commit(&mut self) -> Result<(), Failed> {
        self.execute("COMMIT").await
    }

    /// Forgets it.
    pub async fn rollback(&mut self) -> Result<(), Failed> {
        self.execute("ROLLBACK").await
    }

    /// Runs statements without values.
    pub async fn execute(&mut self, sql: &str) -> Result<(), Failed> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(session) => session.execute(sql).await,
        }
    }

    /// The rows of a query without values, one text each.
    pub async fn texts(&mut self, sql: &str) -> Result<Vec<String>, Failed> {
        match self {
            Self::Sqlite(connection) => sqlite::query(connection, sql, &[], |row| row.get(0)),
            Self::Postgres(session) => {
                session.query(sql, &[]).await?.iter().map(|row| Row::Postgres(row).get(0)).collect()
            }
        }
    }

    /// Whether requests are sent before earlier ones are answered.
    pub(super) const fn pipelines(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs requests of one transaction in their order, and commits if wanted. Gives the keys that each returns.
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

    /// Takes the registry's lock for this session, if no other session has it. A SQLite file has one process anyway.
    pub async fn lock(&mut self) -> Result<bool, Failed> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(session) => session.lock().await,
        }
    }

    /// Folds SQLite's log into its file and empties it.
    pub fn fold_log(&mut self) -> Result<(), Failed> {
        match self {
            Self::Sqlite(connection) => sqlite::fold_log(connection),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The registry's epoch as it is.
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

    /// Closes it in order, so that SQLite can fold its log into the file.
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => {
                if let Err((_, error)) = connection.close() {
                    tracing::debug!(%error, "the writer's connection did not close in order");
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

/// How many of `rows` rows with `columns` values each go into one SQLite statement: a power of two, so that there are
/// few texts, and within SQLite's number of parameters.
fn sqlite_rows(rows: usize, columns: usize) -> usize {
    const MOST_ROWS: usize = 64;
    const MOST_PARAMETERS: usize = 32_766;
    let most = rows.min(MOST_ROWS).min(MOST_PARAMETERS / columns.max(1)).max(1);
    1 << most.ilog2()
}

/// A value of a row, for SQLite.
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
            Request::Epoch => (EPOCH_HELD.into(), Vec::new()),
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

/// A column of many rows.
struct Array<'a> {
    kind: Kind,
    cells: Vec<&'a Datum>,
}

/// One array per column.
fn arrays<'a>(table: &Table, shape: Shape, rows: &[&'a [Datum]]) -> Vec<Array<'a>> {
    let columns = shape.columns().enumerate();
    let array = |(n, i): (usize, usize)| Array {
        kind: table.columns[i].kind,
        cells: rows.iter().map(|row| &row[n]).collect(),
    };
    columns.map(array).collect()
}

/// The driver writes values into its log.
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

    /// The statement's text says the type, by the same column.
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
    async fn a_commit_is_never_less_than_durable() {
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
