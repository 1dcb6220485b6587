//! Checks the foreign keys of a tenant's rows in shared tables, after they were written while triggers were paused.

use tenantry_model::{Failure, TenantId};
use tenantry_postgres::Session;

use crate::postgres::failure::failure;
use crate::tables::{Catalogue, OWNER, quoted};

/// Name, table and referenced table of each foreign key of a schema, and the columns of both. Those of partitions follow
/// their table's. PostgreSQL 18 has keys that are not enforced.
const KEYS: &str = concat!(
    "SELECT conname::text, child.relname::text AS child, parent.relname::text AS parent, parent.relnamespace::regnamespace::text AS place,
            ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY own (number, n) JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY n) AS here,
            ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY own (number, n) JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY n) AS there
     FROM pg_constraint c JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
     WHERE contype = 'f' AND conparentid = 0 AND to_jsonb(c) ->> 'conenforced' IS DISTINCT FROM 'false' AND ",
    in_schemas!(class "child")
);

/// Returns an error if a row of the tenant refers to a row that is not there.
pub async fn check(
    connection: &mut Session,
    catalogue: &Catalogue,
    schema: &str,
    tenant: TenantId,
) -> Result<(), Failure> {
    for key in connection.rows(KEYS, &[&schema]).await.map_err(failure)? {
        let [name, child, parent, place]: [String; 4] =
            ["conname", "child", "parent", "place"].map(|column| key.get(column));
        let [here, there]: [Vec<String>; 2] = ["here", "there"].map(|columns| key.get(columns));
        let Some(owner) = catalogue.tables.get(&child).and_then(|table| table.owner) else { continue };
        let set: Vec<String> =
            here.iter().map(|column| format!("child.{} IS NOT NULL", quoted(column))).collect();
        let pairs = here.iter().zip(&there);
        let same: Vec<String> =
            pairs.map(|(here, there)| format!("parent.{} = child.{}", quoted(there), quoted(here))).collect();
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.{} child WHERE child.{OWNER} = {} AND {}
                            AND NOT EXISTS (SELECT FROM {place}.{} parent WHERE {}))",
            quoted(schema),
            quoted(&child),
            owner.literal(tenant),
            set.join(" AND "),
            quoted(&parent),
            same.join(" AND "),
        );
        if connection.one(&sql, &[]).await.map_err(failure)? {
            return Err(Failure::invalid(
                "constraint",
                format!(
                    "a row of `{child}` refers to a row of `{parent}` that is missing (foreign key `{name}`)"
                ),
            ));
        }
    }
    Ok(())
}
