//! Reads of the registry or the keyring: a pool of connections to either database that cannot write.

use super::ReadError;
use super::address::Address;
use super::dialect::Dialect;
use super::failed::Failed;
use super::postgres::Pool;
use super::query::Query;
use super::row::{Field, FromRow, Row};
use super::sqlite::Threads;

/// The connections that all queries share.
pub enum Reads {
    /// To a SQLite file.
    Sqlite(Threads),
    /// To a PostgreSQL database.
    Postgres(Box<Pool>),
}

impl Reads {
    /// Opens a pool of up to `connections` connections. On SQLite, blocks the thread while it opens the file.
    pub async fn open(address: &Address, connections: u32) -> Result<Self, Failed> {
        Ok(match address {
            Address::Sqlite(path) => Self::Sqlite(Threads::start(path, connections)?),
            Address::Postgres(server) => Self::Postgres(Box::new(Pool::open(server, connections).await?)),
        })
    }

    /// Returns all rows of a query.
    pub async fn all<T: FromRow>(&self, query: Query) -> Result<Vec<T>, ReadError> {
        self.map(query, T::from_row).await
    }

    /// Returns the first row of a query, or none if there is no row.
    pub async fn one<T: FromRow>(&self, query: Query) -> Result<Option<T>, ReadError> {
        Ok(self.all(query.sql("LIMIT 1")).await?.into_iter().next())
    }

    /// Returns the first column of all rows of a query.
    pub async fn column<T: Field>(&self, query: Query) -> Result<Vec<T>, ReadError> {
        let rows: Vec<(T,)> = self.all(query).await?;
        Ok(rows.into_iter().map(|(value,)| value).collect())
    }

    /// Runs a query and converts each row with `read`.
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

    /// Closes all connections after their current queries.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(threads) => threads.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
