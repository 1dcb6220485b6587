//! The check of databases: a login of a tenant that is made for it tries to get into others' databases, and the
//! catalogue is read for who may connect to them.

use async_trait::async_trait;
use sqlx::PgConnection;
use tenantry_model::{Failure, TenantId};

use super::client::Databases;
use super::{DatabasePostgresDatabase, ISOLATION};
use crate::database_postgres::isolation::{Login, Prober, enter, large_objects, of_neighbours, tenants};
use crate::database_postgres::{Name, Server, close, failure, names_of};
use tenantry_provider::isolation::{Checked, Findings, IsolationCheck, Who};

/// What the catalogue of each server is asked for.
const READ: [&str; 4] =
    ["public_grant_database", "rights_of_other_tenants", "role_attributes", "role_membership"];

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
        // A server that is out keeps nobody from knowing of the others, whose cells stand; theirs say so.
        for failure in &out {
            findings.not_checked(Who::TenantLogin, "connect", &failure.message);
            findings.none_checked(Who::TenantLogin, &[], &failure.message);
            for what in READ {
                findings.not_checked(Who::Catalogue, what, &failure.message);
            }
        }
        findings.met("connect", tenants.len(), met);
        if let Some(failure) = out.pop().filter(|_| met == 0) {
            return Err(failure);
        }
        let trusted =
            vec!["who may connect to any database can read the names of roles and databases".to_owned()];
        Ok(Checked { cells: findings.cells(), trusted })
    }
}

/// Checks those of the tenants that are on this server; answers how many.
async fn on_server(
    databases: &Databases,
    server: &Server,
    findings: &mut Findings,
    given: &[TenantId],
) -> Result<usize, Failure> {
    let mut connection = server.alone("isolation check database").await?;
    let ids: Vec<String> = given.iter().map(ToString::to_string).collect();
    let names: Vec<Name> =
        names_of(&mut connection, ISOLATION, &ids).await?.into_iter().map(|(_, name)| name).collect();
    if names.is_empty() {
        return close(connection).await.map(|()| 0);
    }
    let prober = Prober::new(&databases.postgres, server, ISOLATION)?;
    let draft = Name::new(&prober.role().as_str().replace("prober", "draft_prober"))?;
    databases.ensure(server, &prober.owner, &prober.work, &prober.handout(), &draft).await?;
    let checked = check(server, &mut connection, findings, &prober, &names).await;
    let removed = databases.remove(server, &prober.owner, TenantId::new(), &draft).await;
    close(connection).await?;
    checked?;
    removed.map(|_| names.len())
}

async fn check(
    server: &Server,
    connection: &mut PgConnection,
    findings: &mut Findings,
    prober: &Prober,
    names: &[Name],
) -> Result<(), Failure> {
    // In its own database the prober is what each tenant is in its own.
    let mut inside = server.connect_to(prober.role()).await?;
    let objects = large_objects(&mut inside).await?;
    close(inside).await?;
    for name in names {
        enter(server, prober, name, findings).await?;
    }
    for (who, login) in Login::all(server, prober, prober.role().as_str()).await {
        match login {
            Ok(mut login) => {
                for name in names {
                    login.become_role(findings, name.as_str()).await?;
                }
                login.become_role(findings, server.administrator()).await?;
                let theirs: Vec<&Name> = names.iter().collect();
                login.look_around(findings, &theirs, &[], &objects).await?;
                login.close().await?;
            }
            Err(why) => findings.none_checked(who, &[], &why),
        }
    }
    let mut roles: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let public = sqlx::query_scalar(
        "SELECT DISTINCT datname::text FROM pg_catalog.pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) acl
         WHERE acl.grantee = 0 AND datname::text = ANY ($1) ORDER BY 1",
    );
    let public = public.bind(&roles).fetch_all(&mut *connection).await.map_err(failure)?;
    findings.read("public_grant_database", public);
    of_neighbours(connection, findings, "rights_of_other_tenants", names, RIGHTS).await?;
    roles.push(prober.role().as_str().to_owned());
    tenants(connection, findings, &roles, &[]).await
}

/// What one tenant may do with the database of another.
const RIGHTS: &str = "
    SELECT format('%s may use %s', mine, theirs) FROM unnest($1::text[], $2::text[]) pair (mine, theirs)
    JOIN pg_catalog.pg_database d ON datname::text = theirs
    WHERE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname::text = mine)
      AND has_database_privilege(mine, d.oid, 'CONNECT, CREATE, TEMPORARY')
    ORDER BY 1";
