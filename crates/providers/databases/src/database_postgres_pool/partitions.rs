//! Shared tables in parts, by hash of the tenant, for those that asked for it: whatever a migration creates plainly is created
//! partitioned, and all that it says of the table afterwards is said of that. The parts are in a schema of their own that
//! nobody may use, so that everybody comes in through the table that has the policies.

use sqlx::PgConnection;
use tenantry_model::Failure;

use super::guard::stand_schema;
use crate::database_postgres::mark_of_schema;
use crate::migrations::{Dialect, split};

/// Where the parts are.
pub const SCHEMA: &str = "tenantry_pool_partitions";

/// The same file with its tables in so many parts. Of a table that is not created by a plain `CREATE TABLE name (…)` nothing
/// is changed: it stays whole.
pub fn in_parts(sql: &str, parts: u16) -> String {
    if parts == 0 {
        return sql.to_owned();
    }
    let mut all = String::new();
    for statement in split(sql, Dialect::Postgres) {
        all.push_str(statement.text);
        let [first, second] = [0, 1].map(|n| statement.words.get(n).map_or("", String::as_str));
        let is_plain =
            statement.text.trim_end().ends_with(')') && !statement.words.iter().any(|word| word == "AS");
        let is_own = statement.text.to_uppercase().contains("PARTITION BY");
        if (first, second) == ("CREATE", "TABLE") && is_plain && !is_own {
            all.push_str(&format!(" PARTITION BY HASH (tenant_id);{}", fill(parts)));
        }
        all.push_str(";\n");
    }
    all
}

/// What gives every table that has no part yet so many of them. Each lets nobody in by itself, whatever somebody grants.
fn fill(parts: u16) -> String {
    format!(
        "DO $$ DECLARE t record; part text; BEGIN
             FOR t IN SELECT oid, relname FROM pg_catalog.pg_class
                      WHERE relnamespace = 'tenantry_pool'::regnamespace AND relkind = 'p'
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = pg_class.oid) LOOP
                 FOR n IN 0 .. {parts} - 1 LOOP
                     part := format('{SCHEMA}.%I', format('%s_%s', t.oid, n));
                     EXECUTE format('CREATE TABLE %s PARTITION OF tenantry_pool.%I FOR VALUES WITH (MODULUS {parts}, REMAINDER %s)', part, t.relname, n);
                     EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
                 END LOOP;
             END LOOP;
         END $$"
    )
}

/// Makes the schema of the parts if it is missing and wanted. One that is not ours is a failure.
pub async fn stand(connection: &mut PgConnection, parts: u16) -> Result<(), Failure> {
    match mark_of_schema(connection, SCHEMA).await? {
        None if parts == 0 => Ok(()),
        mark => stand_schema(connection, SCHEMA, mark).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_tables_come_in_parts() {
        let file = "-- A table;\ncreate table if not exists \"a;b\" (tenant_id text, PRIMARY KEY (tenant_id));\n\
                    CREATE INDEX i ON t (tenant_id, lower(n));\nCREATE TABLE c AS SELECT f();\n\
                    CREATE TABLE d (tenant_id text) WITH (fillfactor = 70) ;\nCREATE TABLE e (x int) PARTITION BY RANGE (x);\n\
                    DO $$ BEGIN CREATE TABLE f (y int); END $$;";
        let parted = in_parts(file, 4);
        assert_eq!(parted.matches("PARTITION BY HASH").count(), 2, "{parted}");
        assert!(parted.contains("PRIMARY KEY (tenant_id)) PARTITION BY HASH (tenant_id);DO $$"), "{parted}");
        assert_eq!(in_parts(file, 0), file);
    }
}
