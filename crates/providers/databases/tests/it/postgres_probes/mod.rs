//! Leak probes: a tenant's login tries every relation, function, sequence, type, large object, schema, role and session of
//! its database, and what belongs to the server. What is opened by hand is reached, and the isolation check reports it.

mod objects;
pub mod probes;

use sqlx::AssertSqlSafe;
use tenantry_provider::{Ensured, Outcome, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::{admin, on_server};

use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, plain};
use crate::postgres_failures::{Folder, TABLE, bare};
use probes::{Own, Probes, Reached};

/// Objects of every kind that all isolations accept.
const OBJECTS: &str = "
    CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION pgcrypto; CREATE EXTENSION tablefunc;
    CREATE TYPE mood AS ENUM ('good');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE SEQUENCE tickets;
    CREATE TABLE kinds (tenant_id text, id int GENERATED ALWAYS AS IDENTITY, m mood, p positive, n int DEFAULT nextval('tickets'), PRIMARY KEY (tenant_id, id));
    CREATE TABLE days (tenant_id text, id text, day int, PRIMARY KEY (tenant_id, id, day)) PARTITION BY RANGE (day);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10) PARTITION BY HASH (tenant_id);
    CREATE TABLE days_1_0 PARTITION OF days_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE heirs (more text, PRIMARY KEY (tenant_id, id)) INHERITS (t);
    CREATE VIEW all_days WITH (security_invoker = true) AS SELECT * FROM days;
    CREATE FUNCTION counted(a int DEFAULT 1) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
    CREATE PROCEDURE noted() LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
    CREATE STATISTICS of_t ON id, n FROM t;";

/// Objects that only a schema or database of the tenant's own may have.
const OWN: &str = "
    CREATE TABLE plain (id int, value text);
    CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM t;";

/// Two tenants with rows and large objects.
struct Pair {
    fixture: Fixture,
    tenants: [(Spec, Ensured); 2],
    superuser: bool,
}

impl Pair {
    async fn new(model: Model, superuser: bool) -> Option<Self> {
        let own = if model == Model::Pool { "" } else { OWN };
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", &format!("{OBJECTS}{own}"))]);
        let path = folder.path().to_owned();
        let attributes = if superuser { "SUPERUSER" } else { plain(model) };
        let database = TestDatabase::postgres().await?;
        let fixture = Fixture::with_administrator(database, model, attributes, |config| {
            config.migrations = Some(path.clone());
            config.seeds = Some(path);
        });
        let fixture = fixture.await.unwrap();
        let specs = [(); 2].map(|()| {
            let mut spec = bare();
            spec.name = spec.name.replace('-', "_");
            spec
        });
        let [one, two] = specs;
        let tenants = [(ensured(&fixture, &one).await), (ensured(&fixture, &two).await)];
        let [first, second] = tenants;
        let pair = Self { fixture, tenants: [(one, first), (two, second)], superuser };
        for (spec, made) in &pair.tenants {
            let mut session = log_in(&pair.fixture, spec, &made.outputs).await.unwrap();
            let id = spec.tenant.id;
            let rows = format!(
                "INSERT INTO t VALUES ('{id}', 'a', 1); INSERT INTO heirs VALUES ('{id}', 'b', 1, 'x'); INSERT INTO days VALUES ('{id}', 'a', 1);
                 INSERT INTO kinds (tenant_id, m, p) VALUES ('{id}', 'good', 1)"
            );
            sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut session).await.unwrap();
            let mut superuser = pair.superuser(&spec.name).await;
            let object = format!(
                "SET ROLE \"{}\"; SELECT lo_from_bytea(0, 'x'); RESET ROLE; SELECT lo_from_bytea(0, 'y'); ANALYZE",
                spec.name
            );
            sqlx::raw_sql(AssertSqlSafe(object)).execute(&mut superuser).await.unwrap();
        }
        Some(pair)
    }

    fn main(&self) -> String {
        self.fixture.url().rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// A superuser's session in the database of a tenant.
    async fn superuser(&self, name: &str) -> sqlx::PgConnection {
        let database = if self.fixture.model == Model::Database { name.to_owned() } else { self.main() };
        connect(&on_server(&admin().unwrap(), &database)).await
    }

    /// Tries everything as the first tenant, in its database or in the main one; with `only`, objects whose names begin so.
    async fn probe(&self, is_main: bool, only: &str) -> Reached {
        let (spec, made) = &self.tenants[0];
        let id = spec.tenant.id.to_string();
        let (mut outputs, mut database) = (made.outputs.clone(), outputs_database(&made.outputs));
        if is_main {
            database = self.main();
            outputs["database"] = database.clone().into();
        }
        let mut superuser = connect(&on_server(&admin().unwrap(), &database)).await;
        let mut session = log_in(&self.fixture, spec, &outputs).await.unwrap();
        let schema = match self.fixture.model {
            Model::Pool => Some("tenantry_pool".to_owned()),
            Model::Schema => Some(spec.name.clone()),
            Model::Database => Some("public".to_owned()).filter(|_| !is_main),
        };
        let schemas = Vec::from_iter(schema);
        let shared = Some(&*id).filter(|_| self.fixture.model == Model::Pool);
        let other = self.tenants[1].0.name.clone();
        let mut others = vec![other, format!("admin_{}", self.main()), "postgres".to_owned()];
        // Only shared tables have a role of applications.
        others.extend(shared.map(|_| self.fixture.app_role().to_owned()));
        let own = Own { schemas: &schemas, shared, role: &spec.name };
        Probes { superuser: &mut superuser, session: &mut session, own, others: &others, only }.run().await
    }

    /// Cells of the isolation check that report a leak.
    async fn cells(&self) -> Vec<String> {
        let ids: Vec<_> = self.tenants.iter().map(|(spec, _)| spec.tenant.id).collect();
        let cells = self.fixture.provider.isolation().unwrap().check(&ids).await.unwrap().cells;
        cells.into_iter().filter(|cell| cell.outcome == Outcome::Leak).map(|cell| cell.what).collect()
    }
}

fn outputs_database(outputs: &serde_json::Value) -> String {
    outputs["database"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn postgres_logins_reach_no_object_of_others() {
    for model in MODELS {
        for superuser in [true, false] {
            let Some(pair) = Pair::new(model, superuser).await else { return };
            let places: &[bool] = if model == Model::Database { &[false, true] } else { &[false] };
            for is_main in places {
                let Reached { found, tried } = pair.probe(*is_main, "").await;
                assert_eq!(found, [""; 0], "{model:?}, superuser: {superuser}, main: {is_main}");
                assert!(tried > 100, "{model:?}: {tried} attempts");
            }
            assert_eq!(pair.cells().await, [""; 0], "{model:?}, superuser: {}", pair.superuser);
        }
    }
}

/// Statements that open something, with `NAME` for the role of the first tenant, `OTHER` for that of the second and `MAIN`
/// for the main database; what the probes report, the cell of the isolation check, and statements that close it again.
type Opened = (&'static str, &'static str, &'static str, &'static str);

const EVERYWHERE: &[Opened] = &[
    (
        "GRANT CREATE ON SCHEMA public TO \"NAME\"",
        "schema public: create",
        "other_objects",
        "REVOKE CREATE ON SCHEMA public FROM \"NAME\"",
    ),
    (
        "CREATE SCHEMA opened; GRANT USAGE, CREATE ON SCHEMA opened TO PUBLIC",
        "schema opened: use",
        "other_objects",
        "DROP SCHEMA opened",
    ),
    (
        "GRANT CREATE ON DATABASE \"MAIN\" TO PUBLIC",
        "catalogue: database",
        "other_objects",
        "REVOKE CREATE ON DATABASE \"MAIN\" FROM PUBLIC",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER opened; CREATE SERVER opened FOREIGN DATA WRAPPER opened; GRANT USAGE ON FOREIGN SERVER opened TO PUBLIC",
        "catalogue: foreign servers",
        "other_objects",
        "DROP SERVER opened; DROP FOREIGN DATA WRAPPER opened",
    ),
    (
        "GRANT SET ON PARAMETER log_statement TO \"NAME\"",
        "catalogue: parameters",
        "other_objects",
        "REVOKE SET ON PARAMETER log_statement FROM \"NAME\"",
    ),
    (
        "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC",
        "large object 4711: read",
        "other_objects",
        "SELECT lo_unlink(4711)",
    ),
    (
        "SELECT lo_create(4711); GRANT SELECT, UPDATE ON LARGE OBJECT 4711 TO \"NAME\"",
        "large object 4711: write",
        "other_objects",
        "SELECT lo_unlink(4711)",
    ),
    ("GRANT pg_monitor TO \"NAME\"", "server: become", "role_membership", "REVOKE pg_monitor FROM \"NAME\""),
    (
        "GRANT \"OTHER\" TO \"NAME\"",
        "other OTHER: become",
        "role_membership",
        "REVOKE \"OTHER\" FROM \"NAME\"",
    ),
    (
        "ALTER ROLE \"NAME\" CREATEROLE",
        "server: create a role",
        "role_attributes",
        "ALTER ROLE \"NAME\" NOCREATEROLE",
    ),
];

const IN_POOL: &[Opened] = &[
    (
        "CREATE TABLE tenantry_pool.opened (LIKE tenantry_pool.t INCLUDING ALL); INSERT INTO tenantry_pool.opened SELECT * FROM tenantry_pool.t; GRANT SELECT ON tenantry_pool.opened TO PUBLIC",
        "relation tenantry_pool.opened: read",
        "rls_enabled",
        "DROP TABLE tenantry_pool.opened",
    ),
    (
        "GRANT TRUNCATE ON tenantry_pool.t TO \"NAME\"",
        "relation tenantry_pool.t: truncate",
        "other_rights",
        "REVOKE TRUNCATE ON tenantry_pool.t FROM \"NAME\"",
    ),
    (
        "GRANT UPDATE ON SEQUENCE tenantry_pool.tickets TO PUBLIC",
        "sequence tenantry_pool.tickets: set",
        "other_rights",
        "REVOKE UPDATE ON SEQUENCE tenantry_pool.tickets FROM PUBLIC",
    ),
    (
        "GRANT SELECT ON SEQUENCE tenantry_pool.tickets TO PUBLIC",
        "sequence tenantry_pool.tickets: read",
        "other_rights",
        "REVOKE SELECT ON SEQUENCE tenantry_pool.tickets FROM PUBLIC",
    ),
    (
        "CREATE FUNCTION public.opened() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM tenantry_pool.t'",
        "function public.opened(): call",
        "definer_functions",
        "DROP FUNCTION public.opened()",
    ),
    (
        "GRANT SELECT ON tenantry_pool.days_1_0 TO PUBLIC; ALTER TABLE tenantry_pool.days_1_0 DISABLE ROW LEVEL SECURITY",
        "relation tenantry_pool.days_1_0: read",
        "partitions",
        "REVOKE SELECT ON tenantry_pool.days_1_0 FROM PUBLIC; ALTER TABLE tenantry_pool.days_1_0 ENABLE ROW LEVEL SECURITY",
    ),
    (
        "GRANT SELECT ON tenantry.homes TO PUBLIC",
        "relation tenantry.homes: read",
        "list_of_tenants",
        "REVOKE SELECT ON tenantry.homes FROM PUBLIC",
    ),
];

const IN_SCHEMA: &[Opened] = &[
    (
        "GRANT USAGE ON SCHEMA \"OTHER\" TO \"NAME\"",
        "type \"OTHER\".mood: use",
        "rights_of_other_tenants",
        "REVOKE USAGE ON SCHEMA \"OTHER\" FROM \"NAME\"",
    ),
    (
        "CREATE FUNCTION \"OTHER\".opened() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT USAGE ON SCHEMA \"OTHER\" TO PUBLIC",
        "function \"OTHER\".opened(): call",
        "functions",
        "DROP FUNCTION \"OTHER\".opened(); REVOKE USAGE ON SCHEMA \"OTHER\" FROM PUBLIC",
    ),
    (
        "GRANT USAGE ON SCHEMA \"OTHER\" TO PUBLIC; GRANT SELECT, UPDATE ON SEQUENCE \"OTHER\".tickets TO PUBLIC",
        "sequence \"OTHER\".tickets: set",
        "sequences",
        "REVOKE USAGE ON SCHEMA \"OTHER\" FROM PUBLIC; REVOKE ALL ON SEQUENCE \"OTHER\".tickets FROM PUBLIC",
    ),
    (
        "GRANT USAGE ON SCHEMA \"OTHER\" TO PUBLIC; GRANT SELECT ON \"OTHER\".sums TO PUBLIC",
        "relation \"OTHER\".sums: read",
        "rows",
        "REVOKE USAGE ON SCHEMA \"OTHER\" FROM PUBLIC; REVOKE ALL ON \"OTHER\".sums FROM PUBLIC",
    ),
];

const IN_DATABASE: &[Opened] = &[
    (
        "GRANT CONNECT ON DATABASE \"OTHER\" TO PUBLIC",
        "other OTHER: connect",
        "connect",
        "REVOKE CONNECT ON DATABASE \"OTHER\" FROM PUBLIC",
    ),
    (
        "GRANT CREATE ON DATABASE \"OTHER\" TO \"NAME\"",
        "other OTHER: connect",
        "rights_of_other_tenants",
        "REVOKE CREATE ON DATABASE \"OTHER\" FROM \"NAME\"",
    ),
];

#[tokio::test]
async fn postgres_probes_report_what_is_opened_by_hand() {
    for (model, opened) in
        [(Model::Pool, IN_POOL), (Model::Schema, IN_SCHEMA), (Model::Database, IN_DATABASE)]
    {
        let Some(pair) = Pair::new(model, true).await else { return };
        let [name, other] = pair.tenants.each_ref().map(|(spec, _)| &*spec.name);
        let placed =
            |sql: &str| sql.replace("NAME", name).replace("OTHER", other).replace("MAIN", &pair.main());
        let mut administrator = connect(pair.fixture.url()).await;
        for (open, object, cell, close) in EVERYWHERE.iter().chain(opened) {
            sqlx::raw_sql(AssertSqlSafe(placed(open))).execute(&mut administrator).await.unwrap();
            let object = placed(object).replace('"', "");
            let only = object.split(": ").next().unwrap_or_default();
            let (found, cells) = (pair.probe(true, only).await.found, pair.cells().await);
            sqlx::raw_sql(AssertSqlSafe(placed(close))).execute(&mut administrator).await.unwrap();
            assert!(
                found.iter().any(|it| it.replace('"', "").starts_with(&object)),
                "{model:?}: {open}: {found:?}"
            );
            assert!(cells.iter().any(|it| it == cell), "{model:?}: {open}: {cell} in {cells:?}");
        }
        assert_eq!(pair.probe(true, "").await.found, [""; 0], "{model:?}: everything is closed again");
    }
}
