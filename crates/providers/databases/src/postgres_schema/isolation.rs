//! Isolation check of schemas: the probe tenant tries to reach other tenants' schemas, and the catalogue is
//! searched for privileges on them.

use async_trait::async_trait;
use tenantry_model::{Failure, TenantId};
use tenantry_postgres::Session;

use super::client::Schemas;
use super::{DatabasePostgresSchema, ISOLATION};
use crate::postgres::isolation::{
    ProbeSession, ProbeTenant, WrittenTable, default_privileges, large_objects, obstructions, other_objects,
    privileges_on_others, public_grants, tenant_roles,
};
use crate::postgres::{Extensions, MIGRATIONS, Name, failure, names_of};
use crate::tables::{literal, quoted};
use tenantry_provider::isolation::{Checked, Findings, IsolationCheck};

#[async_trait]
impl IsolationCheck for DatabasePostgresSchema {
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure> {
        let (schemas, server) = (&self.schemas, self.schemas.postgres.main());
        let mut connection = server.connect_with_lock("isolation check schema").await?;
        let probe_tenant = ProbeTenant::new(&schemas.postgres, server, ISOLATION)?;
        schemas.ensure(&probe_tenant.owner, &probe_tenant.work, &probe_tenant.request()).await?;
        let checked = check(schemas, &mut connection, &probe_tenant, tenants).await;
        let removed = schemas.remove(&probe_tenant.owner, TenantId::new()).await;
        connection.close().await;
        let checked = checked?;
        removed.map(|_| checked)
    }
}

async fn check(
    schemas: &Schemas,
    connection: &mut Session,
    probe_tenant: &ProbeTenant,
    given: &[TenantId],
) -> Result<Checked, Failure> {
    let mut findings = Findings::new(ISOLATION);
    let server = schemas.postgres.main();
    let ids: Vec<String> = given.iter().map(ToString::to_string).collect();
    let names: Vec<Name> =
        names_of(connection, ISOLATION, &ids).await?.into_iter().map(|(_, name)| name).collect();
    findings.met("rows", given.len(), names.len());
    let objects = large_objects(connection).await?;
    for (who, login) in ProbeSession::open_all(server, probe_tenant, server.database()).await {
        match login {
            Ok(mut login) => {
                for name in &names {
                    probe(connection, &mut login, &mut findings, name).await?;
                }
                login.become_role(&mut findings, server.administrator()).await?;
                let theirs: Vec<&Name> = names.iter().collect();
                let places: Vec<&str> = names.iter().map(Name::as_str).chain(["tenantry"]).collect();
                login.probe_server_catalogue(&mut findings, &theirs, &places, &objects).await?;
                let list = "SELECT EXISTS (SELECT FROM tenantry.homes)";
                login.probe(&mut findings, "list_of_tenants", "tenantry.homes", "", list).await?;
                login.close().await;
            }
            Err(why) => findings.none_checked(who, &TRIED, &why),
        }
    }
    let mut roles: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let mut places = roles.clone();
    places.push("tenantry".to_owned());
    privileges_on_others(connection, &mut findings, "rights_of_other_tenants", &names, RIGHTS).await?;
    definers(connection, &mut findings, &roles).await?;
    roles.push(probe_tenant.role().as_str().to_owned());
    tenant_roles(connection, &mut findings, &roles, &[]).await?;
    default_privileges(connection, &mut findings, &roles).await?;
    other_objects(connection, &mut findings, &roles).await?;
    public_grants(connection, &mut findings, &places).await?;
    findings.read("own_databases", schemas.postgres.own_open(connection).await?);
    obstructions(connection, &mut findings, &schemas.postgres.config).await?;
    let trusted = vec![
        "every role that may connect to the main database can read the names of roles and schemas in it"
            .to_owned(),
    ];
    Ok(Checked { cells: findings.cells(), trusted })
}

/// Attempts on schemas, beside those that every check makes.
const TRIED: [&str; 10] = [
    "rows",
    "rows_after_set",
    "rows_after_reset",
    "insert",
    "update",
    "delete",
    "schema",
    "sequences",
    "functions",
    "list_of_tenants",
];

/// Privileges of one tenant on another's schema, and on its tables and sequences.
const RIGHTS: &str = "
    SELECT format('%s may use %s', mine, theirs) FROM unnest($1::text[], $2::text[]) pair (mine, theirs)
    JOIN pg_catalog.pg_namespace n ON nspname::text = theirs
    WHERE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname::text = mine)
      AND (has_schema_privilege(mine, n.oid, 'USAGE, CREATE')
           OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE relnamespace = n.oid AND relkind IN ('r', 'p', 'v', 'm')
                      AND (has_table_privilege(mine, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'
                               || CASE WHEN current_setting('server_version_num')::int < 170000 THEN '' ELSE ', MAINTAIN' END)
                           OR has_any_column_privilege(mine, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')))
           OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE relnamespace = n.oid AND relkind = 'S'
                      AND has_sequence_privilege(mine, c.oid, 'USAGE, SELECT, UPDATE')))
    ORDER BY 1";

/// Tries to read one tenant's tables and sequences, to call its functions, and to become its role.
async fn probe(
    connection: &mut Session,
    login: &mut ProbeSession,
    findings: &mut Findings,
    name: &Name,
) -> Result<(), Failure> {
    let schema = name.as_str();
    let relations: Vec<(String, String)> = connection.pairs(
        "SELECT relname::text, relkind::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
         WHERE nspname::text = $1 AND relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY 1",
        &[&schema],
    )
    .await
    .map_err(failure)?;
    let of_kind = |kinds: &[&str]| -> Vec<String> {
        let of_kind = relations.iter().filter(|(_, kind)| kinds.contains(&kind.as_str()));
        of_kind.map(|(name, _)| name.clone()).collect()
    };
    let (tables, sequences) = (of_kind(&["r", "p", "v", "m"]), of_kind(&["S"]));
    let usage = format!("SELECT has_schema_privilege({}, 'USAGE')", literal(schema));
    login.probe(findings, "schema", schema, "", &usage).await?;
    let path = format!("SET LOCAL {}", Extensions::default().search_path(schema));
    let again = "RESET ROLE; RESET SESSION AUTHORIZATION; RESET ALL";
    for (what, before) in [("rows", ""), ("rows_after_set", &*path), ("rows_after_reset", again)] {
        login.read(findings, what, schema, &tables, "true", before).await?;
    }
    let written: Vec<(String, Option<String>)> = connection.pairs(
        "SELECT relname::text, (SELECT attname::text FROM pg_catalog.pg_attribute
                                WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a'
                                ORDER BY attnum LIMIT 1)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
         WHERE nspname::text = $1 AND relkind IN ('r', 'p') AND relname <> $2 ORDER BY 1",
        // It has other privileges.
        &[&schema, &MIGRATIONS],
    )
    .await
    .map_err(failure)?;
    let written: Vec<WrittenTable> =
        written.into_iter().map(|(name, column)| WrittenTable { name, column, owner: None }).collect();
    login.write(findings, schema, &written, &path).await?;
    for sequence in sequences {
        let sql = format!("SELECT last_value IS NOT NULL FROM {}.{}", quoted(schema), quoted(&sequence));
        login.probe(findings, "sequences", &format!("{schema}.{sequence}"), "", &sql).await?;
    }
    let functions = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
                        WHERE nspname = {} AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE'))",
        literal(schema)
    );
    login.probe(findings, "functions", schema, "", &functions).await?;
    login.become_role(findings, schema).await
}

/// SECURITY DEFINER functions of other owners that a tenant may call.
async fn definers(
    connection: &mut Session,
    findings: &mut Findings,
    roles: &[String],
) -> Result<(), Failure> {
    let found = connection
        .all(
            "SELECT DISTINCT format('%s.%s', nspname, proname)
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
         JOIN pg_catalog.pg_roles r ON r.rolname::text = ANY ($1)
         WHERE prosecdef AND proowner <> r.oid AND nspname NOT IN ('pg_catalog', 'information_schema')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                           WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
           AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_schema_privilege(r.oid, n.oid, 'USAGE')
         ORDER BY 1",
            &[&roles],
        )
        .await;
    findings.read("definer_functions", found.map_err(failure)?);
    Ok(())
}
