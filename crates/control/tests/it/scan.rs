//! Looks for what should not be there, in the stores themselves and without the product's code: plain SQL on registry
//! and pool, plain files of the outbox.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, QueryResult, Statement};

use crate::world::World;

/// Tables of the pool in which a tenant has rows.
const POOL: [&str; 5] = ["workspaces", "categories", "notification_settings", "projects", "tasks"];

/// What stands in the stores about one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Word of `TenantStatus`.
    pub status: String,
    /// Counts by what they count.
    pub counts: BTreeMap<String, i64>,
    /// Errors of steps: for people who read a failed test.
    pub errors: Vec<String>,
}

/// Every tenant by id. Fails with a text when something contradicts itself.
pub async fn tenants(world: &World) -> BTreeMap<String, Found> {
    let registry = Database::connect(world.registry_url()).await.expect("the registry");
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for row in rows(&registry, "SELECT id, status FROM tenants").await {
        let (id, status): (String, String) = (get(&row, 0), get(&row, 1));
        found.insert(id, Found { status, ..Found::default() });
    }
    let questions = [
        (
            "operations unfinished",
            "SELECT tenant_id, count(*) FROM operations WHERE state NOT IN ('succeeded', 'rolled_back', 'cancelled') GROUP BY 1",
        ),
        ("resources present", "SELECT tenant_id, count(*) FROM resources WHERE state = 'present' GROUP BY 1"),
        (
            "resources in between",
            "SELECT tenant_id, count(*) FROM resources WHERE state IN ('creating', 'removing') GROUP BY 1",
        ),
        ("members", "SELECT tenant_id, count(*) FROM members GROUP BY 1"),
        ("invitations", "SELECT tenant_id, count(*) FROM invitations GROUP BY 1"),
        ("configs", "SELECT tenant_id, count(*) FROM configs GROUP BY 1"),
        ("customers", "SELECT tenant_id, count(*) FROM customers GROUP BY 1"),
        (
            "subscriptions active",
            "SELECT tenant_id, count(*) FROM subscriptions WHERE state = 'active' GROUP BY 1",
        ),
        ("invoices open", "SELECT tenant_id, count(*) FROM invoices WHERE state = 'open' GROUP BY 1"),
        (
            "provisioned events",
            "SELECT tenant_id, count(*) FROM events WHERE type = 'tenant.provisioned' GROUP BY 1",
        ),
    ];
    for (what, question) in questions {
        add(&mut found, what, rows(&registry, question).await);
    }
    let errors = "SELECT o.tenant_id, s.key, s.state, CAST(s.error AS text) FROM steps s JOIN operations o ON o.id = s.operation_id WHERE s.error IS NOT NULL";
    for row in rows(&registry, errors).await {
        let (tenant, key, state, error): (String, String, String, String) =
            (get(&row, 0), get(&row, 1), get(&row, 2), get(&row, 3));
        if let Some(tenant) = found.get_mut(&tenant) {
            tenant.errors.push(format!("{key} ({state}): {error}"));
        }
    }
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for row in rows(&registry, "SELECT id, tenant_id FROM resources").await {
        let (id, tenant): (String, String) = (get(&row, 0), get(&row, 1));
        owners.insert(id.trim_start_matches("res_").to_owned(), tenant);
    }
    registry.close().await.expect("closes");

    if world.pool_file().exists() {
        let url = format!("sqlite://{}", world.pool_file().display());
        let pool = Database::connect(&url).await.expect("the pool");
        for table in POOL {
            let question = format!("SELECT tenant_id, count(*) FROM {table} GROUP BY 1");
            if let Ok(rows) = ask(&pool, &question).await {
                add(&mut found, &format!("pool {table}"), rows);
            }
        }
        pool.close().await.expect("closes");
    }
    let mails = std::fs::read_dir(world.outbox()).into_iter().flatten().flatten();
    for mail in mails {
        let name = mail.file_name().to_string_lossy().into_owned();
        let owner = name.strip_suffix(".eml").and_then(|resource| owners.get(resource)).cloned();
        let owner = owner.unwrap_or_else(|| panic!("the outbox holds {name}, which is nobody's"));
        *found.get_mut(&owner).expect("it was found").counts.entry("mails".to_owned()).or_default() += 1;
    }
    found
}

async fn ask(database: &DatabaseConnection, question: &str) -> Result<Vec<QueryResult>, sea_orm::DbErr> {
    database.query_all_raw(Statement::from_string(database.get_database_backend(), question)).await
}

async fn rows(database: &DatabaseConnection, question: &str) -> Vec<QueryResult> {
    ask(database, question).await.expect("an answer")
}

fn get<T: sea_orm::TryGetable>(row: &QueryResult, column: usize) -> T {
    row.try_get_by_index(column).expect("a column")
}

fn add(found: &mut BTreeMap<String, Found>, what: &str, rows: Vec<QueryResult>) {
    for row in rows {
        let (tenant, count): (String, i64) = (get(&row, 0), get(&row, 1));
        if let Some(tenant) = found.get_mut(&tenant) {
            tenant.counts.insert(what.to_owned(), count);
        } else {
            // The canary is the one tenant that nobody is.
            assert!(tenant.starts_with("ten_00000000"), "{what}: rows of {tenant}, which is no tenant");
        }
    }
}

/// What is wrong with the world once everything is finished: every tenant is active with all that it needs, once, or
/// pending with nothing at all.
pub async fn faults(world: &World) -> Vec<String> {
    let mut faults = world.plan.violations();
    for (id, found) in tenants(world).await {
        let count = |what: &str| found.counts.get(what).copied().unwrap_or(0);
        let mut expect = |what: &str, wanted: i64| {
            if count(what) != wanted {
                let text = format!(
                    "{} tenant {id}: {what}: {} instead of {wanted}; {:?}",
                    found.status,
                    count(what),
                    found.errors
                );
                faults.push(text);
            }
        };
        expect("operations unfinished", 0);
        expect("resources in between", 0);
        match found.status.as_str() {
            "active" => {
                expect("resources present", 5);
                for what in [
                    "members",
                    "invitations",
                    "configs",
                    "customers",
                    "subscriptions active",
                    "invoices open",
                    "mails",
                    "provisioned events",
                ] {
                    expect(what, 1);
                }
                expect("pool workspaces", 1);
            }
            "pending" => {
                for what in found
                    .counts
                    .keys()
                    .filter(|w| !["customers", "operations unfinished"].contains(&w.as_str()))
                {
                    expect(what, 0);
                }
            }
            other => faults.push(format!("tenant {id} is {other}")),
        }
    }
    faults
}
