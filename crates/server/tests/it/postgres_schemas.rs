//! Products' schemas as their tools write them, in the pool, a schema and a database: filled with extreme values,
//! exported, imported, cloned, backed up, restored, suspended and erased, with the same content after each round
//! trip. A plain run draws one isolation for each product, except for the one with extensions; `--full` takes all. `postgres_schemas/README.md` says how
//! the files were made.

use std::collections::BTreeMap;
use std::path::Path;

use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_testkit::database::execute;
use tenantry_testkit::{Raw, TestDatabase, seed};

use crate::databases::login;
use crate::plans::onboard;
use crate::server::{Server, read, request};

const FILL: &str = include_str!("postgres_schemas/fill.sql");
const EDGES: &str = include_str!("postgres_schemas/edges.json");

/// A product's schema. The row is the canary's: its table and values.
struct Product {
    tool: &'static str,
    own: (&'static str, Value),
    shared: (&'static str, Value),
    /// Whether names are qualified with `public`.
    is_qualified: bool,
}

impl Product {
    /// A product whose files are the same for every isolation.
    fn of_one_form(tool: &'static str, table: &'static str, row: Value) -> Self {
        Self { tool, own: (table, row.clone()), shared: (table, row), is_qualified: false }
    }

    /// A folder with the product's migrations and seeds for a provider.
    fn folder(&self, (table, row): &(&str, Value), form: &str) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres_schemas").join(self.tool);
        let form = Some(files.join(form)).filter(|folder| folder.exists()).unwrap_or(files.join("both"));
        std::fs::create_dir_all(dir.path().join("migrations/postgres")).unwrap();
        std::os::unix::fs::symlink(form, dir.path().join("migrations/postgres/app")).unwrap();
        std::fs::create_dir_all(dir.path().join("seeds/defaults")).unwrap();
        let canary = json!([{ "table": table, "rows": [row] }]);
        std::fs::write(dir.path().join("seeds/canary.yaml"), canary.to_string()).unwrap();
        std::fs::write(dir.path().join("seeds/defaults/en.yaml"), "[]").unwrap();
        dir
    }

    fn provider(&self, name: &str, database: &TestDatabase, folder: &Path) -> String {
        format!(
            "[providers.{name}]\ntype = 'postgres'\nurl = '{}'\napp_role = '{}'\nmigrations = '{}'\nseeds = '{}'\npublic_schema = '{}'\n",
            database.url(),
            database.app_role(),
            folder.join("migrations").display(),
            folder.join("seeds").display(),
            if self.is_qualified { "rewrite" } else { "reject" },
        )
    }

    /// Runs the life of a tenant in each isolation.
    async fn survives(self) {
        let (Some(own), Some(shared)) = (TestDatabase::postgres().await, TestDatabase::postgres().await)
        else {
            return;
        };
        let folders = [self.folder(&self.own, "own"), self.folder(&self.shared, "shared")];
        let config = [("own", &own, &folders[0]), ("shared", &shared, &folders[1])]
            .map(|(name, database, folder)| self.provider(name, database, folder.path()))
            .concat();
        let urls = [own.url().to_owned(), shared.url().to_owned()];
        let server = Server::on(vec![own, shared], &config, "schemas").await;
        let mut lives = vec![("pool", &urls[1]), ("schema", &urls[0]), ("database", &urls[0])];
        if std::env::var_os("TENANTRY_TEST_FULL").is_none() && self.tool != EXTENSIONS {
            let (_, mut random) = seed::generator(self.tool);
            lives = vec![lives[random.random_range(0..lives.len())]];
        }
        for (plan, main) in lives {
            Life { server: &server, plan, main }.run().await;
        }
    }
}

/// The life of tenants of one isolation.
struct Life<'a> {
    server: &'a Server,
    plan: &'static str,
    /// URL of the main database.
    main: &'a str,
}

/// A tenant with its login.
struct Tenant {
    id: String,
    /// URL of the login.
    login: String,
    /// URL of its tables for the administrator, with their schema as search path.
    inside: String,
    role: String,
}

impl Life<'_> {
    async fn run(&self) {
        let (one, two) = (self.tenant("One").await, self.tenant("Two").await);
        self.fill(&one, 0).await;
        let before = self.dump(&one).await;
        let empty: Vec<&String> =
            before.iter().filter(|(_, rows)| rows.is_empty()).map(|(table, _)| table).collect();
        assert!(empty.is_empty(), "{}: tables without rows: {empty:?}", self.plan);

        let exported = self.archive(&one, "export").await;
        let digest = digest_of(&exported);
        self.import(&one, &exported, &two, &digest).await;
        self.same(&before, &two, "imported").await;
        let clone = self.clone_of(&one, &digest).await;
        self.same(&before, &clone, "cloned").await;

        let backup = self.archive(&one, "backup").await;
        assert_eq!(digest_of(&backup), digest, "{}: the backup", self.plan);
        self.fill(&one, 1).await;
        assert_ne!(self.dump(&one).await, before);
        let restore = json!({ "archive": backup["id"] });
        let done = self.succeeds(&format!("/v1/tenants/{}/restores", one.id), &restore).await;
        assert_eq!(
            done["response"]["loaded"]["resources"]["database"]["digest"],
            json!(digest),
            "{}",
            self.plan
        );
        self.same(&before, &one, "restored").await;
        assert_eq!(digest_of(&self.archive(&one, "export").await), digest, "{}", self.plan);
        // Generated numbers continue after the imported ones.
        self.fill(&two, 1).await;

        self.is_without_drift().await;
        self.is_fenced(&one).await;
        self.is_isolated().await;
        for tenant in [&one, &two, &clone] {
            self.is_erased(tenant).await;
        }
    }

    async fn tenant(&self, name: &str) -> Tenant {
        let (operation, _) =
            onboard(self.server, &request(&format!("{name} {}", self.plan), self.plan)).await;
        self.tenant_of(&operation)
    }

    fn tenant_of(&self, operation: &Value) -> Tenant {
        let outputs = crate::plans::made(operation, "database");
        let text = |key: &str| outputs[key].as_str().unwrap().to_owned();
        let inside = tenantry_testkit::database::on_server(self.main, &text("database"));
        let inside = format!("{inside}?options=-csearch_path%3D%22{}%22", text("schema"));
        let id = operation["tenant_id"].as_str().unwrap().to_owned();
        Tenant { id, login: login(operation), inside, role: text("role") }
    }

    /// Adds rows as the tenant's application does: by its login.
    async fn fill(&self, tenant: &Tenant, round: u8) {
        let fill = FILL.replace("EDGES", EDGES);
        let settings = format!("SET fill.tenant = '{}'; SET fill.round = '{round}'; {fill}", tenant.id);
        let filled = execute(&tenant.login, settings).await;
        filled.unwrap_or_else(|error| panic!("{}, round {round}: {error}", self.plan));
    }

    /// The tenant's rows by table, and the positions of its sequences, read without Tenantry.
    async fn dump(&self, tenant: &Tenant) -> BTreeMap<String, String> {
        let raw = Raw::connect(&tenant.inside).await;
        let is_pool = self.plan == "pool";
        let kinds = if is_pool { "'r', 'p'" } else { "'r', 'p', 'm', 'S'" };
        let tables = raw
            .rows(&format!(
                "SELECT relname::text, quote_ident(relname), relkind::text FROM pg_class
                 WHERE relnamespace = current_schema()::regnamespace AND relkind IN ({kinds}) AND NOT relispartition AND relname <> '_migrations' AND relispopulated"
            ))
            .await;
        let mut dump = BTreeMap::new();
        for table in &tables {
            let (name, quoted, kind) =
                (table.get::<String>(0), table.get::<String>(1), table.get::<String>(2));
            let row = if kind == "S" { "(entire.last_value, entire.is_called)" } else { "entire" };
            let only = if kind == "r" { "ONLY" } else { "" };
            let own = if is_pool { format!("WHERE tenant_id = '{}'", tenant.id) } else { String::new() };
            let rows = raw
                .rows(&format!(
                    "SELECT coalesce(string_agg({row}::text, E'\\n' ORDER BY {row}::text COLLATE \"C\"), '') FROM {only} {quoted} entire {own}"
                ))
                .await;
            dump.insert(name, rows[0].get::<String>(0).replace(&tenant.id, "OWN"));
        }
        raw.close().await;
        dump
    }

    async fn same(&self, before: &BTreeMap<String, String>, tenant: &Tenant, how: &str) {
        let after = self.dump(tenant).await;
        assert_eq!(after.len(), before.len());
        for (table, rows) in before {
            assert_eq!(after.get(table), Some(rows), "{}: {table} was {how}", self.plan);
        }
    }

    async fn succeeds(&self, path: &str, body: &Value) -> Value {
        let begun = self.server.post(path, body).await.expect(202).body;
        let done = self.server.done(begun["id"].as_str().unwrap()).await;
        assert_eq!(done["state"], "succeeded", "{}: {path}: {done:#}", self.plan);
        done
    }

    async fn archive(&self, tenant: &Tenant, purpose: &str) -> Value {
        let done = self.succeeds(&format!("/v1/tenants/{}/{purpose}s", tenant.id), &json!({})).await;
        done["response"]["archives"][purpose].clone()
    }

    async fn import(&self, from: &Tenant, export: &Value, to: &Tenant, digest: &str) {
        let link = format!("/v1/tenants/{}/exports/{}/link", from.id, export["id"].as_str().unwrap());
        let link = self.server.post(&link, &json!({})).await.expect(201).body;
        let address = link["url"].as_str().unwrap().replace(&self.server.url, "");
        let bytes = self.server.bare(Method::GET, &address).send().await.unwrap().bytes().await.unwrap();
        let sent = self.server.request(Method::POST, &format!("/v1/tenants/{}/imports", to.id)).body(bytes);
        let begun = read(sent).await.expect(202).body;
        let done = self.server.done(begun["id"].as_str().unwrap()).await;
        assert_eq!(done["state"], "succeeded", "{}: {done:#}", self.plan);
        assert_eq!(
            done["response"]["loaded"]["resources"]["database"]["digest"],
            json!(digest),
            "{}",
            self.plan
        );
        assert_eq!(
            digest_of(&self.archive(to, "export").await),
            digest,
            "{}: the import's export",
            self.plan
        );
    }

    async fn clone_of(&self, tenant: &Tenant, digest: &str) -> Tenant {
        let options =
            json!({ "slug": format!("clone-{}", self.plan), "admin_user": { "email": "dev@example.com" } });
        let mut done = self.succeeds(&format!("/v1/tenants/{}/clones", tenant.id), &options).await;
        assert_eq!(
            done["response"]["cloned"]["resources"]["database"]["digest"],
            json!(digest),
            "{}",
            self.plan
        );
        let claim = format!("/v1/operations/{}/credentials", done["id"].as_str().unwrap());
        let claimed = self.server.post(&claim, &json!({})).await.expect(200).body;
        done["credentials"] = claimed["credentials"].clone();
        self.tenant_of(&done)
    }

    async fn is_without_drift(&self) {
        let drift = self.server.get("/v1/drift").await.expect(200).body;
        assert_eq!((&drift["checked"], &drift["data"]), (&json!(3), &json!([])), "{}: {drift:#}", self.plan);
    }

    async fn is_fenced(&self, tenant: &Tenant) {
        let change = async |verb: &str, body: Value| {
            let path = format!("/v1/tenants/{}/{verb}", tenant.id);
            let fences = self.server.post(&path, &body).await.expect(200).body["fences"].clone();
            assert_eq!(fences[0]["acknowledged"], true, "{}: {fences:#}", self.plan);
        };
        let reads = async || execute(&tenant.login, "SELECT 1".to_owned()).await.is_ok();
        change("suspend", json!({ "reason": "payment" })).await;
        let in_pool = self.plan == "pool";
        assert!(!reads().await || in_pool && self.visible(tenant).await == 0, "{}: suspended", self.plan);
        change("resume", json!({})).await;
        assert!(reads().await && self.visible(tenant).await > 0, "{}: resumed", self.plan);
    }

    /// Number of tables in which the login sees rows.
    async fn visible(&self, tenant: &Tenant) -> usize {
        let raw = Raw::connect(&tenant.login).await;
        let tables = raw
            .rows(
                "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = current_schema()::regnamespace
                 AND relkind = 'r' AND NOT relispartition AND relname <> '_migrations' LIMIT 5",
            )
            .await;
        let mut seen = 0;
        for table in tables {
            let rows =
                raw.rows(&format!("SELECT EXISTS (SELECT FROM {})::text", table.get::<String>(0))).await;
            seen += usize::from(rows[0].get::<String>(0) == "true");
        }
        raw.close().await;
        seen
    }

    async fn is_isolated(&self) {
        let report =
            self.server.post("/v1/isolation-checks", &json!({})).await.expect(201).body["report"].clone();
        assert_eq!(report["leaks"], 0, "{}: {report:#}", self.plan);
        let cells = report["matrix"].as_array().unwrap();
        let denied = cells.iter().filter(|cell| cell["outcome"] == "denied").count();
        assert!(denied > 5, "{}: {report:#}", self.plan);
    }

    async fn is_erased(&self, tenant: &Tenant) {
        self.succeeds(&format!("/v1/tenants/{}/erase", tenant.id), &json!({ "reason": "over" })).await;
        let raw = Raw::connect(self.main).await;
        let name = &tenant.role;
        let left = raw
            .rows(&format!(
                "SELECT rolname::text FROM pg_roles WHERE rolname = '{name}' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = '{name}'
                 UNION ALL SELECT datname FROM pg_database WHERE datname = '{name}'"
            ))
            .await;
        raw.close().await;
        assert!(left.is_empty(), "{}: {left:?}", self.plan);
        if self.plan == "pool" {
            let rows = self.dump(tenant).await;
            assert!(rows.values().all(String::is_empty), "{rows:?}");
        }
    }
}

/// Digest of an archive's database.
fn digest_of(archive: &Value) -> String {
    let resources = archive["resources"].as_array().unwrap().iter();
    let database = resources.into_iter().find(|resource| resource["folder"] == "database").unwrap();
    database["content"]["digest"].as_str().unwrap().to_owned()
}

/// The product that needs extensions, which are other objects in each isolation.
const EXTENSIONS: &str = "extensions";
const UUID: &str = "00000000-0000-7000-8000-000000000000";
const NEVER: &str = "2000-01-01";

macro_rules! products {
    ($($name:ident: $product:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $product.survives().await;
        })*
    };
}

products! {
    prisma: Product {
        tool: "prisma",
        own: ("User", json!({ "id": UUID, "email": "c", "updatedAt": NEVER })),
        shared: ("User", json!({ "id": UUID, "email": "c" })),
        is_qualified: false,
    };
    django: Product {
        tool: "django",
        own: ("clinic_person", json!({ "id": "1", "name": "", "email": "c", "created": NEVER })),
        shared: ("shared_patient", json!({ "id": UUID, "name": "", "email": "c", "allergies": {} })),
        is_qualified: false,
    };
    rails: {
        let user = json!({ "id": "1", "email": "c", "created_at": NEVER, "updated_at": NEVER, "preferences": {}, "lock_version": 0 });
        Product { tool: "rails", own: ("users", user.clone()), shared: ("users", user), is_qualified: true }
    };
    drizzle: {
        let account = json!({ "id": UUID, "name": "c", "domains": [], "created_at": NEVER });
        Product { tool: "drizzle", own: ("accounts", account.clone()), shared: ("accounts", account), is_qualified: true }
    };
    pg_dump: {
        let user = json!({ "id": "1", "email": "c" });
        Product { tool: "pg_dump", own: ("users", user.clone()), shared: ("users", user), is_qualified: true }
    };
    goose: Product::of_one_form("goose", "customers", json!({ "id": UUID, "name": "c" }));
    flyway: Product::of_one_form("flyway", "warehouses", json!({ "id": "1", "name": "c" }));
    dbmate: Product::of_one_form("dbmate", "agents", json!({ "id": "1", "name": "c" }));
    golang_migrate: Product::of_one_form("golang_migrate", "alarms", json!({ "id": UUID }));
    sqlx: Product::of_one_form("sqlx", "samples", json!({ "id": "1" }));
    extensions: Product { is_qualified: true, ..Product::of_one_form(EXTENSIONS, "members", json!({ "id": UUID, "email": "c" })) };
}
