//! The PostgreSQL that has registry, keyring and tenants is in trouble while tenants are made: it crashes and comes back, it
//! has no connection left or no room on its disk, it stands still. Operations go on as soon as it does, and nothing is made twice.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;
use tenantry_testkit::own_postgres::OwnPostgres;
use tenantry_testkit::report;
use tenantry_testkit::small_disk::SmallDisk;

use crate::customers::Door;
use crate::kills::finish;
use crate::server::{PATIENCE, Server, read};

/// One for each way of keeping tenants apart.
const PLANS: [&str; 3] = ["starter", "growth", "enterprise"];
/// Tenants that are made meanwhile.
const TENANTS: usize = 12;
/// A server of a test's own is the only one that crashes, so it need not wait for a disk: the system keeps what it has written.
const FAST: [&str; 2] = ["fsync=off", "max_connections=200"];

/// Has tenants made while this goes on, and one of each plan before. Everything must be as if it had not.
async fn goes_on(server: &Server, trouble: impl AsyncFnOnce(&Door, &Mutex<usize>)) {
    let door = Door::of(server);
    let calm = Mutex::new(BTreeMap::new());
    for plan in PLANS {
        let operation = door.rests(&door.sign_up(&format!("Calm {plan}"), plan).await).await;
        let tenant = operation["tenant_id"].as_str().expect("an id").to_owned();
        calm.lock().insert(plan, tenant);
    }
    let made = Mutex::new(0);
    let customer = async |number: usize| {
        let plan = PLANS[number % PLANS.len()];
        let operation = door.sign_up(&format!("Customer {number}"), plan).await;
        door.rests(&operation).await;
        *made.lock() += 1;
    };
    tokio::join!(join_all((0..TENANTS).map(customer)), trouble(&door, &made));
    finish(server, &door).await;
    let scan = server.stores().scan().await;
    let mut faults = scan.orphans.clone();
    for (id, found) in &scan.tenants {
        let undisturbed = &scan.tenants[&calm.lock()[found.template.as_str()]];
        assert_eq!(undisturbed.status, "active");
        faults.extend(found.faults(undisturbed).into_iter().map(|fault| format!("tenant {id}: {fault}")));
    }
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), server.log());
    assert_eq!(scan.tenants.len(), TENANTS + PLANS.len(), "each once");
}

/// Waits until so many more have been made.
async fn until_made(made: &Mutex<usize>, count: usize) {
    let started = Instant::now();
    while *made.lock() < count {
        assert!(started.elapsed() < PATIENCE * 2, "none is made any more");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_crashes_and_comes_back() {
    let Some(mut postgres) = OwnPostgres::start(&FAST).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    goes_on(&server, async |_, made| {
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
async fn it_has_no_connection_left() {
    let Some(postgres) = OwnPostgres::start(&["fsync=off", "max_connections=60"]).await else {
        return;
    };
    let server = Server::on_postgres(&postgres.url()).await;
    let mut most = 0;
    goes_on(&server, async |_, made| {
        for turn in 0..3 {
            until_made(made, turn * TENANTS / 4).await;
            let taken = postgres.fill().await;
            most = most.max(taken.len());
            // What has a connection goes on with it; what needs another one is refused.
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
async fn it_stands_still() {
    let Some(postgres) = OwnPostgres::start(&FAST).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    goes_on(&server, async |_, made| {
        for halt in 0..2 {
            until_made(made, halt * TENANTS / 3).await;
            postgres.halt();
            // The server says so itself, and answers that at once.
            let started = Instant::now();
            while read(server.bare(Method::GET, "/readyz")).await.status == 200 {
                assert!(started.elapsed() < PATIENCE, "it calls itself ready");
            }
            postgres.go_on();
        }
    })
    .await;
    report::add(&format!("postgres: {TENANTS} tenants made while it stood still twice"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_no_room_left() {
    let Some(disk) = SmallDisk::new(512) else { return };
    let settings = ["max_connections=200", "min_wal_size=32MB", "max_wal_size=64MB"];
    let Some(mut postgres) = OwnPostgres::start_in(disk.path(), &settings).await else { return };
    let server = Server::on_postgres(&postgres.url()).await;
    let key = json!({ "name": "one more", "scopes": ["viewer"] });
    goes_on(&server, async |_, made| {
        for crashes in [false, true] {
            until_made(made, usize::from(crashes) * TENANTS / 3).await;
            disk.fill();
            if crashes {
                // Its log has no room either.
                postgres.write_until_it_crashes().await;
            }
            let started = Instant::now();
            loop {
                let answer = server.post("/v1/keys", &key).await;
                if answer.status == 503 {
                    answer.problem(503, "unavailable");
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "there is no end of room");
            }
            disk.make_room();
            postgres.revive().await;
            let started = Instant::now();
            while server.post("/v1/keys", &key).await.status != 201 {
                assert!(started.elapsed() < PATIENCE, "it takes nothing any more");
            }
        }
    })
    .await;
    report::add(&format!(
        "postgres: {TENANTS} tenants made while its disk was full twice, once with a crash"
    ));
    drop(server);
}
