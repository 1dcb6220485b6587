//! Configuration of the tenants' databases on PostgreSQL, one for the three ways in which they keep tenants apart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::content::app;

/// Where the servers are, and what the tenants' tables are made of. Not printable: the URLs hold passwords.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://administrator:password@host/database`. The administrator makes roles, schemas and databases; what
    /// tenants share, and the list of tenants, is in that database. Direct: a pooler in transaction mode loses locks.
    #[schemars(extend("x-secret" = true, "examples" = ["postgres://tenantry_admin:password@localhost/tenants"]))]
    pub url: String,
    /// Address and port of the pooler in transaction mode, if there is one before the server of `url`, through which tenants'
    /// applications connect. Tenantry itself does not: only the isolation check tries it.
    #[serde(default)]
    #[schemars(extend("examples" = ["db.example.com:6432"]))]
    pub pooler: Option<String>,
    /// The set of migrations: the folder `postgres/SET` inside `migrations`.
    #[serde(default = "app")]
    pub set: String,
    /// Folder with sets of migrations; without it, the sets that came with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/migrations"]))]
    pub migrations: Option<PathBuf>,
    /// Folder with seeds; without it, the seeds that came with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/seeds"]))]
    pub seeds: Option<PathBuf>,
    /// Most connections to a server's main database.
    #[serde(default = "connections")]
    #[schemars(range(min = 2, max = 500))]
    pub connections: u32,
    /// `postgres_pool`: the role as which applications reach the shared tables. It is made, without a right to log in,
    /// if it is missing.
    #[serde(default = "app_role")]
    #[schemars(length(min = 1, max = 54))]
    pub app_role: String,
    /// `postgres_pool`: in how many parts, by hash of the tenant, tables are created that are shared; 0: as a whole. Tables that
    /// are there already stay as they are.
    #[serde(default)]
    #[schemars(range(max = 1_000))]
    pub partitions: u16,
    /// Connections that a tenant's login role may have at a time.
    #[serde(default = "connection_limit")]
    #[schemars(range(min = 1, max = 10_000))]
    pub connection_limit: u16,
    /// `postgres_database`: by region, the server that has its tenants' databases. Those of other regions are on the server
    /// of `url`.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "eu-central-1": { "url": "postgres://tenantry_admin:password@eu/tenants" } }]))]
    pub clusters: BTreeMap<String, Cluster>,
    /// `postgres_database`: tenants' databases that this process is connected to at a time; the others are connected to
    /// when they are used.
    #[serde(default = "open_databases")]
    #[schemars(range(min = 1, max = 1_000))]
    pub open_databases: u64,
    /// `postgres_schema`: schemas that are kept ready, so that a tenant need not wait for its tables. None unless told.
    #[serde(default)]
    #[schemars(range(max = 1_000))]
    pub warm_schemas: u16,
    /// `postgres_database`: databases that are kept ready on each server. None unless told.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub warm_databases: u16,
}

/// The server of a region. Not printable: the URL holds a password.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// As the main server's. The list of the region's tenants is in this database.
    #[schemars(extend("x-secret" = true))]
    pub url: String,
    /// Address and port of the pooler before this server, as the main server's.
    #[serde(default)]
    pub pooler: Option<String>,
}

impl Cluster {
    /// This server, without a pooler.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), pooler: None }
    }
}

impl Config {
    /// This server, with everything else as shipped.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pooler: None,
            set: app(),
            migrations: None,
            seeds: None,
            connections: connections(),
            app_role: app_role(),
            partitions: 0,
            connection_limit: connection_limit(),
            clusters: BTreeMap::new(),
            open_databases: open_databases(),
            warm_schemas: 0,
            warm_databases: 0,
        }
    }
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

fn open_databases() -> u64 {
    16
}
