//! Outages of the PostgreSQL with registry, keyring and tenants during onboarding: crashes, no connection
//! left, a full disk, a halted server. Operations resume when the outage ends, and nothing is created twice.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;
use tenantry_testkit::own_postgres::OwnPostgres;
use tenantry_testkit::report;
use tenantry_testkit::small_disk::SmallDisk;

use crate::kills::finish;
use crate::retrying_client::RetryingClient;
use crate::server::{PATIENCE, Server, read};

/// One plan for each isolation model.
const PLANS: [&str; 3] = ["starter", "growth", "enterprise"];
/// Tenants that are onboarded during the outage.
const TENANTS: usize = 12;
/// Without fsync: only the server crashes, so the operating system keeps what it has written.
const FAST: [&str; 2] = ["fsync=off", "max_connections=200"];

/// Onboards a tenant of each plan, then more during an outage, and asserts that they are equal.
async fn survives(server: &Server, outage: impl AsyncFnOnce(&RetryingClient, &Mutex<usize>)) {
    let client = RetryingClient::new(server);
    let calm = Mutex::new(BTreeMap::new());
    for plan in PLANS {
        let operation = client.settled(&client.create_tenant(&format!("Calm {plan}"), plan).await).await;
        let tenant = operation["tenant_id"].as_str().expect("an id").to_owned();
        calm.lock().insert(plan, tenant);
    }
    let made = Mutex::new(0);
    let customer = async |number: usize| {
        let plan = PLANS[number % PLANS.len()];
        let operation = client.create_tenant(&format!("Customer {number}"), plan).await;
        client.settled(&operation).await;
        *made.lock() += 1;
    };
    tokio::join!(join_all((0..TENANTS).map(customer)), outage(&client, &made));
    finish(server, &client).await;
    let scan = server.stores().scan().await;
    let mut faults = scan.orphans.clone();
    for (id, found) in &scan.tenants {
        let undisturbed = &scan.tenants[&calm.lock()[found.template.as_str()]];
        assert_eq!(undisturbed.status, "active");
        faults.extend(found.faults(undisturbed).into_iter().map(|fault| format!("tenant {id}: {fault}")));
    }
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), server.log());
    assert_eq!(scan.tenants.len(), TENANTS + PLANS.len(), "each tenant exists once");
}

/// Waits until this many tenants have been onboarded.
async fn until_made(made: &Mutex<usize>, count: usize) {
    let started = Instant::now();
    while *made.lock() < count {
        assert!(started.elapsed() < PATIENCE * 2, "onboarding has stopped");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes() {
    let Some(mut postgres) = OwnPostgres::start(&FAST).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    survives(&server, async |_, made| {
        for crash in 0..4 {
            until_made(made, crash * TENANTS / 6).await;
            postgres.crash().await;
        }
    })
    .await;
    report::add(&format!("postgres: {TENANTS} tenants made over 4 crashes of its server"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_has_no_connection_left() {
    let Some(postgres) = OwnPostgres::start(&["fsync=off", "max_connections=60"]).await else {
        return;
    };
    let server = Server::on_postgres(&postgres.url()).await;
    let mut most = 0;
    survives(&server, async |_, made| {
        for turn in 0..3 {
            until_made(made, turn * TENANTS / 4).await;
            let taken = postgres.fill().await;
            most = most.max(taken.len());
            // Open connections keep working; new ones are rejected.
            until_made(made, turn * TENANTS / 4 + 1).await;
            drop(taken);
        }
    })
    .await;
    report::add(&format!(
        "postgres: {TENANTS} tenants made while others held up to {most} of 60 connections"
    ));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_halted() {
    let Some(postgres) = OwnPostgres::start(&FAST).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    survives(&server, async |_, made| {
        for halt in 0..2 {
            until_made(made, halt * TENANTS / 3).await;
            postgres.halt();
            // `/readyz` still responds, and reports the outage.
            let started = Instant::now();
            while read(server.bare(Method::GET, "/readyz")).await.status == 200 {
                assert!(started.elapsed() < PATIENCE, "/readyz does not report the outage");
            }
            postgres.go_on();
        }
    })
    .await;
    report::add(&format!("postgres: {TENANTS} tenants made while it stood still twice"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_postgres_is_full() {
    let Some(disk) = SmallDisk::new(512) else { return };
    let settings = ["max_connections=200", "min_wal_size=32MB", "max_wal_size=64MB"];
    let Some(mut postgres) = OwnPostgres::start_in(disk.path(), &settings).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    let key = json!({ "name": "one more", "scopes": ["viewer"] });
    survives(&server, async |_, made| {
        for crashes in [false, true] {
            until_made(made, usize::from(crashes) * TENANTS / 3).await;
            disk.fill();
            if crashes {
                // The write-ahead log cannot grow either.
                postgres.write_until_it_crashes().await;
            }
            let started = Instant::now();
            loop {
                let answer = server.post("/v1/keys", &key).await;
                if answer.status == 503 {
                    answer.problem(503, "unavailable");
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "the disk never fills up");
            }
            disk.make_room();
            postgres.revive().await;
            let started = Instant::now();
            while server.post("/v1/keys", &key).await.status != 201 {
                assert!(started.elapsed() < PATIENCE, "writes still fail after the outage");
            }
        }
    })
    .await;
    report::add(&format!(
        "postgres: {TENANTS} tenants made while its disk was full twice, once with a crash"
    ));
    drop(server);
}
