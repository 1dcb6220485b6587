//! Shared tables of PostgreSQL: ids of tenants as text and as uuid, and the default of `tenant_id`.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_model::TenantId;
use tenantry_provider::{Observed, Outcome, Spec};

use crate::contract::transfer::Export;
use crate::postgres::{Fixture, Model, connect, ensured, log_in, refused};
use crate::postgres_failures::{Folder, TABLE, bare};
use crate::world::object;

/// Beside the table `t`, whose `tenant_id` is text.
const UUIDS: &str = "
    CREATE TABLE u (tenant_id uuid NOT NULL, id text NOT NULL, n integer, PRIMARY KEY (tenant_id, id));
    CREATE TABLE u_children (tenant_id uuid, id bigint GENERATED ALWAYS AS IDENTITY, u text, PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, u) REFERENCES u);
    CREATE TABLE u_parts (tenant_id uuid, id text, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (id);
    CREATE TABLE u_part PARTITION OF u_parts DEFAULT;
    CREATE TABLE own_default (tenant_id text DEFAULT 'mine', id text, PRIMARY KEY (tenant_id, id));";

/// Tables with rows of a tenant, after [`fill`].
const FILLED: [&str; 4] = ["t", "u", "u_children", "u_parts"];

/// Inserts rows without `tenant_id`, as an ORM that does not know the column.
async fn fill(session: &mut PgConnection) {
    let sql = "INSERT INTO t (id, n) VALUES ('a', 1); INSERT INTO u (id, n) VALUES ('a', 1), ('b', 2);
               INSERT INTO u_children (u) VALUES ('b'); INSERT INTO u_parts (id) VALUES ('p')";
    sqlx::raw_sql(sql).execute(session).await.unwrap();
}

async fn fixture() -> Option<(Folder, Fixture)> {
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", UUIDS)]);
    let fixture = folder.fixture(Model::Pool).await?;
    Some((folder, fixture))
}

/// Number of a tenant's rows by table, read without Tenantry.
async fn counts(fixture: &Fixture, tenant: TenantId) -> Vec<i64> {
    let mut connection = connect(fixture.url()).await;
    let mut counts = Vec::new();
    for table in FILLED {
        let sql = format!(
            "SELECT count(*) FROM tenantry_pool.{table} WHERE tenant_id::text IN ('{tenant}', '{}')",
            tenant.uuid()
        );
        counts.push(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap());
    }
    counts
}

async fn export(fixture: &Fixture, spec: &Spec) -> (Export, tenantry_provider::transfer::Content) {
    let mut export = Export::default();
    let transfer = fixture.provider.transfer().unwrap();
    let content = transfer.export(&fixture.world.context(), spec, &mut export).await.unwrap();
    (export, content)
}

async fn leaks(fixture: &Fixture, tenants: &[&Spec]) -> Vec<String> {
    let ids: Vec<_> = tenants.iter().map(|spec| spec.tenant.id).collect();
    let cells = fixture.provider.isolation().unwrap().check(&ids).await.unwrap().cells;
    cells.into_iter().filter(|cell| cell.outcome != Outcome::Denied).map(|cell| cell.what).collect()
}

#[tokio::test]
async fn an_insert_need_not_name_the_tenant_and_cannot_name_another() {
    let Some((_folder, fixture)) = fixture().await else { return };
    let [one, two] = [bare(), bare()];
    let made = ensured(&fixture, &one).await;
    ensured(&fixture, &two).await;
    let mut session = log_in(&fixture, &one, &made.outputs).await.unwrap();
    // A setting of the client changes nothing.
    let set = format!("SET app.current_tenant_id = '{}'", two.tenant.id);
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut session).await.unwrap();
    fill(&mut session).await;
    assert_eq!(counts(&fixture, one.tenant.id).await, [1, 2, 1, 1]);
    assert_eq!(counts(&fixture, two.tenant.id).await, [0; 4]);
    let [text, uuid] = [two.tenant.id.to_string(), two.tenant.id.uuid().to_string()];
    refused(&mut session, &format!("INSERT INTO t (tenant_id, id) VALUES ('{text}', 'x')"), "42501").await;
    refused(&mut session, &format!("INSERT INTO u (tenant_id, id) VALUES ('{uuid}', 'x')"), "42501").await;
    refused(&mut session, &format!("UPDATE u SET tenant_id = '{uuid}'"), "42501").await;
    for mode in ["read_only", "blocked"] {
        let fence = format!("UPDATE tenantry.homes SET access = '{mode}' WHERE name = '{}'", one.name);
        fixture.sql(&fence).await;
        refused(&mut session, "INSERT INTO t (id) VALUES ('x')", "42501").await;
        refused(&mut session, "INSERT INTO u (id) VALUES ('x')", "42501").await;
    }
    // An application that serves many tenants names one for a transaction.
    let app = format!(
        "BEGIN; SET LOCAL ROLE {}; SET LOCAL search_path = tenantry_pool; SET LOCAL app.current_tenant_id = '{text}';
         INSERT INTO t (id) VALUES ('app'); INSERT INTO u (id) VALUES ('app'); COMMIT",
        fixture.app_role()
    );
    sqlx::raw_sql(AssertSqlSafe(app)).execute(&mut connect(fixture.url()).await).await.unwrap();
    assert_eq!(counts(&fixture, two.tenant.id).await, [1, 1, 0, 0]);
    let own = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'tenantry_pool.own_default'::regclass";
    assert_eq!(sqlx::Row::get::<String, _>(&fixture.sql(own).await[0], 0), "'mine'::text");
    assert_eq!(leaks(&fixture, &[&one, &two]).await, [""; 0]);
}

#[tokio::test]
async fn ids_may_be_text_and_uuid_in_one_database() {
    let Some((_folder, fixture)) = fixture().await else { return };
    let [one, two, clone] = [bare(), bare(), bare()];
    for spec in [&one, &two] {
        let made = ensured(&fixture, spec).await;
        fill(&mut log_in(&fixture, spec, &made.outputs).await.unwrap()).await;
    }
    ensured(&fixture, &clone).await;
    // The data API.
    let rows = fixture.provider.data().unwrap().scoped(one.tenant.id);
    let added = rows.insert("u", object(json!({ "id": "c", "n": 3 }))).await.unwrap();
    assert_eq!(added, json!({ "id": "c", "n": 3 }));
    assert_eq!(rows.get("u", "c").await.unwrap(), Some(added));
    let listed = rows.list("u", 10, None).await.unwrap().rows;
    assert_eq!(listed.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(rows.delete("u", "c").await.unwrap() && !rows.delete("u", "c").await.unwrap());
    // A copy gets the other tenant's id, and has the same content.
    let (archive, content) = export(&fixture, &one).await;
    assert_eq!(FILLED.map(|table| content.counts[table]), [1, 2, 1, 1]);
    let transfer = fixture.provider.transfer().unwrap();
    transfer.load(&fixture.world.context(), &clone, &mut archive.source()).await.unwrap();
    assert_eq!(export(&fixture, &clone).await.1, content);
    for spec in [&one, &two, &clone] {
        assert_eq!(counts(&fixture, spec.tenant.id).await, [1, 2, 1, 1]);
        let seen = fixture.provider.observe(&fixture.world.context(), spec).await.unwrap();
        assert!(seen.is_healthy(), "{seen:?}");
    }
    // A removal.
    let removed = fixture.provider.remove(&fixture.world.context(), &one).await.unwrap().receipt;
    assert_eq!(FILLED.map(|table| removed["rows"][table].clone()), [1, 2, 1, 1].map(Value::from));
    let seen = fixture.provider.observe(&fixture.world.context(), &one).await.unwrap();
    assert!(matches!(seen, Observed::Absent), "{seen:?}");
    assert_eq!(counts(&fixture, one.tenant.id).await, [0; 4]);
    assert_eq!(counts(&fixture, two.tenant.id).await, [1, 2, 1, 1]);
    // A row without the list is not absent.
    let left = format!("INSERT INTO tenantry_pool.u VALUES ('{}', 'left', 1)", one.tenant.id.uuid());
    fixture.sql(&left).await;
    let seen = fixture.provider.observe(&fixture.world.context(), &one).await.unwrap();
    assert!(!matches!(seen, Observed::Absent), "{seen:?}");
}

#[tokio::test]
async fn leaks_of_tables_with_uuids_are_found() {
    let Some((_folder, fixture)) = fixture().await else { return };
    let [one, two] = [bare(), bare()];
    for spec in [&one, &two] {
        let made = ensured(&fixture, spec).await;
        fill(&mut log_in(&fixture, spec, &made.outputs).await.unwrap()).await;
    }
    for (plant, found, repair) in [
        (
            "CREATE POLICY open ON tenantry_pool.u USING (true)",
            &["rows", "insert", "update", "delete", "other_policies"][..],
            "DROP POLICY open ON tenantry_pool.u",
        ),
        (
            "CREATE OR REPLACE FUNCTION tenantry.session_tenant_uuid(writing boolean) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
            &["who_the_tenant_is"],
            "",
        ),
    ] {
        fixture.sql(plant).await;
        let leaks = leaks(&fixture, &[&one, &two]).await;
        for what in found {
            assert!(leaks.iter().any(|leak| leak == what), "{what} in {leaks:?}");
        }
        if !repair.is_empty() {
            fixture.sql(repair).await;
        }
    }
}

/// Tables that an earlier version has created get the default when a process first uses them, which is no drift.
#[tokio::test]
async fn tables_of_an_earlier_version_get_the_default() {
    let Some((_folder, fixture)) = fixture().await else { return };
    let spec = bare();
    ensured(&fixture, &spec).await;
    for sql in [
        "UPDATE tenantry.shapes SET fingerprint = 'old', parts = replace(parts::text, '  tenantry.session_tenant_uuid(true)', ' ')::jsonb",
        "UPDATE tenantry.homes SET schema = 'old' WHERE schema IS NOT NULL",
        "ALTER TABLE tenantry_pool.u ALTER tenant_id DROP DEFAULT",
        "ALTER TABLE tenantry_pool.u_children ALTER tenant_id DROP DEFAULT",
        "ALTER TABLE ONLY tenantry_pool.u_parts ALTER tenant_id DROP DEFAULT",
    ] {
        fixture.sql(sql).await;
    }
    let default = "SELECT FROM pg_attrdef WHERE adrelid = 'tenantry_pool.u'::regclass AND adnum = 1";
    assert_eq!(fixture.sql(default).await.len(), 0);
    fixture.another().ensure(&fixture.world.context(), &spec).await.unwrap();
    assert_eq!(fixture.sql(default).await.len(), 1);
    let seen = fixture.another().observe(&fixture.world.context(), &spec).await.unwrap();
    assert!(seen.is_healthy(), "{seen:?}");
}
