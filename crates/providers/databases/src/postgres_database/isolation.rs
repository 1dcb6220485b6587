//! Isolation check of databases: the probe tenant tries to connect to other tenants' databases, and the
//! catalogue is searched for privileges to do so.

use async_trait::async_trait;
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::Session;

use super::client::Databases;
use super::{DatabasePostgresDatabase, ISOLATION};
use crate::postgres::isolation::{
    OBSTRUCTIONS, ProbeSession, ProbeTenant, large_objects, obstructions, other_objects,
    privileges_on_others, probe_connect, tenant_roles,
};
use crate::postgres::{Name, Postgres, Server, failure, names_of};
use tenantry_provider::isolation::{Checked, Findings, IsolationCheck, Who};

/// Catalogue checks on each server.
const READ: [&str; 6] = [
    "own_databases",
    "public_grant_database",
    "rights_of_other_tenants",
    "other_objects",
    "role_attributes",
    "role_membership",
];

#[async_trait]
impl IsolationCheck for DatabasePostgresDatabase {
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure> {
        let mut findings = Findings::new(ISOLATION);
        let (mut met, mut out) = (0, Vec::new());
        for server in self.databases.postgres.servers() {
            match on_server(&self.databases, server, &mut findings, tenants).await {
                Ok(found) => met += found,
                Err(failure) => out.push(server.named(failure)),
            }
        }
        // An unreachable server does not stop the check: its own tenants are reported as not checked.
        for failure in &out {
            findings.not_checked(Who::TenantLogin, "connect", &failure.message);
            findings.none_checked(Who::TenantLogin, &[], &failure.message);
            for what in READ.into_iter().chain(OBSTRUCTIONS.map(|(what, _)| what)) {
                findings.not_checked(Who::Catalogue, what, &failure.message);
            }
        }
        findings.met("connect", tenants.len(), met);
        if let Some(failure) = out.pop().filter(|_| met == 0) {
            return Err(failure);
        }
        let trusted = vec![
            "every role that may connect to a database can read the names of roles and databases".to_owned(),
        ];
        Ok(Checked { cells: findings.cells(), trusted })
    }
}

/// Checks the tenants on this server; returns how many there are.
async fn on_server(
    databases: &Databases,
    server: &Server,
    findings: &mut Findings,
    given: &[TenantId],
) -> Result<usize, Failure> {
    let mut connection = server.connect_with_lock("isolation check database").await?;
    let ids: Vec<String> = given.iter().map(ToString::to_string).collect();
    let names: Vec<Name> =
        names_of(&mut connection, ISOLATION, &ids).await?.into_iter().map(|(_, name)| name).collect();
    if names.is_empty() {
        connection.close().await;
        return Ok(0);
    }
    let probe_tenant = ProbeTenant::new(&databases.postgres, server, ISOLATION)?;
    let draft = Name::new(&probe_tenant.role().as_str().replace("prober", "draft_prober"))?;
    databases
        .ensure(server, &probe_tenant.owner, &probe_tenant.work, &probe_tenant.request(), &draft)
        .await?;
    let checked = check(server, &databases.postgres, &mut connection, findings, &probe_tenant, &names).await;
    let removed = databases.remove(server, &probe_tenant.owner, TenantId::new(), &draft).await;
    connection.close().await;
    checked?;
    removed.map(|_| names.len())
}

/// Probes other tenants' databases as the probe tenant, and reads the catalogue as the administrator.
async fn check(
    server: &Server,
    postgres: &Postgres,
    connection: &mut Session,
    findings: &mut Findings,
    probe_tenant: &ProbeTenant,
    names: &[Name],
) -> Result<(), Failure> {
    // In its own database the probe tenant has the privileges that each tenant has in its own.
    let mut inside = server.connect_to(probe_tenant.role()).await?;
    let objects = large_objects(&mut inside).await?;
    inside.close().await;
    for name in names {
        probe_connect(server, probe_tenant, name, findings).await?;
    }
    for (who, login) in ProbeSession::open_all(server, probe_tenant, probe_tenant.role().as_str()).await {
        match login {
            Ok(mut login) => {
                for name in names {
                    login.become_role(findings, name.as_str()).await?;
                }
                login.become_role(findings, server.administrator()).await?;
                let theirs: Vec<&Name> = names.iter().collect();
                login.probe_server_catalogue(findings, &theirs, &[], &objects).await?;
                login.close().await;
            }
            Err(why) => findings.none_checked(who, &[], &why),
        }
    }
    let mut roles: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let public = connection.all(
        "SELECT DISTINCT datname::text FROM pg_catalog.pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) acl
         WHERE acl.grantee = 0 AND datname::text = ANY ($1) ORDER BY 1",
        &[&roles],
    ).await;
    findings.read("public_grant_database", public.map_err(failure)?);
    privileges_on_others(connection, findings, "rights_of_other_tenants", names, RIGHTS).await?;
    roles.push(probe_tenant.role().as_str().to_owned());
    other_objects(connection, findings, &roles).await?;
    findings.read("own_databases", postgres.own_open(connection).await?);
    obstructions(connection, findings, &postgres.config).await?;
    tenant_roles(connection, findings, &roles, &[]).await
}

/// Privileges of one tenant on another's database.
const RIGHTS: &str = "
    SELECT format('%s may use %s', mine, theirs) FROM unnest($1::text[], $2::text[]) pair (mine, theirs)
    JOIN pg_catalog.pg_database d ON datname::text = theirs
    WHERE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname::text = mine)
      AND has_database_privilege(mine, d.oid, 'CONNECT, CREATE, TEMPORARY')
    ORDER BY 1";
