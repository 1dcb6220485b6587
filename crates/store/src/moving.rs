//! Moves a whole database to another file or server. It first freezes the source, which then rejects writes
//! but can still be read; then it copies every row in one transaction, reads the rows back, and compares
//! them.
//!
//! At most one of the two databases accepts writes at any time. After a crash of this process, the move is
//! run again.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tenantry_model::{Columns, Datum};

use super::ReadError;
use super::address::Address;
use super::connection::{Connection, Request};
use super::database::{OpenError, apart, migrate};
use super::dialect::Dialect;
use super::failed::Failed;
use super::migration::Migrations;
use super::query::Query;
use super::reads::Reads;
use super::sqlite;
use super::statement::{Shape, Statements, Verb};
use super::table::{ColumnSet, Key, Page, Schema, Table};

/// Row count and checksum of each table.
pub type Moved = BTreeMap<&'static str, Contents>;

/// Rows in memory at the same time.
const PAGE: u64 = 1_000;
/// Error message of a frozen database for a write.
const FROZEN: &str = "this database has moved: use the new one";

/// Kinds of statements that a frozen database rejects.
const VERBS: [&str; 3] = ["insert", "update", "delete"];

/// Error of a move. The source accepts writes as before, except after [`MoveError::Frozen`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum MoveError {
    /// The source or the target cannot be opened.
    #[error("{which}: {why}")]
    Open {
        /// `from` or `to`.
        which: &'static str,
        /// Cause.
        why: OpenError,
    },
    /// The source does not exist, has moved already, or was last served by an older release.
    #[error("from: {0}")]
    From(String),
    /// The target is in use, not empty, or cannot be written.
    #[error("to: {0}")]
    To(String),
    /// The target rejected a row, or one of the databases does not respond.
    #[error("the rows of {table} cannot be copied: {why}")]
    Copy {
        /// Table of the rows.
        table: &'static str,
        /// Cause.
        why: String,
    },
    /// The rows of the target differ from those of the source.
    #[error("the rows of {table} differ: {from} in the source, {to} in the target")]
    Differs {
        /// Table of the rows.
        table: &'static str,
        /// Contents of the source.
        from: Contents,
        /// Contents of the target.
        to: Contents,
    },
    /// The target may have the rows already, so the source stays read-only.
    #[error(
        "{0}; the source stays read-only: run the command again, with another empty target if the rows differ"
    )]
    Frozen(Box<Self>),
}

impl MoveError {
    fn frozen(self) -> Self {
        Self::Frozen(Box::new(self))
    }
}

/// Row count and checksum of a table, independent of the order of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Number of rows.
    pub rows: u64,
    checksum: [u8; 32],
}

impl std::fmt::Display for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows with the checksum {}", self.rows, self.checksum())
    }
}

impl Contents {
    /// XOR of the SHA-256 of all rows, in hexadecimal.
    pub fn checksum(&self) -> String {
        hex::encode(self.checksum)
    }

    async fn of(table: &Table, database: &Reads) -> Result<Self, MoveError> {
        let mut contents = Self::default();
        let mut after = None;
        while let Some((rows, last)) = page(table, database, after).await? {
            rows.iter().for_each(|row| contents.add(row));
            after = last;
        }
        Ok(contents)
    }

    fn add(&mut self, row: &Columns) {
        let digest = Sha256::digest(serde_json::Value::Object(row.to_json()).to_string());
        self.checksum.iter_mut().zip(digest).for_each(|(sum, byte)| *sum ^= byte);
        self.rows += 1;
    }
}

/// Moves the database at `from` to `to`, which must be empty. Returns the contents of each table. Drops the
/// `retired` tables of the source when the target has all rows.
pub(super) async fn move_database(
    from: &str,
    to: &str,
    schema: &'static Schema,
    migrations: &'static Migrations,
    retired: &'static [&'static str],
) -> Result<Moved, MoveError> {
    let address = |which, url: &str| {
        url.parse::<Address>().map_err(|why| MoveError::Open { which, why: OpenError::Address(why) })
    };
    let (from, to) = (address("from", from)?, address("to", to)?);
    let moved = apart(async move { run(from, to, schema, migrations, retired).await });
    moved.await.unwrap_or_else(|failed| Err(MoveError::From(failed.message)))
}

async fn run(
    from: Address,
    to: Address,
    schema: &'static Schema,
    migrations: &Migrations,
    retired: &'static [&'static str],
) -> Result<Moved, MoveError> {
    let source = open_old(&from, migrations).await?;
    let begun = match moved_to(&source, from.dialect()).await? {
        Some((place, true)) => {
            return Err(MoveError::From(format!("it has moved to {place}: use that database")));
        }
        begun => begun.is_some(),
    };
    let mut target = open_new(&to, migrations).await?;
    let reads = readers("to", &to).await?;
    let moving = Moving { schema, retired, from: &from, source: &source, to: &to, reads: &reads };
    let moved = moving.run(&mut target, begun).await;
    target.close().await;
    source.close().await;
    reads.close().await;
    moved
}

/// Opens the source. Returns an error if it does not exist or lacks migrations of this release.
async fn open_old(address: &Address, migrations: &Migrations) -> Result<Reads, MoveError> {
    if let Address::Sqlite(path) = address
        && !Path::exists(path)
    {
        return Err(MoveError::From(format!("there is no file {}", path.display())));
    }
    let source = readers("from", address).await?;
    let failed =
        |failed: Failed| MoveError::From(format!("it is not a database of Tenantry: {}", failed.message));
    let mut connection = Connection::open(address).await.map_err(failed)?;
    let missing = migrations.missing(&mut connection, address.dialect()).await;
    connection.close().await;
    match missing {
        Ok(missing) if missing.is_empty() => Ok(source),
        Ok(_) => Err(MoveError::From(
            "it is not a database of Tenantry, or an older release created it: start this release on it once"
                .to_owned(),
        )),
        Err(why) => Err(MoveError::From(why)),
    }
}

/// Opens the target, migrates it, and locks it. Returns an error if a server uses it.
async fn open_new(address: &Address, migrations: &Migrations) -> Result<Connection, MoveError> {
    migrate(address, migrations).await.map_err(|why| MoveError::Open { which: "to", why })?;
    let failed = |failed: Failed| MoveError::To(failed.message);
    let in_use = match address {
        Address::Sqlite(path) => sqlite::is_open_elsewhere(path).map_err(failed)?,
        // On PostgreSQL, the lock below tells whether it is in use.
        Address::Postgres(_) => false,
    };
    let mut target = Connection::open(address).await.map_err(failed)?;
    match !in_use && target.lock().await.map_err(failed)? {
        true => Ok(target),
        false => Err(MoveError::To("a server runs on it: stop the server".to_owned())),
    }
}

async fn readers(which: &'static str, address: &Address) -> Result<Reads, MoveError> {
    let opened = Reads::open(address, 1).await;
    opened.map_err(|failed| MoveError::Open { which, why: failed.into() })
}

/// Target of a move that has begun on the source, and whether the move is complete.
async fn moved_to(source: &Reads, dialect: Dialect) -> Result<Option<(String, bool)>, MoveError> {
    let there = match dialect {
        Dialect::Sqlite => "SELECT count(*) FROM sqlite_schema WHERE name = 'moved_to'",
        Dialect::Postgres => "SELECT count(to_regclass(quote_ident(current_schema()) || '.moved_to'))",
    };
    let failed = |why: ReadError| MoveError::From(why.to_string());
    if source.column::<i64>(Query::new(there)).await.map_err(failed)? == [0] {
        return Ok(None);
    }
    source.one(Query::new("SELECT place, done FROM moved_to")).await.map_err(failed)
}

struct Moving<'a> {
    schema: &'static Schema,
    retired: &'a [&'static str],
    from: &'a Address,
    source: &'a Reads,
    to: &'a Address,
    reads: &'a Reads,
}

impl Moving<'_> {
    /// Moves the rows. `begun`: an earlier process has frozen the source, and may have copied its rows.
    async fn run(&self, target: &mut Connection, begun: bool) -> Result<Moved, MoveError> {
        match self.occupied().await? {
            Some(table) if !begun => {
                return Err(MoveError::To(format!("{table} has rows already: choose an empty database")));
            }
            Some(_) => {}
            None => {
                let copied = match self.freeze().await {
                    Ok(()) => self.copy(target).await,
                    failed => failed,
                };
                if let Err(why) = copied {
                    // No commit was sent, so the target is empty and the source can accept writes again.
                    return Err(if self.thaw().await.is_ok() { why } else { why.frozen() });
                }
                // From here on the target may have all rows, even if the commit returns an error.
                target.commit().await.map_err(|failed| MoveError::To(failed.message).frozen())?;
            }
        }
        self.settle().await.map_err(MoveError::frozen)
    }

    /// Completes the move if both databases have the same rows: drops retired tables, and records the end in
    /// the source.
    async fn settle(&self) -> Result<Moved, MoveError> {
        let moved = self.compare().await?;
        let retired = self.retired.iter().map(|table| format!("DROP TABLE \"{table}\""));
        self.on_old(retired.chain(["UPDATE moved_to SET done = true".to_owned()]).collect()).await?;
        if let Address::Sqlite(path) = self.from
            && let Err(why) = tenantry_sqlite::purge(path)
        {
            tracing::warn!(%why, "the source's write-ahead log may still contain rows");
        }
        Ok(moved)
    }

    /// Name of a table of the target that has rows.
    async fn occupied(&self) -> Result<Option<&'static str>, MoveError> {
        for table in &self.schema.0 {
            let page = table.page(self.reads, None, 2).await;
            let (rows, _) = page.map_err(|why| MoveError::To(why.to_string()))?;
            // A migration inserts the row of `leader`.
            if rows.len() > usize::from(table.name == "leader") {
                return Ok(Some(table.name));
            }
        }
        Ok(None)
    }

    /// Copies every row in one transaction, which the caller commits.
    async fn copy(&self, target: &mut Connection) -> Result<(), MoveError> {
        let mut statements = Statements::new(self.schema, self.to.dialect());
        let failed = |failed: Failed| MoveError::To(failed.message);
        target.begin().await.map_err(failed)?;
        for (number, table) in (0u8..).zip(&self.schema.0) {
            let refused = |failed: Failed| MoveError::Copy { table: table.name, why: failed.message };
            target.execute(&format!("DELETE FROM \"{}\"", table.name)).await.map_err(refused)?;
            let (none, set) = (ColumnSet::default(), ColumnSet::first(table.columns.len()));
            let shape =
                Shape { table: number, verb: Verb::Insert, key: none, expect: none, set, bump: false };
            let mut after = None;
            while let Some((rows, last)) = page(table, self.source, after).await? {
                let cells: Vec<Vec<Datum>> = rows.into_iter().map(|row| cells(table, row)).collect();
                let cells: Vec<&[Datum]> = cells.iter().map(Vec::as_slice).collect();
                let copied = target.run(&mut statements, &[Request::Rows(shape, cells)], false).await;
                copied.map_err(|(failed, _)| refused(failed))?;
                after = last;
            }
        }
        Ok(())
    }

    /// Returns an error unless both databases have the same rows.
    async fn compare(&self) -> Result<Moved, MoveError> {
        let mut moved = BTreeMap::new();
        for table in &self.schema.0 {
            let from = Contents::of(table, self.source).await?;
            let to = Contents::of(table, self.reads).await?;
            if from != to {
                return Err(MoveError::Differs { table: table.name, from, to });
            }
            moved.insert(table.name, to);
        }
        Ok(moved)
    }

    /// Makes the source reject writes of all processes, after running writes have ended.
    async fn freeze(&self) -> Result<(), MoveError> {
        let place = self.to.place().replace('\'', "''");
        let mut sql = vec![
            "CREATE TABLE IF NOT EXISTS moved_to (place text NOT NULL, done boolean NOT NULL)".to_owned(),
            "DELETE FROM moved_to".to_owned(),
            format!("INSERT INTO moved_to (place, done) VALUES ('{place}', false)"),
        ];
        let tables = self.schema.0.iter().map(|table| table.name);
        match self.from.dialect() {
            Dialect::Sqlite => sql.extend(tables.flat_map(|table| {
                VERBS.map(|verb| {
                    format!(
                        "CREATE TRIGGER IF NOT EXISTS \"moved_{table}_{verb}\" BEFORE {verb} ON \"{table}\"
                         BEGIN SELECT RAISE(ABORT, '{FROZEN}'); END"
                    )
                })
            })),
            Dialect::Postgres => {
                sql.push(format!(
                    "CREATE OR REPLACE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION USING MESSAGE = '{FROZEN}', ERRCODE = 'object_not_in_prerequisite_state'; END $$"
                ));
                sql.extend(tables.map(|table| {
                    format!(
                        "CREATE OR REPLACE TRIGGER moved BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON \"{table}\"
                         FOR EACH STATEMENT EXECUTE FUNCTION moved()"
                    )
                }));
            }
        }
        self.on_old(sql).await
    }

    /// Lets processes write the old one again.
    async fn thaw(&self) -> Result<(), MoveError> {
        let tables = self.schema.0.iter().map(|table| table.name);
        let mut sql: Vec<String> = match self.from.dialect() {
            Dialect::Sqlite => tables
                .flat_map(|table| {
                    VERBS.map(|verb| format!("DROP TRIGGER IF EXISTS \"moved_{table}_{verb}\""))
                })
                .collect(),
            Dialect::Postgres => {
                let triggers = tables.map(|table| format!("DROP TRIGGER IF EXISTS moved ON \"{table}\""));
                triggers.chain(["DROP FUNCTION IF EXISTS moved()".to_owned()]).collect()
            }
        };
        sql.push("DROP TABLE IF EXISTS moved_to".to_owned());
        self.on_old(sql).await
    }

    /// All of these, or none.
    async fn on_old(&self, sql: Vec<String>) -> Result<(), MoveError> {
        let failed = |failed: Failed| MoveError::From(failed.message);
        let mut old = Connection::open(self.from).await.map_err(failed)?;
        old.begin().await.map_err(failed)?;
        for statement in sql {
            old.execute(&statement).await.map_err(failed)?;
        }
        old.commit().await.map_err(failed)?;
        old.close().await;
        Ok(())
    }
}

/// The next rows after this key; none when there are no more.
async fn page(table: &Table, database: &Reads, after: Option<Key>) -> Result<Option<Page>, MoveError> {
    let page = table.page(database, after, PAGE).await;
    let (rows, last) = page.map_err(|why| MoveError::Copy { table: table.name, why: why.to_string() })?;
    Ok((!rows.is_empty()).then_some((rows, last)))
}

/// A row's values in the order of the table's columns.
fn cells(table: &Table, row: Columns) -> Vec<Datum> {
    let mut row: BTreeMap<&str, Datum> = row.into_iter().collect();
    table.columns.iter().map(|column| row.remove(column.name).unwrap_or(Datum::Null)).collect()
}
