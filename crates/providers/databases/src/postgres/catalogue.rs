//! Reads a schema's tables, columns, keys and policies from the server. Rejects a schema in which a tenant
//! could reach another tenant's rows if they shared it, so that the same migrations serve all three
//! isolations.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_model::Failure;
use tenantry_postgres::{Error, Row, Session};

use super::failure::failure;
use crate::shape::Shape;
use crate::tables::{Catalogue, Column, OWNER, Table, deletion_order, quoted};

/// Reads the schema and checks that it keeps tenants apart. The failure names the table and what to change.
pub async fn read(connection: &mut Session, schema: &str) -> Result<Catalogue, Failure> {
    let mut faults = Vec::new();
    let tables = columns(connection, schema, &mut faults).await?;
    keys(connection, schema, &mut faults).await?;
    let parents = references(connection, schema, &mut faults).await?;
    if let Some(fault) = faults.into_iter().next() {
        return Err(Failure::fatal("bad_schema", fault));
    }
    let deletion_order = deletion_order(&tables, parents)?;
    Ok(Catalogue { tables, deletion_order, shape: shape(connection, schema).await? })
}

/// The definition of every column, constraint, index, policy, trigger and function of the schema. NOT NULL
/// counts as part of its column: PostgreSQL 18 lists it as a constraint as well, earlier releases do not.
pub async fn shape(connection: &mut Session, schema: &str) -> Result<Shape, Failure> {
    let rows = connection.rows(
        concat!("WITH own AS (SELECT pg_class.*, format('%s `%s`', CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                                                            WHEN 'f' THEN 'foreign table' ELSE 'table' END, relname) AS owner
                      FROM pg_class WHERE ", in_schema!(class "pg_class"), " AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f'))
         SELECT owner, '', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) ELSE relkind::text END FROM own
         UNION ALL SELECT owner, 'row level security', concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM own WHERE relkind IN ('r', 'p')
         UNION ALL SELECT owner, format('column `%s`', attname), concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull, attgenerated,
                                                                           pg_get_expr(adbin, adrelid))
                   FROM own JOIN pg_attribute ON attrelid = own.oid AND attnum > 0 AND NOT attisdropped AND relkind <> 'S'
                   LEFT JOIN pg_attrdef ON adrelid = own.oid AND adnum = attnum
         UNION ALL SELECT owner, format('constraint `%s`', conname), concat_ws(' ', contype, convalidated, pg_get_constraintdef(c.oid))
                   FROM own JOIN pg_constraint c ON conrelid = own.oid AND contype <> 'n'
         UNION ALL SELECT owner, format('index `%s`', i.relname), concat_ws(' ', indisvalid, pg_get_indexdef(indexrelid))
                   FROM own JOIN pg_index ON indrelid = own.oid JOIN pg_class i ON i.oid = indexrelid
         UNION ALL SELECT owner, format('policy `%s`', polname), concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
                   FROM own JOIN pg_policy ON polrelid = own.oid
         UNION ALL SELECT owner, format('trigger `%s`', tgname), concat_ws(' ', tgenabled, tgtype)
                   FROM own JOIN pg_trigger ON tgrelid = own.oid AND NOT tgisinternal
         UNION ALL SELECT owner, 'partitions', count(*)::text FROM own JOIN pg_inherits ON inhparent = own.oid GROUP BY owner
         UNION ALL SELECT format('function `%s(%s)`', proname, pg_get_function_identity_arguments(oid)), '', concat_ws(' ', prosecdef, md5(prosrc)) FROM pg_proc
                   WHERE ", in_schema!(proc "pg_proc")),
        &[&schema],
    ).await.map_err(failure)?;
    let (bare, quoted) = (format!("{schema}."), format!("{}.", quoted(schema)));
    // Definitions name the schema or not, depending on the session's search path.
    let unqualified = |row: &Row, column: usize| {
        let text: &str = row.try_get(column)?;
        Ok::<_, Error>(text.replace(&bare, "").replace(&quoted, ""))
    };
    let part = |row: &Row| Ok((unqualified(row, 0)?, unqualified(row, 1)?, unqualified(row, 2)?));
    rows.iter().map(part).collect::<Result<_, Error>>().map_err(failure)
}

/// Whether any table that the schema has now holds rows of this tenant.
pub async fn holds(connection: &mut Session, schema: &str, tenant: &str) -> Result<bool, Failure> {
    let tables = connection.all::<String>(
        concat!("SELECT relname::text FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = $2 AND NOT attisdropped
         WHERE ", in_schema!(class "pg_class"), " AND relkind IN ('r', 'p') AND NOT relispartition"),
        &[&schema, &OWNER],
    ).await.map_err(failure)?;
    let of = |table: &String| {
        format!("EXISTS (SELECT FROM {}.{} WHERE {OWNER} = $1)", quoted(schema), quoted(table))
    };
    let any: Vec<String> = std::iter::once("false".to_owned()).chain(tables.iter().map(of)).collect();
    connection.one(&format!("SELECT {}", any.join(" OR ")), &[&tenant]).await.map_err(failure)
}

async fn columns(
    connection: &mut Session,
    schema: &str,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, Table>, Failure> {
    let rows = connection.rows(
        concat!("SELECT relname::text, attname::text, format_type(atttypid, atttypmod) AS kind, attnotnull, attgenerated <> '' OR attidentity = 'a' AS made
         FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
         WHERE ", in_schema!(class "pg_class"), " AND relkind IN ('r', 'p') AND NOT relispartition
         ORDER BY relname, attnum"),
        &[&schema],
    )
    .await
    .map_err(failure)?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut owned = BTreeSet::new();
    for row in rows {
        let (name, column): (String, String) = (row.get("relname"), row.get("attname"));
        if name == super::migrate::TABLE {
            continue;
        }
        let table = tables.entry(name.clone()).or_default();
        let kind: String = row.get("kind");
        if column != OWNER {
            table.columns.push(Column { name: column, kind, generated: row.get("made") });
        } else if kind == "text" && row.get("attnotnull") {
            owned.insert(name);
        }
    }
    for name in tables.keys() {
        if name.starts_with('_') {
            faults
                .push(format!("table `{name}`: names that begin with an underscore are reserved; rename it"));
        } else if !owned.contains(name) {
            faults.push(format!(
                "table `{name}` cannot be shared by tenants: it needs a column `{OWNER} text NOT NULL` that its primary key begins with"
            ));
        }
    }
    Ok(tables)
}

/// Checks that keys begin with the tenant's id: a unique index without it would tell one tenant about
/// another's rows, and one that does not begin with it makes each tenant pay for the others' rows.
async fn keys(connection: &mut Session, schema: &str, faults: &mut Vec<String>) -> Result<(), Failure> {
    let rows = connection.rows(
        concat!("SELECT relname::text, count(*) FILTER (WHERE indisprimary) AS primaries,
                count(*) FILTER (WHERE (indisunique OR indisexclusion) AND attname IS DISTINCT FROM $2) AS strangers
         FROM pg_class LEFT JOIN pg_index ON indrelid = pg_class.oid
         LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = indkey[0] AND attnum > 0
         WHERE ", in_schema!(class "pg_class"), " AND relkind IN ('r', 'p') AND relname <> $3
         GROUP BY 1 ORDER BY 1"),
        &[&schema, &OWNER, &super::migrate::TABLE],
    )
    .await
    .map_err(failure)?;
    for row in rows {
        let table: String = row.get("relname");
        if row.get::<_, i64>("primaries") == 0 {
            faults.push(format!("table `{table}` needs a primary key that begins with `{OWNER}`"));
        }
        if row.get::<_, i64>("strangers") > 0 {
            faults.push(format!(
                "table `{table}`: every unique index must begin with `{OWNER}`, or one tenant could find out what another one has"
            ));
        }
    }
    Ok(())
}

/// The tables that each table refers to. Checks that every foreign key carries `tenant_id`: otherwise a row
/// could refer to another tenant's.
async fn references(
    connection: &mut Session,
    schema: &str,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let rows = connection.rows(
        concat!("SELECT child.relname::text AS child, parent.relname::text AS parent,
                EXISTS (SELECT 1 FROM unnest(conkey, confkey) AS pair(here, there)
                        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = here
                        JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = there
                        WHERE a.attname = $2 AND b.attname = $2) AS kept
         FROM pg_constraint JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
         WHERE contype = 'f' AND conparentid = 0 AND ", in_schema!(class "child")),
        &[&schema, &OWNER],
    )
    .await
    .map_err(failure)?;
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let (child, parent): (String, String) = (row.get("child"), row.get("parent"));
        if !row.get::<_, bool>("kept") {
            faults.push(format!(
                "table `{child}`: its foreign key to `{parent}` must carry `{OWNER}`, or a row could refer to another tenant's"
            ));
        }
        if child != parent {
            parents.entry(child).or_default().insert(parent);
        }
    }
    Ok(parents)
}
