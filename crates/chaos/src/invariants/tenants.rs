//! Tenants' databases on PostgreSQL: roles, databases, schemas, rows and fences are exactly those of living tenants.

use std::collections::BTreeMap;

use tenantry_testkit::Raw;
use tenantry_testkit::database::on_server;

use super::Ground;
use crate::installation::own;

const STATUS: &str = "SELECT id, status, coalesce(denied, 'full') FROM tenants";
/// Everything with a name of its own on the whole server.
const NAMES: &str =
    "SELECT 'role', rolname::text FROM pg_roles UNION ALL SELECT 'database', datname::text FROM pg_database
    UNION ALL SELECT 'schema', nspname::text FROM pg_namespace
    UNION ALL SELECT 'row of tenantry.homes', tenant_id FROM tenantry.homes
    UNION ALL SELECT 'row of tenantry.logins', tenant_id FROM tenantry.logins";
/// Ids of resources, which name second logins, of tenants that have nothing any more.
const RESOURCES: &str = "SELECT r.id FROM resources r JOIN tenants t ON t.id = r.tenant_id
    WHERE t.status IN ('pending', 'deprovisioned')";
/// Schemas that no list names.
const SCHEMAS: &str = "SELECT nspname::text FROM pg_namespace n
    WHERE nspname !~ '^(pg_|tenantry)' AND nspname NOT IN ('public', 'information_schema', 'extensions')
        AND NOT EXISTS (SELECT FROM tenantry.homes h WHERE h.name = n.nspname)";
const TABLES: &str = "SELECT format('SELECT DISTINCT %L || tenant_id, tenant_id FROM %I.%I', c.relname || ' of ', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
    WHERE n.nspname = 'tenantry_pool' AND c.relkind IN ('r', 'p')";
const FENCES: &str = "SELECT h.tenant_id, h.access, h.name, coalesce(r.rolcanlogin, false),
        coalesce((SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tenantry_login_' || substr(h.resource_id, 5)), false)
    FROM tenantry.homes h LEFT JOIN pg_roles r ON r.rolname = h.name WHERE h.isolation IN ('pool', 'schema', 'database')";
/// Tenants that the product makes for its own checks.
const OF_CHECKS: &str = "ten_00000000";

/// Status and wanted access of every tenant, by id.
async fn all(ground: &Ground) -> BTreeMap<String, (String, String)> {
    let rows = ground.registry.rows(STATUS).await;
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// Whether a tenant of this status has resources.
fn lives(status: &str) -> bool {
    !matches!(status, "pending" | "deprovisioned")
}

/// Roles, databases and schemas that name a tenant which has nothing any more, and schemas of no tenant.
pub async fn leftovers(ground: &Ground) -> Vec<String> {
    let tenants = all(ground).await;
    let resources = ground.registry.rows(RESOURCES).await;
    let resources = resources.iter().map(|row| row.get::<String>(0).trim_start_matches("res_").to_owned());
    let over = tenants.iter().filter(|(_, (status, _))| !lives(status));
    let over = over.map(|(id, _)| id.trim_start_matches("ten_").to_owned());
    let over: Vec<String> = over.chain(resources).collect();
    let mut faults = Vec::new();
    for row in ground.tenants.rows(NAMES).await {
        let (what, name): (String, String) = (row.get(0), row.get(1));
        if over.iter().any(|id| name.contains(id)) {
            faults.push(format!("{what} {name}"));
        }
    }
    let schemas = ground.tenants.rows(SCHEMAS).await;
    faults.extend(schemas.iter().map(|row| format!("schema {} of no tenant", row.get::<String>(0))));
    faults
}

/// Rows in shared tables of tenants that do not live.
pub async fn orphan_rows(ground: &Ground) -> Vec<String> {
    let tenants = all(ground).await;
    let mut faults = Vec::new();
    for table in ground.tenants.rows(TABLES).await {
        for row in ground.tenants.rows(&table.get::<String>(0)).await {
            let (what, tenant): (String, String) = (row.get(0), row.get(1));
            let living = tenants.get(&tenant).is_some_and(|(status, _)| lives(status));
            if !living && !tenant.starts_with(OF_CHECKS) {
                faults.push(format!("rows in {what}"));
            }
        }
    }
    faults
}

/// Tenants whose logins may more or less than their suspension says.
pub async fn fences(ground: &Ground) -> Vec<String> {
    let tenants = all(ground).await;
    let mut faults = Vec::new();
    for row in ground.tenants.rows(FENCES).await {
        let [tenant, access, name]: [String; 3] = [0, 1, 2].map(|column| row.get(column));
        let (first, second): (bool, bool) = (row.get(3), row.get(4));
        let Some((status, wanted)) = tenants.get(&tenant) else {
            if !tenant.starts_with(OF_CHECKS) {
                faults.push(format!("{name} belongs to {tenant}, which does not exist"));
            }
            continue;
        };
        if !matches!(status.as_str(), "active" | "suspended") {
            continue;
        }
        let shut = matches!(wanted.as_str(), "no_login" | "blocked");
        if access != *wanted || shut == (first || second) {
            faults.push(format!(
                "{tenant}, {status}: {wanted} is wanted, the list says {access}, its logins may log in: {first}, {second}"
            ));
        }
    }
    faults
}

/// A session to the database with a tenant's rows, and the schema they are in.
pub async fn place(ground: &Ground, tenant: &str) -> Option<(Raw, String)> {
    let home = format!("SELECT isolation, name FROM tenantry.homes WHERE tenant_id = '{tenant}'");
    let home = ground.tenants.rows(&home).await.into_iter().next()?;
    let (isolation, name): (String, String) = (home.get(0), home.get(1));
    Some(match isolation.as_str() {
        "database" => (Raw::connect(&own(&on_server(&ground.tenants_url, &name))).await, "public".to_owned()),
        "schema" => (Raw::connect(&own(&ground.tenants_url)).await, name),
        _ => (Raw::connect(&own(&ground.tenants_url)).await, "tenantry_pool".to_owned()),
    })
}
