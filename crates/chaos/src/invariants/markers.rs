//! Each tenant has a unique word in its name, addresses, rows, keys and files. The words of deleted tenants are looked for in
//! every database and file, and the words of all in the servers' logs.

use std::collections::BTreeSet;

use tenantry_testkit::Raw;
use tenantry_testkit::database::on_server;
use tenantry_testkit::markers::Marker;

use super::Ground;
use crate::installation::own;

const DELETED: &str = "SELECT id FROM tenants WHERE status = 'deprovisioned'";
const DATABASES: &str = "SELECT name FROM tenantry.homes WHERE isolation = 'database'";
/// A query for the rows of each table as text.
const TABLES: &str =
    "SELECT format('SELECT t::text FROM %I.%I t', n.nspname, c.relname), n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";
/// Every marker begins with this.
const BEGIN: &str = "chaos";

/// Places that still have the word of a deleted tenant.
pub async fn check(ground: &Ground) -> Vec<String> {
    let deleted: BTreeSet<String> =
        ground.registry.rows(DELETED).await.iter().map(|row| row.get(0)).collect();
    let deleted = ground.fleet.iter().filter(|tenant| deleted.contains(&tenant.id));
    let markers: Vec<(&str, Marker)> =
        deleted.map(|tenant| (tenant.marker.as_str(), Marker::new(&tenant.marker))).collect();
    let mut found = Vec::new();
    let mut look = |place: &str, bytes: &[u8]| {
        for (word, marker) in &markers {
            found.extend(marker.in_bytes(place, bytes).into_iter().map(|found| format!("{word}: {found}")));
        }
    };
    for (name, database) in
        [("registry", &ground.registry), ("keyring", &ground.keyring), ("tenants", &ground.tenants)]
    {
        for (table, text) in contents(database).await {
            look(&format!("{name} {table}"), text.as_bytes());
        }
    }
    for row in ground.tenants.rows(DATABASES).await {
        let name: String = row.get(0);
        let database = Raw::connect(&own(&on_server(&ground.tenants_url, &name))).await;
        for (table, text) in contents(&database).await {
            look(&format!("{name} {table}"), text.as_bytes());
        }
        database.close().await;
    }
    for (word, marker) in &markers {
        found.extend(marker.in_folder(&ground.shared).into_iter().map(|found| format!("{word}: {found}")));
    }
    found
}

/// The text of all rows of each table.
async fn contents(database: &Raw) -> Vec<(String, String)> {
    let mut contents = Vec::new();
    for table in database.rows(TABLES).await {
        let rows = database.rows(&table.get::<String>(0)).await;
        let text: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        contents.push((table.get(1), text.join("\n")));
    }
    contents
}

/// Lines of the logs with a tenant's word or a panic.
pub fn logs(ground: &Ground) -> Vec<String> {
    let mut found = Vec::new();
    for log in &ground.logs {
        let text = std::fs::read(log).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let named = ground.fleet.iter().any(|tenant| line.contains(&tenant.marker));
            if line.contains(BEGIN) && named || line.contains("panicked at") {
                found.push(format!("{}: {line}", log.display()));
            }
        }
    }
    found
}
