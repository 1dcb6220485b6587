//! What drift on PostgreSQL compares: every change of an object is reported for exactly that object, no other tenant
//! differs, and neither a new release of PostgreSQL nor a new version of Tenantry makes a difference.

use sqlx::{AssertSqlSafe, Row as _};
use tenantry_provider::Spec;

use crate::postgres::{Fixture, Model, ensured};
use crate::postgres_drift::{At, differs, harm};
use crate::postgres_failures::{Folder, TABLE, bare};

const OBJECTS: &str = include_str!("postgres_drift_shape/objects.sql");
/// The recorded definition of these objects, on every release.
const RECORDED: &str = include_str!("postgres_drift_shape/recorded.json");
/// What the first version of Tenantry recorded of `TABLE`.
const FORM_1: &str = include_str!("postgres_drift_shape/form_1.json");

const ADDED: &str = "was added outside the migrations";
const DIFFERS: &str = "differs from its migrations";
const MISSING: &str = "is missing";

/// A change, its reverse, and the object that drift names with what it says; empty: nothing.
#[rustfmt::skip]
const CHANGES: &[(&str, &str, &str, &str)] = &[
    ("ALTER FUNCTION plain SET work_mem = '1MB'", "ALTER FUNCTION plain RESET ALL", "function `plain(n integer)`", DIFFERS),
    ("ALTER FUNCTION plain STABLE", "ALTER FUNCTION plain VOLATILE", "function `plain(n integer)`", DIFFERS),
    ("ALTER FUNCTION plain SECURITY DEFINER", "ALTER FUNCTION plain SECURITY INVOKER", "function `plain(n integer)`", DIFFERS),
    ("ALTER FUNCTION plain OWNER TO OTHER", "ALTER FUNCTION plain OWNER TO CURRENT_USER", "function `plain(n integer)`, owner", DIFFERS),
    ("CREATE OR REPLACE FUNCTION plain(n int) RETURNS int LANGUAGE sql AS 'SELECT n - 1'",
     "CREATE OR REPLACE FUNCTION plain(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1'", "function `plain(n integer)`", DIFFERS),
    ("CREATE OR REPLACE FUNCTION standard(n int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM u; END",
     "CREATE OR REPLACE FUNCTION standard(n int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM u WHERE id > n; END",
     "function `standard(n integer)`", DIFFERS),
    ("CREATE OR REPLACE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '1')",
     "CREATE OR REPLACE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)", "function `total(integer)`", DIFFERS),
    ("ALTER SEQUENCE numbers INCREMENT 7", "ALTER SEQUENCE numbers INCREMENT 5", "sequence `numbers`", DIFFERS),
    ("ALTER SEQUENCE numbers CYCLE", "ALTER SEQUENCE numbers NO CYCLE", "sequence `numbers`", DIFFERS),
    ("ALTER SEQUENCE numbers MAXVALUE 600", "ALTER SEQUENCE numbers MAXVALUE 500", "sequence `numbers`", DIFFERS),
    ("ALTER SEQUENCE numbers AS smallint", "ALTER SEQUENCE numbers AS bigint", "sequence `numbers`", DIFFERS),
    ("ALTER SEQUENCE numbers OWNED BY u.note", "ALTER SEQUENCE numbers OWNED BY NONE", "sequence `numbers`", DIFFERS),
    ("SELECT setval('numbers', 20)", "SELECT 1", "", ""),
    ("ALTER TYPE mood rename VALUE 'good' TO 'fine'", "ALTER TYPE mood rename VALUE 'fine' TO 'good'", "type `mood`", DIFFERS),
    ("ALTER DOMAIN small SET DEFAULT 4", "ALTER DOMAIN small SET DEFAULT 3", "domain `small`", DIFFERS),
    ("ALTER DOMAIN small SET NOT NULL", "ALTER DOMAIN small DROP NOT NULL", "domain `small`", DIFFERS),
    ("ALTER DOMAIN small ADD CONSTRAINT odd CHECK (VALUE <> 2)", "ALTER DOMAIN small DROP CONSTRAINT odd", "domain `small`, constraint `odd`", ADDED),
    ("ALTER TYPE loose ALTER ATTRIBUTE b TYPE varchar", "ALTER TYPE loose ALTER ATTRIBUTE b TYPE text", "type `loose`, column `b`", DIFFERS),
    ("DROP TYPE span", "CREATE TYPE span AS RANGE (subtype = float8)", "type `span`", MISSING),
    ("ALTER VIEW seen OWNER TO OTHER", "ALTER VIEW seen OWNER TO CURRENT_USER", "view `seen`, owner", DIFFERS),
    ("CREATE OR REPLACE VIEW seen AS SELECT id, note FROM u", "CREATE OR REPLACE VIEW seen AS SELECT id, note FROM u WHERE id > 3", "view `seen`", DIFFERS),
    ("ALTER VIEW seen SET (security_barrier)", "ALTER VIEW seen RESET (security_barrier)", "view `seen`", DIFFERS),
    ("CREATE UNIQUE INDEX one ON counted (n)", "DROP INDEX one", "materialized view `counted`, index `one`", ADDED),
    ("ALTER TABLE u DISABLE RULE kept", "ALTER TABLE u ENABLE RULE kept", "table `u`, rule `kept`", DIFFERS),
    ("ALTER TABLE u DISABLE TRIGGER stamp", "ALTER TABLE u ENABLE TRIGGER stamp", "table `u`, trigger `stamp`", DIFFERS),
    ("CREATE OR REPLACE TRIGGER stamp BEFORE UPDATE ON u FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION stamp()",
     "CREATE OR REPLACE TRIGGER stamp BEFORE UPDATE ON u FOR EACH ROW EXECUTE FUNCTION stamp()", "table `u`, trigger `stamp`", DIFFERS),
    ("ALTER TABLE child DISABLE TRIGGER ALL", "ALTER TABLE child ENABLE TRIGGER ALL", "table `child`, state of foreign keys", DIFFERS),
    ("ALTER TABLE child ALTER CONSTRAINT child_u_fkey DEFERRABLE", "ALTER TABLE child ALTER CONSTRAINT child_u_fkey NOT DEFERRABLE",
     "table `child`, constraint `child_u_fkey`", DIFFERS),
    ("ALTER POLICY few ON u USING (id > 1)", "ALTER POLICY few ON u USING (id > 0)", "table `u`, policy `few`", DIFFERS),
    ("ALTER POLICY few ON u TO OTHER", "ALTER POLICY few ON u TO PUBLIC", "table `u`, policy `few`", DIFFERS),
    ("ALTER TABLE u ENABLE ROW LEVEL SECURITY", "ALTER TABLE u DISABLE ROW LEVEL SECURITY", "table `u`, row level security", DIFFERS),
    ("DROP STATISTICS related", "CREATE STATISTICS related (dependencies) ON m, s FROM u", "statistics object `related`", MISSING),
    ("ALTER TABLE u ALTER note SET DEFAULT 'x'", "ALTER TABLE u ALTER note DROP DEFAULT", "table `u`, column `note`", DIFFERS),
    ("ALTER TABLE u ALTER id SET GENERATED ALWAYS", "ALTER TABLE u ALTER id SET GENERATED BY DEFAULT", "table `u`, column `id`", DIFFERS),
    ("ALTER TABLE u ALTER extra TYPE text COLLATE \"C\"", "ALTER TABLE u ALTER extra TYPE text COLLATE \"default\"", "table `u`, column `extra`", DIFFERS),
    ("ALTER TABLE u ALTER note SET STORAGE EXTERNAL", "ALTER TABLE u ALTER note SET STORAGE EXTENDED", "table `u`, column `note`", DIFFERS),
    ("ALTER TABLE u REPLICA IDENTITY FULL", "ALTER TABLE u REPLICA IDENTITY DEFAULT", "table `u`", DIFFERS),
    ("ALTER TABLE u SET (fillfactor = 70)", "ALTER TABLE u RESET (fillfactor)", "table `u`", DIFFERS),
    ("ALTER TABLE u SET (autovacuum_enabled = off)", "ALTER TABLE u RESET (autovacuum_enabled)", "", ""),
    ("COMMENT ON TABLE u IS 'of an operator'", "COMMENT ON TABLE u IS NULL", "", ""),
    ("ALTER TABLE t SET UNLOGGED", "ALTER TABLE t SET LOGGED", "table `t`", DIFFERS),
    ("DROP INDEX u_by_note", "CREATE INDEX u_by_note ON u (note)", "table `u`, index `u_by_note`", MISSING),
    ("ALTER TABLE parts DETACH PARTITION part_1", "ALTER TABLE parts ATTACH PARTITION part_1 FOR VALUES IN (1)", "table `part_1`", DIFFERS),
    ("CREATE COLLATION mine (provider = libc, locale = 'C')", "DROP COLLATION mine", "collation `mine`", ADDED),
    ("GRANT SELECT ON u TO PUBLIC", "REVOKE SELECT ON u FROM PUBLIC", "table `u`, access list", ADDED),
    ("GRANT UPDATE (note) ON u TO OTHER", "REVOKE UPDATE (note) ON u FROM OTHER", "table `u`, access list of column `note`", ADDED),
    ("GRANT EXECUTE ON FUNCTION plain TO PUBLIC", "REVOKE EXECUTE ON FUNCTION plain FROM PUBLIC", "every role may execute the function `plain`", ""),
    ("REVOKE EXECUTE ON FUNCTION plain FROM SELF", "GRANT EXECUTE ON FUNCTION plain TO SELF", "its login role has lost EXECUTE on the function `plain`", ""),
    ("GRANT CREATE ON SCHEMA HERE TO OTHER", "REVOKE CREATE ON SCHEMA HERE FROM OTHER", "schema, access list", ""),
    ("ALTER DEFAULT PRIVILEGES IN SCHEMA HERE GRANT SELECT ON TABLES TO PUBLIC", "ALTER DEFAULT PRIVILEGES IN SCHEMA HERE REVOKE SELECT ON TABLES FROM PUBLIC",
     "default access list of `the administrator`", ADDED),
];

/// The same for what belongs to a tenant's database.
#[rustfmt::skip]
const CHANGES_OF_DATABASE: &[(&str, &str, &str, &str)] = &[
    ("CREATE EVENT TRIGGER watch ON ddl_command_start EXECUTE FUNCTION watch()", "DROP EVENT TRIGGER watch", "event trigger `watch`", ADDED),
    ("CREATE PUBLICATION changes FOR TABLE u", "DROP PUBLICATION changes", "publication `changes`", ADDED),
    ("CREATE SCHEMA beside; GRANT USAGE ON SCHEMA beside TO SELF", "DROP SCHEMA beside", "schema `beside`", ADDED),
    ("ALTER DATABASE SELF SET work_mem = '1MB'", "ALTER DATABASE SELF RESET work_mem", "database, settings", ADDED),
    ("GRANT CONNECT ON DATABASE SELF TO PUBLIC", "REVOKE CONNECT ON DATABASE SELF FROM PUBLIC", "database, access list", ADDED),
];

async fn fixture(model: Model) -> Option<(Fixture, Spec, Spec)> {
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", OBJECTS)]);
    let fixture = folder.fixture(model).await?;
    let (changed, other) = (bare(), bare());
    ensured(&fixture, &changed).await;
    ensured(&fixture, &other).await;
    Some((fixture, changed, other))
}

#[tokio::test]
async fn every_change_is_reported_for_its_object() {
    for model in [Model::Schema, Model::Database] {
        let Some((fixture, spec, other)) = fixture(model).await else { return };
        let role = format!("other_{}", fixture.app_role());
        fixture.sql(&format!("CREATE ROLE {role} ROLE CURRENT_USER")).await;
        let here = if model == Model::Schema { format!("\"{}\"", spec.name) } else { "public".to_owned() };
        let replaced = |sql: &str| {
            sql.replace("OTHER", &role)
                .replace("SCHEMA HERE", &format!("SCHEMA {here}"))
                .replace("SELF", &format!("\"{}\"", spec.name))
        };
        let of_database = if model == Model::Database { CHANGES_OF_DATABASE } else { &[] };
        for (change, reverse, object, what) in CHANGES.iter().chain(of_database) {
            harm(&fixture, &spec, model, At::Tables, &replaced(change)).await;
            let said = differs(&*fixture.provider, &fixture, &spec).await;
            match *object {
                "" => assert_eq!(said, [""; 0], "{model:?}: {change}"),
                object => {
                    assert_eq!(said.len(), 1, "{model:?}: {change}: {said:?}");
                    let expected = format!("{object} {what}");
                    assert!(said[0].starts_with(expected.trim()), "{model:?}: {change}: {said:?}");
                }
            }
            harm(&fixture, &spec, model, At::Tables, &replaced(reverse)).await;
            assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}: {reverse}");
        }
        // A value that was added to an enum cannot be removed.
        harm(&fixture, &spec, model, At::Tables, "ALTER TYPE mood ADD VALUE 'worst' BEFORE 'bad'").await;
        assert_eq!(
            differs(&*fixture.provider, &fixture, &spec).await,
            ["type `mood` differs from its migrations"]
        );
        assert_eq!(differs(&*fixture.provider, &fixture, &other).await, [""; 0], "{model:?}");
        fixture.sql(&format!("DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn changes_of_shared_tables_are_reported() {
    let objects = "CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good');
        CREATE FUNCTION plain(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1';";
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", objects)]);
    let Some(fixture) = folder.fixture(Model::Pool).await else { return };
    let spec = bare();
    ensured(&fixture, &spec).await;
    for (change, reverse, said) in [
        (
            "ALTER FUNCTION plain SET work_mem = '1MB'",
            "ALTER FUNCTION plain RESET ALL",
            "function `plain(n integer)` differs from its migrations",
        ),
        (
            "ALTER SEQUENCE numbers INCREMENT 2",
            "ALTER SEQUENCE numbers INCREMENT 1",
            "sequence `numbers` differs from its migrations",
        ),
        (
            "ALTER TYPE mood rename VALUE 'good' TO 'bad'",
            "ALTER TYPE mood rename VALUE 'bad' TO 'good'",
            "type `mood` differs from its migrations",
        ),
        (
            "GRANT TRUNCATE ON t TO APP",
            "REVOKE TRUNCATE ON t FROM APP",
            "table `t`, access list differs from its migrations",
        ),
    ] {
        harm(&fixture, &spec, Model::Pool, At::Tables, change).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [said], "{change}");
        harm(&fixture, &spec, Model::Pool, At::Tables, reverse).await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{reverse}");
    }
}

/// `UPDATE_SHAPE=1` writes the file, from any release.
#[tokio::test]
async fn a_definition_is_the_same_on_every_release() {
    let Some((fixture, spec, _)) = fixture(Model::Schema).await else { return };
    let recorded = "SELECT jsonb_pretty(parts) FROM tenantry.homes JOIN tenantry.shapes ON schema = fingerprint WHERE name = '$'";
    let found: String = fixture.sql(&recorded.replace('$', &spec.name)).await[0].get(0);
    if std::env::var_os("UPDATE_SHAPE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/postgres_drift_shape/recorded.json");
        std::fs::write(file, format!("{found}\n")).unwrap();
        return;
    }
    for (line, (found, recorded)) in found.lines().zip(RECORDED.lines()).enumerate() {
        assert_eq!(found, recorded, "recorded.json:{}", line + 1);
    }
    assert_eq!(found.trim(), RECORDED.trim());
}

#[tokio::test]
async fn a_definition_that_an_earlier_version_recorded_shows_no_false_drift() {
    let objects = "CREATE FUNCTION plain(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1';";
    for model in [Model::Schema, Model::Database] {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", objects)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        ensured(&fixture, &spec).await;
        fixture
            .sql(&format!("INSERT INTO tenantry.shapes VALUES ('first', '{}')", FORM_1.replace('\'', "''")))
            .await;
        fixture
            .sql(&format!("UPDATE tenantry.homes SET schema = 'first' WHERE name = '{}'", spec.name))
            .await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
        // What that version compared is compared.
        harm(&fixture, &spec, model, At::Tables, "ALTER TABLE t ADD COLUMN m int").await;
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await.len(), 1, "{model:?}");
        ensured(&fixture, &spec).await;
        let form = |fixture: &Fixture| {
            let sql = format!(
                "SELECT parts->''->>'form' FROM tenantry.homes JOIN tenantry.shapes ON schema = fingerprint WHERE name = '{}'",
                spec.name
            );
            let url = fixture.url().to_owned();
            async move {
                let mut connection = crate::postgres::connect(&url).await;
                sqlx::query(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap()
                    .get::<Option<String>, _>(0)
            }
        };
        assert_eq!(form(&fixture).await, None, "{model:?}: a difference is not recorded");
        harm(&fixture, &spec, model, At::Tables, "ALTER TABLE t DROP COLUMN m").await;
        // A repair of a tenant without a difference records all that is compared now.
        ensured(&fixture, &spec).await;
        assert_eq!(form(&fixture).await.as_deref(), Some("2"), "{model:?}");
        assert_eq!(differs(&*fixture.provider, &fixture, &spec).await, [""; 0], "{model:?}");
        harm(&fixture, &spec, model, At::Tables, "ALTER FUNCTION plain STABLE").await;
        let said = differs(&*fixture.provider, &fixture, &spec).await;
        assert_eq!(said, ["function `plain(n integer)` differs from its migrations"], "{model:?}");
    }
}
