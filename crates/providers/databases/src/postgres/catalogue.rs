//! Reads a schema's tables, columns, keys and policies from the server. Rejects shared tables in which a tenant could
//! reach another tenant's rows. A schema or database of a tenant's own may have any tables.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_model::{Failure, Isolation, TenantId};
use tenantry_postgres::{Row, Session};

use super::failure::failure;
use super::shape::shape;
use crate::shape::Shape;
use crate::tables::{
    self, Catalogue, Column, OWNER, OwnerType, Table, bad_schema, cycle, deletion_order, lookup_reference,
    owned_lookup, quoted,
};

/// The policy that makes a shared table a lookup table. The table keeps it when it is renamed.
pub const LOOKUP_POLICY: &str = "tenantry_lookup";

/// Reads a schema of this isolation, with its definition. The failure names each table that breaks a rule, and what to
/// change.
pub async fn read(
    connection: &mut Session,
    schema: &str,
    isolation: Isolation,
) -> Result<Catalogue, Failure> {
    let catalogue = read_tables(connection, schema, isolation).await?;
    Ok(Catalogue { shape: shape(connection, schema, None).await?, ..catalogue })
}

/// The same without the definition.
pub async fn read_tables(
    connection: &mut Session,
    schema: &str,
    isolation: Isolation,
) -> Result<Catalogue, Failure> {
    match inspect(connection, schema, isolation).await? {
        (catalogue, faults) if faults.is_empty() => Ok(catalogue),
        (_, faults) => Err(bad_schema(faults)),
    }
}

/// Reads a schema of this isolation without its definition, and how its tables break the rules: a sentence for each fault.
pub async fn inspect(
    connection: &mut Session,
    schema: &str,
    isolation: Isolation,
) -> Result<(Catalogue, Vec<String>), Failure> {
    let mut faults = Vec::new();
    let mut tables = tables(connection, schema).await?;
    let is_whole = isolation != Isolation::Pool;
    let mut lookups = BTreeSet::new();
    for (name, table) in tables.iter_mut().filter(|(_, table)| is_whole && table.is_lookup) {
        table.is_lookup = false;
        lookups.insert(name.clone());
    }
    let references = references(connection, schema).await?;
    let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Reference { child, parent, .. } in references.iter().filter(|it| it.child != it.parent) {
        parents.entry(child.clone()).or_default().insert(parent.clone());
    }
    let deletion_order = deletion_order(&tables, parents);
    match isolation {
        Isolation::Pool => {
            faults.extend(unowned(&tables));
            faults.extend(keys(connection, schema).await?);
            faults.extend(heirs(connection, schema).await?);
            faults.extend(references.iter().filter_map(|reference| reference.fault(&tables)));
            faults.extend(deletion_order.iter().filter(|group| group.len() > 1).map(|group| cycle(group)));
        }
        Isolation::Schema => faults = hidden(connection, schema).await?,
        Isolation::Database => {
            faults = outside(connection, schema).await?;
            faults.extend(indistinct(connection, schema).await?);
            faults.extend(hidden(connection, schema).await?);
        }
    }
    Ok((Catalogue { tables, deletion_order, is_whole, lookups, shape: Shape::new() }, faults))
}

/// Whether any table that the schema has now holds rows of this tenant.
pub async fn holds(connection: &mut Session, schema: &str, tenant: TenantId) -> Result<bool, Failure> {
    let tables = tables(connection, schema).await?;
    let of = |(name, table): (&String, &Table)| {
        let owner = table.owner?;
        let own = owner.literal(tenant);
        Some(format!("EXISTS (SELECT FROM {}.{} WHERE {OWNER} = {own})", quoted(schema), quoted(name)))
    };
    let any: Vec<String> = std::iter::once("false".to_owned()).chain(tables.iter().filter_map(of)).collect();
    connection.one(&format!("SELECT {}", any.join(" OR ")), &[]).await.map_err(failure)
}

/// The tables of a schema and of those beside it, without partitions and without the table of applied migrations.
pub async fn tables(connection: &mut Session, schema: &str) -> Result<BTreeMap<String, Table>, Failure> {
    let rows = connection.rows(
        concat!("SELECT ", name_of!(class "pg_class"), " AS key, nullif(nspname, $1)::text AS schema, relname::text, relkind = 'p' AS partitioned, attname::text, format_type(atttypid, atttypmod) AS kind, attnotnull,
                attgenerated <> '' AS computed, attgenerated <> '' OR attidentity = 'a' AS made,
                EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = $3) AS lookup
         FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
         WHERE ", in_schemas!(class "pg_class"), " AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> $2
         ORDER BY pg_class.oid, attnum"),
        &[&schema, &super::migrate::TABLE, &LOOKUP_POLICY],
    )
    .await
    .map_err(failure)?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in rows {
        let table = tables.entry(row.get("key")).or_default();
        table.elsewhere = row.get::<_, Option<String>>("schema").map(|schema| [schema, row.get("relname")]);
        (table.is_partitioned, table.is_lookup) = (row.get("partitioned"), row.get("lookup"));
        let Some(name) = row.get::<_, Option<String>>("attname") else { continue };
        let kind: String = row.get("kind");
        // Any other column of this name means something else to the product.
        let (generated, computed): (bool, bool) = (row.get("made"), row.get("computed"));
        table.owner = table.owner.or(OwnerType::of(&kind).filter(|_| name == OWNER && !computed));
        if name != OWNER || table.owner.is_none() {
            table.columns.push(Column { name, kind, generated, computed });
        }
    }
    Ok(tables)
}

/// Shared tables whose rows have no tenant, or a name that Tenantry reserves.
fn unowned(tables: &BTreeMap<String, Table>) -> impl Iterator<Item = String> {
    tables.iter().filter_map(|(name, table)| {
        if name.starts_with('_') {
            return Some(format!("table `{name}`: names that begin with an underscore are reserved; rename it"));
        }
        match (table.owner, table.column(OWNER)) {
            (Some(_), _) | (None, Some(_)) if table.is_lookup => Some(owned_lookup(name)),
            (None, None) if table.is_lookup => None,
            (Some(_), _) => None,
            (None, Some(Column { kind, .. })) => Some(format!(
                "table `{name}` cannot be shared by tenants: the type of its `{OWNER}` is {kind}, but must be text or uuid"
            )),
            (None, None) => {
                Some(tables::unowned(name, "`tenant_id` of type text or uuid that its primary key begins with"))
            }
        }
    })
}

/// Shared tables with keys that do not begin with the tenant's id: a unique index without it would tell one tenant about
/// another's rows, and one that does not begin with it makes each tenant pay for the others' rows.
async fn keys(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    let rows = connection.rows(
        concat!("SELECT relname::text, count(*) FILTER (WHERE indisprimary) AS primaries,
                count(*) FILTER (WHERE (indisunique OR indisexclusion) AND attname IS DISTINCT FROM $2) AS strangers
         FROM pg_class LEFT JOIN pg_index ON indrelid = pg_class.oid
         LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = indkey[0] AND attnum > 0
         WHERE ", in_schemas!(class "pg_class"), " AND relkind IN ('r', 'p') AND relname <> $3
           AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = coalesce(pg_partition_root(pg_class.oid), pg_class.oid) AND polname = $4)
         GROUP BY 1 ORDER BY 1"),
        &[&schema, &OWNER, &super::migrate::TABLE, &LOOKUP_POLICY],
    )
    .await
    .map_err(failure)?;
    let mut faults = Vec::new();
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
    Ok(faults)
}

/// Tables that inherit from a lookup table: reading it would show their rows, which its policy admits.
async fn heirs(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    connection
        .all(
            concat!(
                "SELECT format('table `%s` inherits from `%s`, which is marked `tenantry: lookup`, and all tenants would read its rows: leave INHERITS out',
                        child.relname, pg_class.relname)
                 FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid AND polname = $2
                 JOIN pg_inherits ON inhparent = pg_class.oid JOIN pg_class child ON child.oid = inhrelid AND NOT child.relispartition
                 WHERE ",
                in_schemas!(class "pg_class"),
                " ORDER BY 1"
            ),
            &[&schema, &LOOKUP_POLICY],
        )
        .await
        .map_err(failure)
}

/// A foreign key between two tables.
struct Reference {
    child: String,
    parent: String,
    /// Whether it includes both tables' `tenant_id`.
    is_kept: bool,
}

impl Reference {
    /// Without `tenant_id` in the key, a row could refer to another tenant's. Rows of lookup tables belong to none.
    fn fault(&self, tables: &BTreeMap<String, Table>) -> Option<String> {
        let Self { child, parent, is_kept } = self;
        let is_lookup = |name: &String| tables.get(name).is_some_and(|table| table.is_lookup);
        match (is_lookup(child), is_lookup(parent)) {
            (_, true) => return None,
            (true, false) => return Some(lookup_reference(child, parent)),
            (false, false) => {}
        }
        (!is_kept).then(|| format!(
            "table `{child}`: its foreign key to `{parent}` must carry `{OWNER}`, or a row could refer to another tenant's"
        ))
    }
}

/// The foreign keys of a schema's tables; those of partitions count as their table's.
async fn references(connection: &mut Session, schema: &str) -> Result<Vec<Reference>, Failure> {
    let rows = connection
        .rows(
            concat!(
                "SELECT ",
                name_of!(class "child"),
                " AS child, ",
                name_of!(class "parent"),
                " AS parent,
                EXISTS (SELECT 1 FROM unnest(conkey, confkey) AS pair(here, there)
                        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = here
                        JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = there
                        WHERE a.attname = $2 AND b.attname = $2) AS kept
         FROM pg_constraint JOIN pg_class child ON child.oid = coalesce(pg_partition_root(conrelid), conrelid)
         JOIN pg_class parent ON parent.oid = coalesce(pg_partition_root(confrelid), confrelid)
         WHERE contype = 'f' AND conparentid = 0 AND ",
                in_schemas!(class "child")
            ),
            &[&schema, &OWNER],
        )
        .await
        .map_err(failure)?;
    let one = |row: &Row| Reference {
        child: row.get("child"),
        parent: row.get("parent"),
        is_kept: row.get("kept"),
    };
    Ok(rows.iter().map(one).collect())
}

/// Tables of a tenant's own database that are in a schema of another role, which has none of the tenant's tables.
async fn outside(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    connection
        .all(
            concat!(
                "SELECT format('table `%s.%s` is in a schema that is not the administrator''s, so copies of the tenant would not have it: '
                           'run ALTER SCHEMA %I OWNER TO %I, or move the table to another database', nspname, relname, nspname, pg_get_userbyid(datdba))
             FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_database ON datname = current_database()
             WHERE relkind IN ('r', 'p') AND NOT relispartition AND n.oid NOT IN (",
                own_schemas!(),
                ") AND nspname NOT IN ('information_schema', 'extensions') AND NOT nspname ^@ 'pg_'
               AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
             ORDER BY 1"
            ),
            &[&schema],
        )
        .await
        .map_err(failure)
}

/// Tables of several schemas that copies of the tenant could not tell from each other, or from Tenantry's own.
async fn indistinct(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    connection
        .all(
            concat!(
                "SELECT CASE count(*) WHEN 1 THEN format('table `%s`: `_migrations` is the name of Tenantry''s own table: give it another name', name)
                             ELSE format('tables of two schemas are both named `%s`, which has a dot: rename one of them', name) END
                 FROM (SELECT ",
                name_of!(class "c"),
                ", relname <> $2 OR relnamespace = to_regnamespace($1) FROM pg_class c WHERE ",
                in_schemas!(class "c"),
                " AND relkind IN ('r', 'p') AND NOT relispartition) named (name, is_plain)
                 GROUP BY name HAVING count(*) > 1 OR NOT bool_and(is_plain) ORDER BY 1"
            ),
            &[&schema, &super::migrate::TABLE],
        )
        .await
        .map_err(failure)
}

/// Tables of a tenant's own whose rows the administrator does not see: they force row level security on their owner, who
/// may not bypass it.
async fn hidden(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    connection
        .all(
            concat!(
                "SELECT format('table `%s` forces row level security on its owner, so copies of the tenant would miss rows: remove FORCE ROW LEVEL SECURITY, or run ALTER ROLE %I BYPASSRLS',
                        ",
                name_of!(class "pg_class"),
                ", current_user)
                 FROM pg_class WHERE ",
                in_schemas!(class "pg_class"),
                " AND relkind IN ('r', 'p') AND relrowsecurity AND row_security_active(pg_class.oid) ORDER BY 1"
            ),
            &[&schema],
        )
        .await
        .map_err(failure)
}
