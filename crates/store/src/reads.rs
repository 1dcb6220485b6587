//! Reads: a pool of connections that cannot write, to either database.

use super::ReadError;
use super::address::Address;
use super::dialect::Dialect;
use super::failed::Failed;
use super::postgres::Pool;
use super::query::Query;
use super::row::{Field, FromRow, Row};
use super::sqlite::Threads;

/// The connections that all reads share.
pub enum Reads {
    /// To a SQLite file.
    Sqlite(Threads),
    /// To a PostgreSQL database.
    Postgres(Box<Pool>),
}

impl Reads {
    /// Opens up to so many. Blocks while a SQLite file is opened.
    pub async fn open(address: &Address, connections: u32) -> Result<Self, Failed> {
        Ok(match address {
            Address::Sqlite(path) => Self::Sqlite(Threads::start(path, connections)?),
            Address::Postgres(server) => Self::Postgres(Box::new(Pool::open(server, connections).await?)),
        })
    }

    /// All rows of a query.
    pub async fn all<T: FromRow>(&self, query: Query) -> Result<Vec<T>, ReadError> {
        self.map(query, T::from_row).await
    }

    /// The first row of a query.
    pub async fn one<T: FromRow>(&self, query: Query) -> Result<Option<T>, ReadError> {
        Ok(self.all(query.sql("LIMIT 1")).await?.into_iter().next())
    }

    /// The first column of all rows of a query.
    pub async fn column<T: Field>(&self, query: Query) -> Result<Vec<T>, ReadError> {
        let rows: Vec<(T,)> = self.all(query).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// All rows of a query, each as `read` has it.
    pub async fn map<T: Send + 'static>(
        &self,
        query: Query,
        read: impl Fn(&Row<'_>) -> Result<T, Failed> + Send + 'static,
    ) -> Result<Vec<T>, ReadError> {
        let (text, values) = query.into_parts();
        let rows = match self {
            Self::Sqlite(threads) => threads.query(Dialect::Sqlite.query(&text), values, read).await,
            Self::Postgres(pool) => {
                let rows = pool.query(&Dialect::Postgres.query(&text), &values).await;
                rows.and_then(|rows| rows.iter().map(|row| read(&Row::Postgres(row))).collect())
            }
        };
        Ok(rows?)
    }

    /// Closes all connections once they have answered.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(threads) => threads.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
