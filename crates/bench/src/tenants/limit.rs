//! The limit of a creation: the statements that create a tenant's schema, as one script over one connection,
//! without checks, locks and passwords.

use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry_model::TenantId;

use super::baseline::{self, FILES, TABLES};

/// A SCRAM verifier for which no password is known.
const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A new name of a schema.
pub fn name() -> String {
    format!("limit_{}", TenantId::new().suffix())
}

/// Creates role, schema, tables, migration records, privileges and a list entry.
pub fn script(name: &str, database: &str) -> String {
    let mut sql = format!(
        "CREATE ROLE {name} LOGIN CONNECTION LIMIT 20 PASSWORD '{VERIFIER}'; COMMENT ON ROLE {name} IS 'tenantry:{name}';
         ALTER ROLE {name} IN DATABASE {database} SET search_path = {name}, pg_temp;
         CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS 'tenantry:{name}';
         CREATE TABLE {name}._migrations (
             position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL UNIQUE, version text NOT NULL,
             file text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());"
    );
    for (n, (file, text)) in baseline::files().into_iter().enumerate() {
        sql.push_str(&format!(
            "SET LOCAL search_path = {name}, pg_temp; {text};
             INSERT INTO {name}._migrations (key, version, file, checksum) VALUES ('{n}', '{n}', '{file}', '{VERIFIER}');"
        ));
    }
    // By name, because `ALL TABLES IN SCHEMA` is slow in a database with many schemas.
    let tables: Vec<String> = (0..TABLES).map(|n| format!("{name}.{}", baseline::name(n))).collect();
    let tables = tables.join(", ");
    sql.push_str(&format!(
        "GRANT USAGE ON SCHEMA {name} TO {name};
         GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {tables} TO {name};
         REVOKE ALL ON {name}._migrations FROM {name};
         INSERT INTO tenantry.homes (isolation, tenant_id, name, claim, resource_id, sealed, schema, completed)
         VALUES ('limit', '{name}', '{name}', 'tenantry:{name}', '{name}', '{VERIFIER}', '{VERIFIER}', now()::text);"
    ));
    sql
}

/// Counts of the newest schema: tables, indexes, constraints, and tables that its role may use.
async fn counted(connection: &mut PgConnection, like: &str) -> Result<(i64, i64, i64, i64)> {
    let sql = format!(
        "WITH one AS (SELECT oid, nspname FROM pg_namespace WHERE nspname LIKE '{like}' ORDER BY oid DESC LIMIT 1),
              tables AS (SELECT c.* FROM pg_class c JOIN one ON relnamespace = one.oid)
         SELECT (SELECT count(*) FROM tables WHERE relkind = 'r'), (SELECT count(*) FROM tables WHERE relkind = 'i'),
                (SELECT count(*) FROM pg_constraint JOIN one ON connamespace = one.oid),
                (SELECT count(*) FROM tables WHERE relkind = 'r' AND has_table_privilege((SELECT nspname FROM one), oid, 'SELECT, INSERT'))"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await?)
}

/// Returns an error unless the schemas of limit and provider have the same counts.
pub async fn check_equal(mut connection: PgConnection) -> Result<()> {
    let provider = counted(&mut connection, "tenant\\_%").await?;
    let limit = counted(&mut connection, "limit\\_%").await?;
    ensure!(
        provider == limit,
        "the provider creates {provider:?} and the limit {limit:?}: update crates/bench/src/tenants/limit.rs"
    );
    ensure!(limit.0 == i64::try_from(TABLES + 1)?, "{FILES} files make {} tables", limit.0);
    Ok(connection.close().await?)
}
