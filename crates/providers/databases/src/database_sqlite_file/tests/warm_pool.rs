//! Ready databases: claimed by one alone, made of the present migrations, whole or thrown away; and when none can be had.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use futures::future::join_all;
use sqlx::Row;

use super::*;
use tenantry_provider::open_files::{Identity, identity};

/// A process that keeps so many ready. It has not started.
async fn process(dir: &Path, warm: u16) -> DatabaseSqliteFile {
    DatabaseSqliteFile::new(Config { warm, ..Config::new(dir.join("tenants")) }).await.unwrap()
}

/// One that has, and has made what is missing.
async fn started(dir: &Path, warm: u16) -> DatabaseSqliteFile {
    let files = process(dir, warm).await;
    refilled(&files).await;
    files
}

async fn refilled(files: &DatabaseSqliteFile) {
    files.start().await.unwrap();
    files.refilled().await;
}

fn stock(dir: &Path) -> PathBuf {
    dir.join("tenants/.tenantry/warm")
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The files that are ready. Nothing else may be there.
fn ready(dir: &Path) -> BTreeSet<Identity> {
    let stock = stock(dir);
    entries(&stock).iter().map(|name| identity(&client::file(&stock.join(name))).expect(name)).collect()
}

/// The one that is ready.
fn only(dir: &Path) -> PathBuf {
    let names = entries(&stock(dir));
    assert_eq!(names.len(), 1);
    client::file(&stock(dir).join(&names[0]))
}

/// What is in the private folder besides.
fn half_done(dir: &Path) -> Vec<String> {
    let mut names = entries(&dir.join("tenants/.tenantry"));
    names.retain(|name| name.contains("draft") || name.contains("gone"));
    names
}

/// Whose a file says it is.
async fn owners(file: &Path) -> Vec<String> {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let rows = sqlx::query("SELECT tenant_id FROM _tenants").fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// When its tables were made.
async fn migrated(file: &Path) -> String {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let at = sqlx::query_scalar("SELECT max(applied_at) FROM _migrations").fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    at.unwrap()
}

async fn must_be_its_own(dir: &Path, files: &DatabaseSqliteFile, spec: &Spec) {
    assert_eq!(owners(&path(dir, spec)).await, [spec.tenant.id.to_string()]);
    let FileOwnership::Own(state) = client::inspect(&files.place(spec).unwrap(), spec).await.unwrap() else {
        panic!()
    };
    assert!(state.completed.is_some());
    assert_eq!(state.shape, files.files.content.planned().shape);
    assert_eq!(state.version.as_deref(), Some(files.files.content.last_version()));
    files.scoped(spec.tenant.id).list("workspaces", 1, None).await.unwrap();
}

#[tokio::test]
async fn a_ready_database_becomes_the_tenants_and_another_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let files = started(dir.path(), 2).await;
    let before = ready(dir.path());
    assert_eq!(before.len(), 2);
    for name in entries(&stock(dir.path())) {
        assert_eq!(owners(&client::file(&stock(dir.path()).join(name))).await, [""; 0]);
    }
    let spec = spec(json!({}));
    make(&files, &spec).await.unwrap();
    let file = path(dir.path(), &spec);
    assert!(before.contains(&identity(&file).unwrap()));
    must_be_its_own(dir.path(), &files, &spec).await;
    for (path, mode) in [(file.parent().unwrap(), 0o700), (&*file, 0o600)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
    files.refilled().await;
    let after = ready(dir.path());
    assert_eq!((after.len(), after.intersection(&before).count()), (2, 1));
    gone(&files, &spec).await.unwrap();
    assert_eq!((ready(dir.path()), half_done(dir.path())), (after, Vec::new()), "a removal concerns one");
}

#[tokio::test]
async fn many_at_once_get_one_each() {
    let dir = tempfile::tempdir().unwrap();
    let files = started(dir.path(), 3).await;
    let before = ready(dir.path());
    let specs: Vec<Spec> = (0..16).map(|_| spec(json!({}))).collect();
    let made = join_all(specs.iter().map(|spec| make(&files, spec))).await;
    made.into_iter().for_each(|made| made.unwrap());
    let mut used = BTreeSet::new();
    for spec in &specs {
        must_be_its_own(dir.path(), &files, spec).await;
        used.insert(identity(&path(dir.path(), spec)).unwrap());
    }
    assert_eq!(used.len(), specs.len());
    assert!(before.is_subset(&used), "what is ready is used first");
    files.refilled().await;
    let after = ready(dir.path());
    assert_eq!((after.len(), after.intersection(&used).count()), (3, 0));
    assert_eq!(half_done(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_want_the_same_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (started(dir.path(), 4).await, process(dir.path(), 4).await);
    let claims = (0..16).map(|n| {
        let files = if n % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(async move {
            let place = files.place(&spec(json!({}))).unwrap();
            files.files.warm_pool.claim(&place).await
        })
    });
    let claimed: Vec<PathBuf> = join_all(claims).await.into_iter().filter_map(|file| file.unwrap()).collect();
    let claimed: BTreeSet<Identity> = claimed.iter().map(|file| identity(file).unwrap()).collect();
    assert_eq!((claimed.len(), ready(dir.path()).len()), (4, 0));
}

#[tokio::test]
async fn who_dies_after_a_claim_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    for marked in [false, true] {
        for removed in [false, true] {
            let spec = spec(json!({}));
            let dead = started(dir.path(), 1).await;
            let file = dead.files.warm_pool.claim(&dead.place(&spec).unwrap()).await.unwrap();
            if marked {
                sql(&file, "INSERT INTO _tenants VALUES ('ten_x', 'x', 'half', 'res_x', NULL, NULL)").await;
            }
            drop(dead);
            assert_eq!((ready(dir.path()).len(), half_done(dir.path()).len()), (0, 1));
            let next = started(dir.path(), 1).await;
            if removed {
                gone(&next, &spec).await.unwrap();
            } else {
                make(&next, &spec).await.unwrap();
                must_be_its_own(dir.path(), &next, &spec).await;
            }
            assert_eq!(half_done(dir.path()), [""; 0], "{marked} {removed}");
            next.refilled().await;
        }
    }
}

#[tokio::test]
async fn what_a_dead_process_kept_ready_is_used_and_what_it_began_goes() {
    let dir = tempfile::tempdir().unwrap();
    drop(started(dir.path(), 2).await);
    let left = ready(dir.path());
    for half in [".draftAbCdEf", ".draft-x"] {
        std::fs::create_dir(stock(dir.path()).join(half)).unwrap();
        std::fs::write(client::file(&stock(dir.path()).join(half)), "half of").unwrap();
    }
    std::fs::write(stock(dir.path()).join("file"), "").unwrap();
    let next = process(dir.path(), 2).await;
    let (first, second) = (spec(json!({})), spec(json!({})));
    make(&next, &first).await.unwrap();
    assert_eq!(entries(&stock(dir.path())).len(), 4, "who has not started makes none");
    refilled(&next).await;
    make(&next, &second).await.unwrap();
    next.refilled().await;
    let used = [first, second].map(|spec| identity(&path(dir.path(), &spec)).unwrap());
    assert!(left.contains(&used[0]));
    assert_eq!(ready(dir.path()).len(), 2);
}

#[tokio::test]
async fn two_processes_keep_no_more_than_one_and_a_lower_number_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (process(dir.path(), 3).await, process(dir.path(), 3).await);
    tokio::join!(refilled(&one), refilled(&two));
    assert_eq!(ready(dir.path()).len(), 3);
    for (warm, left) in [(1, 1), (0, 0)] {
        started(dir.path(), warm).await;
        assert_eq!(ready(dir.path()).len(), left);
    }
    let other = tempfile::tempdir().unwrap();
    started(other.path(), 0).await;
    assert!(!other.path().join("tenants").exists(), "nothing is made for nothing");
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
    assert_eq!(ready(dir.path()).len(), 1, "and the next one has its turn");
}

#[tokio::test]
async fn one_of_other_migrations_is_never_used() {
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
    // A file that is made when another has gone may have the other's identity, but not its name.
    let names = || entries(&stock(dir.path())).into_iter().collect::<BTreeSet<String>>();
    let mut old = BTreeSet::new();
    for (file, text) in [
        ("1_a.sql", TABLE.to_owned()),
        ("2_b.sql", "ALTER TABLE workspaces ADD COLUMN n INTEGER;".to_owned()),
        // The same tables by another text.
        ("1_a.sql", format!("-- Of workspaces.\n{TABLE}")),
    ] {
        std::fs::write(dir.path().join("app").join(file), text).unwrap();
        // A database that is in use refuses the third; this is about those that are not.
        for file in
            entries(&dir.path().join("tenants/.tenantry")).iter().filter(|name| name.starts_with("canary"))
        {
            std::fs::remove_file(dir.path().join("tenants/.tenantry").join(file)).unwrap();
        }
        let newer = DatabaseSqliteFile::new(config.clone()).await.unwrap();
        let (cold, warm) = (spec(json!({})), spec(json!({})));
        make(&newer, &cold).await.unwrap();
        assert_eq!(names(), old);
        refilled(&newer).await;
        let new = names();
        assert_eq!((new.len(), new.intersection(&old).count()), (2, 0));
        make(&newer, &warm).await.unwrap();
        for spec in [&cold, &warm] {
            must_be_its_own(dir.path(), &newer, spec).await;
        }
        newer.refilled().await;
        old = names();
    }
}

#[tokio::test]
async fn a_damaged_one_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    for (damage, restart) in
        ["changed", "cut", "journal", "lost", "somebody's"].into_iter().flat_map(|d| [(d, false), (d, true)])
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
        must_be_its_own(dir.path(), &files, &spec).await;
        assert_ne!(migrated(&path(dir.path(), &spec)).await, before, "{damage}");
        files.refilled().await;
        assert_eq!((ready(dir.path()).len(), half_done(dir.path())), (1, Vec::new()), "{damage}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_the_readiness_alone() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = stock(dir.path());
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
    assert_eq!(before.len(), 2, "tried again after the next one");
    make(&files, &third).await.unwrap();
    assert!(before.contains(&identity(&path(dir.path(), &third)).unwrap()));
    for spec in [first, second, third] {
        must_be_its_own(dir.path(), &files, &spec).await;
    }
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(8 * 1024), warm: 2, ..Config::new(dir.path().join("tenants")) };
    let files = DatabaseSqliteFile::new(config).await.unwrap();
    refilled(&files).await;
    let spec = spec(json!({}));
    assert_eq!(make(&files, &spec).await.unwrap_err().code, "disk_full");
    files.refilled().await;
    assert_eq!((ready(dir.path()).len(), half_done(dir.path())), (0, Vec::new()));
    let roomy = started(dir.path(), 2).await;
    assert_eq!(ready(dir.path()).len(), 2);
    make(&roomy, &spec).await.unwrap();
    must_be_its_own(dir.path(), &roomy, &spec).await;
}
