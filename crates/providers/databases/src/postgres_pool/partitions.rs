//! Partitions shared tables by hash of the tenant, if configured: rewrites plain CREATE TABLE statements of
//! migrations. Partitions are in a schema of their own without privileges, so all access goes through the
//! table that has the policies.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::guard::{self, ensure_schema};
use crate::migrations::{Dialect, split, tokens};
use crate::postgres::schema_tag;

/// Schema of the partitions.
pub const SCHEMA: &str = "tenantry_pool_partitions";

/// Rewrites a file so that its tables in this schema have this many partitions. Only plain `CREATE TABLE name (…)`
/// statements are rewritten; other tables are not partitioned.
pub fn partitioned(sql: &str, parts: u16, schema: &str) -> String {
    if parts == 0 {
        return sql.to_owned();
    }
    let mut all = String::new();
    for statement in split(sql, Dialect::Postgres) {
        all.push_str(statement.text);
        let [first, second] = [0, 1].map(|n| statement.words.get(n).map_or("", String::as_str));
        if (first, second) == ("CREATE", "TABLE") && is_plain(statement.text) {
            all.push_str(&format!(" PARTITION BY HASH (tenant_id);{}", create_partitions(parts, schema)));
        }
        all.push_str(";\n");
    }
    all
}

/// Whether a statement ends with the parenthesis that opens after the table's name.
fn is_plain(statement: &str) -> bool {
    let tokens = tokens(statement);
    let mut open = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => open += 1,
            ")" if open == 1 => return index + 1 == tokens.len(),
            ")" => open -= 1,
            _ if open == 0 && token.is_any(&["as", "of"]) => return false,
            _ => {}
        }
    }
    false
}

/// The statement that gives every table without partitions this many. Each has row level security without a
/// policy, so it admits no role by itself, whatever is granted. Those of a trial are in its schema.
fn create_partitions(parts: u16, schema: &str) -> String {
    let place = if schema == guard::SCHEMA { SCHEMA } else { schema };
    format!(
        "DO $$ DECLARE t record; part text; BEGIN
             FOR t IN SELECT oid, relname FROM pg_catalog.pg_class
                      WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'p'
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = pg_class.oid) LOOP
                 FOR n IN 0 .. {parts} - 1 LOOP
                     part := format('{place}.%I', format('%s_%s', t.oid, n));
                     EXECUTE format('CREATE TABLE %s PARTITION OF {schema}.%I FOR VALUES WITH (MODULUS {parts}, REMAINDER %s)', part, t.relname, n);
                     EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
                 END LOOP;
             END LOOP;
         END $$"
    )
}

/// Creates the schema of the partitions if it is missing and wanted. Returns an error if it carries another
/// owner tag.
pub async fn ensure_schema_of_partitions(connection: &mut Session, parts: u16) -> Result<(), Failure> {
    match schema_tag(connection, SCHEMA).await? {
        None if parts == 0 => Ok(()),
        tag => ensure_schema(connection, SCHEMA, tag).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_tables_are_partitioned() {
        let file = "-- A table;\ncreate table if not exists \"a;b\" (tenant_id text, PRIMARY KEY (tenant_id));\n\
                    CREATE INDEX i ON t (tenant_id, lower(n));\nCREATE TABLE c AS SELECT f();\n\
                    CREATE TABLE d (tenant_id text) WITH (fillfactor = 70) ;\nCREATE TABLE e (x int) PARTITION BY RANGE (x);\n\
                    DO $$ BEGIN CREATE TABLE f (y int); END $$;";
        let parted = partitioned(file, 4, guard::SCHEMA);
        assert_eq!(parted.matches("PARTITION BY HASH").count(), 1, "{parted}");
        assert!(parted.contains("PRIMARY KEY (tenant_id)) PARTITION BY HASH (tenant_id);DO $$"), "{parted}");
        assert_eq!(partitioned(file, 0, guard::SCHEMA), file);
    }
}
