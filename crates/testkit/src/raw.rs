//! Connects a test to a database without going through Tenantry: runs SQL and returns rows as text. Panics on
//! every error.

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection, ValueRef as _,
};
use tenantry_model::Timestamp;
use tokio::sync::Mutex;

enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A connection to SQLite or PostgreSQL.
pub struct Raw {
    connection: Mutex<Connection>,
    is_postgres: bool,
}

/// A row: the text of each column; none for NULL.
#[derive(Clone, Debug)]
pub struct Row(Vec<Option<String>>);

impl Raw {
    /// Connects to the database with this URL: SQLite with `sqlite:…`, else PostgreSQL.
    pub async fn connect(url: &str) -> Self {
        let is_postgres = !url.starts_with("sqlite:");
        let connection = if is_postgres {
            Connection::Postgres(PgConnection::connect(url).await.expect("the database answers"))
        } else {
            Connection::Sqlite(SqliteConnection::connect(url).await.expect("the database opens"))
        };
        Self { connection: Mutex::new(connection), is_postgres }
    }

    /// Whether the database is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    /// Runs statements and returns the number of changed rows.
    pub async fn execute(&self, sql: &str) -> u64 {
        match &mut *self.connection.lock().await {
            Connection::Sqlite(c) => {
                c.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.expect(sql).rows_affected()
            }
            Connection::Postgres(c) => {
                c.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.expect(sql).rows_affected()
            }
        }
    }

    /// Runs a query and returns its rows.
    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        match &mut *self.connection.lock().await {
            Connection::Sqlite(c) => {
                let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(c).await.expect(sql);
                let text = |row: &sqlx::sqlite::SqliteRow, i| row.try_get_unchecked(i).expect("a column");
                rows.iter().map(|row| Row((0..row.len()).map(|i| text(row, i)).collect())).collect()
            }
            Connection::Postgres(c) => {
                let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(c).await.expect(sql);
                let text = |row: &sqlx::postgres::PgRow, i| {
                    let value = row.try_get_raw(i).expect("a column");
                    (!value.is_null()).then(|| value.as_str().expect("text").to_owned())
                };
                rows.iter().map(|row| Row((0..row.len()).map(|i| text(row, i)).collect())).collect()
            }
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        match self.connection.into_inner() {
            Connection::Sqlite(c) => c.close().await.expect("closes"),
            Connection::Postgres(c) => c.close().await.expect("closes"),
        }
    }
}

impl Row {
    /// Value of the column with this index. Panics if it is NULL.
    pub fn get<T: FromText>(&self, column: usize) -> T {
        T::from_text(self.0[column].as_deref().expect("a value"))
    }
}

/// A type that a column's text can be parsed as.
pub trait FromText {
    /// Parses the text of a column. Panics if it has another form.
    fn from_text(text: &str) -> Self;
}

impl FromText for String {
    fn from_text(text: &str) -> Self {
        text.to_owned()
    }
}

impl FromText for i64 {
    fn from_text(text: &str) -> Self {
        text.parse().expect("a number")
    }
}

impl FromText for bool {
    fn from_text(text: &str) -> Self {
        matches!(text, "t" | "1")
    }
}

impl FromText for Timestamp {
    fn from_text(text: &str) -> Self {
        // PostgreSQL separates date and time by a space, and writes the offset in hours.
        text.replacen(' ', "T", 1).replace("+00", "Z").parse().expect("an instant")
    }
}
