//! Connections of the limit, with the durability of the product's, and transactions on them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection, SqliteConnection,
};

use super::text::{FEW, statement};
use crate::sample::{Base, Kind};
use crate::sandbox::{Sandbox, Store};
use crate::script::Shape;

/// Most rows of one SQLite statement; more rows are not faster.
const MAX_ROWS: usize = 64;

/// A value of a row.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// Text, JSON or an instant.
    Text(Arc<str>),
}

/// A connection.
pub struct Connection {
    link: Link,
    texts: HashMap<(usize, usize), Arc<str>>,
}

enum Link {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Connection {
    /// Opens one of a sandbox's databases with the durability of the product.
    pub async fn open(sandbox: &Sandbox, base: Base) -> Result<Self> {
        let link = match (sandbox.postgres(), sandbox.databases(), base) {
            (Some(server), Some([registry, _]), Base::Registry) => {
                Link::Postgres(Box::new(server.open(&registry).await?))
            }
            (Some(server), Some([_, keyring]), Base::Keyring) => {
                Link::Postgres(Box::new(server.open(&keyring).await?))
            }
            _ => Link::Sqlite(Box::new(options(&sandbox.file(base.file()), base).connect().await?)),
        };
        Ok(Self { link, texts: HashMap::new() })
    }

    /// Begins a transaction.
    pub async fn begin(&mut self) -> Result<()> {
        match &mut self.link {
            Link::Sqlite(c) => c.execute("BEGIN IMMEDIATE").await.map(drop)?,
            Link::Postgres(c) => c.execute("BEGIN").await.map(drop)?,
        }
        Ok(())
    }

    /// Commits the transaction.
    pub async fn commit(&mut self) -> Result<()> {
        match &mut self.link {
            Link::Sqlite(c) => c.execute("COMMIT").await.map(drop)?,
            Link::Postgres(c) => c.execute("COMMIT").await.map(drop)?,
        }
        Ok(())
    }

    /// Writes rows of the shape with this number.
    pub async fn write(&mut self, shape: &Shape, number: usize, rows: &[&[Value]]) -> Result<()> {
        let mut rest = rows;
        while !rest.is_empty() {
            let count = match &self.link {
                // Powers of two, so that few statements are prepared.
                Link::Sqlite(_) => 1 << rest.len().min(MAX_ROWS).ilog2(),
                Link::Postgres(_) => rest.len(),
            };
            let (now, later) = rest.split_at(count);
            let store = if matches!(self.link, Link::Sqlite(_)) { Store::Sqlite } else { Store::Postgres };
            // One statement for every number of rows sent as arrays.
            let size = if store == Store::Postgres && count > FEW { FEW + 1 } else { count };
            let text =
                self.texts.entry((number, size)).or_insert_with(|| statement(shape, store, size).into());
            let text = AssertSqlSafe(Arc::clone(text));
            match &mut self.link {
                Link::Sqlite(c) => {
                    sqlx::query_with(text, sqlite_arguments(now)?).execute(&mut **c).await?;
                }
                Link::Postgres(c) => {
                    let arguments =
                        if count > FEW { arrays(shape, now)? } else { postgres_arguments(shape, now)? };
                    sqlx::query_with(text, arguments).execute(&mut **c).await?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// Closes the connection.
    pub async fn close(self) -> Result<()> {
        match self.link {
            Link::Sqlite(c) => c.close().await?,
            Link::Postgres(c) => c.close().await?,
        }
        Ok(())
    }
}

/// As the store (crates/store/src/connection.rs) and the pool (crates/providers/databases/src/sqlite_pool)
/// open their files.
fn options(file: &Path, base: Base) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(30))
        .statement_cache_capacity(1024)
        .pragma("secure_delete", "on")
        .disable_statement_logging();
    match base {
        Base::Pool => options,
        Base::Keyring | Base::Registry => {
            options.pragma("wal_autocheckpoint", "4000").pragma("cache_size", "-65536")
        }
    }
}

fn sqlite_arguments(rows: &[&[Value]]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in rows.iter().copied().flatten() {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Int(value) => arguments.add(*value),
            Value::Bool(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(Arc::clone(value)),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

impl Value {
    fn int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }
    fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
    fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }
}

fn postgres_arguments(shape: &Shape, rows: &[&[Value]]) -> Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for row in rows {
        for (column, value) in shape.columns.iter().zip(*row) {
            let added = match column.kind {
                Kind::Int => arguments.add(value.int()),
                Kind::Bool => arguments.add(value.bool()),
                Kind::Text | Kind::Json | Kind::Time => arguments.add(value.text()),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
    }
    Ok(arguments)
}

fn arrays(shape: &Shape, rows: &[&[Value]]) -> Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for (n, column) in shape.columns.iter().enumerate() {
        let values = rows.iter().map(|row| &row[n]);
        let added = match column.kind {
            Kind::Int => arguments.add(values.map(Value::int).collect::<Vec<_>>()),
            Kind::Bool => arguments.add(values.map(Value::bool).collect::<Vec<_>>()),
            Kind::Text | Kind::Json | Kind::Time => {
                arguments.add(values.map(Value::text).collect::<Vec<_>>())
            }
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
