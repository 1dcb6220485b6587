//! Configuration that the three PostgreSQL providers share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::app;
use crate::migrations::{DEFAULT_EXTENSIONS, PublicSchema};

/// Servers, content of the tenants' tables, and limits. Has no `Debug`: the URLs hold passwords.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://administrator:password@host/database`. Tenantry connects as this administrator, who
    /// creates roles, schemas and databases. The database holds the shared tables and the list of tenants.
    /// Name the server itself, not a pooler: a pooler in transaction mode loses locks.
    #[schemars(extend("x-secret" = true, "examples" = ["postgres://tenantry_admin:password@localhost/tenants"]))]
    pub url: String,
    /// `host:port` of the pooler in transaction mode before the server of `url`, through which tenants'
    /// applications connect. Only the isolation check uses it; Tenantry itself connects to the server.
    #[serde(default)]
    #[schemars(extend("examples" = ["db.example.com:6432"]))]
    pub pooler: Option<String>,
    /// Name of the migration set: the folder `postgres/NAME` in `migrations`.
    #[serde(default = "app")]
    pub set: String,
    /// What happens to names that migrations qualify with the schema `public`, such as `public.users`: `reject`
    /// rejects the file; `rewrite` replaces `public` by the schema of the tenant's rows.
    #[serde(default)]
    pub public_schema: PublicSchema,
    /// Whether functions of `postgres_pool` and `postgres_schema` may call `pg_notify`, which every login of the
    /// database can listen to: `reject` rejects the file; `allow` takes it.
    #[serde(default)]
    pub pg_notify: PgNotify,
    /// The extensions that migrations may create. Each is installed once in a database, in the schema `extensions`, for
    /// all tenants in it. Default: modules of PostgreSQL's contrib that only add types, functions and index methods.
    #[serde(default = "extensions")]
    #[schemars(extend("examples" = [["citext", "vector"]]))]
    pub extensions: Vec<String>,
    /// Folder with migration sets. Default: the sets that ship with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/migrations"]))]
    pub migrations: Option<PathBuf>,
    /// Folder with seeds. Default: the seeds that ship with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/seeds"]))]
    pub seeds: Option<PathBuf>,
    /// Maximum number of connections to each server's main database.
    #[serde(default = "connections")]
    #[schemars(range(min = 2, max = 500))]
    pub connections: u32,
    /// `postgres_pool`: the role that applications use to reach the shared tables. Created without login if
    /// it is missing.
    #[serde(default = "app_role")]
    #[schemars(length(min = 1, max = 54))]
    pub app_role: String,
    /// `postgres_pool`: number of hash partitions in which new shared tables are created; 0: not partitioned.
    /// Existing tables stay as they are.
    #[serde(default)]
    #[schemars(range(max = 1_000))]
    pub partitions: u16,
    /// Maximum number of concurrent connections of a tenant's login role.
    #[serde(default = "connection_limit")]
    #[schemars(range(min = 1, max = 10_000))]
    pub connection_limit: u16,
    /// Time in seconds after which a transaction of a tenant's login in the main database is ended with its session, or
    /// rolled back if it is prepared: while it is open, no vacuum removes what any tenant deletes.
    #[serde(default = "transaction_limit")]
    #[schemars(range(min = 1, max = 604_800))]
    pub transaction_limit_seconds: u32,
    /// `postgres_database`: server of a region's tenant databases, by region. Databases of other regions are
    /// on the server of `url`.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "eu-central-1": { "url": "postgres://tenantry_admin:password@eu/tenants" } }]))]
    pub clusters: BTreeMap<String, Cluster>,
    /// `postgres_database`: maximum number of tenant databases that this process keeps connections to.
    #[serde(default = "open_databases")]
    #[schemars(range(min = 1, max = 1_000))]
    pub open_databases: u64,
    /// `postgres_schema`: size of the warm pool, schemas that are created in advance. 0: no warm pool.
    #[serde(default)]
    #[schemars(range(max = 1_000))]
    pub warm_schemas: u16,
    /// `postgres_database`: size of each server's warm pool, databases that are created in advance. 0: no
    /// warm pool.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub warm_databases: u16,
}

/// Whether migrations may create functions that call `pg_notify`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PgNotify {
    /// The file is rejected.
    #[default]
    Reject,
    /// The payload says nothing about a tenant.
    Allow,
}

/// The server of a region. Has no `Debug`: the URL holds a password.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// As the main server's `url`. Its database holds the list of the region's tenants.
    #[schemars(extend("x-secret" = true))]
    pub url: String,
    /// `host:port` of the pooler before this server, as for the main server.
    #[serde(default)]
    pub pooler: Option<String>,
}

impl Cluster {
    /// A cluster at this URL, without a pooler.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), pooler: None }
    }
}

impl Config {
    /// The server at this URL; all other settings have their defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pooler: None,
            set: app(),
            public_schema: PublicSchema::default(),
            pg_notify: PgNotify::default(),
            extensions: extensions(),
            migrations: None,
            seeds: None,
            connections: connections(),
            app_role: app_role(),
            partitions: 0,
            connection_limit: connection_limit(),
            transaction_limit_seconds: transaction_limit(),
            clusters: BTreeMap::new(),
            open_databases: open_databases(),
            warm_schemas: 0,
            warm_databases: 0,
        }
    }
}

fn extensions() -> Vec<String> {
    DEFAULT_EXTENSIONS.map(str::to_owned).to_vec()
}

fn connections() -> u32 {
    16
}

fn app_role() -> String {
    "tenantry_app".to_owned()
}

fn connection_limit() -> u16 {
    20
}

fn transaction_limit() -> u32 {
    3_600
}

fn open_databases() -> u64 {
    16
}
