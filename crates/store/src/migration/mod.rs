//! Migrations of Tenantry's own databases: their list, and how the missing ones are applied. A migration that was
//! released never changes; a later one corrects it.
//!
//! A migration is one SQL text for both databases and describes the tables of its release. SQLite stores `jsonb` and
//! `timestamptz` columns as text (timestamps with six fractional digits and `Z`, so that text order is time order).
//! There are no foreign keys, because rows outlive the rows that they refer to (tombstones, audit records, history).

use std::collections::BTreeSet;

use super::connection::Connection;
use super::dialect::Dialect;
use super::failed::Failed;

/// A migration: its name, and its SQL.
pub struct Migration {
    name: &'static str,
    sql: &'static str,
}

/// The migrations of a database.
pub struct Migrations {
    /// Table that records the applied migrations. It has the columns of SeaORM's, which created it in early versions.
    pub table: &'static str,
    /// All migrations that this release knows, in order.
    pub all: &'static [Migration],
}

macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        &[$($crate::migration::Migration { name: $name, sql: include_str!(concat!($name, ".sql")) }),+]
    };
}

/// The migrations of the registry.
pub static REGISTRY: Migrations = Migrations {
    table: "seaql_migrations",
    all: migrations![
        "m0001_registry",
        "m0002_by_tenant",
        "m0003_places",
        "m0004_suspensions",
        "m0005_isolation_reports",
        "m0006_fences",
        "m0007_archives",
        "m0008_leaving",
        "m0010_tenants_plan",
        "m0011_clones",
        "m0012_rotations",
        "m0014_clones_of",
        "m0015_sweeps",
        "m0016_slots",
        "m0017_leader",
        "m0018_failing_since",
        "m0019_sessions",
    ],
};

/// The migrations of the keyring.
pub static KEYRING: Migrations = Migrations {
    table: "keyring_migrations",
    all: migrations!["m0001_keyring", "m0002_journal", "m0003_audit_anchor"],
};

impl Migrations {
    /// Applies the missing migrations in one transaction. Returns an error, as a sentence for the operator, if the
    /// database fails or a newer release has migrated it.
    pub async fn run(&self, connection: &mut Connection, dialect: Dialect) -> Result<(), String> {
        if self.missing(connection, dialect).await?.is_empty() {
            return Ok(());
        }
        self.run_missing(connection, dialect).await.map_err(|failed| failed.message)
    }

    async fn run_missing(&self, connection: &mut Connection, dialect: Dialect) -> Result<(), Failed> {
        connection.begin().await?;
        let table = self.table;
        let bookkeeping = format!(
            "CREATE TABLE IF NOT EXISTS \"{table}\"
             (\"version\" varchar NOT NULL PRIMARY KEY, \"applied_at\" bigint NOT NULL)"
        );
        connection.execute(&dialect.migration(&bookkeeping)).await?;
        // Another process may have applied some of them since `missing` was read.
        let done = self.done(connection).await?;
        for Migration { name, sql } in self.all.iter().filter(|migration| !done.contains(migration.name)) {
            connection.execute(&dialect.migration(sql)).await?;
            let at = tenantry_model::Timestamp::now().seconds();
            let note = format!("INSERT INTO \"{table}\" (version, applied_at) VALUES ('{name}', {at})");
            connection.execute(&note).await?;
        }
        connection.commit().await
    }

    /// Returns the names of the migrations that are not applied yet. An error if the database has a migration that this
    /// release does not know.
    pub async fn missing(
        &self,
        connection: &mut Connection,
        dialect: Dialect,
    ) -> Result<Vec<&'static str>, String> {
        let failed = |failed: Failed| failed.message;
        let there = match dialect {
            Dialect::Sqlite => format!("SELECT name FROM sqlite_schema WHERE name = '{}'", self.table),
            Dialect::Postgres => {
                // Only in the current schema: another schema on the search path may have another application's table.
                format!(
                    "SELECT relname FROM pg_class WHERE relname = '{}' AND relnamespace = to_regnamespace(quote_ident(current_schema()))",
                    self.table
                )
            }
        };
        let done = match connection.texts(&there).await.map_err(failed)?.is_empty() {
            true => BTreeSet::new(),
            false => self.done(connection).await.map_err(failed)?,
        };
        let is_known = |name: &String| self.all.iter().any(|migration| migration.name == *name);
        if let Some(newer) = done.iter().rfind(|name| !is_known(name)) {
            let known = self.all.last().map(|migration| migration.name).unwrap_or_default();
            return Err(format!(
                "a newer release migrated the database (to {newer}); this release supports migrations up to {known}: \
                 start that release, or restore a backup"
            ));
        }
        Ok(self.all.iter().map(|migration| migration.name).filter(|name| !done.contains(*name)).collect())
    }

    /// Names of the applied migrations.
    async fn done(&self, connection: &mut Connection) -> Result<BTreeSet<String>, Failed> {
        let done = format!("SELECT version FROM \"{}\"", self.table);
        Ok(connection.texts(&done).await?.into_iter().collect())
    }
}
