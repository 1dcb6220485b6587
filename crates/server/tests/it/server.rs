//! Runs the real binary for one test, with a configuration in a temporary folder; kills it when the test
//! ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_testkit::TestDatabase;
use tenantry_testkit::scan::Stores;

/// The binary under test.
pub const TENANTRY: &str = env!("CARGO_BIN_EXE_tenantry");
/// Far longer than any wait of these tests; reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Database of the registry and the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

/// A running server.
pub struct Server {
    child: Child,
    folder: TempDir,
    http: reqwest::Client,
    pub url: String,
    pub key: String,
    // Dropped last: the fields above use them.
    databases: Vec<TestDatabase>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let warnings: Vec<_> = log.lines().filter(|line| !line.contains("INFO")).collect();
            let last = &warnings[warnings.len().saturating_sub(40)..];
            eprintln!("last log lines of the server above INFO:\n{}", last.join("\n"));
        }
    }
}

/// A response with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Server {
    /// A server on SQLite.
    pub async fn sqlite() -> Self {
        Self::on(Vec::new(), "", "").await
    }

    /// A server on this database. `None`, reported as skipped, if there is no PostgreSQL.
    pub async fn start(on: On) -> Option<Self> {
        Self::start_with(on, "").await
    }

    /// The same with the templates and plans of this folder below `files`.
    pub async fn start_with(on: On, files: &str) -> Option<Self> {
        match on {
            On::Sqlite => Some(Self::on(Vec::new(), "", files).await),
            On::Postgres => {
                let databases = vec![TestDatabase::postgres().await?, TestDatabase::postgres().await?];
                let [store, keyring] = [databases[0].url(), databases[1].url()];
                let config = format!("[store]\nurl = '{store}'\n[keyring]\nurl = '{keyring}'\n");
                Some(Self::on(databases, &config, files).await)
            }
        }
    }

    /// A server with its registry on SQLite and tenants on PostgreSQL. `None`, reported as skipped, if there
    /// is none.
    pub async fn with_tenants_on_postgres() -> Option<Self> {
        let tenants = TestDatabase::postgres().await?;
        let config = tenants_on(&tenants);
        Some(Self::on(vec![tenants], &config, "").await)
    }

    /// A server with registry, keyring and tenants on PostgreSQL, so that others can share them
    /// ([`Self::beside`]). `None`, reported as skipped, if there is no PostgreSQL.
    pub async fn one_of_several() -> Option<Self> {
        let admin = tenantry_testkit::database::admin()?;
        Some(Self::on_postgres(&admin).await)
    }

    /// The same on the PostgreSQL at this administrator URL.
    pub async fn on_postgres(admin: &str) -> Self {
        let new = TestDatabase::on;
        let databases = vec![new(admin).await, new(admin).await, new(admin).await];
        let [store, keyring] = [databases[0].url(), databases[1].url()];
        let config =
            format!("[store]\nurl = '{store}'\n[keyring]\nurl = '{keyring}'\n{}", tenants_on(&databases[2]));
        Self::on(databases, &config, "").await
    }

    /// A server with registry, keyring and tenants on PostgreSQL, except that tenants of the region `far` are
    /// on the PostgreSQL at this administrator URL. `None`, reported as skipped, if there is no PostgreSQL
    /// for the others.
    pub async fn with_cluster(far: &str) -> Option<Self> {
        let admin = tenantry_testkit::database::admin()?;
        let new = TestDatabase::on;
        let databases = vec![new(&admin).await, new(&admin).await, new(&admin).await, new(far).await];
        let [store, keyring] = [databases[0].url(), databases[1].url()];
        let config = format!(
            "[capacity.local]\ndatabase = 100\n[capacity.far]\ndatabase = 100\n[store]\nurl = '{store}'\n[keyring]\nurl = '{keyring}'\n{}\
             [providers.postgres.clusters.far]\nurl = '{}'\n",
            tenants_on(&databases[2]),
            databases[3].url()
        );
        Some(Self::on(databases, &config, "").await)
    }

    /// A server with this configuration, and the templates and plans of this folder below `files`. It keeps the
    /// databases that its configuration names.
    pub async fn on(databases: Vec<TestDatabase>, config: &str, files: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/files").join(files);
        let config = format!(
            "listen = '127.0.0.1:0'\ndata_dir = '{0}'\n{config}[providers.exec]\ndirectory = '{0}'\n[files]\ntemplates = '{1}'\ncatalogue = '{2}'\n",
            folder.path().display(),
            files.join("templates").display(),
            files.join("plans.yaml").display(),
        );
        std::fs::write(folder.path().join("tenantry.toml"), config).expect("the configuration");
        let child = spawn(folder.path());
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let mut server = Self { child, folder, http, url: String::new(), key: String::new(), databases };
        server.ready().await;
        server
    }

    /// Another process on the same registry, keyring and tenants as this [`Self::one_of_several`].
    pub async fn beside(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [store, keyring] = [self.databases[0].url(), self.databases[1].url()];
        let theirs = self.folder.path().display();
        let config = format!(
            "listen = '127.0.0.1:0'\ndata_dir = '{}'\nadmin_key_file = '{theirs}/admin.key'\n\
             [store]\nurl = '{store}'\n[keyring]\nurl = '{keyring}'\nmaster_key_file = '{theirs}/master.key'\n\
             [providers.outbox]\nfolder = '{theirs}/outbox'\n{}",
            folder.path().display(),
            tenants_on(&self.databases[2]),
        );
        std::fs::write(folder.path().join("tenantry.toml"), config).expect("the configuration");
        let child = spawn(folder.path());
        let (http, key) = (self.http.clone(), self.key.clone());
        let mut server = Self { child, folder, http, url: String::new(), key, databases: Vec::new() };
        server.serves().await;
        server
    }

    /// Waits until the server is ready, and reads its admin key.
    pub async fn ready(&mut self) {
        self.serves().await;
        self.key = std::fs::read_to_string(self.folder.path().join("admin.key")).expect("the admin key");
    }

    /// Waits until the server is ready.
    async fn serves(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let url = holder(self.folder.path(), self.child.id());
            if let Some(url) = url {
                let answer = self.http.get(format!("{url}/readyz")).send().await;
                if answer.is_ok_and(|answer| answer.status() == 200) {
                    self.url = url;
                    break;
                }
            }
            assert!(started.elapsed() < PATIENCE, "the server does not get ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the server and restarts it on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.kill_and_spawn();
        self.ready().await;
    }

    /// Restarts a server that has ended.
    pub async fn restart(&mut self) {
        self.child = spawn(self.folder.path());
        self.ready().await;
    }

    /// Kills the server and starts it again without waiting until it is ready.
    pub fn kill_and_spawn(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("the server ended by itself, with {status}:\n{}", self.log());
        }
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
        self.child = spawn(self.folder.path());
    }

    /// The stores of the server's tenants.
    pub fn stores(&self) -> Stores {
        let data = self.folder.path().to_owned();
        let file = || format!("sqlite://{}", data.join("registry.db").display());
        Stores {
            // A single database is the tenants'.
            registry: match self.databases.as_slice() {
                [registry, _, ..] => registry.url().to_owned(),
                _ => file(),
            },
            data: data.clone(),
            // The first two are the registry's and the keyring's.
            tenants: self.databases.iter().skip(2).map(|database| database.url().to_owned()).collect(),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// The main database of tenants on PostgreSQL.
    pub fn tenants_database(&self) -> &str {
        self.databases[0].url()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("tenantry.toml")
    }

    /// The command line as a client of this server.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TENANTRY);
        clean(&mut command).args(arguments).env("TENANTRY_SERVER", &self.url).env("TENANTRY_KEY", &self.key);
        command
    }

    /// A request without a key.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// A request with the admin key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        read(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        read(self.request(Method::POST, path).json(body)).await
    }

    /// Onboards a tenant and waits until the operation is done; returns the operation.
    pub async fn onboard(&self, name: &str) -> Value {
        let operation = self.post("/v1/tenants", &request(name, "starter")).await.expect(202);
        self.done(operation.body["id"].as_str().expect("an id")).await
    }

    /// Waits until an operation is done.
    pub async fn done(&self, id: &str) -> Value {
        self.until(id, |operation| operation["done"] == true).await
    }

    /// Waits until an operation meets a condition.
    pub async fn until(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let operation = self.get(&format!("/v1/operations/{id}")).await.expect(200).body;
            if reached(&operation) {
                return operation;
            }
            assert!(started.elapsed() < PATIENCE, "condition not met: {operation:#}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Paths of all files below a folder of the server's data.
    pub fn files(&self, folder: &str) -> BTreeSet<PathBuf> {
        let (mut found, mut open) = (BTreeSet::new(), vec![self.folder().join(folder)]);
        while let Some(folder) = open.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Waits until the files below a folder are as they should be.
    pub async fn until_files(&self, folder: &str, enough: impl Fn(&BTreeSet<PathBuf>) -> bool) {
        let started = Instant::now();
        while !enough(&self.files(folder)) {
            assert!(started.elapsed() < PATIENCE, "{:#?}", self.files(folder));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first event of a kind. Events are numbered after their commit, so waits for it.
    pub async fn event(&self, kind: &str) -> Value {
        let started = Instant::now();
        loop {
            let events = self.get("/v1/events?limit=100").await.expect(200).body;
            let found =
                events["data"].as_array().and_then(|all| all.iter().find(|event| event["type"] == kind));
            if let Some(event) = found {
                return event.clone();
            }
            assert!(started.elapsed() < PATIENCE, "no event {kind}: {events:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Number of rows of a table in the tenants' database of several processes.
    pub async fn rows_of_tenants(&self, table: &str) -> i64 {
        tenantry_testkit::store::count_rows(self.databases[2].url(), table).await
    }

    /// Number of tenants' keys in the keyring.
    pub async fn keys_of_tenants(&self) -> i64 {
        let file = format!("sqlite://{}", self.folder.path().join("keyring.db").display());
        let url = self.databases.get(1).map_or(file.as_str(), TestDatabase::url);
        tenantry_testkit::store::count_rows(url, "tenant_keys").await
    }

    /// Waits until lists of events hold everything that has happened so far.
    pub async fn events_are_numbered(&self) {
        tenantry_testkit::store::events_are_numbered(&self.stores().registry).await;
    }

    /// Number of audit records with this action.
    pub async fn audited(&self, action: &str) -> i64 {
        let records = format!("audit WHERE action = '{action}'");
        tenantry_testkit::store::count_rows(&self.stores().registry, &records).await
    }

    /// All tenants.
    pub async fn tenants(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/tenants?limit=100{cursor}")).await.expect(200).body;
            all.extend(page["data"].as_array().expect("a list").clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Numbers of tenants, operations and keys: everything that a request can create.
    pub async fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (count, path) in counts.iter_mut().zip(["/v1/tenants", "/v1/operations", "/v1/keys"]) {
            let page = self.get(&format!("{path}?limit=100")).await.expect(200).body;
            assert_eq!(page["has_more"], false, "{path} has more than one page");
            *count = page["data"].as_array().expect("a list").len();
        }
        counts
    }

    /// Creates a key with this scope; for the scope `tenant`, one for this tenant.
    pub async fn key(&self, scope: &str, tenant: &str) -> String {
        let mut request = json!({ "name": scope, "scopes": [scope] });
        if scope == "tenant" {
            request["tenant"] = tenant.into();
        }
        self.post("/v1/keys", &request).await.expect(201).body["secret"]
            .as_str()
            .expect("a secret")
            .to_owned()
    }
}

impl Answer {
    /// Asserts the status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Asserts a well-formed problem with this status and code. Returns the paths of the invalid fields.
    pub fn problem(&self, status: u16, code: &str) -> Vec<String> {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json", "{}", self.text);
        for field in ["type", "title", "detail", "code", "request_id"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {}", self.text);
        }
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["code"], code, "{}", self.text);
        assert_eq!(self.headers["x-request-id"], self.body["request_id"].as_str().unwrap());
        let errors = self.body["errors"].as_array().expect("a list of errors");
        assert!(errors.iter().all(|error| error["message"].as_str().is_some_and(|text| !text.is_empty())));
        errors.iter().map(|error| error["path"].as_str().expect("a path").to_owned()).collect()
    }
}

/// Sends a request and reads the response.
pub async fn read(request: RequestBuilder) -> Answer {
    let response: Response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a text");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

/// The configuration for tenants on this PostgreSQL. Roles belong to the whole server, so each test has its
/// own.
fn tenants_on(database: &TestDatabase) -> String {
    format!("[providers.postgres]\nurl = '{}'\napp_role = '{}'\n", database.url(), database.app_role())
}

/// The smallest valid request for a tenant.
pub fn request(name: &str, plan: &str) -> Value {
    json!({
        "tenant_name": name, "admin_user": { "email": "ada@example.com" }, "subscription": { "plan": plan },
    })
}

/// The URL of the process with this id, from its lock file.
pub fn holder(folder: &Path, pid: u32) -> Option<String> {
    let lock: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("lock")).ok()?).ok()?;
    (lock["pid"] == pid).then(|| lock["url"].as_str().map(str::to_owned))?
}

/// The process id of the current or most recent holder of a data folder.
pub fn holder_of(folder: &Path) -> Option<u32> {
    let lock: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("lock")).ok()?).ok()?;
    lock["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

/// Removes Tenantry's variables of the tests' own environment.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TENANTRY_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").env("COLUMNS", "100")
}

fn spawn(folder: &Path) -> Child {
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(folder.join("server.log")).expect("a log");
    clean(&mut Command::new(TENANTRY))
        .arg("serve")
        .arg("--config")
        .arg(folder.join("tenantry.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

/// Runs each test on both databases: `mod name { fn sqlite, fn postgres }`.
#[macro_export]
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident(mut $server:ident: Server) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[allow(unused_mut)]
            async fn on_store(mut $server: Server) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                on_store(Server::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(server) = Server::start($crate::server::On::Postgres).await {
                    on_store(server).await;
                }
            }
        }
    )*};
}
