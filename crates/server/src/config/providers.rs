//! The providers of this process: the registration list, and each one's table of the configuration. Paths that a table
//! leaves out lie in the data folder.

use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tenantry_builtin::billing_builtin::{self, BillingBuiltin};
use tenantry_builtin::bucket_folder::{self, BucketFolder};
use tenantry_builtin::certificate_local_ca::{self, CertificateLocalCa};
use tenantry_builtin::config_builtin::{self, ConfigBuiltin};
use tenantry_builtin::custom_handoff::{self, CustomHandoff};
use tenantry_builtin::dns_builtin::{self, DnsBuiltin};
use tenantry_builtin::exec::{self, Exec};
use tenantry_builtin::http::{self, Http};
use tenantry_builtin::identity_builtin::{self, IdentityBuiltin};
use tenantry_builtin::mail_outbox::{self, MailOutbox};
use tenantry_builtin::namespace_manifests::{self, NamespaceManifests};
use tenantry_control::{FieldError, shape};
use tenantry_databases::database_postgres::{self, Postgres};
use tenantry_databases::database_postgres_database::DatabasePostgresDatabase;
use tenantry_databases::database_postgres_pool::DatabasePostgresPool;
use tenantry_databases::database_postgres_schema::DatabasePostgresSchema;
use tenantry_databases::database_sqlite_file::{self, DatabaseSqliteFile};
use tenantry_databases::database_sqlite_pool::{self, DatabaseSqlitePool};
use tenantry_model::Failure;
use tenantry_provider::Registry;

use super::Config;

/// One table for the three providers on PostgreSQL.
const POSTGRES: &str = "postgres";
const DATABASE: &str = "sqlite_pool";
const DATABASE_FILE: &str = "sqlite_file";
const IDENTITY: &str = "builtin_identity";
const CONFIG: &str = "builtin_config";
const BILLING: &str = "builtin_billing";
const MAIL: &str = "outbox";
const BUCKET: &str = "folder_bucket";
const NAMESPACE: &str = "manifests";
const DNS: &str = "builtin_dns";
const CERTIFICATE: &str = "local_ca";
const HANDOFF: &str = "handoff";
const EXEC: &str = "exec";
const HTTP: &str = "http";

/// Databases of tenants' own that are ready beforehand: enough for a few sign-ups at once, in less than a megabyte.
const WARM: u16 = 4;

/// A table of the configuration over the paths that the data folder gives.
struct Table<'a> {
    name: &'static str,
    schema: fn() -> Value,
    defaults: Value,
    given: Option<&'a Value>,
}

impl Table<'_> {
    fn value(&self) -> Value {
        let mut value = self.defaults.clone();
        super::overlay::merge(&mut value, self.given.cloned().unwrap_or_else(|| json!({})));
        value
    }

    fn faults(&self) -> Vec<FieldError> {
        let at =
            |path: &str| format!("providers.{}{}{path}", self.name, if path.is_empty() { "" } else { "." });
        let found = shape::faults(&(self.schema)(), &self.value());
        found.into_iter().map(|fault| FieldError::new(at(&fault.path), fault.message)).collect()
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.value())
            .with_context(|| format!("the table providers.{} does not fit", self.name))
    }
}

fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// Every table, whether it is given or not.
fn tables<'a>(
    data_dir: &Path,
    url: &str,
    files: &Map<String, Value>,
    given: &'a Map<String, Value>,
) -> [Table<'a>; 14] {
    let table =
        |name: &'static str, schema, defaults| Table { name, schema, defaults, given: given.get(name) };
    let file = |key: &str| files.get(key).cloned().unwrap_or(Value::Null);
    let database = json!({ "file": data_dir.join("tenants.db"), "migrations": file("migrations"), "seeds": file("seeds") });
    let database_file = json!({ "folder": data_dir.join("tenants"), "migrations": file("migrations"), "seeds": file("seeds"), "warm": WARM });
    let postgres = json!({ "migrations": file("migrations"), "seeds": file("seeds") });
    let bucket = json!({ "folder": data_dir.join("buckets") });
    let namespace = json!({ "folder": data_dir.join("manifests") });
    // The token stands behind `#`, which browsers do not send: it is in no server's log.
    let link = format!("{url}/auth/invitation#{{{{ token }}}}");
    let mail = json!({ "folder": data_dir.join("outbox"), "templates": file("mail"), "link": link });
    [
        table(POSTGRES, schema::<database_postgres::Config>, postgres),
        table(DATABASE, schema::<database_sqlite_pool::Config>, database),
        table(DATABASE_FILE, schema::<database_sqlite_file::Config>, database_file),
        table(BUCKET, schema::<bucket_folder::Config>, bucket),
        table(NAMESPACE, schema::<namespace_manifests::Config>, namespace),
        table(IDENTITY, schema::<identity_builtin::Config>, json!({})),
        table(CONFIG, schema::<config_builtin::Config>, json!({})),
        table(BILLING, schema::<billing_builtin::Config>, json!({})),
        table(MAIL, schema::<mail_outbox::Config>, mail),
        table(DNS, schema::<dns_builtin::Config>, json!({ "folder": data_dir.join("dns") })),
        table(
            CERTIFICATE,
            schema::<certificate_local_ca::Config>,
            json!({ "folder": data_dir.join("certificates") }),
        ),
        table(HANDOFF, schema::<custom_handoff::Config>, json!({ "folder": data_dir.join("handoff") })),
        table(EXEC, schema::<exec::Config>, json!({})),
        table(HTTP, schema::<http::Config>, json!({})),
    ]
}

/// What is wrong with the tables of a whole configuration that may itself be faulty.
pub fn faults(config: &Value) -> Vec<FieldError> {
    let none = Map::new();
    let object = |key: &str| config.get(key).and_then(Value::as_object).unwrap_or(&none);
    let given = object("providers");
    let tables = tables(Path::new("."), "http://localhost", object("files"), given);
    let unknown = given.keys().filter(|name| !tables.iter().any(|table| table.name == **name));
    let unknown = unknown.map(|name| {
        let known = tables.each_ref().map(|table| table.name).join(", ");
        FieldError::new(format!("providers.{name}"), format!("there is no such provider; there are {known}"))
    });
    let used = |table: &&Table| ![POSTGRES, HTTP].contains(&table.name) || table.given.is_some();
    let faulty = tables.iter().filter(used).flat_map(Table::faults);
    unknown.chain(faulty).collect()
}

/// The providers that the configuration asks for, in a server that clients reach at `url`. The first of a kind is what a
/// step gets that names none.
pub async fn build(config: &Config, url: &str) -> Result<Registry> {
    let failed = |failure: Failure| anyhow::anyhow!(failure.message);
    let files = serde_json::to_value(&config.files)?;
    let none = Map::new();
    let [
        postgres,
        database,
        database_file,
        bucket,
        namespace,
        identity,
        settings,
        billing,
        mail,
        dns,
        certificate,
        handoff,
        exec,
        http,
    ] = tables(&config.data_dir, url, files.as_object().unwrap_or(&none), &config.providers);
    let pool = DatabaseSqlitePool::new(database.read()?)
        .await
        .map_err(failed)
        .context("the provider sqlite_pool")?;
    let files = DatabaseSqliteFile::new(database_file.read()?)
        .await
        .map_err(failed)
        .context("the provider sqlite_file")?;
    let mut registry = Registry::default();
    if postgres.given.is_some() {
        let postgres = Postgres::new(postgres.read()?).map_err(failed).context("providers.postgres")?;
        // Before the others: where there is a server, steps that name no provider get it.
        registry = registry
            .add(DatabasePostgresPool::new(postgres.clone()))
            .add(DatabasePostgresSchema::new(postgres.clone()))
            .add(DatabasePostgresDatabase::new(postgres));
    }
    registry = registry
        .add(pool)
        .add(files)
        .add(BucketFolder::new(bucket.read()?))
        .add(NamespaceManifests::new(namespace.read()?))
        .add(IdentityBuiltin::new(identity.read()?))
        .add(ConfigBuiltin::new(settings.read()?))
        .add(BillingBuiltin::new(billing.read()?))
        .add(MailOutbox::new(mail.read()?).map_err(failed).context("the provider outbox")?)
        .add(DnsBuiltin::new(dns.read()?).map_err(failed).context("the provider builtin_dns")?)
        .add(CertificateLocalCa::new(certificate.read()?).map_err(failed).context("the provider local_ca")?)
        .add(CustomHandoff::new(handoff.read()?))
        .add(Exec::new(exec.read()?));
    if http.given.is_some() {
        registry = registry.add(Http::new(http.read()?).map_err(failed).context("the provider http")?);
    }
    Ok(registry)
}
