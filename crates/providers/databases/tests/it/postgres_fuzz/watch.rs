//! What a case compares: all rows of a tenant, all that a login can read, and all objects of the database.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::fill::{literal, quoted};

/// Schemas of the server, of Tenantry's list, and of extensions, which stay when a tenant is removed or a set is refused.
const OWN: &str = "'pg_catalog', 'information_schema', 'pg_toast', 'tenantry', 'beside', 'extensions'";

/// All rows of a schema by table; with `tenant`, of shared tables its own only. The tenant's id reads `OWN`, so that two
/// tenants' rows can be compared.
pub async fn dump(
    administrator: &mut PgConnection,
    schema: &str,
    tenant: &str,
    is_shared: bool,
) -> Result<BTreeMap<String, String>, String> {
    let tables = "SELECT relname::text, relkind::text FROM pg_class
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind IN ('r', 'p', 'm') AND NOT relispartition
          AND relname <> '_migrations' ORDER BY 1";
    let tables = sqlx::query(tables).bind(schema).fetch_all(&mut *administrator).await.map_err(text)?;
    let mut dump = BTreeMap::new();
    for row in tables {
        let (table, kind): (String, String) = (row.get(0), row.get(1));
        let only = if kind == "r" { "ONLY" } else { "" };
        let own =
            if is_shared { format!("WHERE tenant_id::text = {}", literal(tenant)) } else { String::new() };
        let from = format!("{only} {}.{} x {own}", quoted(schema), quoted(&table));
        let rows = rows(administrator, &from).await.map_err(|error| format!("{table}: {error}"))?;
        dump.insert(table, rows.replace(tenant, "OWN"));
    }
    Ok(dump)
}

/// All that a login can read: the rows of every relation, and the results of every function without arguments, or the
/// SQLSTATE with which the server denies them. Changes nothing.
pub async fn observe(
    administrator: &mut PgConnection,
    session: &mut PgConnection,
) -> Result<BTreeMap<String, String>, String> {
    let sources = format!(
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ({OWN}) AND nspname !~ '^pg_(toast_)?temp_'
         UNION ALL SELECT format('%I.%I()', nspname, proname) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
         WHERE pronargs = 0 AND prokind = 'f' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND nspname NOT IN ({OWN}) ORDER BY 1"
    );
    let sources: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(sources)).fetch_all(administrator).await.map_err(text)?;
    let mut seen = BTreeMap::new();
    for source in sources {
        super::fill::run(session, "BEGIN READ ONLY").await?;
        let read = rows(session, &format!("{source} x")).await;
        super::fill::run(session, "ROLLBACK").await?;
        seen.insert(source, read.unwrap_or_else(|error| error));
    }
    Ok(seen)
}

async fn rows(session: &mut PgConnection, from: &str) -> Result<String, String> {
    let sql = format!("SELECT coalesce(string_agg(x::text, E'\\n' ORDER BY x::text), '') FROM {from}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(session).await.map_err(|error| {
        match error.as_database_error() {
            Some(error) => format!("SQLSTATE {}: {}", error.code().unwrap_or_default(), error.message()),
            None => format!("lost: {error}"),
        }
    })
}

/// Everything that migrations and tenants create in a database and on its server, as far as it belongs to this
/// administrator, or to roles of these names. Without Tenantry's own schemas.
pub async fn objects(
    superuser: &mut PgConnection,
    administrator: &str,
    names: &[&str],
) -> Result<Vec<String>, String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let sql = format!(
        "SELECT format('schema %s', nspname) FROM pg_namespace
         WHERE nspname NOT IN ({OWN}, 'public', 'tenantry_pool', 'tenantry_pool_partitions') AND nspname !~ '^pg_(toast_)?temp_'
         UNION ALL SELECT format('relation %s.%s', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                   WHERE nspname NOT IN ({OWN}) AND nspname !~ '^pg_(toast_)?temp_'
         UNION ALL SELECT format('function %s', p.oid::regprocedure) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname NOT IN ({OWN})
         UNION ALL SELECT format('type %s', t.oid::regtype) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
                   WHERE nspname NOT IN ({OWN}) AND nspname !~ '^pg_(toast_)?temp_'
         UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata
         UNION ALL SELECT format('default privileges %s %s', defaclrole::regrole, defaclacl) FROM pg_default_acl
         UNION ALL SELECT format('extension %s in %s', extname, extnamespace::regnamespace) FROM pg_extension
                   WHERE extnamespace IS DISTINCT FROM to_regnamespace('extensions')
         UNION ALL SELECT format('event trigger %s', evtname) FROM pg_event_trigger
         UNION ALL SELECT format('publication %s', pubname) FROM pg_publication
         UNION ALL SELECT format('server %s', srvname) FROM pg_foreign_server
         UNION ALL SELECT format('role %s', rolname) FROM pg_roles WHERE rolname::text = ANY ($2::text[]) OR rolname ^@ 'fuzz_made'
         UNION ALL SELECT format('database %s', datname) FROM pg_database
                   WHERE (datdba = (SELECT oid FROM pg_roles WHERE rolname::text = $1::text) OR datname ^@ 'fuzz_made') AND datname <> current_database()
         UNION ALL SELECT format('beside %s %s', beside, (SELECT relacl FROM pg_class WHERE oid = 'beside.beside'::regclass)) FROM beside.beside
         UNION ALL SELECT format('prepared %s', gid) FROM pg_prepared_xacts WHERE database = current_database()
         UNION ALL SELECT format('slot %s', slot_name) FROM pg_replication_slots WHERE database = current_database()
         ORDER BY 1"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(administrator)
        .bind(names)
        .fetch_all(superuser)
        .await
        .map_err(|error| format!("the objects cannot be read: {error}"))
}

fn text(error: sqlx::Error) -> String {
    error.to_string()
}

/// The first difference of two maps, in a few words.
pub fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Option<String> {
    let keys = before.keys().chain(after.keys());
    let key = keys.into_iter().find(|key| before.get(*key) != after.get(*key))?;
    Some(format!("{key}: {:?} became {:?}", before.get(key), after.get(key)))
}
