//! Two real processes on one PostgreSQL: the one that runs is killed, or stopped and continued, with customers at both
//! doors. Everything is finished, once, and whoever was stopped writes nothing when it goes on.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tenantry_testkit::report;

use crate::customers::Door;
use crate::server::{PATIENCE, Server};

const TENANTS: usize = 200;

/// Whether this process says that it runs operations.
async fn runs(server: &Server) -> bool {
    let asked = || server.bare(Method::GET, "/metrics").send();
    let answer = match asked().await {
        Ok(answer) => answer,
        // A connection that was idle while the process stood still is closed when it goes on.
        Err(_) => asked().await.expect("an answer"),
    };
    answer.text().await.expect("a text").lines().any(|line| line == "tenantry_runs 1")
}

async fn until_it_runs(server: &Server, whether: bool) {
    let started = Instant::now();
    while runs(server).await != whether {
        assert!(started.elapsed() < PATIENCE, "it never does:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn two() -> Option<(Server, Server)> {
    let first = Server::one_of_several().await?;
    until_it_runs(&first, true).await;
    let second = first.beside().await;
    assert!(!runs(&second).await, "one runs");
    Some((first, second))
}

/// The runner is taken away in the middle of many sign-ups at both processes; gives the seconds until the other ran.
async fn taken_away(first: &mut Server, second: &Server, away: impl AsyncFnOnce(&mut Server)) -> f64 {
    let doors = [Door::of(first), Door::of(second)];
    let sign_up = |n: usize| {
        let door = &doors[n % 2];
        async move { door.sign_up(&format!("Customer {n}"), "starter").await }
    };
    let half = join_all((0..TENANTS / 2).map(sign_up)).await;
    away(first).await;
    let gone = Instant::now();
    doors[0].moved(second);
    let stall = async {
        until_it_runs(second, true).await;
        gone.elapsed().as_secs_f64()
    };
    let (rest, stall) = tokio::join!(join_all((TENANTS / 2..TENANTS).map(sign_up)), stall);
    for id in half.iter().chain(&rest) {
        assert_eq!(doors[1].rests(id).await["state"], "succeeded");
    }
    stall
}

/// All are active, once, and nothing is left over.
async fn clean(first: &Server, second: &Server) {
    let started = Instant::now();
    while first.stores().unfinished().await > 0 {
        assert!(started.elapsed() < PATIENCE, "something is never finished:\n{}", second.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tenants = second.tenants().await;
    assert_eq!(tenants.len(), TENANTS);
    assert!(tenants.iter().all(|tenant: &Value| tenant["status"] == "active"));
    let scan = first.stores().scan().await;
    let one = scan.tenants.values().next().expect("one").clone();
    let wrong: Vec<_> = scan.tenants.values().flat_map(|found| found.faults(&one)).collect();
    let rows = first.rows_of_tenants("tenantry_pool.projects").await;
    assert_eq!(rows, i64::try_from(TENANTS).expect("few"), "each has its sample, once");
    assert!(scan.orphans.is_empty() && wrong.is_empty(), "{wrong:?} {:?}", scan.orphans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_runs_is_killed() {
    let Some((mut first, second)) = two().await else { return };
    let stall = taken_away(&mut first, &second, async |server| {
        server.signal(Signal::KILL);
        server.wait();
    })
    .await;
    clean(&first, &second).await;
    report::add(&format!("replicas: killed, the other ran after {stall:.1} s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_runs_is_stopped_and_continued() {
    let Some((mut first, second)) = two().await else { return };
    let stall = taken_away(&mut first, &second, async |server| server.signal(Signal::STOP)).await;
    clean(&first, &second).await;
    let before = first.stores().versions().await;
    first.signal(Signal::CONT);
    until_it_runs(&first, false).await;
    assert_eq!(first.stores().versions().await, before, "it wrote something");
    // And it serves like any other.
    let made = first.onboard("Later").await;
    assert_eq!(made["state"], "succeeded");
    report::add(&format!("replicas: stopped, the other ran after {stall:.1} s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_runs_leaves_in_order() {
    let Some((mut first, second)) = two().await else { return };
    let stall = taken_away(&mut first, &second, async |server| {
        server.signal(Signal::TERM);
        assert!(server.wait().success(), "{}", server.log());
    })
    .await;
    clean(&first, &second).await;
    report::add(&format!("replicas: ended in order, the other ran after {stall:.1} s"));
}
