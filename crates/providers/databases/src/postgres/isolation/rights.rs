//! Checks for privileges that the catalogue grants to PUBLIC, or to one tenant on another tenant's objects.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::roles::second_logins;
use crate::postgres::failure::failure;
use crate::postgres::name::Name;
use tenantry_provider::isolation::Findings;

/// Privileges of PUBLIC on schemas, and on tables, columns, sequences and routines in them.
pub async fn public_grants(
    connection: &mut Session,
    findings: &mut Findings,
    schemas: &[String],
) -> Result<(), Failure> {
    for (what, sql) in [
        (
            "public_grant_schema",
            "SELECT DISTINCT nspname::text FROM pg_catalog.pg_namespace, aclexplode(nspacl) acl
             WHERE acl.grantee = 0 AND nspname::text = ANY ($1) ORDER BY 1",
        ),
        (
            "public_grant_table",
            "SELECT DISTINCT format('%s.%s', nspname, relname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL,
             LATERAL (SELECT grantee FROM aclexplode(relacl) UNION ALL SELECT grantee FROM aclexplode(attacl)) acl
             WHERE acl.grantee = 0 AND relkind <> 'S' AND nspname::text = ANY ($1) ORDER BY 1",
        ),
        (
            "public_grant_sequence",
            "SELECT DISTINCT format('%s.%s', nspname, relname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace, aclexplode(relacl) acl
             WHERE acl.grantee = 0 AND relkind = 'S' AND nspname::text = ANY ($1) ORDER BY 1",
        ),
        (
            "public_grant_function",
            "SELECT DISTINCT format('%s.%s', nspname, proname)
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace,
                  aclexplode(coalesce(proacl, acldefault('f', proowner))) acl
             WHERE acl.grantee = 0 AND nspname::text = ANY ($1)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
             ORDER BY 1",
        ),
    ] {
        let found = connection.all(sql, &[&schemas]).await.map_err(failure)?;
        findings.read(what, found);
    }
    Ok(())
}

/// Default privileges that give future tables, sequences, schemas or large objects to PUBLIC or to one of these roles.
pub async fn default_privileges(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
) -> Result<(), Failure> {
    let found = connection.all(
        "SELECT DISTINCT format('%s in %s to %s', CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                                                                       WHEN 'L' THEN 'large objects' ELSE 'schemas' END,
                                coalesce(nspname, 'every schema'), coalesce(rolname, 'PUBLIC'))
         FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = defaclnamespace,
              aclexplode(defaclacl) acl LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
         WHERE defaclobjtype IN ('r', 'S', 'n', 'L') AND (acl.grantee = 0 OR rolname::text = ANY ($1)) ORDER BY 1",
        &[&roles],
    ).await;
    findings.read("default_privileges", found.map_err(failure)?);
    Ok(())
}

/// Privileges of PUBLIC or of one of these roles on objects that belong to the whole database or server: to create schemas
/// or objects in them, to use foreign servers, to change parameters, and to reach large objects.
pub async fn other_objects(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
) -> Result<(), Failure> {
    let found = connection.all(
        "SELECT DISTINCT format('%s on %s to %s', privilege_type, object, coalesce(rolname, 'PUBLIC'))
         FROM (SELECT format('database %s', datname) AS object, datacl AS acl, '{CREATE}'::text[] AS privileges
               FROM pg_catalog.pg_database WHERE datname = current_database()
               UNION ALL SELECT format('schema %s', nspname), nspacl, '{CREATE}' FROM pg_catalog.pg_namespace
               UNION ALL SELECT format('foreign server %s', srvname), srvacl, '{USAGE}' FROM pg_catalog.pg_foreign_server
               UNION ALL SELECT format('foreign data wrapper %s', fdwname), fdwacl, '{USAGE}' FROM pg_catalog.pg_foreign_data_wrapper
               UNION ALL SELECT format('tablespace %s', spcname), spcacl, '{CREATE}' FROM pg_catalog.pg_tablespace
               UNION ALL SELECT format('parameter %s', parname), paracl, '{SET,ALTER SYSTEM}' FROM pg_catalog.pg_parameter_acl
               UNION ALL SELECT format('large object %s', oid), lomacl, '{SELECT,UPDATE}' FROM pg_catalog.pg_largeobject_metadata) objects,
              aclexplode(acl) LEFT JOIN pg_catalog.pg_roles r ON r.oid = grantee
         WHERE privilege_type = ANY (privileges) AND (grantee = 0 OR rolname::text = ANY ($1)) AND grantee <> grantor
         ORDER BY 1",
        &[&roles],
    ).await;
    findings.read("other_objects", found.map_err(failure)?);
    Ok(())
}

/// Runs `sql` for pairs of tenants, `$1` and `$2`: it returns what the first may do with the second's
/// objects. Each tenant is paired with the next one, the last with the first; second logins likewise.
pub async fn privileges_on_others(
    connection: &mut Session,
    findings: &mut Findings,
    what: &'static str,
    names: &[Name],
    sql: &'static str,
) -> Result<(), Failure> {
    if names.len() < 2 {
        findings.not_checked(
            tenantry_provider::isolation::Who::Catalogue,
            what,
            "the check needs two tenants",
        );
        return Ok(());
    }
    let mut each: Vec<&str> = names.iter().map(Name::as_str).collect();
    let mut next = each.clone();
    next.rotate_left(1);
    let second = second_logins(connection, &each).await?;
    for (first, login) in &second {
        if let Some(theirs) = each.iter().position(|name| name == first).and_then(|at| next.get(at).copied())
        {
            each.push(login);
            next.push(theirs);
        }
    }
    let found = connection.all(sql, &[&each, &next]).await;
    findings.read(what, found.map_err(failure)?);
    Ok(())
}
