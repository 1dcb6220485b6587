//! The environment of a provider under test: the registry's rows in memory with their keys, a sealer, notes,
//! and tenants with recognisable personal data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::write::Change;
use tenantry_model::{Failure, TenantId, Timestamp, Write};

use crate::{Context, Key, Notes, Person, Rows, Sealer, Spec, Tenant};

/// Region of the tenants.
pub const REGION: &str = "eu-1";

/// A table: its key and all of its columns.
struct Table {
    key: &'static [&'static str],
    unique: &'static [&'static str],
    columns: &'static [&'static str],
}

fn table(name: &str) -> Table {
    let (key, unique, columns): (&[&str], &[&str], &[&str]) = match name {
        "members" => (
            &["id"],
            &["tenant_id", "email_mac"],
            &[
                "id",
                "tenant_id",
                "resource_id",
                "email_mac",
                "sealed",
                "role",
                "state",
                "password_hash",
                "must_change_password",
                "created_at",
            ],
        ),
        "invitations" => (
            &["id"],
            &["token_hash"],
            &[
                "id",
                "tenant_id",
                "member_id",
                "token_hash",
                "role",
                "expires_at",
                "accepted_at",
                "created_at",
            ],
        ),
        "sign_in_codes" => {
            (&["hash"], &[], &["hash", "tenant_id", "member_id", "purpose", "expires_at", "used_at"])
        }
        "sessions" => (
            &["id"],
            &["family_hash"],
            &[
                "id",
                "tenant_id",
                "member_id",
                "method",
                "user_agent",
                "family_hash",
                "token_hash",
                "created_at",
                "last_used_at",
                "expires_at",
                "ended_at",
                "end_reason",
            ],
        ),
        "credentials" => (
            &["operation_id", "name"],
            &[],
            &["operation_id", "name", "tenant_id", "sealed", "created_at", "claimed_at"],
        ),
        "configs" => (
            &["tenant_id"],
            &[],
            &["tenant_id", "namespace", "resource_id", "flags", "settings", "updated_at"],
        ),
        "customers" => {
            (&["id"], &[], &["id", "tenant_id", "resource_id", "sealed", "currency", "created_at"])
        }
        "subscriptions" => (
            &["id"],
            &[],
            &[
                "id",
                "tenant_id",
                "customer_id",
                "plan",
                "billing_cycle",
                "state",
                "generation",
                "amount",
                "currency",
                "current_period_start",
                "current_period_end",
                "created_at",
                "cancelled_at",
            ],
        ),
        "invoices" => (
            &["id"],
            &["subscription_id", "period_start"],
            &[
                "id",
                "tenant_id",
                "subscription_id",
                "number",
                "amount",
                "currency",
                "lines",
                "period_start",
                "period_end",
                "state",
                "issued_at",
            ],
        ),
        other => panic!("the registry has no table {other}"),
    };
    Table { key, unique, columns }
}

/// A row as JSON.
pub type Row = serde_json::Map<String, Value>;

fn same(a: &Row, b: &Row, columns: &[&str]) -> bool {
    !columns.is_empty() && columns.iter().all(|column| a.get(*column) == b.get(*column))
}

/// The registry's rows.
#[derive(Default)]
pub struct Registry {
    tables: Mutex<BTreeMap<&'static str, Vec<Row>>>,
}

impl Registry {
    /// Applies the writes as the store would.
    pub fn apply(&self, writes: &[Write]) {
        let mut tables = self.tables.lock();
        for write in writes {
            let table = table(write.table);
            let rows = tables.entry(write.table).or_default();
            let known = |row: &Row| {
                let unknown = row.keys().find(|column| !table.columns.contains(&column.as_str()));
                assert_eq!(unknown, None, "{} has no such column", write.table);
            };
            match &write.change {
                Change::Insert { row, .. } | Change::InsertAbsent { row } | Change::Upsert { row } => {
                    let row = &row.to_json();
                    known(row);
                    for column in table.columns {
                        assert!(row.contains_key(*column), "{}.{column} is missing", write.table);
                    }
                    let there = rows.iter_mut().find(|other| same(other, row, table.key));
                    match (&write.change, there) {
                        (Change::Upsert { .. }, Some(there)) => *there = row.clone(),
                        (Change::InsertAbsent { .. }, Some(_)) => {}
                        (_, Some(_)) => panic!("{}: a row with this key exists", write.table),
                        (_, None) => {
                            assert!(
                                !rows.iter().any(|other| same(other, row, table.unique)),
                                "{}: {:?} must be unique",
                                write.table,
                                table.unique
                            );
                            rows.push(row.clone());
                        }
                    }
                }
                Change::Update { key, expect, set, .. } => {
                    let (key, expect, set) = (&key.to_json(), &expect.to_json(), &set.to_json());
                    known(set);
                    let columns: Vec<&str> = key.keys().map(String::as_str).collect();
                    let expected: Vec<&str> = expect.keys().map(String::as_str).collect();
                    for row in rows.iter_mut().filter(|row| same(row, key, &columns)) {
                        if expected.is_empty() || same(row, expect, &expected) {
                            row.extend(set.clone());
                        }
                    }
                }
                Change::Delete { key } => {
                    let key = &key.to_json();
                    let columns: Vec<&str> = key.keys().map(String::as_str).collect();
                    rows.retain(|row| !same(row, key, &columns));
                }
            }
        }
    }

    /// Gives a test access to a table's rows.
    pub fn with<T>(&self, table: &'static str, work: impl FnOnce(&mut Vec<Row>) -> T) -> T {
        work(self.tables.lock().entry(table).or_default())
    }

    /// All tables as one text.
    pub fn dump(&self) -> String {
        let tables = self.tables.lock();
        tables.iter().map(|(name, rows)| format!("{name}: {}\n", json!(rows))).collect()
    }
}

#[async_trait]
impl Rows for Registry {
    async fn find(&self, name: &'static str, equal: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        // The store reads from a database, so an attempt can be dropped here.
        tokio::task::yield_now().await;
        let table = table(name);
        assert!(equal.iter().all(|(column, _)| table.columns.contains(column)), "{name}: {equal:?}");
        let tables = self.tables.lock();
        let rows = tables.get(name).map(Vec::as_slice).unwrap_or_default();
        let found =
            rows.iter().filter(|row| equal.iter().all(|(column, value)| row.get(*column) == Some(value)));
        Ok(found.cloned().map(Value::Object).collect())
    }
}

/// Not a cipher, but its output cannot be read, differs each time, and opens for its tenant only.
pub struct TestSealer;

impl Sealer for TestSealer {
    fn seal(&self, tenant: TenantId, clear: &str) -> Result<String, Failure> {
        let nonce: u8 = rand::random::<u8>() | 1;
        let body: String = clear.bytes().map(|byte| format!("{:02x}", byte ^ nonce)).collect();
        Ok(format!("{tenant}:{nonce:02x}:{body}"))
    }
    fn open(&self, tenant: TenantId, sealed: &str) -> Result<String, Failure> {
        let bad = || Failure::fatal("wrong_tenant_key", "not sealed for this tenant");
        let rest = sealed.strip_prefix(&format!("{tenant}:")).ok_or_else(bad)?;
        let (nonce, body) = rest.split_once(':').ok_or_else(bad)?;
        let nonce = u8::from_str_radix(nonce, 16).map_err(|_| bad())?;
        let bytes =
            (0..body.len() / 2).filter_map(|i| u8::from_str_radix(body.get(2 * i..2 * i + 2)?, 16).ok());
        String::from_utf8(bytes.map(|byte| byte ^ nonce).collect()).map_err(|_| bad())
    }
    fn derive(&self, tenant: TenantId, purpose: &str) -> Result<Key, Failure> {
        Ok(Key::new(Sha256::digest(format!("derived\0{tenant}\0{purpose}")).into()))
    }
    fn mac(&self, purpose: &str, text: &str) -> String {
        let digest = Sha256::digest(format!("pepper\0{purpose}\0{text}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Keeps the latest note.
#[derive(Default)]
pub struct TestNotes(pub Mutex<Option<Value>>);

#[async_trait]
impl Notes for TestNotes {
    async fn note(&self, note: Value) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        *self.0.lock() = Some(note);
        Ok(())
    }
}

/// Registry, notes and clock of a test.
pub struct World {
    /// The registry's rows.
    pub registry: Arc<Registry>,
    /// The latest note.
    pub notes: Arc<TestNotes>,
    clock: AtomicI64,
}

impl Default for World {
    fn default() -> Self {
        let clock = AtomicI64::new(Timestamp::now().micros());
        Self { registry: Arc::default(), notes: Arc::default(), clock }
    }
}

impl World {
    /// The context of an attempt; each is a second later than the one before.
    pub fn context(&self) -> Context {
        let second = i64::try_from(Duration::from_secs(1).as_micros()).unwrap_or(1);
        Context {
            now: Timestamp::from_micros(self.clock.fetch_add(second, Ordering::Relaxed)),
            sealer: Arc::new(TestSealer),
            rows: self.registry.clone(),
            notes: self.notes.clone(),
        }
    }

    /// A tenant's secret of this name in the registry, in clear text.
    pub fn secret(&self, spec: &Spec, name: &str) -> String {
        let (tenant, name) = (json!(spec.tenant.id), json!(name));
        let sealed = self.registry.with("credentials", |rows| {
            let of_it = |row: &&Row| row.get("tenant_id") == Some(&tenant) && row.get("name") == Some(&name);
            rows.iter().find(of_it).and_then(|row| row.get("sealed")?.as_str().map(str::to_owned))
        });
        TestSealer.open(spec.tenant.id, &sealed.expect("a credential")).expect("it opens")
    }

    /// All secrets in the registry, in clear text.
    pub fn secrets(&self) -> Vec<String> {
        self.registry.with("credentials", |rows| {
            rows.iter()
                .filter_map(|row| {
                    let tenant: TenantId = row.get("tenant_id")?.as_str()?.parse().ok()?;
                    TestSealer.open(tenant, row.get("sealed")?.as_str()?).ok()
                })
                .collect()
        })
    }
}

/// The spec of a resource of a new tenant.
pub fn spec(settings: Value) -> Spec {
    let tenant = TenantId::new();
    let resource = ResourceId::new();
    // Not the tenant's id, which may appear anywhere.
    let word = ResourceId::new().suffix();
    Spec {
        resource,
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: format!("slug-{}", tenant.suffix()),
            name: format!("Name{word} & Söhne \"quoted\""),
            plan: "starter".into(),
            region: REGION.into(),
            locale: "de-AT".into(),
            admin: Person {
                email: format!("mail{word}@example.com"),
                first_name: Some(format!("First{word}")),
                last_name: Some(format!("Last{word}")),
                role: "owner".into(),
            },
        },
        name: format!("thing-{}", resource.suffix()),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings,
        inputs: BTreeMap::new(),
        note: None,
    }
}

/// A spec's personal data, which must appear in the resource only.
pub fn personal(spec: &Spec) -> Vec<&str> {
    let tenant = &spec.tenant;
    let names = [&tenant.admin.first_name, &tenant.admin.last_name].into_iter().flatten().map(String::as_str);
    let name = tenant.name.split(' ').next().unwrap_or(&tenant.name);
    names.chain([name, tenant.admin.email.as_str()]).collect()
}

/// A JSON object.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}
