//! Checks for roles that policies and grants do not bind: because of an attribute, or by membership in a role
//! that they must not have.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use crate::postgres::failure::failure;
use tenantry_provider::isolation::Findings;

/// All roles that the given roles are members of, directly or not; each role reaches itself.
const REACHED: &str = "WITH RECURSIVE reached (role, member) AS (
        SELECT oid, oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY ($1)
        UNION SELECT m.roleid, r.member FROM pg_catalog.pg_auth_members m JOIN reached r ON r.role = m.member
    )";

/// The second logins of these tenants, each after the first.
pub async fn second_logins(
    connection: &mut Session,
    roles: &[&str],
) -> Result<Vec<(String, String)>, Failure> {
    let pairs = connection
        .rows(
            "SELECT h.name, l.name FROM tenantry.homes h JOIN tenantry.logins l USING (isolation, tenant_id)
         WHERE h.name = ANY ($1) ORDER BY 1",
            &[&roles],
        )
        .await;
    Ok(pairs.map_err(failure)?.iter().map(|pair| (pair.get(0), pair.get(1))).collect())
}

/// Checks tenants' roles and their second logins: no attribute that bypasses privileges, and no membership in
/// the administrator, a predefined role, another tenant's role, or one of `others`.
pub async fn tenant_roles(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
    others: &[String],
) -> Result<(), Failure> {
    let named: Vec<&str> = roles.iter().map(String::as_str).collect();
    let second = second_logins(connection, &named).await?;
    let roles = [roles, &second.into_iter().map(|(_, second)| second).collect::<Vec<_>>()].concat();
    attributes(connection, findings, &roles).await?;
    let sql = format!(
        "{REACHED} SELECT DISTINCT format('%s is a member of %s', member.rolname, role.rolname)
         FROM reached JOIN pg_catalog.pg_roles role ON role.oid = role JOIN pg_catalog.pg_roles member ON member.oid = member
         WHERE role.oid <> member.oid
           AND (role.rolname = current_user OR role.rolname ^@ 'pg_' OR role.rolname::text = ANY ($2)
                OR role.rolsuper OR role.rolbypassrls OR role.rolcreaterole
                OR EXISTS (SELECT FROM tenantry.homes h WHERE h.name = role.rolname::text COLLATE \"default\"
                           AND NOT EXISTS (SELECT FROM tenantry.logins l WHERE l.name = member.rolname::text COLLATE \"default\"
                                           AND l.isolation = h.isolation AND l.tenant_id = h.tenant_id))
                OR EXISTS (SELECT FROM tenantry.logins WHERE logins.name = role.rolname::text COLLATE \"default\"))
         ORDER BY 1"
    );
    findings.read("role_membership", connection.all(&sql, &[&roles, &others]).await.map_err(failure)?);
    Ok(())
}

/// Checks application roles and their members: no attribute that bypasses policies, and no membership in the
/// administrator. The administrator itself is exempt.
pub async fn application_roles(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
) -> Result<(), Failure> {
    let members: Vec<String> = connection.all(
        "WITH RECURSIVE members (role) AS (
             SELECT oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY ($1)
             UNION SELECT m.member FROM pg_catalog.pg_auth_members m JOIN members ON m.roleid = members.role
         ) SELECT rolname::text FROM members JOIN pg_catalog.pg_roles ON oid = role WHERE rolname <> current_user",
        &[&roles],
    )
    .await
    .map_err(failure)?;
    attributes(connection, findings, &members).await?;
    let sql = format!(
        "{REACHED} SELECT DISTINCT format('%s is a member of %s', member.rolname, role.rolname)
         FROM reached JOIN pg_catalog.pg_roles role ON role.oid = role JOIN pg_catalog.pg_roles member ON member.oid = member
         WHERE role.oid <> member.oid AND (role.rolname = current_user OR role.rolsuper OR role.rolbypassrls)
         ORDER BY 1"
    );
    findings.read("role_membership", connection.all(&sql, &[&members]).await.map_err(failure)?);
    Ok(())
}

async fn attributes(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
) -> Result<(), Failure> {
    let found = connection.all(
        "SELECT format('%s has%s', rolname, concat(
                    CASE WHEN rolsuper THEN ' SUPERUSER' END, CASE WHEN rolbypassrls THEN ' BYPASSRLS' END,
                    CASE WHEN rolcreaterole THEN ' CREATEROLE' END, CASE WHEN rolreplication THEN ' REPLICATION' END))
         FROM pg_catalog.pg_roles
         WHERE rolname::text = ANY ($1) AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication) ORDER BY 1",
        &[&roles],
    ).await;
    findings.read("role_attributes", found.map_err(failure)?);
    Ok(())
}
