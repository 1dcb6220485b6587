//! Schemas and databases that are ready before a tenant wants one: each becomes one tenant's and then keeps the contract;
//! what is too old, too much, half done or not what was made is thrown away; a claim that fails leaves its spare.

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, Row};
use tenantry_databases::database_postgres::{Cluster, Config, Postgres};
use tenantry_databases::database_postgres_database::DatabasePostgresDatabase;
use tenantry_databases::database_postgres_schema::DatabasePostgresSchema;
use tenantry_provider::{Observed, Provider, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::on_server;

use crate::conform::must_keep_it;
use crate::contract::Environment;
use crate::postgres::{Model, Place, connect, ensured, log_in};
use crate::world::spec;

const MODELS: [Model; 2] = [Model::Schema, Model::Database];

fn warm(config: &mut Config, size: u16) {
    (config.warm_schemas, config.warm_databases) = (size, size);
}

/// A process that keeps so many ready, and has made what was missing.
async fn filled(place: &Place, size: u16) -> Box<dyn Provider> {
    let mut config = place.config();
    warm(&mut config, size);
    let postgres = Postgres::new(config).unwrap();
    match place.model {
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

async fn texts(place: &Place, sql: &str) -> Vec<String> {
    place.sql(sql).await.iter().map(|row| row.get(0)).collect()
}

/// Names of the spares that can be claimed.
async fn spares(place: &Place) -> Vec<String> {
    let sql =
        "SELECT name FROM tenantry.homes WHERE isolation LIKE 'spare%' AND completed IS NOT NULL ORDER BY 1";
    texts(place, sql).await
}

/// What the server has by the names of these spares: roles, schemas and databases.
async fn traces(place: &Place, spares: &[String]) -> Vec<String> {
    let names = spares.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ({names}) UNION ALL
         SELECT nspname::text FROM pg_namespace WHERE nspname IN ({names}) UNION ALL
         SELECT datname::text FROM pg_database WHERE datname IN ({names})"
    );
    texts(place, &sql).await
}

/// What stays the same when it gets another name.
async fn identities(place: &Place, names: &[String]) -> Vec<String> {
    let names = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let (table, name) = match place.model {
        Model::Schema => ("pg_namespace", "nspname"),
        _ => ("pg_database", "datname"),
    };
    texts(place, &format!("SELECT oid::text FROM {table} WHERE {name} IN ({names}) ORDER BY oid")).await
}

async fn must_be_healthy(place: &Place, spec: &Spec) {
    let seen = place.provider.observe(&place.world.context(), spec).await.unwrap();
    assert!(seen.is_healthy(), "{seen:?}");
}

/// Where the tables of a spare are: database and schema.
fn inside<'a>(place: &Place, spare: &'a str) -> (String, &'a str) {
    match place.model {
        Model::Schema => (place.url().to_owned(), spare),
        _ => (on_server(place.url(), spare), "public"),
    }
}

/// Names of the tables in a spare.
async fn tables(place: &Place, spare: &str) -> Vec<String> {
    let (url, schema) = inside(place, spare);
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1";
    sqlx::query_scalar(sql).bind(schema).fetch_all(&mut connect(&url).await).await.unwrap()
}

#[tokio::test]
async fn what_was_claimed_keeps_the_contract() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 6)).await else { return };
        filled(&place, 6).await;
        let before = spares(&place).await;
        assert_eq!(before.len(), 6);
        must_keep_it(&place).await;
        assert!(spares(&place).await.len() < before.len(), "{model:?}: nothing was claimed");
    }
}

#[tokio::test]
async fn each_becomes_one_tenants() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 3)).await else { return };
        filled(&place, 3).await;
        let ready = spares(&place).await;
        let identities_of_ready = identities(&place, &ready).await;
        let specs: Vec<Spec> = (0..5).map(|_| spec(place.settings())).collect();
        // Of two processes at once, and more than there are.
        let other = place.another();
        let context = place.world.context();
        let made = join_all(specs.iter().enumerate().map(|(n, spec)| {
            let provider = if n % 2 == 0 { &place.provider } else { &other };
            provider.ensure(&context, spec)
        }));
        let made: Vec<_> = made.await.into_iter().map(Result::unwrap).collect();
        for (spec, made) in specs.iter().zip(&made) {
            place.world.registry.apply(&made.writes);
            must_be_healthy(&place, spec).await;
            let mut tenant = log_in(&place, spec, &made.outputs).await.unwrap();
            let seeded: i64 =
                sqlx::query_scalar("SELECT count(*) FROM projects").fetch_one(&mut tenant).await.unwrap();
            assert!(seeded > 0, "{model:?}: the first rows are there");
        }
        assert!(spares(&place).await.is_empty() && traces(&place, &ready).await.is_empty());
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let theirs = identities(&place, &names).await;
        assert_eq!(theirs.len(), 5);
        assert!(identities_of_ready.iter().all(|ready| theirs.contains(ready)), "{model:?}");
    }
}

/// What the server knows of the passwords of these roles.
async fn verifiers(place: &Place, names: &[String]) -> Vec<String> {
    let names = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    texts(place, &format!("SELECT rolpassword FROM pg_authid WHERE rolname IN ({names})")).await
}

#[tokio::test]
async fn its_password_is_handed_on_by_who_made_it() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 2)).await else { return };
        let maker = filled(&place, 2).await;
        let of_spares = verifiers(&place, &spares(&place).await).await;
        assert_eq!(of_spares.len(), 2, "{model:?}: each has a password");
        for (provider, knows) in [(&place.provider, false), (&maker, true)] {
            let (context, spec) = (place.world.context(), spec(place.settings()));
            let made = provider.ensure(&context, &spec).await.unwrap();
            place.world.registry.apply(&made.writes);
            let has = verifiers(&place, std::slice::from_ref(&spec.name)).await;
            assert_eq!(of_spares.contains(&has[0]), knows, "{model:?}");
            log_in(&place, &spec, &made.outputs).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_changed_in_a_spare_is_named_once_it_is_a_tenants() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 1)).await else { return };
        filled(&place, 1).await;
        let spare = spares(&place).await.remove(0);
        let (url, schema) = inside(&place, &spare);
        let mut connection = connect(&url).await;
        let change = format!("ALTER TABLE {schema}.projects ADD COLUMN colour text");
        sqlx::query(AssertSqlSafe(change)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let spec = spec(place.settings());
        // Once as it is claimed, and once as it is repaired.
        for _ in 0..2 {
            ensured(&place, &spec).await;
            assert!(spares(&place).await.is_empty());
            let seen = place.another().observe(&place.world.context(), &spec).await.unwrap();
            let Observed::Present { differs, .. } = seen else { panic!("{seen:?}") };
            assert_eq!(
                differs,
                ["table `projects`, column `colour` was added by somebody else"],
                "{model:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_plain_administrator_can_claim() {
    for model in MODELS {
        let Some(mut place) = Place::with_plain_administrator(model).await else { return };
        place.reconfigure(|config| warm(config, 1));
        filled(&place, 1).await;
        let ready = spares(&place).await;
        let spec = spec(place.settings());
        let made = ensured(&place, &spec).await;
        assert!(spares(&place).await.is_empty() && traces(&place, &ready).await.is_empty(), "{model:?}");
        log_in(&place, &spec, &made.outputs).await.unwrap();
        must_be_healthy(&place, &spec).await;
    }
}

#[tokio::test]
async fn what_nobody_may_have_is_thrown_away() {
    for model in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let migrations = folder.path().join("postgres/app");
        std::fs::create_dir_all(&migrations).unwrap();
        let table = |name: &str| {
            format!("CREATE TABLE {name} (tenant_id text, id text, PRIMARY KEY (tenant_id, id));")
        };
        std::fs::write(migrations.join("1_a.sql"), table("t")).unwrap();
        std::fs::write(folder.path().join("canary.yaml"), "[{table: t, rows: [{id: canary}]}]").unwrap();
        let place = Place::with(model, |config| {
            warm(config, 2);
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
        });
        let Some(mut place) = place.await else { return };
        filled(&place, 3).await;
        let first = spares(&place).await;
        assert_eq!(first.len(), 3);

        // Fewer are wanted; one has lost its mark, another one its completion.
        let lost = match model {
            Model::Schema => format!("COMMENT ON SCHEMA {} IS 'of somebody else'", first[0]),
            _ => format!("COMMENT ON DATABASE {} IS 'of somebody else'", first[0]),
        };
        place.sql(&lost).await;
        place.sql(&format!("UPDATE tenantry.homes SET completed = NULL WHERE name = '{}'", first[1])).await;
        filled(&place, 2).await;
        let second = spares(&place).await;
        assert_eq!(second.len(), 2);
        assert!(second.contains(&first[2]), "{model:?}: what is whole stays");
        assert_eq!(traces(&place, &first[..2]).await, [""; 0], "{model:?}");

        // Another release has another table: an old process's spares are not claimed, and then thrown away.
        std::fs::write(migrations.join("2_b.sql"), table("u")).unwrap();
        place.reconfigure(|_| {});
        let tenant = spec(serde_json::json!({}));
        ensured(&place, &tenant).await;
        must_be_healthy(&place, &tenant).await;
        assert_eq!(spares(&place).await, second, "{model:?}: none of the old ones was claimed");
        filled(&place, 1).await;
        let third = spares(&place).await;
        assert_eq!(third.len(), 1);
        assert_eq!(traces(&place, &second).await, [""; 0], "{model:?}");
        assert_eq!(tables(&place, &third[0]).await, ["_migrations", "t", "u"]);

        // None are wanted any more.
        filled(&place, 0).await;
        assert!(spares(&place).await.is_empty() && traces(&place, &third).await.is_empty(), "{model:?}");
        must_be_healthy(&place, &tenant).await;
    }
}

#[tokio::test]
async fn a_claim_that_fails_leaves_its_spare() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 1)).await else { return };
        filled(&place, 1).await;
        let ready = spares(&place).await;
        // The list takes no tenant: neither by a claim nor as made from nothing.
        let refuse = "ALTER TABLE tenantry.homes ADD CONSTRAINT nobody CHECK (isolation LIKE 'spare%' OR claim = 'canary') NOT VALID";
        place.sql(refuse).await;
        let spec = spec(place.settings());
        place.provider.ensure(&place.world.context(), &spec).await.unwrap_err();
        assert_eq!(spares(&place).await, ready, "{model:?}");
        place.sql("ALTER TABLE tenantry.homes DROP CONSTRAINT nobody").await;
        let made = ensured(&place, &spec).await;
        assert!(spares(&place).await.is_empty(), "{model:?}: the same spare is claimed now");
        log_in(&place, &spec, &made.outputs).await.unwrap();
    }
}

#[tokio::test]
async fn a_claim_that_is_cut_off_is_taken_back_or_finished() {
    for model in MODELS {
        let Some(place) = Place::with(model, |config| warm(config, 1)).await else { return };
        filled(&place, 1).await;
        let ready = spares(&place).await;
        let identity = identities(&place, &ready).await;
        // Nothing can be called complete: the claim gets as far as that.
        let refuse = "ALTER TABLE tenantry.homes ADD CONSTRAINT never CHECK (isolation LIKE 'spare%' OR claim = 'canary' OR completed IS NULL) NOT VALID";
        place.sql(refuse).await;
        let spec = spec(place.settings());
        place.provider.ensure(&place.world.context(), &spec).await.unwrap_err();
        match model {
            // One transaction: all of it is taken back, and what was then made from nothing is half there.
            Model::Schema => {
                assert_eq!(spares(&place).await, ready);
                assert_eq!(traces(&place, &ready).await.len(), 2);
            }
            // The database is the tenant's already.
            _ => assert_eq!(identities(&place, std::slice::from_ref(&spec.name)).await, identity),
        }
        place.sql("ALTER TABLE tenantry.homes DROP CONSTRAINT never").await;
        let made = ensured(&place, &spec).await;
        must_be_healthy(&place, &spec).await;
        log_in(&place, &spec, &made.outputs).await.unwrap();
    }
}

#[tokio::test]
async fn a_region_has_its_own_on_its_server() {
    let Some(cluster) = TestDatabase::postgres().await else { return };
    let url = cluster.url().to_owned();
    let place = Place::with(Model::Database, |config| {
        warm(config, 1);
        config.clusters.insert("eu-1".to_owned(), Cluster::new(&url));
    });
    let Some(place) = place.await else { return };
    filled(&place, 1).await;
    let listed = async || -> Vec<(String, String)> {
        let sql = "SELECT isolation, name FROM tenantry.homes WHERE name NOT LIKE '%canary%' ORDER BY 1";
        sqlx::query_as(sql).fetch_all(&mut connect(&url).await).await.unwrap()
    };
    let (here, there) = (spares(&place).await, listed().await);
    assert_eq!((here.len(), there.len(), &*there[0].0), (1, 1, "spare_database"));
    let spec = spec(place.settings());
    assert_eq!(spec.tenant.region, "eu-1");
    let made = ensured(&place, &spec).await;
    assert_eq!(listed().await, [("database".to_owned(), spec.name.clone())], "claimed in its region");
    assert_eq!(spares(&place).await, here, "and nowhere else");
    log_in(&place, &spec, &made.outputs).await.unwrap();
    must_be_healthy(&place, &spec).await;
}
