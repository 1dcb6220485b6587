//! Several processes on one PostgreSQL registry: all of them serve requests, the leader runs operations, and
//! a standby takes over when the leader stops, dies or loses its session. Leader election uses the machine's
//! clock.

use std::time::Duration;

use futures::future::join_all;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::{Caller, Control, Error, OperationQuery, PageQuery};
use tenantry_engine::retry::RETRY_FOR;
use tenantry_engine::{Clock as _, Ledger};
use tenantry_model::TenantStatus;
use tenantry_model::id::OperationId;
use tenantry_store::{Store, StoreConfig};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::pooler::Pooler;

use crate::faulty::{How, Outage};
use crate::scan;
use crate::world::{Process, World, request};

/// Timeout for every wait, sufficient on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

async fn world() -> Option<World> {
    Some(World::shared(TestDatabase::postgres_registry().await?).await)
}

pub async fn process(world: &World) -> Process {
    world.start(Faults::new()).await.unwrap()
}

/// A leader and a standby.
async fn two(world: &World) -> (Process, Process) {
    let first = process(world).await;
    until_it_runs(&first).await;
    let second = process(world).await;
    assert!(!*second.control.runs().borrow());
    (first, second)
}

pub async fn until_it_runs(process: &Process) {
    let mut runs = process.control.runs();
    tokio::time::timeout(LONG, runs.wait_for(|runs| *runs))
        .await
        .expect("the process becomes leader in time")
        .unwrap();
}

pub async fn onboard(control: &Control, n: usize) -> Result<OperationId, Error> {
    let document = request(&format!("Tenant {n}"), "starter");
    Ok(control.create_tenant(&Caller::system(), &document, None).await?.operation.id)
}

pub async fn all_end(control: &Control, operations: &[OperationId]) {
    let ends =
        operations.iter().map(|id| async move { control.wait(&Caller::system(), *id, LONG).await.unwrap() });
    let open: Vec<_> = join_all(ends).await.into_iter().filter(|operation| !operation.done).collect();
    assert!(open.is_empty(), "{open:#?}");
}

pub async fn stop(process: &Process) {
    tokio::time::timeout(LONG, process.control.stop()).await.expect("the process stops in time");
}

/// Waits for all operations, stops the processes and checks the stores.
async fn clean<const N: usize>(world: &World, processes: [Process; N], tenants: usize) {
    let caller = Caller::system();
    for process in &processes {
        let every = PageQuery::new(Some(100), None).unwrap();
        let all = process.control.operations(&caller, &OperationQuery::default(), &every).await.unwrap();
        assert!(!all.has_more);
        // Including operations that were requested from other processes.
        all_end(&process.control, &all.data.iter().map(|operation| operation.id).collect::<Vec<_>>()).await;
    }
    for process in processes {
        stop(&process).await;
    }
    let scan = world.stores().scan().await;
    let active = scan.tenants.values().filter(|tenant| tenant.status == "active").count();
    let gone = scan.tenants.values().filter(|tenant| tenant.status == "deprovisioned").count();
    assert_eq!((active, scan.tenants.len() - gone), (tenants, tenants));
    assert_eq!(scan::faults(world).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_serve_and_the_leader_runs() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let controls = [&first.control, &second.control];
    let made = join_all((0..20).map(|n| onboard(controls[n % 2], n))).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    // Each end is visible in the process that did not receive the request.
    for (n, id) in made.iter().enumerate() {
        all_end(controls[(n + 1) % 2], &[*id]).await;
        let view = controls[n % 2].operation(&Caller::system(), *id).await.unwrap();
        assert!(view.steps.iter().all(|step| step.attempts <= 1), "{view:#?}");
    }
    assert_eq!(second.control.executor_load(), (0, 0));
    // The standby is notified of sealed events.
    let head = *first.control.event_head().borrow();
    let mut other = second.control.event_head();
    tokio::time::timeout(LONG, other.wait_for(|seq| *seq >= head)).await.unwrap().unwrap();
    clean(&world, [second, first], 20).await;
}

/// An erasure requested from a standby supersedes an operation of the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_can_be_erased_from_any_process() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let caller = Caller::system();
    let made = second.control.create_tenant(&caller, &request("Acme", "enterprise"), None).await.unwrap();
    let tenant = made.tenant.id.to_string();
    let what = EraseTenant { reason: "asked for".to_owned() };
    let begun = second.control.erase(&caller, &tenant, &what, None).await.unwrap().value;
    all_end(&second.control, &[begun.id, made.operation.id]).await;
    let status = first.control.tenant(&caller, &tenant).await.unwrap().status;
    assert_eq!(status, TenantStatus::Deprovisioned);
    let proof = async |process: &Process| process.control.certificate(&caller, &tenant).await.unwrap();
    assert_eq!(proof(&first).await, proof(&second).await);
    clean(&world, [second, first], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_leader_hands_over_at_once() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let made = join_all((0..10).map(|n| onboard(&second.control, n))).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    stop(&first).await;
    drop(first);
    until_it_runs(&second).await;
    all_end(&second.control, &made).await;
    clean(&world, [second], 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let made = join_all((0..10).map(|n| onboard(&first.control, n))).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    drop(first);
    until_it_runs(&second).await;
    all_end(&second.control, &made).await;
    clean(&world, [second], 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_sessions_lose_no_request() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let store = |url: &str| StoreConfig { url: url.to_owned(), readers: 1 };
    let eye = Store::open(&store(&world.registry_url())).await.unwrap();
    let mut cuts = 0;
    for round in 0..10 {
        let control = |n: usize| if n.is_multiple_of(2) { &first.control } else { &second.control };
        let asked = join_all((0..2).map(|n| onboard(control(n), 2 * round + n)));
        let cut = async {
            if let Some(holder) = eye.holder().await.unwrap() {
                eye.evict(holder).await.unwrap();
                cuts += 1;
            }
        };
        let (made, ()) = tokio::join!(asked, cut);
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }
    assert!(cuts > 0);
    eye.close().await;
    clean(&world, [second, first], 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_takes_over_again_after_a_foreign_epoch() {
    let Some(world) = world().await else { return };
    let (first, second) = two(&world).await;
    let eye = Store::open(&StoreConfig { url: world.registry_url(), readers: 1 }).await.unwrap();
    // As if another leader had run and stopped while the first process was suspended.
    let epoch = Ledger::begin_epoch(&eye).await.unwrap();
    for (n, control) in [&first.control, &second.control].into_iter().enumerate() {
        onboard(control, n).await.unwrap();
    }
    let caller = Caller::system();
    let all =
        second.control.operations(&caller, &OperationQuery::default(), &PageQuery::default()).await.unwrap();
    all_end(&second.control, &all.data.iter().map(|operation| operation.id).collect::<Vec<_>>()).await;
    assert!(Ledger::epoch(&eye).await.unwrap() > epoch);
    eye.close().await;
    clean(&world, [second, first], 2).await;
}

/// The outage may end while another process leads. An outage that lasts is found again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_by_forgets_outages() {
    let Some(mut world) = world().await else { return };
    world.retry_for = RETRY_FOR;
    let first = process(&world).await;
    until_it_runs(&first).await;
    let caller = Caller::system();
    let outages = || first.control.system(&caller).unwrap().outages.len();
    world.plan.set(&world.clock, &[]);
    let at = ("onboard".to_owned(), "database".to_owned(), true);
    let outage = Outage { at, providers: Some(How::Retryable), until: None, failed: 0 };
    *world.plan.outage.lock() = Some(outage);
    // The outage lasts for as long as the clock stands still.
    let busy = world.clock.busy();
    let made = onboard(&first.control, 0).await.unwrap();
    while outages() == 0 {
        first.control.probe_providers().await;
        tokio::task::yield_now().await;
    }
    let eye = Store::open(&StoreConfig { url: world.registry_url(), readers: 1 }).await.unwrap();
    let epoch = Ledger::begin_epoch(&eye).await.unwrap();
    while Ledger::epoch(&eye).await.unwrap() <= epoch {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until_it_runs(&first).await;
    assert_eq!(outages(), 0);
    eye.close().await;
    drop(busy);
    all_end(&first.control, &[made]).await;
    clean(&world, [first], 1).await;
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_rejected() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let Some(pooler) = Pooler::start(database.url()) else { return };
    let config = |url: &str| StoreConfig { url: url.to_owned(), readers: 1 };
    let refused = Store::check_sessions(&config(&pooler.url(database.url()))).await.unwrap_err().to_string();
    assert!(refused.contains("behind a pooler in transaction mode"), "{refused}");
    Store::check_sessions(&config(database.url())).await.unwrap();
}
