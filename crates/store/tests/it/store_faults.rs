//! The store while its database fails: terminated connections and a full disk. Confirmed writes are kept,
//! rejected ones are not, and the store recovers by itself.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tenantry_model::{TenantId, Write};
use tenantry_store::{Rejected, Store, StoreConfig, WriteBatch};
use tenantry_testkit::{Raw, TestDatabase, TestStore};

use crate::store_writer::tenant_row;

fn new_tenant(id: TenantId, filler: usize) -> WriteBatch {
    let mut row = tenant_row(id, &id.to_string());
    row.set("labels", &json!({ "filler": "x".repeat(filler) }));
    WriteBatch::new(vec![Write::insert_unique("tenants", row)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovers_from_terminated_connections() {
    let Some(store) = TestStore::postgres().await else { return };
    let admin = Raw::connect(store.database().url()).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Terminated while idle: the next commit succeeds.
    admin.execute(cut).await;
    store.commit(new_tenant(TenantId::new(), 1)).await.unwrap();

    // Terminated repeatedly under load.
    let writers = (0..8).map(|_| {
        let store = (*store).clone();
        tokio::spawn(async move {
            let mut confirmed = Vec::new();
            let mut refused = 0;
            for _ in 0..100 {
                let id = TenantId::new();
                match store.commit(new_tenant(id, 1)).await {
                    Ok(()) => confirmed.push(id),
                    Err(Rejected::Unavailable(_)) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            (confirmed, refused)
        })
    });
    let writers: Vec<_> = writers.collect();
    while !writers.iter().all(|writer| writer.is_finished()) {
        admin.execute(cut).await;
        // Time enough for some connections to be opened and used.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answers = 0;
    for writer in writers {
        let (confirmed, refused) = writer.await.unwrap();
        answers += confirmed.len() + refused;
        for id in confirmed {
            assert!(store.tenant(&id.to_string()).await.unwrap().is_some(), "a confirmed write was lost");
        }
    }
    assert_eq!(answers, 800, "every commit returns");
    store.commit(new_tenant(TenantId::new(), 1)).await.unwrap();
    admin.close().await;
}

/// Runs the next test in a process whose files may not grow beyond 2 MiB.
#[test]
fn no_space_left() {
    let database = TestDatabase::sqlite();
    let script =
        "trap '' XFSZ; ulimit -S -f 4096; exec \"$0\" --exact store_faults::with_no_space --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        // The running program, even if a new build has replaced its file.
        .arg(format!("/proc/{}/exe", std::process::id()))
        .env("TENANTRY_TEST_FULL_URL", database.url())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_space() {
    // Run only by `no_space_left`, in a separate process.
    let Ok(url) = std::env::var("TENANTRY_TEST_FULL_URL") else { return };
    let store = Store::open(&StoreConfig { url: url.clone(), readers: 2 }).await.unwrap();
    let mut confirmed = Vec::new();
    let refused = loop {
        let id = TenantId::new();
        match store.commit(new_tenant(id, 20_000)).await {
            Ok(()) => confirmed.push(id),
            Err(rejected) => break (id, rejected),
        }
        assert!(confirmed.len() < 10_000, "the limit of the file size has no effect");
    };
    assert!(matches!(refused.1, Rejected::Unavailable(_)), "{refused:?}");
    assert!(!confirmed.is_empty());
    // Reads still work, and a second commit is rejected too instead of hanging.
    for id in &confirmed {
        assert!(store.tenant(&id.to_string()).await.unwrap().is_some());
    }
    let again = store.commit(new_tenant(TenantId::new(), 20_000)).await;
    assert!(matches!(again, Err(Rejected::Unavailable(_))), "{again:?}");

    let freed = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(freed.success());
    for _ in 0..200 {
        store.commit(new_tenant(TenantId::new(), 20_000)).await.expect("a commit after space was freed");
    }
    store.close().await;
    let store = Store::open(&StoreConfig { url, readers: 2 }).await.unwrap();
    for id in confirmed {
        assert!(store.tenant(&id.to_string()).await.unwrap().is_some());
    }
    store.close().await;
}
