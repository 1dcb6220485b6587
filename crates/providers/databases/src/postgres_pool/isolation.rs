//! Isolation check of the shared tables: the probe tenant tries to reach other tenants' rows, and the
//! catalogue is searched for ways around the policies.

use async_trait::async_trait;
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::Session;

use super::client::Pool;
use super::guard::{Groups, SCHEMA};
use super::{DatabasePostgresPool, ISOLATION, partitions, tables};
use crate::postgres::isolation::{
    ProbeSession, ProbeTenant, WrittenTable, application_roles, default_privileges, large_objects,
    obstructions, other_objects, public_grants, tenant_roles,
};
use crate::postgres::{MIGRATIONS, Name, failure, names_of, run};
use crate::tables::{OWNER, OwnerType, literal, quoted};
use tenantry_provider::isolation::{Checked, Findings, IsolationCheck};

/// Attempts on shared tables, beside those that every check makes.
const TRIED: [&str; 7] =
    ["rows", "rows_after_set", "rows_after_reset", "insert", "update", "delete", "list_of_tenants"];

/// A tenant whose rows the check tries to reach.
struct ProbedTenant {
    tenant: TenantId,
    name: Name,
    /// Tables in which it has rows, each with the type of its `tenant_id`.
    tables: Vec<(String, OwnerType)>,
}

#[async_trait]
impl IsolationCheck for DatabasePostgresPool {
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure> {
        let (pool, server) = (&self.pool, self.pool.postgres.main());
        let mut connection = server.connect_with_lock("isolation check pool").await?;
        // With this search path the server prints expressions with qualified names.
        run(&mut connection, "SET search_path = pg_catalog".to_owned()).await?;
        let probe_tenant = ProbeTenant::new(&pool.postgres, server, ISOLATION)?;
        // With a probe tenant left by an earlier check, `ensure` would repair the policies before they are
        // checked.
        pool.remove(&probe_tenant.owner).await?;
        pool.ensure(&probe_tenant.owner, &probe_tenant.work, &probe_tenant.request()).await?;
        let checked = check(pool, &mut connection, &probe_tenant, tenants).await;
        let removed = pool.remove(&probe_tenant.owner).await;
        connection.close().await;
        let checked = checked?;
        removed.map(|_| checked)
    }
}

async fn check(
    pool: &Pool,
    connection: &mut Session,
    probe_tenant: &ProbeTenant,
    tenants: &[TenantId],
) -> Result<Checked, Failure> {
    let mut findings = Findings::new(ISOLATION);
    let groups = pool.groups()?;
    let targets = targets(connection, tenants).await?;
    findings.met("rows", tenants.len(), targets.len());
    let objects = large_objects(connection).await?;
    for (who, login) in
        ProbeSession::open_all(pool.postgres.main(), probe_tenant, pool.postgres.main().database()).await
    {
        match login {
            Ok(mut login) => {
                probe(pool, &mut login, &mut findings, &groups, &targets, &objects).await?;
                login.close().await;
            }
            Err(why) => findings.none_checked(who, &TRIED, &why),
        }
    }
    catalogue(connection, &mut findings, &groups, probe_tenant, &targets).await?;
    findings.read("own_databases", pool.postgres.own_open(connection).await?);
    obstructions(connection, &mut findings, &pool.postgres.config).await?;
    let app = groups.app.as_str();
    let trusted = vec![
        format!("the application role {app} and its members name the tenant that they serve themselves"),
        "every role that may connect to the main database can read the names of roles and schemas in it"
            .to_owned(),
    ];
    Ok(Checked { cells: findings.cells(), trusted })
}

async fn targets(connection: &mut Session, tenants: &[TenantId]) -> Result<Vec<ProbedTenant>, Failure> {
    let ids: Vec<String> = tenants.iter().map(ToString::to_string).collect();
    // Every table and partition with rows of tenants, also those that a login should not be able to name.
    let tables: Vec<(String, String)> = connection
        .pairs(
            "SELECT relname::text, format_type(atttypid, atttypmod) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute ON attrelid = c.oid
             WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') AND attname = $2 AND NOT attisdropped
             ORDER BY 1",
            &[&SCHEMA, &OWNER],
        )
        .await
        .map_err(failure)?;
    let mut targets = Vec::new();
    for (tenant, name) in names_of(connection, ISOLATION, &ids).await? {
        let Some(tenant) = tenants.iter().copied().find(|id| id.to_string() == tenant) else { continue };
        let mut target = ProbedTenant { tenant, name, tables: Vec::new() };
        for (table, kind) in &tables {
            // A row whose id has another type is compared as text.
            let owner = OwnerType::of(kind).unwrap_or(OwnerType::Text);
            let own = literal(&owner.value(tenant));
            let sql =
                format!("SELECT EXISTS (SELECT FROM {SCHEMA}.{} WHERE {OWNER}::text = {own})", quoted(table));
            if connection.one(&sql, &[]).await.map_err(failure)? {
                target.tables.push((table.clone(), owner));
            }
        }
        targets.push(target);
    }
    Ok(targets)
}

async fn probe(
    pool: &Pool,
    login: &mut ProbeSession,
    findings: &mut Findings,
    groups: &Groups,
    targets: &[ProbedTenant],
    objects: &[i64],
) -> Result<(), Failure> {
    let reset = "RESET ROLE; RESET SESSION AUTHORIZATION; RESET app.current_tenant_id";
    for ProbedTenant { tenant, name, tables } in targets {
        let ids = [OwnerType::Text, OwnerType::Uuid].map(|owner| literal(&owner.value(*tenant)));
        let condition = format!("{OWNER}::text IN ({})", ids.join(", "));
        let name_it = format!("SET LOCAL app.current_tenant_id = {}", ids[0]);
        let name_it_for_all = format!("SET app.current_tenant_id = {}; {reset}; {name_it}", ids[0]);
        let names: Vec<String> = tables.iter().map(|(table, _)| table.clone()).collect();
        for (what, before) in
            [("rows", ""), ("rows_after_set", &*name_it), ("rows_after_reset", &*name_it_for_all)]
        {
            if tables.is_empty() {
                findings.not_checked(login.who(), what, "a tenant has no rows to look for");
            }
            login.read(findings, what, SCHEMA, &names, &condition, before).await?;
        }
        let written = |(name, owner): &(String, OwnerType)| WrittenTable {
            name: name.clone(),
            column: Some(OWNER.to_owned()),
            owner: Some(owner.literal(*tenant)),
        };
        let written: Vec<WrittenTable> = tables.iter().map(written).collect();
        login.write(findings, SCHEMA, &written, &name_it).await?;
        login.become_role(findings, name.as_str()).await?;
    }
    let lookups = lookups(pool).await?;
    login.write(findings, SCHEMA, &lookups, "").await?;
    for role in [groups.app.as_str(), pool.postgres.main().administrator()] {
        login.become_role(findings, role).await?;
    }
    let names: Vec<&Name> = targets.iter().map(|target| &target.name).collect();
    login.probe_server_catalogue(findings, &names, &[SCHEMA, "tenantry"], objects).await?;
    login
        .probe(
            findings,
            "list_of_tenants",
            "tenantry.homes",
            "",
            "SELECT EXISTS (SELECT FROM tenantry.homes)",
        )
        .await
}

/// The tables without a tenant's id, which all tenants may read and none may write.
async fn lookups(pool: &Pool) -> Result<Vec<WrittenTable>, Failure> {
    let tables: Vec<(String, Option<String>)> = pool
        .postgres
        .main()
        .connection()
        .await?
        .pairs(
            "SELECT relname::text, (SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                                      AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum LIMIT 1)
             FROM pg_class c WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') AND relname <> $2
               AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = $3 AND NOT attisdropped) ORDER BY 1",
            &[&SCHEMA, &MIGRATIONS, &OWNER],
        )
        .await
        .map_err(failure)?;
    Ok(tables.into_iter().map(|(name, column)| WrittenTable { name, column, owner: None }).collect())
}

async fn catalogue(
    connection: &mut Session,
    findings: &mut Findings,
    groups: &Groups,
    probe_tenant: &ProbeTenant,
    targets: &[ProbedTenant],
) -> Result<(), Failure> {
    let [app, group] = [&groups.app, &groups.tenants].map(|role| role.as_str().to_owned());
    let mut roles: Vec<String> = targets.iter().map(|target| target.name.as_str().to_owned()).collect();
    roles.push(probe_tenant.role().as_str().to_owned());
    tables::read(connection, findings, groups).await?;
    // A tenant that were a member of the application role could say that it is another one.
    tenant_roles(connection, findings, &roles, std::slice::from_ref(&app)).await?;
    application_roles(connection, findings, &[app, group.clone()]).await?;
    roles.push(group);
    default_privileges(connection, findings, &roles).await?;
    other_objects(connection, findings, &roles).await?;
    let schemas = [SCHEMA, partitions::SCHEMA, "tenantry"].map(str::to_owned);
    public_grants(connection, findings, &schemas).await
}
