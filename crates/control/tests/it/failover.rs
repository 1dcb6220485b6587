//! Failover to a standby that lacks the last writes: the leader takes over again with the registry's content,
//! and a process that knows a later epoch than the registry's does not serve.

use std::time::Duration;

use tenantry_control::{Caller, ErrorKind};
use tenantry_engine::Ledger;
use tenantry_model::id::OperationId;
use tenantry_store::keyring::{Keyring, MasterKey};
use tenantry_store::{Fault, Store, StoreConfig};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::own_postgres::OwnPostgres;

use crate::replicas::{LONG, all_end, onboard, process, stop, until_it_runs};
use crate::world::{Process, World};

/// Commits do not wait for the standby, so it can lag behind.
const ASYNCHRONOUS: [&str; 2] = ["synchronous_commit=off", "max_connections=60"];

/// Pause between two polls.
const PAUSE: Duration = Duration::from_millis(10);

async fn several(process: &Process, numbers: std::ops::Range<usize>) -> Vec<OperationId> {
    let mut made = Vec::new();
    for n in numbers {
        made.push(onboard(&process.control, n).await.unwrap());
    }
    all_end(&process.control, &made).await;
    made
}

async fn eye(world: &World) -> Store {
    Store::open(&StoreConfig { url: world.registry_url(), readers: 1 }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_continues_with_the_standbys_content() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let world = World::shared(TestDatabase::on(&primary.url()).await).await;
    let first = process(&world).await;
    until_it_runs(&first).await;
    let kept = several(&first, 0..3).await;
    standby.cut_off(&primary).await;
    let lost = several(&first, 3..6).await;
    standby.take_over(&mut primary).await;

    // The leader recovers without intervention.
    let mut tried = 0;
    let later = loop {
        match onboard(&first.control, 6).await {
            Ok(operation) => break operation,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
        tried += 1;
        assert!(tried < 100, "the leader accepts no request after the failover");
    };
    all_end(&first.control, &[later]).await;
    let eye = eye(&world).await;
    assert!(Ledger::epoch(&eye).await.unwrap() > 1, "the leader raised the epoch");
    eye.close().await;
    let caller = Caller::system();
    for operation in &kept {
        assert!(first.control.operation(&caller, *operation).await.unwrap().done);
    }
    for operation in &lost {
        let gone = first.control.operation(&caller, *operation).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
    // The audit chain continues from the standby's content. The lost records are named, because the keyring counted them.
    stop(&first).await;
    drop(first);
    let again = process(&world).await;
    until_it_runs(&again).await;
    let report = again.control.verify_audit().await.unwrap();
    assert_eq!(report.broken.as_ref().map(|broken| broken.fault), Some(Fault::Cut), "{report:?}");
    assert_eq!((report.anchored, report.cuts.len()), (Some(report.verified), 1), "{report:?}");
    stop(&again).await;
    let scan = world.stores().scan().await;
    assert_eq!(scan.tenants.values().filter(|tenant| tenant.status == "active").count(), 4);
    // The resources of the lost tenants are reported as orphans.
    assert!(!scan.orphans.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_knows_a_later_epoch_does_not_serve() {
    let Some(mut primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let mut standby = primary.standby().await;
    let world = World::shared(TestDatabase::on(&primary.url()).await).await;
    let first = process(&world).await;
    until_it_runs(&first).await;
    let kept = several(&first, 0..2).await;
    standby.cut_off(&primary).await;
    // Another leader takes over, which the standby has not received.
    stop(&first).await;
    drop(first);
    let second = process(&world).await;
    until_it_runs(&second).await;
    let beside = process(&world).await;
    several(&beside, 2..3).await;
    standby.take_over(&mut primary).await;

    for process in [&second, &beside] {
        let refusal = async {
            loop {
                match process.control.ready().await {
                    Err(error) if error.code.as_str() != "unavailable" => break error,
                    _ => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        let refused = tokio::time::timeout(LONG, refusal).await.expect("the process notices the failover");
        assert_eq!((refused.kind(), refused.code.as_str()), (ErrorKind::Unavailable, "registry_went_back"));
        assert!(refused.message.contains("start them again"), "{refused}");
        assert!(!*process.control.runs().borrow());
        assert_eq!(onboard(&process.control, 3).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    // A new process accepts the standby's content.
    let third = process(&world).await;
    until_it_runs(&third).await;
    several(&third, 3..4).await;
    assert!(third.control.operation(&Caller::system(), kept[0]).await.unwrap().done);
    assert_eq!(second.control.ready().await.unwrap_err().code.as_str(), "registry_went_back");
    stop(&third).await;
}

#[tokio::test]
async fn opening_a_standby_is_rejected() {
    let Some(primary) = OwnPostgres::start(&ASYNCHRONOUS).await else { return };
    let standby = primary.standby().await;
    let refused = Store::open(&StoreConfig { url: standby.url(), readers: 1 }).await.err().expect("an error");
    let address = standby.url().replace("postgres://postgres@", "");
    let refused = refused.to_string();
    assert!(
        refused.contains(&address)
            && refused.contains("is a standby")
            && refused.contains("set the URL to the primary"),
        "{refused}"
    );
    let folder = tempfile::tempdir().unwrap();
    let master = MasterKey::read_or_create(&folder.path().join("master.key")).unwrap();
    let refused = Keyring::open(&standby.url(), master).await.err().expect("an error").to_string();
    assert!(refused.contains(&address) && refused.contains("is a standby"), "{refused}");
}
