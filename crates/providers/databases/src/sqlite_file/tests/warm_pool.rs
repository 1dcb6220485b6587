//! Tests of the warm pool: each database is claimed once, has the current migrations, and is complete or
//! discarded; and creation on demand when the pool cannot be used.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use futures::future::join_all;
use sqlx::Row;

use super::*;
use tenantry_provider::open_files::{Identity, identity};

/// A process with a warm pool of this size, not started.
async fn process(dir: &Path, warm: u16) -> DatabaseSqliteFile {
    DatabaseSqliteFile::new(Config { warm, ..Config::new(dir.join("tenants")) }).await.unwrap()
}

/// A started process whose pool is filled.
async fn started(dir: &Path, warm: u16) -> DatabaseSqliteFile {
    let files = process(dir, warm).await;
    fill(&files).await;
    files
}

async fn fill(files: &DatabaseSqliteFile) {
    files.start().await.unwrap();
    files.refilled().await;
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("tenants/.tenantry/warm")
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files of the warm databases. The folder contains nothing else.
fn ready(dir: &Path) -> BTreeSet<Identity> {
    let folder = folder(dir);
    entries(&folder).iter().map(|name| identity(&client::file(&folder.join(name))).expect(name)).collect()
}

/// File of the only warm database.
fn only(dir: &Path) -> PathBuf {
    let names = entries(&folder(dir));
    assert_eq!(names.len(), 1);
    client::file(&folder(dir).join(&names[0]))
}

/// Drafts and remains in the private folder.
fn drafts(dir: &Path) -> Vec<String> {
    let mut names = entries(&dir.join("tenants/.tenantry"));
    names.retain(|name| name.contains("draft") || name.contains("gone"));
    names
}

/// Tenants that a file lists.
async fn owners(file: &Path) -> Vec<String> {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let rows = sqlx::query("SELECT tenant_id FROM _tenants").fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Time of a file's last migration.
async fn migrated(file: &Path) -> String {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let at = sqlx::query_scalar("SELECT max(applied_at) FROM _migrations").fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    at.unwrap()
}

async fn assert_complete(dir: &Path, files: &DatabaseSqliteFile, spec: &Spec) {
    assert_eq!(owners(&path(dir, spec)).await, [spec.tenant.id.to_string()]);
    let Ownership::Own(state) = client::inspect(&files.folder_of(spec).unwrap(), spec).await.unwrap() else {
        panic!()
    };
    assert!(state.completed.is_some());
    assert_eq!(state.shape, files.files.content.planned().shape);
    assert_eq!(state.version.as_deref(), Some(files.files.content.last_version()));
    files.scoped(spec.tenant.id).list("workspaces", 1, None).await.unwrap();
}

#[tokio::test]
async fn a_claimed_database_becomes_the_tenants_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let files = started(dir.path(), 2).await;
    let before = ready(dir.path());
    assert_eq!(before.len(), 2);
    for name in entries(&folder(dir.path())) {
        assert_eq!(owners(&client::file(&folder(dir.path()).join(name))).await, [""; 0]);
    }
    let spec = spec(json!({}));
    make(&files, &spec).await.unwrap();
    let file = path(dir.path(), &spec);
    assert!(before.contains(&identity(&file).unwrap()));
    assert_complete(dir.path(), &files, &spec).await;
    for (path, mode) in [(file.parent().unwrap(), 0o700), (&*file, 0o600)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
    files.refilled().await;
    let after = ready(dir.path());
    assert_eq!((after.len(), after.intersection(&before).count()), (2, 1));
    gone(&files, &spec).await.unwrap();
    assert_eq!(
        (ready(dir.path()), drafts(dir.path())),
        (after, Vec::new()),
        "a removal affects one tenant only"
    );
}

#[tokio::test]
async fn concurrent_tenants_get_distinct_databases() {
    let dir = tempfile::tempdir().unwrap();
    let files = started(dir.path(), 3).await;
    let before = ready(dir.path());
    let specs: Vec<Spec> = (0..16).map(|_| spec(json!({}))).collect();
    let made = join_all(specs.iter().map(|spec| make(&files, spec))).await;
    made.into_iter().for_each(|made| made.unwrap());
    let mut used = BTreeSet::new();
    for spec in &specs {
        assert_complete(dir.path(), &files, spec).await;
        used.insert(identity(&path(dir.path(), spec)).unwrap());
    }
    assert_eq!(used.len(), specs.len());
    assert!(before.is_subset(&used), "warm databases are used first");
    files.refilled().await;
    let after = ready(dir.path());
    assert_eq!((after.len(), after.intersection(&used).count()), (3, 0));
    assert_eq!(drafts(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_database_is_claimed_once() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (started(dir.path(), 4).await, process(dir.path(), 4).await);
    let claims = (0..16).map(|n| {
        let files = if n % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(async move {
            let target = files.folder_of(&spec(json!({}))).unwrap();
            files.files.warm_pool.claim(&target).await
        })
    });
    let claimed: Vec<PathBuf> = join_all(claims).await.into_iter().filter_map(|file| file.unwrap()).collect();
    let claimed: BTreeSet<Identity> = claimed.iter().map(|file| identity(file).unwrap()).collect();
    assert_eq!((claimed.len(), ready(dir.path()).len()), (4, 0));
}

#[tokio::test]
async fn a_crash_after_a_claim_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    for marked in [false, true] {
        for removed in [false, true] {
            let spec = spec(json!({}));
            let dead = started(dir.path(), 1).await;
            let file = dead.files.warm_pool.claim(&dead.folder_of(&spec).unwrap()).await.unwrap();
            if marked {
                sql(&file, "INSERT INTO _tenants VALUES ('ten_x', 'x', 'half', 'res_x', NULL, NULL)").await;
            }
            drop(dead);
            assert_eq!((ready(dir.path()).len(), drafts(dir.path()).len()), (0, 1));
            let next = started(dir.path(), 1).await;
            if removed {
                gone(&next, &spec).await.unwrap();
            } else {
                make(&next, &spec).await.unwrap();
                assert_complete(dir.path(), &next, &spec).await;
            }
            assert_eq!(drafts(dir.path()), [""; 0], "{marked} {removed}");
            next.refilled().await;
        }
    }
}

#[tokio::test]
async fn a_restart_uses_warm_databases_and_discards_drafts() {
    let dir = tempfile::tempdir().unwrap();
    drop(started(dir.path(), 2).await);
    let left = ready(dir.path());
    for half in [".draftAbCdEf", ".draft-x"] {
        std::fs::create_dir(folder(dir.path()).join(half)).unwrap();
        std::fs::write(client::file(&folder(dir.path()).join(half)), "half of").unwrap();
    }
    std::fs::write(folder(dir.path()).join("file"), "").unwrap();
    let next = process(dir.path(), 2).await;
    let (first, second) = (spec(json!({})), spec(json!({})));
    make(&next, &first).await.unwrap();
    assert_eq!(entries(&folder(dir.path())).len(), 4, "a process that is not started fills no pool");
    fill(&next).await;
    make(&next, &second).await.unwrap();
    next.refilled().await;
    let used = [first, second].map(|spec| identity(&path(dir.path(), &spec)).unwrap());
    assert!(left.contains(&used[0]));
    assert_eq!(ready(dir.path()).len(), 2);
}

#[tokio::test]
async fn processes_share_one_pool_and_a_smaller_size_applies() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (process(dir.path(), 3).await, process(dir.path(), 3).await);
    tokio::join!(fill(&one), fill(&two));
    assert_eq!(ready(dir.path()).len(), 3);
    for (warm, left) in [(1, 1), (0, 0)] {
        started(dir.path(), warm).await;
        assert_eq!(ready(dir.path()).len(), left);
    }
    let other = tempfile::tempdir().unwrap();
    started(other.path(), 0).await;
    assert!(!other.path().join("tenants").exists(), "a disabled pool creates nothing");
}

#[tokio::test]
async fn the_task_ends_with_its_provider() {
    let dir = tempfile::tempdir().unwrap();
    let files = process(dir.path(), 1000).await;
    files.start().await.unwrap();
    let mut task = files.files.warm_pool.task_closed();
    drop(files);
    while task.changed().await.is_ok() {}
    assert!(ready(dir.path()).len() < 1000);
    started(dir.path(), 1).await;
    assert_eq!(ready(dir.path()).len(), 1, "and the next process takes the lock");
}

#[tokio::test]
async fn databases_of_other_migrations_are_not_claimed() {
    const TABLE: &str = "CREATE TABLE workspaces (tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant_id, id)) STRICT;";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("app")).unwrap();
    std::fs::create_dir_all(dir.path().join("seeds")).unwrap();
    std::fs::write(dir.path().join("seeds/canary.yaml"), "[{table: workspaces, rows: [{id: canary}]}]")
        .unwrap();
    let config = Config {
        migrations: Some(dir.path().to_owned()),
        seeds: Some(dir.path().join("seeds")),
        warm: 2,
        ..Config::new(dir.path().join("tenants"))
    };
    // A new file may have the identity of a deleted one, but not its name.
    let names = || entries(&folder(dir.path())).into_iter().collect::<BTreeSet<String>>();
    let mut old = BTreeSet::new();
    for (file, text) in [
        ("1_a.sql", TABLE.to_owned()),
        ("2_b.sql", "ALTER TABLE workspaces ADD COLUMN n INTEGER;".to_owned()),
        // The same tables from another text.
        ("1_a.sql", format!("-- Of workspaces.\n{TABLE}")),
    ] {
        std::fs::write(dir.path().join("app").join(file), text).unwrap();
        // A database in use rejects the changed file; this test is about unused ones.
        for file in
            entries(&dir.path().join("tenants/.tenantry")).iter().filter(|name| name.starts_with("canary"))
        {
            std::fs::remove_file(dir.path().join("tenants/.tenantry").join(file)).unwrap();
        }
        let newer = DatabaseSqliteFile::new(config.clone()).await.unwrap();
        let (cold, warm) = (spec(json!({})), spec(json!({})));
        make(&newer, &cold).await.unwrap();
        assert_eq!(names(), old);
        fill(&newer).await;
        let new = names();
        assert_eq!((new.len(), new.intersection(&old).count()), (2, 0));
        make(&newer, &warm).await.unwrap();
        for spec in [&cold, &warm] {
            assert_complete(dir.path(), &newer, spec).await;
        }
        newer.refilled().await;
        old = names();
    }
}

#[tokio::test]
async fn damaged_databases_are_discarded() {
    let dir = tempfile::tempdir().unwrap();
    for (damage, restart) in
        ["changed", "cut", "journal", "lost", "owned"].into_iter().flat_map(|d| [(d, false), (d, true)])
    {
        let mut files = started(dir.path(), 1).await;
        let file = only(dir.path());
        let before = migrated(&file).await;
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            "changed" => {
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(&file, bytes).unwrap();
            }
            "cut" => std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
            "journal" => std::fs::write(file.with_extension("db-journal"), "x").unwrap(),
            "lost" => std::fs::remove_file(&file).unwrap(),
            _ => sql(&file, "INSERT INTO _tenants VALUES ('ten_x', 'x', 'x', 'res_x', NULL, 'then')").await,
        }
        if restart {
            drop(files);
            files = started(dir.path(), 1).await;
            assert_ne!(migrated(&only(dir.path())).await, before, "{damage}");
        }
        let spec = spec(json!({}));
        make(&files, &spec).await.unwrap();
        assert_complete(dir.path(), &files, &spec).await;
        assert_ne!(migrated(&path(dir.path(), &spec)).await, before, "{damage}");
        files.refilled().await;
        assert_eq!((ready(dir.path()).len(), drafts(dir.path())), (1, Vec::new()), "{damage}");
    }
}

#[tokio::test]
async fn an_unwritable_pool_falls_back_to_creation_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = folder(dir.path());
    std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    std::fs::write(&blocked, "not a folder").unwrap();
    let files = started(dir.path(), 2).await;
    let (first, second, third) = (spec(json!({})), spec(json!({})), spec(json!({})));
    make(&files, &first).await.unwrap();
    files.refilled().await;
    std::fs::remove_file(&blocked).unwrap();
    make(&files, &second).await.unwrap();
    files.refilled().await;
    let before = ready(dir.path());
    assert_eq!(before.len(), 2, "the next claim triggers another fill");
    make(&files, &third).await.unwrap();
    assert!(before.contains(&identity(&path(dir.path(), &third)).unwrap()));
    for spec in [first, second, third] {
        assert_complete(dir.path(), &files, &spec).await;
    }
}

#[tokio::test]
async fn a_full_disk_leaves_no_draft() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(8 * 1024), warm: 2, ..Config::new(dir.path().join("tenants")) };
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    fill(&files).await;
    let spec = spec(json!({}));
    assert_eq!(make(&files, &spec).await.unwrap_err().code, "disk_full");
    files.refilled().await;
    assert_eq!((ready(dir.path()).len(), drafts(dir.path())), (0, Vec::new()));
    let roomy = started(dir.path(), 2).await;
    assert_eq!(ready(dir.path()).len(), 2);
    make(&roomy, &spec).await.unwrap();
    assert_complete(dir.path(), &roomy, &spec).await;
}
