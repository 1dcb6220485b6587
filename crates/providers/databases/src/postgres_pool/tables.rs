//! Isolation checks of the shared tables' catalogue: whether policies bind every role with access, and what
//! bypasses them.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::guard::{Groups, SCHEMA, SESSION_TENANT_UUID};
use crate::postgres::failure;
use crate::tables::{OWNER, OwnerType};
use tenantry_provider::isolation::Findings;

/// Runs the checks.
pub async fn read(connection: &mut Session, findings: &mut Findings, groups: &Groups) -> Result<(), Failure> {
    let reach = [groups.app.as_str(), groups.tenants.as_str()];
    rows_of_tenants(connection, findings, &reach).await?;
    policies(connection, findings).await?;
    for (what, sql) in [
        ("table_owner", OWNED),
        ("views", VIEWS),
        ("definer_functions", DEFINERS),
        ("partitions", PARTITIONS),
        ("other_rights", OTHER_RIGHTS),
    ] {
        let found = connection.all(sql, &[&reach.as_slice()]).await;
        findings.read(what, found.map_err(failure)?);
    }
    let mut changed = Vec::new();
    for (name, body, definer) in [
        ("session_tenant", groups.session_tenant(), true),
        ("session_tenant_uuid", SESSION_TENANT_UUID.to_owned(), false),
    ] {
        let same: Option<bool> = connection
            .first(
                "SELECT prosrc = $2 AND prosecdef = $3 AND proconfig = ARRAY['search_path=pg_catalog, pg_temp']
                 FROM pg_catalog.pg_proc WHERE oid = to_regprocedure(format('tenantry.%s(boolean)', $1))",
                &[&name, &body, &definer],
            )
            .await
            .map_err(failure)?;
        if same != Some(true) {
            changed.push(format!("tenantry.{name}"));
        }
    }
    findings.read("who_the_tenant_is", changed);
    Ok(())
}

/// Shared tables whose owner, a role other than the administrator, has access as a tenant or application.
const OWNED: &str = "
    SELECT format('%s.%s belongs to %s', nspname, relname, rolname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    JOIN pg_catalog.pg_roles r ON r.oid = relowner
    WHERE nspname = 'tenantry_pool' AND relkind IN ('r', 'p', 'v') AND rolname <> current_user
      AND EXISTS (SELECT FROM unnest($1::text[]) role WHERE pg_has_role(role, relowner, 'MEMBER')
                  UNION ALL SELECT FROM tenantry.homes WHERE name = rolname::text COLLATE \"default\")
    ORDER BY 1";

/// Views over shared tables that read as their owner, and materialized views, if a tenant or application may
/// read them.
const VIEWS: &str = "
    SELECT DISTINCT format('%s.%s', nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('v', 'm')
      AND (c.relkind = 'm' OR NOT coalesce(c.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'])
      AND (nspname = 'tenantry_pool' OR nspname <> 'tenantry'
           AND EXISTS (SELECT FROM pg_catalog.pg_rewrite w
                       JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                       JOIN pg_catalog.pg_class t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
                       WHERE w.ev_class = c.oid AND t.relnamespace = 'tenantry_pool'::regnamespace)
           AND EXISTS (SELECT FROM unnest($1::text[]) role WHERE has_any_column_privilege(role, c.oid, 'SELECT')))
    ORDER BY 1";

/// SECURITY DEFINER functions that a tenant or application may call, except Tenantry's own, which is compared
/// word for word.
const DEFINERS: &str = "
    SELECT format('%s.%s', nspname, proname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
    WHERE prosecdef AND nspname NOT IN ('pg_catalog', 'information_schema')
      AND p.oid IS DISTINCT FROM to_regprocedure('tenantry.session_tenant(boolean)')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
      AND EXISTS (SELECT FROM unnest($1::text[]) role
                  WHERE has_function_privilege(role, p.oid, 'EXECUTE') AND has_schema_privilege(role, n.oid, 'USAGE'))
    ORDER BY 1";

/// Partitions and other children of shared tables, wherever they are, that a tenant or application may reach past the
/// table with the policies.
const PARTITIONS: &str = "
    WITH RECURSIVE parts (oid) AS (
        SELECT inhrelid FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class c ON c.oid = inhparent
        WHERE relnamespace = 'tenantry_pool'::regnamespace
        UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN parts ON inhparent = parts.oid)
    SELECT format('%s.%s', nspname, relname)
    FROM parts JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND (relispartition OR nspname <> 'tenantry_pool')
      AND EXISTS (SELECT FROM unnest($1::text[]) role WHERE has_any_column_privilege(role, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                  OR has_table_privilege(role, c.oid, 'DELETE, TRUNCATE, TRIGGER'))
    ORDER BY 1";

/// Privileges of tenants or applications on shared tables, their columns and their sequences that no policy bounds, and
/// those to write lookup tables, whether granted to PUBLIC, to a role that all of them have, or to one of them.
const OTHER_RIGHTS: &str = "
    SELECT DISTINCT format('%s.%s: %s', nspname, relname, privilege_type)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL,
    LATERAL (SELECT grantee, privilege_type FROM aclexplode(relacl)
             UNION ALL SELECT grantee, privilege_type FROM aclexplode(attacl)) acl
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = grantee
    WHERE nspname = 'tenantry_pool' AND relkind IN ('r', 'p', 'v', 'S') AND grantee <> relowner
      AND CASE WHEN relkind = 'S' THEN privilege_type <> 'USAGE'
               WHEN EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = c.oid AND polname = 'tenantry_lookup') THEN privilege_type <> 'SELECT'
               ELSE privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') END
      AND (grantee = 0 OR EXISTS (SELECT FROM unnest($1::text[]) role WHERE pg_has_role(role, grantee, 'MEMBER'))
           OR EXISTS (SELECT FROM tenantry.homes WHERE isolation = 'pool' AND name = rolname::text COLLATE \"default\")
           OR EXISTS (SELECT FROM tenantry.logins WHERE isolation = 'pool' AND name = rolname::text COLLATE \"default\"))
    ORDER BY 1";

/// Checks that row level security is enabled and forced on every shared table, and on every other table with
/// a `tenant_id` that tenants or applications may reach.
async fn rows_of_tenants(
    connection: &mut Session,
    findings: &mut Findings,
    reach: &[&str],
) -> Result<(), Failure> {
    let tables = connection.rows(
        "SELECT format('%s.%s', nspname, relname) AS name, relrowsecurity, relforcerowsecurity
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
         WHERE relkind IN ('r', 'p') AND relname <> '_migrations'
           AND (nspname = $1 OR EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = $2 AND NOT attisdropped)
                AND EXISTS (SELECT FROM unnest($3::text[]) role
                            WHERE has_schema_privilege(role, n.oid, 'USAGE') AND has_table_privilege(role, c.oid, 'SELECT, INSERT, UPDATE, DELETE')))
         ORDER BY 1",
        &[&SCHEMA, &OWNER, &reach],
    ).await.map_err(failure)?;
    for (what, column) in [("rls_enabled", "relrowsecurity"), ("rls_forced", "relforcerowsecurity")] {
        let open = tables.iter().filter(|row| !row.get::<_, bool>(column));
        findings.read(what, open.map(|row| row.get("name")).collect());
    }
    Ok(())
}

/// Checks that every shared table has its policies word for word, and besides them restrictive ones only.
async fn policies(connection: &mut Session, findings: &mut Findings) -> Result<(), Failure> {
    let rows = connection.rows(
        "SELECT relname::text AS name, polname::text AS policy, polcmd::text AS command, polpermissive,
                (SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
                 WHERE attrelid = c.oid AND attname = $2 AND NOT attisdropped) AS owner,
                polroles = ARRAY[0::oid] AS everybodys,
                coalesce(pg_get_expr(polqual, polrelid), '') AS using,
                coalesce(pg_get_expr(polwithcheck, polrelid), '') AS check
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_policy ON polrelid = c.oid
         WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') AND relname <> '_migrations' AND NOT relispartition ORDER BY 1, 2",
        &[&SCHEMA, &OWNER],
    ).await.map_err(failure)?;
    let [mut missing, mut others] = [Vec::new(), Vec::new()];
    let mut names: Vec<&str> = rows.iter().map(|row| row.get("name")).collect();
    names.dedup();
    for table in names {
        let of_table = rows.iter().filter(|row| {
            row.get::<_, &str>("name") == table && row.get::<_, Option<&str>>("policy").is_some()
        });
        let found: Vec<(bool, bool, [String; 4])> = of_table
            .map(|row| {
                let words = ["policy", "command", "using", "check"].map(|column| row.get(column));
                (row.get("polpermissive"), row.get("everybodys"), words)
            })
            .collect();
        let owner = rows.iter().find(|row| row.get::<_, &str>("name") == table);
        let owner = owner.and_then(|row| OwnerType::of(row.get::<_, Option<&str>>("owner")?));
        // A shared table without a tenant's id is a lookup table.
        let is_owned = rows
            .iter()
            .any(|row| row.get::<_, &str>("name") == table && row.get::<_, Option<&str>>("owner").is_some());
        let expected: Vec<[String; 4]> = match is_owned {
            true => Groups::policies(owner.unwrap_or(OwnerType::Text)).collect(),
            false => vec![Groups::lookup_policy()],
        };
        let is_own = |words: &[String; 4]| expected.contains(words);
        for own in &expected {
            if !found.iter().any(|(permissive, everybodys, words)| *permissive && *everybodys && words == own)
            {
                missing.push(format!("{SCHEMA}.{table}: {}", own[0]));
            }
        }
        let others_here = found.iter().filter(|(permissive, _, words)| *permissive && !is_own(words));
        others.extend(others_here.map(|(.., words)| format!("{SCHEMA}.{table}: {}", words[0])));
    }
    findings.read("policies", missing);
    findings.read("other_policies", others);
    Ok(())
}
