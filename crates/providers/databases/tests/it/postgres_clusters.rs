//! Clusters: tenants' databases on the servers of their regions, with real second servers. Each server works
//! like the main one, and a server that is down affects its own tenants only.

use serde_json::json;
use tenantry_databases::postgres::{Cluster, Postgres};
use tenantry_databases::postgres_database::DatabasePostgresDatabase;
use tenantry_model::Failure;
use tenantry_model::FailureClass::Retryable;
use tenantry_model::suspension::SuspensionMode;
use tenantry_provider::{Observed, Outcome, Provider, Spec, Who};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;
use tenantry_testkit::pooler::Pooler;

use crate::contract::{Environment, must_keep_contract};
use crate::postgres::{Fixture, Model, REGION, connect, ensured, log_in, make};
use crate::postgres_failures::is;
use crate::postgres_fences::{fence, order};
use crate::transfer;
use crate::world::spec;

/// These servers are ended in order, so they need not wait for the disk.
const FAST: [&str; 1] = ["fsync=off"];

/// A tenant of a region without a server of its own.
fn elsewhere(fixture: &Fixture) -> Spec {
    let mut spec = spec(fixture.settings());
    spec.tenant.region = "us-1".to_owned();
    spec
}

/// Number of databases and roles of this name on a server.
async fn count(url: &str, name: &str) -> i64 {
    let both = "SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) + (SELECT count(*) FROM pg_roles WHERE rolname = $1)";
    sqlx::query_scalar(both).bind(name).fetch_one(&mut connect(url).await).await.unwrap()
}

#[tokio::test]
async fn a_clusters_server_works_like_the_main_server() {
    let Some(second) = OwnPostgres::start(&FAST).await else { return };
    let Some(fixture) = Fixture::in_cluster(Cluster::new(second.url())).await else { return };
    must_keep_contract(&fixture).await;
    transfer::on_postgres(Fixture::in_cluster(Cluster::new(second.url())).await.unwrap()).await;

    let (here, there) = (elsewhere(&fixture), make(&fixture).await);
    ensured(&fixture, &here).await;
    let (there, made) = there;
    let main = fixture.config().url;
    for (spec, on_main, on_second) in [(&here, 2, 0), (&there, 0, 2)] {
        assert_eq!(count(&main, &spec.name).await, on_main);
        assert_eq!(count(&second.url(), &spec.name).await, on_second);
    }
    let differs = async || match fixture.another().observe(&fixture.world.context(), &there).await.unwrap() {
        Observed::Present { differs, .. } => differs,
        other => panic!("{other:?}"),
    };
    assert_eq!(differs().await, [""; 0]);
    fixture.sql(&format!("ALTER ROLE \"{}\" NOLOGIN", there.name)).await;
    assert_eq!(differs().await, ["its login role may not log in"]);
    ensured(&fixture, &there).await;
    assert_eq!(differs().await, [""; 0]);

    fence(&fixture, &there, Some(SuspensionMode::Blocked), 1).await;
    assert!(log_in(&fixture, &there, &made.outputs).await.is_err());
    fence(&fixture, &there, None, 2).await;
    log_in(&fixture, &there, &made.outputs).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_affects_its_own_tenants_only() {
    let Some(mut second) = OwnPostgres::start(&FAST).await else { return };
    let Some(fixture) = Fixture::in_cluster(Cluster::new(second.url())).await else { return };
    let (here, (there, _)) = (elsewhere(&fixture), make(&fixture).await);
    ensured(&fixture, &here).await;
    second.down();

    let context = fixture.world.context();
    // One process that has used the server, and one that has never reached it.
    for provider in [&*fixture.provider, &*fixture.another()] {
        let [new, late] = [elsewhere(&fixture), spec(fixture.settings())];
        let rows = |spec: &Spec| provider.data().unwrap().scoped(spec.tenant.id);
        let (made, seen, listed) =
            tokio::join!(provider.ensure(&context, &new), provider.observe(&context, &here), async {
                rows(&here).list("tasks", 10, None).await
            },);
        assert!(made.is_ok() && seen.unwrap().is_healthy() && listed.unwrap().rows.len() == 3);
        let fenced = order(&there, Some(SuspensionMode::Blocked), 1);
        let (made, seen, gone, listed, fenced, probed) = tokio::join!(
            provider.ensure(&context, &late),
            provider.observe(&context, &there),
            provider.remove(&context, &there),
            async { rows(&there).list("tasks", 10, None).await },
            provider.fence().unwrap().fence(&fenced),
            provider.probe(),
        );
        let failures: [Failure; 6] = [
            made.map(drop).unwrap_err(),
            seen.unwrap_err(),
            gone.map(drop).unwrap_err(),
            listed.map(drop).unwrap_err(),
            fenced.unwrap_err(),
            probed.unwrap_err(),
        ];
        for failure in failures {
            assert_eq!(failure.class, Retryable, "{failure}");
            assert!(
                failure.message.starts_with(&format!("`clusters.{REGION}.url` (127.0.0.1:")),
                "{failure}"
            );
            assert!(!failure.message.contains("`url`"), "{failure}");
        }
        let checked = provider.isolation().unwrap().check(&[here.tenant.id, there.tenant.id]).await.unwrap();
        let connect =
            checked.cells.iter().find(|cell| (cell.who, &*cell.what) == (Who::TenantLogin, "connect"));
        let connect = connect.unwrap();
        assert_eq!((connect.outcome, connect.tried), (Outcome::Denied, 1));
        assert!(connect.why.as_ref().is_some_and(|why| why.contains("`clusters.eu-1.url`")), "{connect:?}");
    }

    second.up().await;
    fixture.provider.probe().await.unwrap();
    ensured(&fixture, &spec(fixture.settings())).await;
    assert!(fixture.provider.observe(&context, &there).await.unwrap().is_healthy());
}

/// The main server is down, and a region with its own server continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_does_not_need_the_main_server() {
    let Some(second) = TestDatabase::postgres().await else { return };
    let Some(mut main) = OwnPostgres::start(&FAST).await else { return };
    let cluster = Cluster::new(second.url());
    let fixture = Fixture::on(second, Model::Database, |config| {
        config.url = main.url();
        config.clusters.insert(REGION.to_owned(), cluster);
    });
    main.down();
    let spec = spec(fixture.settings());
    ensured(&fixture, &spec).await;
    let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
    assert_eq!(rows.list("tasks", 10, None).await.unwrap().rows.len(), 3);
    let out = fixture.provider.probe().await.unwrap_err();
    assert!(out.message.starts_with("`url` (127.0.0.1:") && !out.message.contains("clusters"), "{out}");
    fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
}

#[tokio::test]
async fn each_server_has_its_own_pooler() {
    let Some(second) = OwnPostgres::start(&FAST).await else { return };
    let Some(pooler) = Pooler::for_all_roles(&second.url()) else { return };
    let cluster = Cluster { pooler: Some(pooler.address()), ..Cluster::new(second.url()) };
    let Some(fixture) = Fixture::in_cluster(cluster).await else { return };
    let (here, (there, _)) = (elsewhere(&fixture), make(&fixture).await);
    ensured(&fixture, &here).await;
    let ways = async |spec: &Spec| {
        let cells = fixture.provider.isolation().unwrap().check(&[spec.tenant.id]).await.unwrap().cells;
        let reached = cells.into_iter().filter(|cell| cell.what == "connect");
        reached.map(|cell| (cell.who, cell.outcome, cell.tried)).collect::<Vec<_>>()
    };
    let denied = |who| (who, Outcome::Denied, 1);
    assert_eq!(ways(&here).await, [denied(Who::TenantLogin)]);
    assert_eq!(ways(&there).await, [denied(Who::TenantLogin), denied(Who::PooledLogin)]);
    assert!(fixture.provider.observe(&fixture.world.context(), &there).await.unwrap().is_healthy());
}

#[tokio::test]
async fn configuration_errors_name_the_cluster() {
    let bad = |cluster: Cluster| {
        let mut config = tenantry_databases::postgres::Config::new("postgres://db/x");
        config.clusters.insert("eu-1".to_owned(), cluster);
        Postgres::new(config).err().expect("it was accepted").message
    };
    assert!(bad(Cluster::new("nowhere at all")).starts_with("`clusters.eu-1.url` must be like postgres://"));
    let pooler = Some("nowhere".to_owned());
    assert!(bad(Cluster { pooler, ..Cluster::new("postgres://db/y") }).starts_with("`clusters.eu-1.pooler`"));
}

/// Two regions on one server count as one server.
#[tokio::test]
async fn a_server_of_two_regions_is_checked_once() {
    let Some(second) = TestDatabase::postgres().await else { return };
    let cluster = Cluster::new(second.url());
    let Some(mut fixture) = Fixture::in_cluster(cluster.clone()).await else { return };
    fixture.reconfigure(|config| drop(config.clusters.insert("eu-2".to_owned(), cluster)));
    let (spec, _) = make(&fixture).await;
    let cells = fixture.provider.isolation().unwrap().check(&[spec.tenant.id]).await.unwrap().cells;
    let connect = cells.iter().find(|cell| cell.what == "connect").unwrap();
    assert_eq!((connect.tried, &connect.why), (1, &None));
    fixture.provider.remove(&fixture.world.context(), &spec).await.unwrap();
    assert_eq!(count(fixture.url(), &spec.name).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_named_and_retried() {
    let Some(primary) = OwnPostgres::start(&FAST).await else { return };
    let standby = primary.standby().await;
    let Some(fixture) = Fixture::in_cluster(Cluster::new(standby.url())).await else { return };
    let (context, spec) = (fixture.world.context(), spec(json!({})));
    for failure in [
        fixture.provider.probe().await.unwrap_err(),
        fixture.provider.ensure(&context, &spec).await.map(drop).unwrap_err(),
    ] {
        is(&failure, Retryable, "read_only");
        assert!(failure.message.contains("`clusters.eu-1.url` is a standby"), "{failure}");
    }
    // After the promotion no configuration change is needed.
    standby.until("SELECT pg_promote()").await;
    ensured(&fixture, &spec).await;
    fixture.provider.probe().await.unwrap();
}

#[tokio::test]
async fn servers_are_connected_lazily_and_all_failures_are_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = tenantry_databases::postgres::Config::new(format!("postgres://a@{closed}/x"));
    config.clusters.insert("eu-1".to_owned(), Cluster::new(format!("postgres://b@{closed}/y")));
    let provider = DatabasePostgresDatabase::new(Postgres::new(config).unwrap());
    provider.start().await.unwrap();
    let out = provider.probe().await.unwrap_err();
    assert_eq!(out.class, Retryable);
    assert!(out.message.contains("`url` (") && out.message.contains("; `clusters.eu-1.url` ("), "{out}");
}
