//! The isolation check: no false alarm where tenants are separated, and every planted leak is found.

use sqlx::AssertSqlSafe;
use tenantry_model::TenantId;
use tenantry_provider::{Cell, Outcome, Spec, Who};
use tenantry_testkit::pooler::Pooler;

use crate::contract::Environment;
use crate::postgres::{Fixture, Model, connect};
use crate::world::spec;

const MODELS: [Model; 3] = [Model::Pool, Model::Schema, Model::Database];

/// The tenants of a main database.
struct Fleet {
    fixture: Fixture,
    tenants: Vec<Spec>,
}

impl Fleet {
    async fn of(fixture: Fixture, size: usize) -> Self {
        let mut tenants = Vec::new();
        for _ in 0..size {
            let spec = spec(fixture.settings());
            fixture.ensure(&spec).await;
            tenants.push(spec);
        }
        Self { fixture, tenants }
    }

    async fn check(&self) -> Vec<Cell> {
        let ids: Vec<TenantId> = self.tenants.iter().map(|spec| spec.tenant.id).collect();
        self.fixture.provider.isolation().unwrap().check(&ids).await.unwrap().cells
    }

    /// All tenants' tasks.
    async fn rows(&self) -> Vec<serde_json::Value> {
        let mut rows = Vec::new();
        for spec in &self.tenants {
            let scoped = self.fixture.provider.data().unwrap().scoped(spec.tenant.id);
            rows.extend(scoped.list("tasks", 100, None).await.unwrap().rows);
        }
        rows
    }

    /// Runs statements with `NAME` for the first tenant's name, `OTHER` for the second one's and `APP` for the
    /// application role.
    async fn sql(&self, text: &str) {
        let [name, other] = [0, 1].map(|n| self.tenants[n].name.as_str());
        let text = text.replace("NAME", name).replace("OTHER", other).replace("APP", self.fixture.app_role());
        let mut connection = connect(self.fixture.url()).await;
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
}

fn red(cells: &[Cell]) -> Vec<&str> {
    found_in(cells).into_iter().map(|cell| cell.what.as_str()).collect()
}

fn found_in(cells: &[Cell]) -> Vec<&Cell> {
    cells.iter().filter(|cell| cell.outcome == Outcome::Leak).collect()
}

/// A trigger that names a table unqualified, as migrations do.
const NEIGHBOURLY: &str = "SET search_path = tenantry_pool;
    CREATE FUNCTION near() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM FROM workspaces; RETURN NEW; END';
    REVOKE EXECUTE ON FUNCTION near() FROM PUBLIC;
    CREATE TRIGGER near BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION near();";

#[tokio::test]
async fn a_clean_fleet_gives_no_alarm_and_is_unchanged() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let fleet = Fleet::of(fixture, 3).await;
        if model == Model::Pool {
            // It runs before the policies, also for another tenant's row.
            fleet.sql(NEIGHBOURLY).await;
        }
        let before = fleet.fixture.snapshot().await;
        let rows = fleet.rows().await;
        let cells = fleet.check().await;
        for cell in &cells {
            assert_eq!((cell.outcome, &cell.why), (Outcome::Denied, &None), "{model:?}: {cell:?}");
        }
        let whats: Vec<&str> = cells.iter().map(|cell| cell.what.as_str()).collect();
        let reached = if model == Model::Database { "connect" } else { "rows" };
        for what in [reached, "set_role", "set_session_authorization", "catalogue", "role_attributes"] {
            assert!(whats.contains(&what), "{model:?}: {what} in {whats:?}");
        }
        assert_eq!(fleet.fixture.snapshot().await, before, "{model:?}");
        assert_eq!(fleet.rows().await, rows, "{model:?}: all writes were rolled back");
        assert_eq!(red(&fleet.check().await), [""; 0], "{model:?}: a second time");
    }
}

#[tokio::test]
async fn a_clean_fleet_of_a_plain_administrator_gives_no_alarm() {
    for model in MODELS {
        let Some(fixture) = Fixture::with_plain_administrator(model).await else { return };
        let cells = Fleet::of(fixture, 2).await.check().await;
        let odd: Vec<&Cell> = cells.iter().filter(|cell| cell.outcome != Outcome::Denied).collect();
        assert!(odd.is_empty(), "{model:?}: {odd:?}");
    }
}

#[tokio::test]
async fn planted_leaks_are_found_and_none_after_their_repair() {
    /// Model, planted leak, the cells that report it, and its repair.
    type Planted = (Model, &'static str, &'static [&'static str], &'static str);
    const LEAKS: &[Planted] = &[
        (
            Model::Pool,
            "DROP POLICY tenantry_select ON tenantry_pool.tasks",
            &["policies"],
            "CREATE POLICY tenantry_select ON tenantry_pool.tasks FOR SELECT USING (tenant_id = (SELECT tenantry.session_tenant(false)))",
        ),
        (
            Model::Pool,
            "ALTER POLICY tenantry_select ON tenantry_pool.tasks USING (true)",
            &["policies", "other_policies", "rows", "rows_after_reset", "rows_after_set"],
            "ALTER POLICY tenantry_select ON tenantry_pool.tasks USING (tenant_id = (SELECT tenantry.session_tenant(false)))",
        ),
        (
            Model::Pool,
            "CREATE POLICY support ON tenantry_pool.tasks FOR SELECT USING (true)",
            &["other_policies", "rows", "rows_after_reset", "rows_after_set"],
            "DROP POLICY support ON tenantry_pool.tasks",
        ),
        (
            Model::Pool,
            "CREATE POLICY intake ON tenantry_pool.tasks FOR INSERT WITH CHECK (true)",
            &["other_policies", "insert"],
            "DROP POLICY intake ON tenantry_pool.tasks",
        ),
        (
            Model::Pool,
            "CREATE POLICY moving ON tenantry_pool.tasks FOR UPDATE USING (true)",
            &["other_policies", "update"],
            "DROP POLICY moving ON tenantry_pool.tasks",
        ),
        (
            Model::Pool,
            "ALTER POLICY tenantry_delete ON tenantry_pool.tasks USING (true)",
            &["policies", "other_policies", "delete"],
            "ALTER POLICY tenantry_delete ON tenantry_pool.tasks USING (tenant_id = (SELECT tenantry.session_tenant(true)))",
        ),
        (
            Model::Pool,
            "ALTER TABLE tenantry_pool.tasks NO FORCE ROW LEVEL SECURITY",
            &["rls_forced"],
            "ALTER TABLE tenantry_pool.tasks FORCE ROW LEVEL SECURITY",
        ),
        (
            Model::Pool,
            "ALTER TABLE tenantry_pool.tasks DISABLE ROW LEVEL SECURITY",
            &["rls_enabled", "rows", "rows_after_reset", "rows_after_set", "insert", "update", "delete"],
            "ALTER TABLE tenantry_pool.tasks ENABLE ROW LEVEL SECURITY",
        ),
        (
            Model::Pool,
            // PostgreSQL 17 has a privilege to maintain tables.
            "DO $$ BEGIN EXECUTE format('GRANT %s ON tenantry_pool.tasks TO \"NAME\"',
                 CASE WHEN current_setting('server_version_num')::int < 170000 THEN 'TRIGGER' ELSE 'MAINTAIN' END); END $$",
            &["other_rights"],
            "REVOKE ALL ON tenantry_pool.tasks FROM \"NAME\"",
        ),
        (
            Model::Pool,
            "ALTER TABLE tenantry_pool.tasks OWNER TO \"APP\"",
            &["table_owner"],
            "ALTER TABLE tenantry_pool.tasks OWNER TO CURRENT_USER; GRANT SELECT, INSERT, UPDATE, DELETE ON tenantry_pool.tasks TO \"APP\"",
        ),
        (Model::Pool, "ALTER ROLE \"APP\" BYPASSRLS", &["role_attributes"], "ALTER ROLE \"APP\" NOBYPASSRLS"),
        (
            Model::Pool,
            "ALTER ROLE \"NAME\" CREATEROLE",
            &["role_attributes"],
            "ALTER ROLE \"NAME\" NOCREATEROLE",
        ),
        (Model::Pool, "GRANT \"APP\" TO \"NAME\"", &["role_membership"], "REVOKE \"APP\" FROM \"NAME\""),
        (
            Model::Pool,
            "CREATE FUNCTION tenantry_pool.all_tasks() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM tenantry_pool.tasks'",
            &["definer_functions", "public_grant_function"],
            "DROP FUNCTION tenantry_pool.all_tasks()",
        ),
        (
            Model::Pool,
            "CREATE VIEW tenantry_pool.every_task AS SELECT * FROM tenantry_pool.tasks",
            &["views"],
            "DROP VIEW tenantry_pool.every_task",
        ),
        (
            Model::Pool,
            "CREATE VIEW public.every_task AS SELECT * FROM tenantry_pool.tasks; GRANT SELECT ON public.every_task TO PUBLIC",
            &["views"],
            "DROP VIEW public.every_task",
        ),
        (
            Model::Pool,
            "GRANT SELECT ON tenantry_pool.tasks TO PUBLIC",
            &["public_grant_table"],
            "REVOKE SELECT ON tenantry_pool.tasks FROM PUBLIC",
        ),
        (
            Model::Pool,
            "ALTER DEFAULT PRIVILEGES IN SCHEMA tenantry_pool GRANT SELECT ON TABLES TO PUBLIC",
            &["default_privileges"],
            "ALTER DEFAULT PRIVILEGES IN SCHEMA tenantry_pool REVOKE SELECT ON TABLES FROM PUBLIC",
        ),
        (
            Model::Pool,
            // Statistics reveal rows too, whenever the server gathers them.
            "GRANT SELECT ON tenantry.homes TO \"APP_tenants\"; ANALYZE tenantry.homes",
            &["list_of_tenants", "rls_enabled", "rls_forced", "catalogue"],
            "REVOKE SELECT ON tenantry.homes FROM \"APP_tenants\"",
        ),
        (
            Model::Pool,
            "CREATE OR REPLACE FUNCTION tenantry.session_tenant(writing boolean) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS $$ SELECT current_setting('app.current_tenant_id', true) $$",
            &["rows_after_reset", "rows_after_set", "who_the_tenant_is", "insert", "update", "delete"],
            "",
        ),
        (
            Model::Schema,
            "GRANT USAGE ON SCHEMA \"NAME\" TO PUBLIC",
            &["public_grant_schema", "rights_of_other_tenants", "schema"],
            "REVOKE USAGE ON SCHEMA \"NAME\" FROM PUBLIC",
        ),
        (
            Model::Schema,
            "GRANT USAGE ON SCHEMA \"NAME\" TO PUBLIC; GRANT SELECT ON \"NAME\".tasks TO PUBLIC",
            &[
                "public_grant_schema",
                "public_grant_table",
                "rights_of_other_tenants",
                "rows",
                "rows_after_reset",
                "rows_after_set",
                "schema",
            ],
            "REVOKE USAGE ON SCHEMA \"NAME\" FROM PUBLIC; REVOKE SELECT ON \"NAME\".tasks FROM PUBLIC",
        ),
        (
            Model::Schema,
            "GRANT USAGE ON SCHEMA \"NAME\" TO PUBLIC; GRANT INSERT, DELETE ON \"NAME\".tasks TO PUBLIC",
            &[
                "public_grant_schema",
                "public_grant_table",
                "rights_of_other_tenants",
                "insert",
                "delete",
                "schema",
            ],
            "REVOKE USAGE ON SCHEMA \"NAME\" FROM PUBLIC; REVOKE INSERT, DELETE ON \"NAME\".tasks FROM PUBLIC",
        ),
        (
            Model::Schema,
            "GRANT \"NAME\" TO \"OTHER\"",
            &["rights_of_other_tenants", "role_membership"],
            "REVOKE \"NAME\" FROM \"OTHER\"",
        ),
        (
            Model::Schema,
            // PostgreSQL 17 has a privilege to maintain tables.
            "DO $$ BEGIN EXECUTE format('GRANT %s ON \"NAME\".tasks TO \"OTHER\"',
                 CASE WHEN current_setting('server_version_num')::int < 170000 THEN 'TRIGGER' ELSE 'MAINTAIN' END); END $$",
            &["rights_of_other_tenants"],
            "REVOKE ALL ON \"NAME\".tasks FROM \"OTHER\"",
        ),
        (
            Model::Schema,
            // PostgreSQL 18 has default privileges on large objects.
            "DO $$ BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES GRANT SELECT ON %s TO PUBLIC',
                 CASE WHEN current_setting('server_version_num')::int < 180000 THEN 'TABLES' ELSE 'LARGE OBJECTS' END); END $$",
            &["default_privileges"],
            "DO $$ BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES REVOKE SELECT ON %s FROM PUBLIC',
                 CASE WHEN current_setting('server_version_num')::int < 180000 THEN 'TABLES' ELSE 'LARGE OBJECTS' END); END $$",
        ),
        (
            Model::Schema,
            "SELECT lo_from_bytea(424242, 'secret'); GRANT SELECT ON LARGE OBJECT 424242 TO PUBLIC",
            &["large_objects", "other_objects"],
            "SELECT lo_unlink(424242)",
        ),
        (
            Model::Schema,
            "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'",
            &["definer_functions"],
            "DROP FUNCTION public.peek()",
        ),
        (
            Model::Database,
            "GRANT CONNECT ON DATABASE \"NAME\" TO PUBLIC",
            &["connect", "public_grant_database", "rights_of_other_tenants"],
            "REVOKE CONNECT ON DATABASE \"NAME\" FROM PUBLIC",
        ),
        (
            Model::Database,
            "ALTER ROLE \"NAME\" SUPERUSER",
            &["rights_of_other_tenants", "role_attributes"],
            "ALTER ROLE \"NAME\" NOSUPERUSER",
        ),
    ];
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let fleet = Fleet::of(fixture, 2).await;
        for (_, plant, expected, repair) in LEAKS.iter().filter(|(of, ..)| *of == model) {
            fleet.sql(plant).await;
            let cells = fleet.check().await;
            let mut found = red(&cells);
            found.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{plant}: {:#?}", found_in(&cells));
            if !repair.is_empty() {
                fleet.sql(repair).await;
                assert_eq!(red(&fleet.check().await), [""; 0], "after {repair}");
            }
        }
    }
}

#[tokio::test]
async fn an_absent_tenant_is_reported_as_not_checked() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let absent = TenantId::new();
        let cells = fixture.provider.isolation().unwrap().check(&[absent]).await.unwrap().cells;
        let reached = if model == Model::Database { "connect" } else { "rows" };
        let cell = cells.iter().find(|cell| cell.what == reached).unwrap();
        assert_eq!(cell.outcome, Outcome::NotChecked, "{model:?}: {cell:?}");
        assert!(cell.why.as_ref().unwrap().contains("1 of 1"), "{cell:?}");
    }
}

#[tokio::test]
async fn a_probe_tenant_of_a_dead_process_is_reused() {
    for model in MODELS {
        let Some(fixture) = Fixture::of(model).await else { return };
        let fleet = Fleet::of(fixture, 2).await;
        // Dropped after a moment, the check leaves its probe tenant behind or nothing.
        let gone = tokio::time::timeout(std::time::Duration::from_millis(30), fleet.check()).await;
        drop(gone);
        assert_eq!(red(&fleet.check().await), [""; 0], "{model:?}");
    }
}

/// No false alarm in many attempts: ten thousand with `TENANTRY_TEST_FULL`.
#[tokio::test]
async fn many_attempts_give_no_false_alarm() {
    let wanted = if std::env::var_os("TENANTRY_TEST_FULL").is_some() { 10_000 } else { 1_000 };
    for (model, size) in [(Model::Pool, 12), (Model::Schema, 8), (Model::Database, 6)] {
        let Some(fixture) = Fixture::of(model).await else { return };
        let fleet = Fleet::of(fixture, size).await;
        let mut tried = 0;
        while tried < wanted / 3 + 1 {
            let cells = fleet.check().await;
            let odd: Vec<&Cell> =
                cells.iter().filter(|cell| (cell.outcome, &cell.why) != (Outcome::Denied, &None)).collect();
            assert!(odd.is_empty(), "{model:?}, after {tried}: {odd:?}");
            tried += cells.iter().map(|cell| cell.tried).sum::<u64>();
        }
    }
}

/// Through a pooler in transaction mode, which shares sessions between clients.
#[tokio::test]
async fn logins_through_a_pooler_are_checked() {
    for model in MODELS {
        let Some(direct) = Fixture::of(model).await else { return };
        let Some(pooler) = Pooler::for_all_roles(direct.url()) else { return };
        let address = pooler.address();
        let Some(fixture) = Fixture::with(model, |config| config.pooler = Some(address)).await else {
            return;
        };
        let fleet = Fleet::of(fixture, 2).await;
        let cells = fleet.check().await;
        let odd: Vec<&Cell> = cells.iter().filter(|cell| cell.outcome != Outcome::Denied).collect();
        assert!(odd.is_empty(), "{model:?}: {odd:?}");
        let ways =
            |who| cells.iter().filter(move |cell| cell.who == who).map(|cell| (&cell.what, cell.tried));
        assert!(ways(Who::PooledLogin).eq(ways(Who::TenantLogin)), "{model:?}: {cells:?}");
        let (leak, what) = match model {
            Model::Pool => ("CREATE POLICY support ON tenantry_pool.tasks FOR SELECT USING (true)", "rows"),
            Model::Schema => ("GRANT USAGE ON SCHEMA \"NAME\" TO PUBLIC", "schema"),
            Model::Database => ("GRANT CONNECT ON DATABASE \"NAME\" TO PUBLIC", "connect"),
        };
        fleet.sql(leak).await;
        let cells = fleet.check().await;
        let found = found_in(&cells);
        let found = found.iter().any(|cell| (cell.who, cell.what.as_str()) == (Who::PooledLogin, what));
        assert!(found, "{model:?}: {cells:?}");
    }
}
