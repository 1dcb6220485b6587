//! Leader election: of two processes on one PostgreSQL the leader is killed, halted and continued, or
//! stopped, under load. Every operation is finished once, and a former leader writes nothing when it
//! continues.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tenantry_testkit::report;

use crate::retrying_client::RetryingClient;
use crate::server::{PATIENCE, Server};

const TENANTS: usize = 200;

/// Whether this process is the leader, by its metrics.
async fn is_leader(server: &Server) -> bool {
    let asked = || server.bare(Method::GET, "/metrics").send();
    let answer = match asked().await {
        Ok(answer) => answer,
        // An idle connection is closed when a halted process continues; the second try opens a new one.
        Err(_) => asked().await.expect("an answer"),
    };
    answer.text().await.expect("a text").lines().any(|line| line == "tenantry_runs 1")
}

async fn until_leader(server: &Server, expected: bool) {
    let started = Instant::now();
    while is_leader(server).await != expected {
        assert!(started.elapsed() < PATIENCE, "leader is not {expected}:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn two() -> Option<(Server, Server)> {
    let first = Server::one_of_several().await?;
    until_leader(&first, true).await;
    let second = first.beside().await;
    assert!(!is_leader(&second).await, "there is one leader");
    Some((first, second))
}

/// Removes the leader in the middle of many requests to both processes; returns the seconds until the other
/// is leader.
async fn fail_over(first: &mut Server, second: &Server, remove: impl AsyncFnOnce(&mut Server)) -> f64 {
    let clients = [RetryingClient::new(first), RetryingClient::new(second)];
    let create = |n: usize| {
        let client = &clients[n % 2];
        async move { client.create_tenant(&format!("Customer {n}"), "starter").await }
    };
    let half = join_all((0..TENANTS / 2).map(create)).await;
    remove(first).await;
    let removed = Instant::now();
    clients[0].set_server(second);
    let stall = async {
        until_leader(second, true).await;
        removed.elapsed().as_secs_f64()
    };
    let (rest, stall) = tokio::join!(join_all((TENANTS / 2..TENANTS).map(create)), stall);
    for id in half.iter().chain(&rest) {
        assert_eq!(clients[1].settled(id).await["state"], "succeeded");
    }
    stall
}

/// Asserts that every tenant is active and exists once, and that no resource is left over.
async fn assert_complete(first: &Server, second: &Server) {
    let started = Instant::now();
    while first.stores().unfinished().await > 0 {
        assert!(started.elapsed() < PATIENCE, "some operations never finish:\n{}", second.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tenants = second.tenants().await;
    assert_eq!(tenants.len(), TENANTS);
    assert!(tenants.iter().all(|tenant: &Value| tenant["status"] == "active"));
    let scan = first.stores().scan().await;
    let one = scan.tenants.values().next().expect("one").clone();
    let wrong: Vec<_> = scan.tenants.values().flat_map(|found| found.faults(&one)).collect();
    let rows = first.rows_of_tenants("tenantry_pool.projects").await;
    assert_eq!(rows, i64::try_from(TENANTS).expect("few"), "each tenant has its sample row once");
    assert!(scan.orphans.is_empty() && wrong.is_empty(), "{wrong:?} {:?}", scan.orphans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed() {
    let Some((mut first, second)) = two().await else { return };
    let stall = fail_over(&mut first, &second, async |server| {
        server.signal(Signal::KILL);
        server.wait();
    })
    .await;
    assert_complete(&first, &second).await;
    report::add(&format!("leader killed: the other process took over after {stall:.1} s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_halted_and_continued() {
    let Some((mut first, second)) = two().await else { return };
    let stall = fail_over(&mut first, &second, async |server| server.signal(Signal::STOP)).await;
    assert_complete(&first, &second).await;
    let before = first.stores().versions().await;
    first.signal(Signal::CONT);
    until_leader(&first, false).await;
    assert_eq!(first.stores().versions().await, before, "the former leader wrote something");
    // It still serves requests.
    let made = first.onboard("Later").await;
    assert_eq!(made["state"], "succeeded");
    report::add(&format!("leader halted: the other process took over after {stall:.1} s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_stops_on_sigterm() {
    let Some((mut first, second)) = two().await else { return };
    let stall = fail_over(&mut first, &second, async |server| {
        server.signal(Signal::TERM);
        assert!(server.wait().success(), "{}", server.log());
    })
    .await;
    assert_complete(&first, &second).await;
    report::add(&format!("leader stopped: the other process took over after {stall:.1} s"));
}
