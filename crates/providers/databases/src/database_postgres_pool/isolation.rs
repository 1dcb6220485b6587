//! The check of the pool: a login of a tenant that is made for it tries to see others' rows, and the catalogue is read
//! for what would let anybody go around the policies.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_model::{Failure, TenantId};

use super::client::Pool;
use super::guard::{Groups, SCHEMA};
use super::{DatabasePostgresPool, ISOLATION, partitions, tables};
use crate::database_postgres::isolation::{
    Login, Prober, application, default_privileges, large_objects, public_grants, tenants,
};
use crate::database_postgres::{Name, close, failure, names_of, read_catalogue, run};
use crate::tables::{OWNER, literal, quoted};
use tenantry_provider::isolation::{Checked, Findings, IsolationCheck};

/// What a login tries here, besides what every login does.
const TRIED: [&str; 7] =
    ["rows", "rows_after_set", "rows_after_reset", "insert", "update", "delete", "list_of_tenants"];

/// A tenant that is got at.
struct Target {
    tenant: String,
    name: Name,
    /// The tables in which it has rows.
    tables: Vec<String>,
}

#[async_trait]
impl IsolationCheck for DatabasePostgresPool {
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure> {
        let (pool, server) = (&self.pool, self.pool.postgres.main());
        let mut connection = server.alone("isolation check pool").await?;
        // Expressions are read back with every name in full.
        run(&mut connection, "SET search_path = pg_catalog".to_owned()).await?;
        let prober = Prober::new(&pool.postgres, server, ISOLATION)?;
        // One that an earlier check left would have the policies mended before they are read.
        pool.remove(&prober.owner).await?;
        pool.ensure(&prober.owner, &prober.work, &prober.handout()).await?;
        let checked = check(pool, &mut connection, &prober, tenants).await;
        let removed = pool.remove(&prober.owner).await;
        close(connection).await?;
        let checked = checked?;
        removed.map(|_| checked)
    }
}

async fn check(
    pool: &Pool,
    connection: &mut PgConnection,
    prober: &Prober,
    tenants: &[TenantId],
) -> Result<Checked, Failure> {
    let mut findings = Findings::new(ISOLATION);
    let groups = pool.groups()?;
    let targets = targets(connection, tenants).await?;
    findings.met("rows", tenants.len(), targets.len());
    let objects = large_objects(connection).await?;
    for (who, login) in Login::all(pool.postgres.main(), prober, pool.postgres.main().database()).await {
        match login {
            Ok(mut login) => {
                probe(pool, &mut login, &mut findings, &groups, &targets, &objects).await?;
                login.close().await?;
            }
            Err(why) => findings.none_checked(who, &TRIED, &why),
        }
    }
    catalogue(connection, &mut findings, &groups, prober, &targets).await?;
    let app = groups.app.as_str();
    let trusted = vec![
        format!("the application role {app} and its members say themselves which tenant they serve"),
        "who may connect to the main database can read the names of roles and schemas in it".to_owned(),
    ];
    Ok(Checked { cells: findings.cells(), trusted })
}

async fn targets(connection: &mut PgConnection, tenants: &[TenantId]) -> Result<Vec<Target>, Failure> {
    let ids: Vec<String> = tenants.iter().map(ToString::to_string).collect();
    let tables: Vec<String> = read_catalogue(connection, SCHEMA).await?.tables.into_keys().collect();
    let mut targets = Vec::new();
    for (tenant, name) in names_of(connection, ISOLATION, &ids).await? {
        let mut target = Target { tenant, name, tables: Vec::new() };
        for table in &tables {
            let sql =
                format!("SELECT EXISTS (SELECT FROM {SCHEMA}.{} WHERE {OWNER}::text = $1)", quoted(table));
            let has_rows = sqlx::query_scalar(AssertSqlSafe(sql)).bind(&target.tenant);
            if has_rows.fetch_one(&mut *connection).await.map_err(failure)? {
                target.tables.push(table.clone());
            }
        }
        targets.push(target);
    }
    Ok(targets)
}

async fn probe(
    pool: &Pool,
    login: &mut Login,
    findings: &mut Findings,
    groups: &Groups,
    targets: &[Target],
    objects: &[i64],
) -> Result<(), Failure> {
    let reset = "RESET ROLE; RESET SESSION AUTHORIZATION; RESET app.current_tenant_id";
    for Target { tenant, name, tables } in targets {
        let theirs = literal(tenant);
        let condition = format!("{OWNER}::text = {theirs}");
        let name_it = format!("SET LOCAL app.current_tenant_id = {theirs}");
        let name_it_for_all = format!("SET app.current_tenant_id = {theirs}; {reset}; {name_it}");
        for (what, before) in
            [("rows", ""), ("rows_after_set", &*name_it), ("rows_after_reset", &*name_it_for_all)]
        {
            if tables.is_empty() {
                findings.not_checked(login.who(), what, "a tenant has no rows that could be seen");
            }
            login.read(findings, what, SCHEMA, tables, &condition, before).await?;
        }
        login.write(findings, SCHEMA, tables, &theirs, &name_it).await?;
        login.become_role(findings, name.as_str()).await?;
    }
    for role in [groups.app.as_str(), pool.postgres.main().administrator()] {
        login.become_role(findings, role).await?;
    }
    let names: Vec<&Name> = targets.iter().map(|target| &target.name).collect();
    login.look_around(findings, &names, &[SCHEMA, "tenantry"], objects).await?;
    login
        .try_it(
            findings,
            "list_of_tenants",
            "tenantry.homes",
            "",
            "SELECT EXISTS (SELECT FROM tenantry.homes)",
        )
        .await
}

async fn catalogue(
    connection: &mut PgConnection,
    findings: &mut Findings,
    groups: &Groups,
    prober: &Prober,
    targets: &[Target],
) -> Result<(), Failure> {
    let [app, group] = [&groups.app, &groups.tenants].map(|role| role.as_str().to_owned());
    let mut roles: Vec<String> = targets.iter().map(|target| target.name.as_str().to_owned()).collect();
    roles.push(prober.role().as_str().to_owned());
    tables::read(connection, findings, groups).await?;
    // A tenant that were a member of the application role could say that it is another one.
    tenants(connection, findings, &roles, std::slice::from_ref(&app)).await?;
    application(connection, findings, &[app, group.clone()]).await?;
    roles.push(group);
    default_privileges(connection, findings, &roles).await?;
    let schemas = [SCHEMA, partitions::SCHEMA, "tenantry"].map(str::to_owned);
    public_grants(connection, findings, &schemas).await
}
