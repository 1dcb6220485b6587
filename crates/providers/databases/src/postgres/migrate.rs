//! Applies migrations to a schema: each file once, in one transaction with its record. All files of a new
//! schema go to the server in one round trip. The caller holds the schema's lock.

use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation};
use tenantry_postgres::{Row, Session};

use super::catalogue::{self, LOOKUP_POLICY};
use super::extensions::Extensions;
use super::failure::{failure, run_statement};
use super::protection::Protection;
use super::server::run;
use crate::migrations::{self, Applied, Migration, Statement, for_one_transaction};
use crate::tables::{Catalogue, literal, quoted};

/// Table of applied migrations in every tenant schema.
pub const TABLE: &str = "_migrations";
/// Sequence that numbers its rows; PostgreSQL gives it this name.
pub const POSITIONS: &str = "_migrations_position_seq";

/// Ends a file: checks its deferred constraints, as the end of its transaction does, and removes the role, the cursors and the
/// temporary objects that it leaves in the session, which goes on with the next file or tenant. In a transaction of several
/// files, the constraints are deferred again for the next one; ALL would also hold for those that it creates. `RESET ALL`
/// undoes settings besides.
pub const END_FILE: &str = concat!(
    "RESET SESSION AUTHORIZATION; RESET ROLE;
    DO $$ DECLARE checked text; deferred text; BEGIN
        SELECT string_agg(name, ', '), string_agg(name, ', ') FILTER (WHERE all_deferred) INTO checked, deferred
        FROM (SELECT format('%I.%I', nspname, conname) AS name, bool_and(condeferred) AS all_deferred
              FROM pg_catalog.pg_constraint JOIN pg_catalog.pg_namespace n ON n.oid = connamespace
              WHERE n.oid IN (",
    own_schemas!("current_schema()"),
    ") GROUP BY 1 HAVING bool_or(condeferrable)) named;
        IF checked IS NOT NULL THEN EXECUTE concat('SET CONSTRAINTS ', checked, ' IMMEDIATE'); END IF;
        IF deferred IS NOT NULL THEN EXECUTE concat('SET CONSTRAINTS ', deferred, ' DEFERRED'); END IF;
    END $$;
    CLOSE ALL; DISCARD TEMP"
);

/// A schema to migrate.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Schema name.
    pub schema: &'a str,
    /// What the schema's tables hold.
    pub isolation: Isolation,
    /// The extensions of its database.
    pub extensions: &'a Extensions,
    /// What keeps tenants apart in it; none if it belongs to one tenant.
    pub protection: Option<&'a dyn Protection>,
}

/// The result of a migration run.
pub struct Migrated {
    /// The schema's tables.
    pub catalogue: Catalogue,
    /// Whether a file was applied.
    pub applied: bool,
}

impl<'a> Target<'a> {
    /// A schema that belongs to one tenant: files run as they are, and tables need no protection.
    pub fn of_one(schema: &'a str, isolation: Isolation, extensions: &'a Extensions) -> Self {
        Self { schema, isolation, extensions, protection: None }
    }

    /// Applies the missing files and reads the resulting tables.
    pub async fn migrate(
        &self,
        connection: &mut Session,
        migrations: &[Migration],
    ) -> Result<Migrated, Failure> {
        run(connection, own_table(self.schema)).await?;
        let mut applied = false;
        for migration in pending(connection, self.schema, migrations).await? {
            let done =
                self.apply(connection, migration).await.map_err(|f| migrations::bad(migration, None, f));
            run(connection, format!("RESET ALL; {END_FILE}")).await?;
            done?;
            applied = true;
            tracing::info!(file = migration.file, "migration applied");
        }
        // Read again because protection changes the definition, and outside the transaction, whose search
        // path changes how types are written.
        let catalogue = catalogue::read(connection, self.schema, self.isolation).await?;
        Ok(Migrated { catalogue, applied })
    }

    async fn apply(&self, connection: &mut Session, migration: &Migration) -> Result<(), Failure> {
        let path = self.extensions.search_path(self.schema);
        if !migration.transaction {
            run(connection, format!("SET {path}")).await?;
            // Left by an earlier attempt at this file: with IF NOT EXISTS, the next one would leave them as they are.
            for index in invalid_indexes(connection, self.schema).await? {
                run(connection, format!("DROP INDEX {index}")).await?;
            }
            self.run_statements(connection, migration).await?;
            if let Some(index) = invalid_indexes(connection, self.schema).await?.first() {
                return Err(Failure::fatal(
                    "bad_schema",
                    format!(
                        "the index {index} is not valid: its CREATE INDEX CONCURRENTLY has failed; check the rows of its table"
                    ),
                ));
            }
        }
        let mut transaction = connection.begin().await.map_err(failure)?;
        run(&mut transaction, format!("SET LOCAL {path}")).await?;
        if migration.transaction {
            self.run_statements(&mut transaction, migration).await?;
            // Tables that the file still uses cannot be protected.
            let left = run(&mut transaction, END_FILE.to_owned()).await;
            left.map_err(|failure| migrations::bad(migration, Some(migration.last_line()), failure))?;
        }
        if let Some(protection) = self.protection {
            let found = protection.bypasses(&mut transaction, self.schema).await?;
            if !found.is_empty() {
                return Err(Failure::fatal("bad_schema", found.join("; ")));
            }
        }
        // A later file may correct tables that break a rule; the last one must leave none.
        let (catalogue, _) = catalogue::inspect(&mut transaction, self.schema, self.isolation).await?;
        let protect = self.protection.map(|protection| protection.protect(&catalogue)).unwrap_or_default();
        let evidence = evidence(self.schema, migration);
        run(&mut transaction, format!("{protect};{evidence}")).await?;
        transaction.commit().await.map_err(failure)
    }

    /// Runs a file's statements one by one, so that a failure names the line.
    async fn run_statements(&self, connection: &mut Session, migration: &Migration) -> Result<(), Failure> {
        for statement in &migration.statements {
            let sql = runnable(statement, self.schema, self.extensions, self.protection);
            let ran = run_statement(connection, &sql).await;
            ran.map_err(|(failure, line)| migrations::bad(migration, Some(statement.line + line), failure))?;
        }
        Ok(())
    }
}

/// The statements that make a table a lookup table. Where tables belong to one tenant, the policy has no effect, because
/// row level security is off.
pub fn mark(table: &str) -> String {
    format!(
        "DROP POLICY IF EXISTS {LOOKUP_POLICY} ON {table}; CREATE POLICY {LOOKUP_POLICY} ON {table} FOR SELECT USING (true)"
    )
}

/// A statement of a file as it runs in a schema.
pub fn runnable(
    statement: &Statement,
    schema: &str,
    extensions: &Extensions,
    protection: Option<&dyn Protection>,
) -> String {
    let sql = statement.sql(schema, &extensions.members);
    match (protection, statement.lookup_table()) {
        (_, Some(table)) => format!("{sql};{}", mark(table)),
        (Some(protection), None) => protection.prepare(&sql, schema),
        (None, None) => sql.into_owned(),
    }
}

/// All statements that create a new schema's tables, as one text; none if a file cannot run in a transaction.
pub fn baseline(schema: &str, extensions: &Extensions, migrations: &[Migration]) -> Option<String> {
    if !migrations.iter().all(|migration| migration.transaction) {
        return None;
    }
    let path = extensions.search_path(schema);
    let mut sql = format!("{};", own_table(schema));
    for migration in &for_one_transaction(migrations) {
        sql.push_str(&format!("SET LOCAL {path};"));
        for statement in &migration.statements {
            sql.push_str(&runnable(statement, schema, extensions, None));
            sql.push_str(";\n");
        }
        sql.push_str(&format!("{END_FILE}; {}; RESET ALL;", evidence(schema, migration)));
    }
    Some(sql)
}

/// Version of what Tenantry itself adds to the files: how it runs them, its own table, privileges, and what it rejects. Raise
/// it with a change after which the same files make another schema, or may be rejected: template databases and warm
/// schemas and databases of earlier versions are not used then.
const RULES: u32 = 1;

/// Short hash of what these files make of an empty schema. It includes the administrator, who owns the
/// tables.
pub fn recipe(administrator: &str, migrations: &[Migration]) -> String {
    let mut hash = Sha256::new_with_prefix(RULES.to_be_bytes());
    hash.update(administrator);
    for migration in migrations {
        hash.update([0]);
        hash.update(migration.key());
        hash.update([0]);
        hash.update(&migration.checksum);
    }
    hex::encode(hash.finalize()).chars().take(16).collect()
}

/// The applied files, oldest first; none if the schema has no table of them.
pub async fn applied(connection: &mut Session, schema: &str) -> Result<Vec<Applied>, Failure> {
    let there = "SELECT to_regclass($1) IS NOT NULL";
    if !connection.one::<bool>(there, &[&table(schema)]).await.map_err(failure)? {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT key, version, file, checksum FROM {} ORDER BY position", table(schema));
    let rows = connection.rows(&sql, &[]).await.map_err(failure)?;
    let one = |row: &Row| Applied {
        key: row.get("key"),
        version: row.get("version"),
        file: row.get("file"),
        checksum: row.get("checksum"),
    };
    Ok(rows.iter().map(one).collect())
}

/// Whether the schema has an earlier text of a file that replaces it.
pub async fn keeps_replaced(
    connection: &mut Session,
    schema: &str,
    migrations: &[Migration],
) -> Result<bool, Failure> {
    let applied = applied(connection, schema).await?;
    Ok(migrations.iter().any(|migration| applied.iter().any(|applied| migration.replaces(applied))))
}

/// The qualified name of the table of applied migrations.
pub fn table(schema: &str) -> String {
    format!("{}.{TABLE}", quoted(schema))
}

/// The qualified name of the sequence that numbers its rows.
pub fn positions(schema: &str) -> String {
    format!("{}.{POSITIONS}", quoted(schema))
}

/// The files that are not applied to a schema yet, which may not exist.
pub async fn pending<'a>(
    connection: &mut Session,
    schema: &str,
    migrations: &'a [Migration],
) -> Result<&'a [Migration], Failure> {
    let before = applied(connection, schema).await?;
    migrations::pending(migrations, &before)
}

/// The indexes of a schema and of those beside it that are not valid, by qualified name. An index of a partitioned table is valid once every
/// partition has it.
async fn invalid_indexes(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    connection
        .all(
            concat!(
                "SELECT format('%I.%I', nspname, relname) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
             JOIN pg_namespace n ON n.oid = relnamespace
             WHERE n.oid IN (",
                own_schemas!(),
                ") AND relkind = 'i' AND NOT indisvalid ORDER BY 1"
            ),
            &[&schema],
        )
        .await
        .map_err(failure)
}

fn own_table(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
            position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            key        text NOT NULL UNIQUE,
            version    text NOT NULL,
            file       text NOT NULL,
            checksum   text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )",
        table(schema)
    )
}

fn evidence(schema: &str, migration: &Migration) -> String {
    let Migration { version, file, checksum, .. } = migration;
    let values = [&migration.key(), version, file, checksum].map(|text| literal(text)).join(", ");
    format!("INSERT INTO {} (key, version, file, checksum) VALUES ({values})", table(schema))
}
