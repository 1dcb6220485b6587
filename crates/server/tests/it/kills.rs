//! Kills: the server is killed with SIGKILL repeatedly, also while it starts, under load. Afterwards the
//! stores are scanned by plain SQL and file access: every operation is finished, every tenant is complete or
//! rolled back, and no step ran again that the ledger records as done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use rand::RngExt as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tenantry_testkit::scan::Over;
use tenantry_testkit::{report, seed};

use crate::retrying_client::RetryingClient;
use crate::server::{On, PATIENCE, Server};

/// Plans whose onboardings succeed, fail, wait or need attention.
const PLANS: [&str; 6] = ["slow", "enterprise", "doomed", "growth", "stuck", "starter"];
/// Clients at the same time.
const CUSTOMERS: usize = 8;

fn full() -> bool {
    std::env::var_os("TENANTRY_TEST_FULL").is_some()
}

/// Kills the server while requests and steps run, and while it starts and resumes operations.
async fn kill_repeatedly(on: On) {
    let kills = if full() { 60 } else { 4 };
    let (seed, mut random) = seed::generator("kills");
    let Some(mut server) = Server::start_with(on, "kills").await else { return };
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/files/kills");
    std::fs::copy(files.join("thing.sh"), server.folder().join("thing.sh")).expect("the script");
    let repaired = server.folder().join("repaired");
    std::fs::write(&repaired, "").expect("a file");
    let client = RetryingClient::new(&server);
    let mut undisturbed = BTreeMap::new();
    for plan in PLANS {
        let operation = client.settled(&client.create_tenant(&format!("Calm {plan}"), plan).await).await;
        undisturbed.insert(operation["tenant_id"].as_str().expect("an id").to_owned(), plan);
    }
    std::fs::remove_file(&repaired).expect("it was there");

    let (next, closing) = (AtomicUsize::new(0), AtomicBool::new(false));
    let stuck = Mutex::new(Vec::new());
    let customer = async || {
        while !closing.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let plan = PLANS[number % PLANS.len()];
            let id = client.create_tenant(&format!("Customer {number}"), plan).await;
            if client.settled(&id).await["state"] == "needs_attention" {
                stuck.lock().push(id);
            }
        }
    };
    let (server, starting) = {
        let (client, closing) = (&client, &closing);
        let killer = async move {
            let mut starting = 0;
            // Duration of a start on this machine, so that kills hit every phase of it.
            let mut start = Duration::from_millis(500);
            for n in 0..kills {
                server.kill_and_spawn();
                let spawned = Instant::now();
                if n + 1 < kills && random.random_ratio(1, 3) {
                    starting += 1;
                    tokio::time::sleep(start.mul_f64(random.random_range(0.0..1.2))).await;
                } else {
                    server.ready().await;
                    start = spawned.elapsed();
                    client.set_server(&server);
                    // Long enough for most running operations to end, however slow the machine is.
                    tokio::time::sleep(start.mul_f64(random.random_range(0.0..3.0))).await;
                }
            }
            closing.store(true, Ordering::SeqCst);
            (server, starting)
        };
        tokio::join!(killer, join_all((0..CUSTOMERS).map(|_| customer()))).0
    };
    let mut server = server;
    // Repair the cause, then retry or cancel every operation that needs attention.
    std::fs::write(&repaired, "").expect("a file");
    let parked = std::mem::take(&mut *stuck.lock());
    for (n, id) in parked.iter().enumerate() {
        let verb = if n % 2 == 0 { "retry" } else { "cancel" };
        client.send(Method::POST, &format!("/v1/operations/{id}/{verb}"), None, None).await;
    }
    finish(&server, &client).await;
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());

    let context = format!("TENANTRY_TEST_SEED={seed}, {on:?}");
    let stores = server.stores();
    let scan = stores.scan().await;
    let mut faults = scan.orphans.clone();
    let calm: BTreeMap<_, _> =
        undisturbed.iter().map(|(id, plan)| (*plan, scan.tenants[id].clone())).collect();
    assert_eq!(calm["slow"].counts.get("things"), Some(&3), "{calm:?}");
    assert!(PLANS.iter().all(|plan| (calm[plan].status == "active") == (*plan != "doomed")), "{calm:?}");
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, found) in &scan.tenants {
        *ends.entry(&found.status).or_default() += 1;
        let wrong = found.faults(&calm[found.template.as_str()]);
        faults.extend(wrong.into_iter().map(|wrong| format!("tenant {id}: {wrong}")));
    }
    let log = std::fs::read_to_string(server.folder().join("things.log")).expect("the commands' log");
    let over = stores.over("exec").await;
    faults.extend(ran_again(&over, &log));
    assert!(faults.is_empty(), "{context}:\n{}\n{}", faults.join("\n"), server.log());
    assert_eq!(scan.tenants.len(), next.into_inner() + PLANS.len(), "{context}: each tenant exists once");
    report::add(&format!(
        "kills on {on:?}: {kills} by SIGKILL, {starting} of them while it started; {ends:?} tenants, {} steps by commands, seed {seed}",
        over.len()
    ));
}

/// Waits until every operation is finished, and retries those that need attention.
pub async fn finish(server: &Server, client: &RetryingClient) {
    let started = Instant::now();
    while server.stores().unfinished().await > 0 {
        let open =
            client.send(Method::GET, "/v1/operations?state=needs_attention&limit=100", None, None).await;
        for operation in open["data"].as_array().expect("a list") {
            let path = format!("/v1/operations/{}/retry", operation["id"].as_str().expect("an id"));
            // An operation that has resumed by itself rejects this.
            let _ = server.post(&path, &Value::Null).await;
        }
        assert!(started.elapsed() < PATIENCE * 2, "some operations never finish: {open:#}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compares the commands' log with the ledger. Returns the contradictions: a start after the end of its step,
/// a step that is done without an end in the log, a process that goes on after the next one of its resource
/// has started.
fn ran_again(over: &[Over], log: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ended = BTreeSet::new();
    let mut latest: BTreeMap<&str, &str> = BTreeMap::new();
    let mut left: BTreeSet<(&str, &str)> = BTreeSet::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, process, event, verb, resource] = words[..] else { panic!("a broken line: {line}") };
        let at: i64 = at.parse::<i64>().expect("a time") / 1000;
        if event == "begin"
            && let Some(before) = latest.insert(resource, process)
        {
            left.insert((resource, before));
        }
        if left.contains(&(resource, process)) {
            faults.push(format!("survived its server: {line}"));
        }
        for step in over.iter().filter(|step| step.resource == resource) {
            let same = step.state == "undone" || verb == "ensure";
            if event == "begin" && same && at > step.at {
                faults.push(format!("{} at {}, and then: {line}", step.state, step.at));
            }
            if event == "end" && at <= step.at {
                ended.insert((resource.to_owned(), verb));
            }
        }
    }
    for step in over {
        let verb = if step.state == "done" { "ensure" } else { "remove" };
        if !ended.contains(&(step.resource.clone(), verb)) {
            faults.push(format!("{step:?} has no end in the commands' log"));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_duplicate_nothing_on_sqlite() {
    kill_repeatedly(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_duplicate_nothing_on_postgres() {
    kill_repeatedly(On::Postgres).await;
}

/// Many requests at the same time while the server is killed repeatedly: each tenant is created exactly once.
async fn storm(on: On) {
    let (count, kills, at_once) = if full() { (3000, 5, 64) } else { (200, 2, 64) };
    let (seed, mut random) = seed::generator("storm");
    let Some(mut server) = Server::start(on).await else { return };
    let client = RetryingClient::new(&server);
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let operations = Mutex::new(Vec::new());
    let customer = async || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= count {
                return;
            }
            let id = client.create_tenant(&format!("Customer {number}"), "starter").await;
            operations.lock().push(id);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    let mut deaths: Vec<usize> = (0..kills).map(|_| random.random_range(1..count * 9 / 10)).collect();
    deaths.sort_unstable();
    let killer = async {
        for death in &deaths {
            while answered.load(Ordering::SeqCst) < *death {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.kill_and_spawn();
            server.ready().await;
            client.set_server(&server);
        }
    };
    tokio::join!(join_all((0..at_once).map(|_| customer())), killer);
    for id in operations.into_inner() {
        assert_eq!(client.settled(&id).await["state"], "succeeded");
    }
    let tenants = server.tenants().await;
    let names: BTreeSet<&str> = tenants.iter().map(|tenant| tenant["name"].as_str().unwrap()).collect();
    assert_eq!((tenants.len(), names.len()), (count, count));
    assert!(tenants.iter().all(|tenant| tenant["status"] == "active"));
    // Each tenant has the same content as the first one.
    finish(&server, &client).await;
    let scan = server.stores().scan().await;
    let first = scan.tenants.values().next().expect("one").clone();
    let wrong: Vec<_> = scan.tenants.values().flat_map(|found| found.faults(&first)).collect();
    assert!(scan.orphans.is_empty() && wrong.is_empty(), "{wrong:?} {:?}", scan.orphans);
    report::add(&format!(
        "storm on {on:?}: {count} tenants with {at_once} requests in flight, each once, over kills after {deaths:?} answers, seed {seed}"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_creates_each_tenant_once_on_sqlite() {
    storm(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_creates_each_tenant_once_on_postgres() {
    storm(On::Postgres).await;
}
