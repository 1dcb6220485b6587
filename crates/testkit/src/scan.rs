//! A search for leftovers of tenants: counts rows and files per tenant with plain SQL and file access,
//! without the product's code. It finds tables with a tenant column in the schema, so that it includes new
//! ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tenantry_model::Timestamp;

use crate::database::on_server;
use crate::raw::{FromText, Raw, Row};

/// Places of all data of tenants.
#[derive(Clone, Debug)]
pub struct Stores {
    /// URL of the registry.
    pub registry: String,
    /// The data folder.
    pub data: PathBuf,
    /// URLs of the tenants' main databases on PostgreSQL, one per server.
    pub tenants: Vec<String>,
}

/// Folders below the data folder whose entries belong to one resource each, named by its id or external name,
/// and what an entry is.
const FOLDERS: [(&str, &str); 7] = [
    ("outbox", "mails"),
    ("things", "things"),
    ("tenants", "databases"),
    ("buckets", "buckets"),
    ("manifests", "namespaces"),
    ("dns", "hosts"),
    ("certificates/certificates", "certificates"),
];
/// Subfolder with incomplete entries and links by tenant.
const PRIVATE: &str = ".tenantry";
/// Entries of `PRIVATE` that are not of one tenant.
const SHARED: [&str; 3] = ["canary.db", "signing.key", WARM];
/// Subfolder of `PRIVATE` with the warm pool, whose entries must not name a tenant.
const WARM: &str = "warm";

/// Data of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Name of the tenant's template.
    pub template: String,
    /// `TenantStatus` of the tenant.
    pub status: String,
    /// Counts: rows by table and state, files by folder.
    pub counts: BTreeMap<String, i64>,
    /// Errors of steps, for the message of a failed test.
    pub errors: Vec<String>,
}

/// Result of a search.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Data of each tenant, by its id.
    pub tenants: BTreeMap<String, Remains>,
    /// Entries without a tenant.
    pub orphans: Vec<String>,
}

/// A step that is done or undone.
#[derive(Clone, Debug)]
pub struct Over {
    /// Resource of the step.
    pub resource: String,
    /// `done` or `undone`.
    pub state: String,
    /// Time at which the step ended, in microseconds since 1970.
    pub at: i64,
}

/// Histories, whose rows depend on the course of events.
const HISTORIES: [&str; 4] = ["audit", "events operation.", "idempotency_keys", "sign_in_codes"];
/// Rows that may remain of a rolled-back tenant: histories, and records that law requires.
const KEPT_AFTER_ROLLBACK: [&str; 10] = [
    "audit",
    "events operation.",
    "events tenant.created",
    "events tenant.provisioning_failed",
    "idempotency_keys",
    // Operations of detached steps that had succeeded before the rollback of their parent. Unfinished ones
    // are found by their steps.
    "operations ",
    "resources absent",
    "customers",
    "subscriptions cancelled",
    "invoices void",
];
/// Rows that may remain of a deleted tenant: histories without names, records that law requires, and certificates.
const KEPT_AFTER_DELETION: [&str; 9] = [
    "audit",
    "events ",
    "idempotency_keys",
    "operations ",
    "resources absent",
    "customers",
    "subscriptions cancelled",
    "invoices ",
    "certificates",
];
/// Schemas of single tenants.
const SCHEMAS: &str = "SELECT nspname::text FROM pg_namespace
    WHERE nspname !~ '^(pg|tenantry)_' AND nspname NOT IN ('public', 'information_schema', 'tenantry')";
/// Steps whose state contradicts the final state of their operation.
const INCONSISTENT: &str =
    "SELECT o.tenant_id, count(*) FROM steps s JOIN operations o ON o.id = s.operation_id
    WHERE o.state = 'succeeded' AND s.state NOT IN ('done', 'skipped')
       OR o.state IN ('rolled_back', 'cancelled') AND s.state NOT IN ('undone', 'skipped')
       OR o.state NOT IN ('succeeded', 'rolled_back', 'cancelled') GROUP BY 1";
const ERRORS: &str = "SELECT o.tenant_id, s.key, s.state, CAST(s.error AS text) FROM steps s
    JOIN operations o ON o.id = s.operation_id WHERE s.error IS NOT NULL";

impl Stores {
    /// Searches every place.
    pub async fn scan(&self) -> Scan {
        let registry = Raw::connect(&self.registry).await;
        let mut scan = Scan::default();
        for row in rows(&registry, "SELECT id, template, status FROM tenants").await {
            let found = Remains { template: get(&row, 1), status: get(&row, 2), ..Remains::default() };
            scan.tenants.insert(get(&row, 0), found);
        }
        count_tables(&registry, schema_of(&registry), "", &mut scan).await;
        for row in rows(&registry, INCONSISTENT).await {
            scan.add(&get::<String>(&row, 0), "inconsistent steps".to_owned(), get(&row, 1));
        }
        for row in rows(&registry, ERRORS).await {
            let [tenant, key, state, error]: [String; 4] = [0, 1, 2, 3].map(|i| get(&row, i));
            if let Some(tenant) = scan.tenants.get_mut(&tenant) {
                tenant.errors.push(format!("{key} ({state}): {error}"));
            }
        }
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for row in rows(&registry, "SELECT id, name, tenant_id FROM resources").await {
            let [id, name, tenant]: [String; 3] = [0, 1, 2].map(|i| get(&row, i));
            owners.insert(id.trim_start_matches("res_").to_owned(), tenant.clone());
            owners.insert(name, tenant);
        }
        registry.close().await;
        for main in &self.tenants {
            count_postgres(main, &owners, &mut scan).await;
        }
        count_file(&self.pool(), &mut scan).await;
        for (folder, what) in FOLDERS {
            let folder = self.data.join(folder);
            for name in entries(&folder).into_iter().filter(|name| name != PRIVATE) {
                let half = if name.starts_with('.') { ", incomplete" } else { "" };
                scan.add_named(&owners, &name, format!("{what}{half}"));
                count_file(&folder.join(&name).join("tenant.db"), &mut scan).await;
            }
            let private = folder.join(PRIVATE);
            for name in entries(&private.join(WARM)).into_iter().filter(|name| !name.starts_with('.')) {
                count_file(&private.join(WARM).join(&name).join("tenant.db"), &mut scan).await;
            }
            for name in entries(&private) {
                match private.join(&name).exists() {
                    _ if SHARED.iter().any(|shared| name.starts_with(shared)) => {}
                    // A link with a target.
                    true if name.starts_with("ten_") => {}
                    false if name.starts_with("ten_") => scan.add(&name, format!("{what}, dangling link"), 1),
                    _ => scan.add_named(&owners, &name, format!("{what}, incomplete")),
                }
            }
        }
        scan
    }

    /// The SQLite database of pooled tenants.
    pub fn pool(&self) -> PathBuf {
        self.data.join("tenants.db")
    }
}

/// Names in a folder; empty when it does not exist.
fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Counts the rows of tenants in a SQLite file, if it exists.
async fn count_file(file: &Path, scan: &mut Scan) {
    if file.exists() {
        let database = Raw::connect(&format!("sqlite://{}", file.display())).await;
        count_tables(&database, schema_of(&database), "database ", scan).await;
        database.close().await;
    }
}

impl Stores {
    /// Version and epoch of every operation.
    pub async fn versions(&self) -> BTreeMap<String, (i64, i64)> {
        let registry = Raw::connect(&self.registry).await;
        let all = "SELECT id, CAST(version AS bigint), CAST(epoch AS bigint) FROM operations";
        let versions =
            rows(&registry, all).await.iter().map(|row| (get(row, 0), (get(row, 1), get(row, 2)))).collect();
        registry.close().await;
        versions
    }

    /// Operations that are not finished.
    pub async fn unfinished(&self) -> i64 {
        let registry = Raw::connect(&self.registry).await;
        let question =
            "SELECT count(*) FROM operations WHERE state NOT IN ('succeeded', 'rolled_back', 'cancelled')";
        let count = get(&rows(&registry, question).await[0], 0);
        registry.close().await;
        count
    }

    /// Done and undone steps of a provider; of a detached step the one in the child.
    pub async fn over(&self, provider: &str) -> Vec<Over> {
        let registry = Raw::connect(&self.registry).await;
        let question = format!(
            "SELECT CAST(input AS text), state, finished_at FROM steps
             WHERE provider = '{provider}' AND started_at IS NOT NULL
               AND (state = 'undone' OR state = 'done' AND child_id IS NULL)"
        );
        let over = rows(&registry, &question).await.into_iter().map(|row| {
            let input: serde_json::Value = serde_json::from_str(&get::<String>(&row, 0)).expect("JSON");
            let at: Timestamp = get(&row, 2);
            let resource = input["resource"].as_str().expect("a resource").to_owned();
            Over { resource, state: get(&row, 1), at: at.micros() }
        });
        let over = over.collect();
        registry.close().await;
        over
    }
}

impl Scan {
    /// Counts an entry named by a resource's id or name.
    fn add_named(&mut self, owners: &BTreeMap<String, String>, name: &str, what: String) {
        let resource = name.trim_start_matches('.').trim_start_matches("res_");
        match owners.get(resource.split('.').next().unwrap_or_default()) {
            Some(owner) => self.add(owner, what, 1),
            None => self.orphans.push(format!("{what}: {name} belongs to no tenant")),
        }
    }

    fn add(&mut self, tenant: &str, what: String, count: i64) {
        match self.tenants.get_mut(tenant) {
            Some(found) => *found.counts.entry(what).or_default() += count,
            // The canary, and the probe tenant of an isolation check that was killed.
            None if tenant.starts_with("ten_00000000") => {}
            None => self.orphans.push(format!("{what}: {count} of {tenant}, which does not exist")),
        }
    }
}

impl Remains {
    /// Differences from the expected final state: active with the same counts as `undisturbed`, pending
    /// without data, or deleted with only what must remain.
    pub fn faults(&self, undisturbed: &Self) -> Vec<String> {
        let is = |what: &str, list: &[&str]| list.iter().any(|word| what.starts_with(word));
        let whats = self.counts.keys().chain(undisturbed.counts.keys());
        let whats: std::collections::BTreeSet<&str> = whats.map(String::as_str).collect();
        let count = |found: &Self, what: &str| found.counts.get(what).copied().unwrap_or(0);
        let wanted = |what: &str| match self.status.as_str() {
            "active" if is(what, &HISTORIES) => None,
            "active" => Some(count(undisturbed, what)),
            "pending" if what == "events tenant.provisioning_failed" => Some(1),
            "pending" if is(what, &KEPT_AFTER_ROLLBACK) => None,
            "pending" => Some(0),
            "deprovisioned" if what == "events tenant.deleted" => Some(1),
            // Another certificate follows the deletion of kept archives.
            "deprovisioned" if what == "certificates" => {
                Some(1 + count(self, "events tenant.archives_deleted"))
            }
            "deprovisioned" if is(what, &KEPT_AFTER_DELETION) => None,
            "deprovisioned" => Some(0),
            other => panic!("the final status is {other}: {:?}", self.errors),
        };
        let wrong = whats.into_iter().filter_map(|what| {
            let (is, wanted) = (count(self, what), wanted(what)?);
            let errors = &self.errors;
            (is != wanted)
                .then(|| format!("{} with {is} {what} instead of {wanted}; {errors:?}", self.status))
        });
        wrong.collect()
    }
}

/// Counts data of tenants on PostgreSQL: shared tables, schemas, databases and roles.
async fn count_postgres(main: &str, owners: &BTreeMap<String, String>, scan: &mut Scan) {
    let database = Raw::connect(main).await;
    for (schema, prefix) in [("tenantry", "list "), ("tenantry_pool", "database ")] {
        count_tables(&database, schema, prefix, scan).await;
    }
    for row in rows(&database, SCHEMAS).await {
        let name: String = get(&row, 0);
        scan.add_named(owners, &name, "schemas".to_owned());
        count_tables(&database, &name, "database ", scan).await;
    }
    // Other tests on the same server have roles and databases too. A second login is named by the resource.
    let of_tenant = |row: &Row| {
        let name = get::<String>(row, 0).trim_start_matches("tenantry_login_").to_owned();
        Some(name).filter(|name| owners.contains_key(name))
    };
    for name in rows(&database, "SELECT rolname::text FROM pg_roles").await.iter().filter_map(of_tenant) {
        scan.add_named(owners, &name, "roles".to_owned());
    }
    for name in rows(&database, "SELECT datname::text FROM pg_database").await.iter().filter_map(of_tenant) {
        scan.add_named(owners, &name, "databases".to_owned());
        let own = Raw::connect(&on_server(main, &name)).await;
        count_tables(&own, schema_of(&own), "database ", scan).await;
        own.close().await;
    }
    database.close().await;
}

/// The default schema of the database.
fn schema_of(database: &Raw) -> &'static str {
    if database.is_postgres() { "public" } else { "main" }
}

/// Counts the rows of every table with a tenant column in this schema, by state or type.
async fn count_tables(database: &Raw, schema: &str, prefix: &str, scan: &mut Scan) {
    let columns = match database.is_postgres() {
        true => format!(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = '{schema}' ORDER BY 1"
        ),
        false => "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' ORDER BY 1"
            .to_owned(),
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(database, &columns).await {
        tables.entry(get(&row, 0)).or_default().push(get(&row, 1));
    }
    for (table, columns) in tables.iter().filter(|(_, columns)| columns.iter().any(|c| c == "tenant_id")) {
        let state = columns.iter().find(|c| ["state", "type"].contains(&c.as_str()));
        let state = state.map_or("''".to_owned(), |column| format!("\"{column}\""));
        let question = format!(
            "SELECT tenant_id, {state}, count(*) FROM \"{schema}\".\"{table}\" WHERE tenant_id IS NOT NULL GROUP BY 1, 2"
        );
        for row in rows(database, &question).await {
            let what = format!("{prefix}{table} {}", get::<String>(&row, 1));
            scan.add(&get::<String>(&row, 0), what.trim_end().to_owned(), get(&row, 2));
        }
    }
}

/// The rows of a query.
pub async fn rows(database: &Raw, question: &str) -> Vec<Row> {
    database.rows(question).await
}

/// A column of a row.
pub fn get<T: FromText>(row: &Row, column: usize) -> T {
    row.get(column)
}
