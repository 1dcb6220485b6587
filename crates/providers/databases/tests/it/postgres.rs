//! The PostgreSQL providers on a real server: the provider contract and what their tests share. Each test has
//! its own main database. Roles and tenants' databases belong to the whole server, so each name is used once.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tenantry_databases::postgres::{Cluster, Config, Postgres};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_databases::postgres_pool::DatabasePostgresPool;
use tenantry_databases::postgres_schema::DatabasePostgresSchema;
use tenantry_model::Failure;
use tenantry_provider::{Ensured, OwnDatabases, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::on_server;

use crate::contract::{Environment, ensure, must_keep_contract, rival};
use crate::world::{World, spec};

/// Attributes of an administrator with only the privileges that the guide asks for.
pub fn plain(model: Model) -> &'static str {
    match model {
        Model::Pool => "CREATEROLE BYPASSRLS",
        Model::Schema => "CREATEROLE",
        Model::Database => "CREATEROLE CREATEDB",
    }
}

/// What a tenant is on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Pool,
    Schema,
    Database,
}

/// A provider with its own main database.
pub struct Fixture {
    pub provider: Box<dyn Provider>,
    pub world: World,
    pub model: Model,
    config: Config,
    /// URL of the main database of the tenants' server, if that is a region's own.
    cluster: Option<String>,
    // Last, so that it is dropped after its users.
    _database: TestDatabase,
}

impl Fixture {
    /// None, reported as skipped, if there is no server.
    pub async fn of(model: Model) -> Option<Self> {
        Self::with(model, |_| {}).await
    }

    /// The same with a changed configuration.
    pub async fn with(model: Model, change: impl FnOnce(&mut Config)) -> Option<Self> {
        Some(Self::on(TestDatabase::postgres().await?, model, change))
    }

    /// The same on this main database.
    pub fn on(database: TestDatabase, model: Model, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&database);
        change(&mut config);
        let provider = provider(model, config.clone());
        Self { provider, world: World::default(), model, config, cluster: None, _database: database }
    }

    /// With tenants' databases in the cluster of the region of [`spec`].
    pub async fn in_cluster(cluster: Cluster) -> Option<Self> {
        let url = cluster.url.clone();
        let change = |config: &mut Config| drop(config.clusters.insert(REGION.to_owned(), cluster));
        let fixture = Self::with(Model::Database, change).await?;
        Some(Self { cluster: Some(url), ..fixture })
    }

    /// The same with an administrator that has only the rights that the model needs.
    pub async fn with_plain_administrator(model: Model) -> Option<Self> {
        Some(Self::with_plain_administrator_on(TestDatabase::postgres().await?, model).await)
    }

    /// The same on this main database.
    pub async fn with_plain_administrator_on(database: TestDatabase, model: Model) -> Self {
        Self::with_administrator(database, model, plain(model), |_| {}).await.unwrap()
    }

    /// The same with an administrator of its own that has these attributes and may create schemas in the main database.
    pub async fn with_administrator(
        database: TestDatabase,
        model: Model,
        attributes: &str,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, Failure> {
        let mut config = config(&database);
        let options: PgConnectOptions = config.url.parse().unwrap();
        let (host, port, name) = (options.get_host(), options.get_port(), options.get_database().unwrap());
        let admin = format!("admin_{name}");
        let mut connection = connect(&config.url).await;
        for sql in [
            format!("CREATE ROLE {admin} LOGIN {attributes} PASSWORD 'x'"),
            format!("GRANT CREATE ON DATABASE {name} TO {admin}"),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
        config.url = format!("postgres://{admin}:x@{host}:{port}/{name}");
        change(&mut config);
        try_provider(model, config.clone()).map(|provider| {
            let world = World::default();
            Self { provider, world, model, config, cluster: None, _database: database }
        })
    }

    /// The role of applications.
    pub fn app_role(&self) -> &str {
        &self.config.app_role
    }

    /// The provider's configuration.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Replaces the provider by one of another process with a changed configuration.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.provider = self.another();
    }

    /// The provider of another process.
    pub fn another(&self) -> Box<dyn Provider> {
        provider(self.model, self.config.clone())
    }

    /// URL of the main database of the tenants' server.
    pub fn url(&self) -> &str {
        self.cluster.as_ref().unwrap_or(&self.config.url)
    }

    /// Runs SQL as the administrator in the main database.
    pub async fn sql(&self, sql: &str) -> Vec<PgRow> {
        let mut connection = connect(self.url()).await;
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
    }

    /// Whether memberships in roles have options, as in PostgreSQL 16 and later.
    pub async fn has_membership_options(&self) -> bool {
        let version = "SELECT current_setting('server_version_num')::int >= 160000";
        self.sql(version).await[0].get(0)
    }

    pub async fn ensure(&self, spec: &Spec) {
        ensure(self, spec).await;
    }
}

pub use crate::world::REGION;

/// All models.
pub const MODELS: [Model; 3] = [Model::Pool, Model::Schema, Model::Database];

pub async fn make(fixture: &Fixture) -> (Spec, Ensured) {
    let spec = spec(fixture.settings());
    let made = ensured(fixture, &spec).await;
    (spec, made)
}

pub async fn ensured(fixture: &Fixture, spec: &Spec) -> Ensured {
    let made = fixture.provider.ensure(&fixture.world.context(), spec).await.unwrap();
    fixture.world.registry.apply(&made.writes);
    made
}

/// Connects as the tenant's application does: with the outputs and the password that was handed out.
pub async fn log_in(fixture: &Fixture, spec: &Spec, outputs: &Value) -> sqlx::Result<PgConnection> {
    login(fixture, spec, outputs).connect().await
}

/// A tenant's login as its application uses it.
pub fn login(fixture: &Fixture, spec: &Spec, outputs: &Value) -> PgConnectOptions {
    let password = fixture.world.secret(spec, &format!("postgres_password:{}", spec.name));
    let options: PgConnectOptions = fixture.url().parse().unwrap();
    let text = |key: &str| outputs[key].as_str().unwrap().to_owned();
    options
        .host(&text("host"))
        .port(outputs["port"].as_u64().unwrap().try_into().unwrap())
        .username(&text("role"))
        .password(&password)
        .database(&text("database"))
        .disable_statement_logging()
}

/// Expects the statement to fail with this SQLSTATE.
pub async fn refused(connection: &mut PgConnection, sql: &str, code: &str) {
    let error = connection.execute(AssertSqlSafe(sql)).await.expect_err(sql);
    assert_eq!(
        error.as_database_error().and_then(|error| error.code()).as_deref(),
        Some(code),
        "{sql}: {error}"
    );
}

pub async fn connect(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().disable_statement_logging().connect().await.unwrap()
}

/// Few connections, because many tests run at once; and an application role of its own.
fn config(database: &TestDatabase) -> Config {
    Config { connections: 4, app_role: database.app_role(), ..Config::new(database.url()) }
}

fn provider(model: Model, config: Config) -> Box<dyn Provider> {
    try_provider(model, config).unwrap()
}

/// A provider, unless its migrations are rejected.
pub fn try_provider(model: Model, config: Config) -> Result<Box<dyn Provider>, Failure> {
    Postgres::new(config).map(|postgres| of(model, postgres))
}

/// A provider of a server whose registry and keyring are in these databases.
pub fn provider_beside(model: Model, own: &OwnDatabases, config: Config) -> Box<dyn Provider> {
    of(model, Postgres::beside(own, config).unwrap())
}

fn of(model: Model, postgres: Arc<Postgres>) -> Box<dyn Provider> {
    match model {
        Model::Pool => Box::new(DatabasePostgresPool::new(postgres)),
        Model::Schema => Box::new(DatabasePostgresSchema::new(postgres)),
        Model::Database => Box::new(DatabasePostgresDatabase::new(postgres)),
    }
}

/// All rows of all tables of a schema as one text.
async fn rows_of(connection: &mut PgConnection, schema: &str) -> String {
    let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) ORDER BY 1";
    let tables: Vec<String> =
        sqlx::query_scalar(tables).bind(schema).fetch_all(&mut *connection).await.unwrap();
    let mut dump = String::new();
    for table in tables {
        let sql = format!(
            "SELECT coalesce(string_agg(t::text, ';' ORDER BY t::text), '') FROM \"{schema}\".\"{table}\" t"
        );
        let rows: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
        dump.push_str(&format!("{schema}.{table}: {rows}\n"));
    }
    dump
}

#[async_trait]
impl Environment for Fixture {
    fn provider(&self) -> &dyn Provider {
        &*self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "migrations": "app", "seed": "defaults" })
    }
    async fn count(&self, spec: &Spec) -> usize {
        let mut connection = connect(self.url()).await;
        let sql = match self.model {
            Model::Pool => "tenantry.homes JOIN pg_roles ON rolname = name WHERE name = $1",
            Model::Schema => "pg_namespace JOIN pg_roles ON rolname = nspname WHERE nspname = $1",
            Model::Database => "pg_database JOIN pg_roles ON rolname = datname WHERE datname = $1",
        };
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {sql}"));
        let count: i64 = sqlx::query_scalar(sql).bind(&spec.name).fetch_one(&mut connection).await.unwrap();
        usize::try_from(count).unwrap()
    }
    async fn snapshot(&self) -> String {
        let mut connection = connect(self.url()).await;
        let schemas =
            "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1";
        let schemas: Vec<String> = sqlx::query_scalar(schemas).fetch_all(&mut connection).await.unwrap();
        let mut dump = String::new();
        for schema in &schemas {
            dump.push_str(&rows_of(&mut connection, schema).await);
        }
        if self.model == Model::Database {
            let databases =
                "SELECT datname::text FROM pg_database JOIN tenantry.homes ON name = datname ORDER BY 1";
            let databases: Vec<String> =
                sqlx::query_scalar(databases).fetch_all(&mut connection).await.unwrap_or_default();
            for database in databases {
                let mut inside = connect(&on_server(self.url(), &database)).await;
                dump.push_str(&rows_of(&mut inside, "public").await);
            }
        }
        let tags = "SELECT concat_ws(' ', nspname, nspacl, obj_description(oid)) FROM pg_namespace
            UNION ALL SELECT concat_ws(' ', a.rolname, a.rolcanlogin, a.rolpassword, shobj_description(a.oid, 'pg_authid'))
            FROM pg_authid a JOIN tenantry.homes ON name = a.rolname ORDER BY 1";
        let tags: Vec<String> = sqlx::query_scalar(tags).fetch_all(&mut connection).await.unwrap_or_default();
        dump + &tags.join("\n")
    }
    async fn plant_foreign(&self, spec: &Spec) {
        self.ensure(&rival(spec)).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        self.ensure(spec).await;
        let name = &spec.name;
        self.sql(&format!("UPDATE tenantry.homes SET completed = NULL WHERE name = '{name}'")).await;
        match self.model {
            Model::Pool => drop(self.sql("DELETE FROM tenantry_pool.tasks").await),
            Model::Schema => drop(self.sql(&format!("DROP SCHEMA \"{name}\" CASCADE")).await),
            Model::Database => drop(self.sql(&format!("DROP DATABASE \"{name}\"")).await),
        }
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Some(provider(self.model, Config::new(format!("postgres://unknown@{closed}/nothing"))))
    }
}

#[tokio::test]
async fn postgres_pool() {
    if let Some(fixture) = Fixture::of(Model::Pool).await {
        must_keep_contract(&fixture).await;
    }
}

#[tokio::test]
async fn postgres_schema() {
    if let Some(fixture) = Fixture::of(Model::Schema).await {
        must_keep_contract(&fixture).await;
    }
}

#[tokio::test]
async fn postgres_database() {
    if let Some(fixture) = Fixture::of(Model::Database).await {
        must_keep_contract(&fixture).await;
    }
}
