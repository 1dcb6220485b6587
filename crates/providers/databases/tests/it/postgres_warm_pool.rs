//! Tests of the warm pool on PostgreSQL: each warm schema or database becomes one tenant's and then keeps the
//! contract; outdated, surplus, incomplete and changed ones are discarded; a failed claim leaves it in the
//! pool.

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, Row};
use tenantry_databases::postgres::{Cluster, Config, Postgres};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_databases::postgres_schema::DatabasePostgresSchema;
use tenantry_provider::{Observed, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::on_server;

use crate::contract::{Environment, must_keep_contract};
use crate::postgres::{Fixture, Model, connect, ensured, log_in};
use crate::world::spec;

const MODELS: [Model; 2] = [Model::Schema, Model::Database];

fn warm(config: &mut Config, size: u16) {
    (config.warm_schemas, config.warm_databases) = (size, size);
}

/// A process with a warm pool of this size, which has filled it.
pub async fn filled(fixture: &Fixture, size: u16) -> Box<dyn Provider> {
    let mut config = fixture.config();
    warm(&mut config, size);
    let postgres = Postgres::new(config).unwrap();
    match fixture.model {
        Model::Schema => {
            let provider = DatabasePostgresSchema::new(postgres);
            provider.start().await.unwrap();
            provider.refilled().await;
            Box::new(provider)
        }
        _ => {
            let provider = DatabasePostgresDatabase::new(postgres);
            provider.start().await.unwrap();
            provider.refilled().await;
            Box::new(provider)
        }
    }
}

async fn texts(fixture: &Fixture, sql: &str) -> Vec<String> {
    fixture.sql(sql).await.iter().map(|row| row.get(0)).collect()
}

/// Names of the warm entries that can be claimed.
async fn warm_entries(fixture: &Fixture) -> Vec<String> {
    let sql =
        "SELECT name FROM tenantry.homes WHERE isolation LIKE 'spare%' AND completed IS NOT NULL ORDER BY 1";
    texts(fixture, sql).await
}

/// Roles, schemas and databases of these names on the server.
async fn traces(fixture: &Fixture, entries: &[String]) -> Vec<String> {
    let names = entries.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ({names}) UNION ALL
         SELECT nspname::text FROM pg_namespace WHERE nspname IN ({names}) UNION ALL
         SELECT datname::text FROM pg_database WHERE datname IN ({names})"
    );
    texts(fixture, &sql).await
}

/// Object ids, which a rename does not change.
async fn identities(fixture: &Fixture, names: &[String]) -> Vec<String> {
    let names = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let (table, name) = match fixture.model {
        Model::Schema => ("pg_namespace", "nspname"),
        _ => ("pg_database", "datname"),
    };
    texts(fixture, &format!("SELECT oid::text FROM {table} WHERE {name} IN ({names}) ORDER BY oid")).await
}

async fn must_be_healthy(fixture: &Fixture, spec: &Spec) {
    let seen = fixture.provider.observe(&fixture.world.context(), spec).await.unwrap();
    assert!(seen.is_healthy(), "{seen:?}");
}

/// Database and schema of a warm entry's tables.
fn inside<'a>(fixture: &Fixture, entry: &'a str) -> (String, &'a str) {
    match fixture.model {
        Model::Schema => (fixture.url().to_owned(), entry),
        _ => (on_server(fixture.url(), entry), "public"),
    }
}

/// Names of a warm entry's tables.
async fn tables(fixture: &Fixture, entry: &str) -> Vec<String> {
    let (url, schema) = inside(fixture, entry);
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1";
    sqlx::query_scalar(sql).bind(schema).fetch_all(&mut connect(&url).await).await.unwrap()
}

#[tokio::test]
async fn claimed_entries_keep_the_contract() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 6)).await else { return };
        filled(&fixture, 6).await;
        let before = warm_entries(&fixture).await;
        assert_eq!(before.len(), 6);
        must_keep_contract(&fixture).await;
        assert!(warm_entries(&fixture).await.len() < before.len(), "{model:?}: nothing was claimed");
    }
}

#[tokio::test]
async fn each_entry_is_claimed_once() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 3)).await else { return };
        filled(&fixture, 3).await;
        let ready = warm_entries(&fixture).await;
        let identities_of_ready = identities(&fixture, &ready).await;
        let specs: Vec<Spec> = (0..5).map(|_| spec(fixture.settings())).collect();
        // By two processes at once, and more tenants than warm entries.
        let other = fixture.another();
        let context = fixture.world.context();
        let made = join_all(specs.iter().enumerate().map(|(n, spec)| {
            let provider = if n % 2 == 0 { &fixture.provider } else { &other };
            provider.ensure(&context, spec)
        }));
        let made: Vec<_> = made.await.into_iter().map(Result::unwrap).collect();
        for (spec, made) in specs.iter().zip(&made) {
            fixture.world.registry.apply(&made.writes);
            must_be_healthy(&fixture, spec).await;
            let mut tenant = log_in(&fixture, spec, &made.outputs).await.unwrap();
            let seeded: i64 =
                sqlx::query_scalar("SELECT count(*) FROM projects").fetch_one(&mut tenant).await.unwrap();
            assert!(seeded > 0, "{model:?}: the first rows are there");
        }
        assert!(warm_entries(&fixture).await.is_empty() && traces(&fixture, &ready).await.is_empty());
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let theirs = identities(&fixture, &names).await;
        assert_eq!(theirs.len(), 5);
        assert!(identities_of_ready.iter().all(|ready| theirs.contains(ready)), "{model:?}");
    }
}

/// The roles' password verifiers on the server.
async fn verifiers(fixture: &Fixture, names: &[String]) -> Vec<String> {
    let names = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    texts(fixture, &format!("SELECT rolpassword FROM pg_authid WHERE rolname IN ({names})")).await
}

#[tokio::test]
async fn the_creating_process_reuses_the_password() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 2)).await else { return };
        let maker = filled(&fixture, 2).await;
        let of_entries = verifiers(&fixture, &warm_entries(&fixture).await).await;
        assert_eq!(of_entries.len(), 2, "{model:?}: each has a password");
        for (provider, knows) in [(&fixture.provider, false), (&maker, true)] {
            let (context, spec) = (fixture.world.context(), spec(fixture.settings()));
            let made = provider.ensure(&context, &spec).await.unwrap();
            fixture.world.registry.apply(&made.writes);
            let has = verifiers(&fixture, std::slice::from_ref(&spec.name)).await;
            assert_eq!(of_entries.contains(&has[0]), knows, "{model:?}");
            log_in(&fixture, &spec, &made.outputs).await.unwrap();
        }
    }
}

#[tokio::test]
async fn drift_of_a_warm_entry_is_reported_after_the_claim() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 1)).await else { return };
        filled(&fixture, 1).await;
        let entry = warm_entries(&fixture).await.remove(0);
        let (url, schema) = inside(&fixture, &entry);
        let mut connection = connect(&url).await;
        let change = format!("ALTER TABLE {schema}.projects ADD COLUMN colour text");
        sqlx::query(AssertSqlSafe(change)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let spec = spec(fixture.settings());
        // Once after the claim, and once after a repair.
        for _ in 0..2 {
            ensured(&fixture, &spec).await;
            assert!(warm_entries(&fixture).await.is_empty());
            let seen = fixture.another().observe(&fixture.world.context(), &spec).await.unwrap();
            let Observed::Present { differs, .. } = seen else { panic!("{seen:?}") };
            assert_eq!(
                differs,
                ["table `projects`, column `colour` was added outside the migrations"],
                "{model:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_administrator_without_superuser_can_claim() {
    for model in MODELS {
        let Some(mut fixture) = Fixture::with_plain_administrator(model).await else { return };
        fixture.reconfigure(|config| warm(config, 1));
        filled(&fixture, 1).await;
        let ready = warm_entries(&fixture).await;
        let spec = spec(fixture.settings());
        let made = ensured(&fixture, &spec).await;
        assert!(
            warm_entries(&fixture).await.is_empty() && traces(&fixture, &ready).await.is_empty(),
            "{model:?}"
        );
        log_in(&fixture, &spec, &made.outputs).await.unwrap();
        must_be_healthy(&fixture, &spec).await;
    }
}

#[tokio::test]
async fn unusable_entries_are_discarded() {
    for model in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let migrations = folder.path().join("postgres/app");
        std::fs::create_dir_all(&migrations).unwrap();
        let table = |name: &str| {
            format!("CREATE TABLE {name} (tenant_id text, id text, PRIMARY KEY (tenant_id, id));")
        };
        std::fs::write(migrations.join("1_a.sql"), table("t")).unwrap();
        std::fs::write(folder.path().join("canary.yaml"), "[{table: t, rows: [{id: canary}]}]").unwrap();
        let fixture = Fixture::with(model, |config| {
            warm(config, 2);
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
        });
        let Some(mut fixture) = fixture.await else { return };
        filled(&fixture, 3).await;
        let first = warm_entries(&fixture).await;
        assert_eq!(first.len(), 3);

        // A smaller pool; one entry has lost its owner tag, another one is incomplete.
        let lost = match model {
            Model::Schema => format!("COMMENT ON SCHEMA {} IS 'another owner'", first[0]),
            _ => format!("COMMENT ON DATABASE {} IS 'another owner'", first[0]),
        };
        fixture.sql(&lost).await;
        fixture.sql(&format!("UPDATE tenantry.homes SET completed = NULL WHERE name = '{}'", first[1])).await;
        filled(&fixture, 2).await;
        let second = warm_entries(&fixture).await;
        assert_eq!(second.len(), 2);
        assert!(second.contains(&first[2]), "{model:?}: a usable entry stays");
        assert_eq!(traces(&fixture, &first[..2]).await, [""; 0], "{model:?}");

        // Another release adds a table: entries of the older one are not claimed, and then discarded.
        std::fs::write(migrations.join("2_b.sql"), table("u")).unwrap();
        fixture.reconfigure(|_| {});
        let tenant = spec(serde_json::json!({}));
        ensured(&fixture, &tenant).await;
        must_be_healthy(&fixture, &tenant).await;
        assert_eq!(warm_entries(&fixture).await, second, "{model:?}: no outdated entry was claimed");
        filled(&fixture, 1).await;
        let third = warm_entries(&fixture).await;
        assert_eq!(third.len(), 1);
        assert_eq!(traces(&fixture, &second).await, [""; 0], "{model:?}");
        assert_eq!(tables(&fixture, &third[0]).await, ["_migrations", "t", "u"]);

        // The pool is disabled.
        filled(&fixture, 0).await;
        assert!(
            warm_entries(&fixture).await.is_empty() && traces(&fixture, &third).await.is_empty(),
            "{model:?}"
        );
        must_be_healthy(&fixture, &tenant).await;
    }
}

#[tokio::test]
async fn a_failed_claim_leaves_the_entry_in_the_pool() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 1)).await else { return };
        filled(&fixture, 1).await;
        let ready = warm_entries(&fixture).await;
        // The list accepts no tenant, neither by a claim nor by creation on demand.
        let refuse = "ALTER TABLE tenantry.homes ADD CONSTRAINT no_tenant CHECK (isolation LIKE 'spare%' OR claim = 'canary') NOT VALID";
        fixture.sql(refuse).await;
        let spec = spec(fixture.settings());
        fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap_err();
        assert_eq!(warm_entries(&fixture).await, ready, "{model:?}");
        fixture.sql("ALTER TABLE tenantry.homes DROP CONSTRAINT no_tenant").await;
        let made = ensured(&fixture, &spec).await;
        assert!(warm_entries(&fixture).await.is_empty(), "{model:?}: the same entry is claimed now");
        log_in(&fixture, &spec, &made.outputs).await.unwrap();
    }
}

#[tokio::test]
async fn an_interrupted_claim_is_rolled_back_or_completed() {
    for model in MODELS {
        let Some(fixture) = Fixture::with(model, |config| warm(config, 1)).await else { return };
        filled(&fixture, 1).await;
        let ready = warm_entries(&fixture).await;
        let identity = identities(&fixture, &ready).await;
        // No tenant can be completed: the claim gets up to that point.
        let refuse = "ALTER TABLE tenantry.homes ADD CONSTRAINT never CHECK (isolation LIKE 'spare%' OR claim = 'canary' OR completed IS NULL) NOT VALID";
        fixture.sql(refuse).await;
        let spec = spec(fixture.settings());
        fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap_err();
        match model {
            // One transaction: the claim is rolled back, and creation on demand is incomplete.
            Model::Schema => {
                assert_eq!(warm_entries(&fixture).await, ready);
                assert_eq!(traces(&fixture, &ready).await.len(), 2);
            }
            // The database is already the tenant's.
            _ => assert_eq!(identities(&fixture, std::slice::from_ref(&spec.name)).await, identity),
        }
        fixture.sql("ALTER TABLE tenantry.homes DROP CONSTRAINT never").await;
        let made = ensured(&fixture, &spec).await;
        must_be_healthy(&fixture, &spec).await;
        log_in(&fixture, &spec, &made.outputs).await.unwrap();
    }
}

#[tokio::test]
async fn a_region_has_a_pool_on_its_server() {
    let Some(cluster) = TestDatabase::postgres().await else { return };
    let url = cluster.url().to_owned();
    let fixture = Fixture::with(Model::Database, |config| {
        warm(config, 1);
        config.clusters.insert("eu-1".to_owned(), Cluster::new(&url));
    });
    let Some(fixture) = fixture.await else { return };
    filled(&fixture, 1).await;
    let listed = async || -> Vec<(String, String)> {
        let sql = "SELECT isolation, name FROM tenantry.homes WHERE name NOT LIKE '%canary%' ORDER BY 1";
        sqlx::query_as(sql).fetch_all(&mut connect(&url).await).await.unwrap()
    };
    let (here, there) = (warm_entries(&fixture).await, listed().await);
    assert_eq!((here.len(), there.len(), &*there[0].0), (1, 1, "spare_database"));
    let spec = spec(fixture.settings());
    assert_eq!(spec.tenant.region, "eu-1");
    let made = ensured(&fixture, &spec).await;
    assert_eq!(listed().await, [("database".to_owned(), spec.name.clone())], "claimed in its region");
    assert_eq!(warm_entries(&fixture).await, here, "and nowhere else");
    log_in(&fixture, &spec, &made.outputs).await.unwrap();
    must_be_healthy(&fixture, &spec).await;
}
