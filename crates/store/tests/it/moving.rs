//! Moving a keyring to another database: afterwards the old one opens nothing, and while it is unknown
//! whether the new one has the rows, the old one is read-only.

use tenantry_model::TenantId;
use tenantry_provider::Sealer as _;
use tenantry_store::MoveError;
use tenantry_store::keyring::{Keyring, KeyringError, MasterKey, move_keyring};
use tenantry_testkit::database::execute;
use tenantry_testkit::{Raw, TestDatabase};

struct Moving {
    from: TestDatabase,
    folder: tempfile::TempDir,
    old: Keyring,
    tenant: TenantId,
}

impl Moving {
    async fn of(from: TestDatabase) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = open(&folder, &from).await;
        let tenant = TenantId::new();
        old.create(tenant).await.unwrap();
        Self { from, folder, old, tenant }
    }

    /// A database with all tables and no rows, with a trigger on inserted rows.
    async fn trap(&self, trap: &str) -> TestDatabase {
        let to = TestDatabase::sqlite();
        open(&self.folder, &to).await.close().await;
        let db = Raw::connect(to.url()).await;
        db.execute("DELETE FROM secrets").await;
        db.execute(trap).await;
        db.close().await;
        to
    }

    /// A process on the old keyring cannot write.
    async fn must_be_frozen(&self) {
        let late = self.old.create(TenantId::new()).await;
        assert!(matches!(late, Err(KeyringError::Unavailable(_))), "{late:?}");
    }
}

async fn open(folder: &tempfile::TempDir, database: &TestDatabase) -> Keyring {
    let master = MasterKey::read_or_create(&folder.path().join("master.key")).unwrap();
    Keyring::open(database.url(), master).await.unwrap()
}

macro_rules! from_both {
    ($(async fn $name:ident($moving:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn check($moving: Moving) $body
            #[tokio::test]
            async fn sqlite() {
                check(Moving::of(TestDatabase::sqlite()).await).await;
            }
            #[tokio::test]
            async fn postgres() {
                if let Some(database) = TestDatabase::postgres().await {
                    check(Moving::of(database).await).await;
                }
            }
        }
    )*};
}

from_both! {
    async fn the_old_keyring_opens_nothing(moving) {
        let sealed = moving.old.seal(moving.tenant, "word").unwrap();
        let db = Raw::connect(moving.from.url()).await;
        let wrapped: String = db.rows("SELECT wrapped FROM tenant_keys").await[0].get(0);
        db.close().await;
        let to = TestDatabase::sqlite();
        let moved = move_keyring(moving.from.url(), to.url()).await.unwrap();
        assert_eq!(moved["tenant_keys"].rows, 1);
        let new = open(&moving.folder, &to).await;
        new.load(moving.tenant).await.unwrap();
        assert_eq!(new.open(moving.tenant, &sealed).unwrap(), "word");
        let again = open(&moving.folder, &moving.from).await.load(moving.tenant).await;
        assert!(matches!(again, Err(KeyringError::Unavailable(_))), "{again:?}");
        moving.must_be_frozen().await;
        for file in moving.from.folder().into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(wrapped.len()).any(|window| window == wrapped.as_bytes()));
        }
    }

    async fn an_unknown_commit_keeps_the_old_keyring_frozen(moving) {
        let to = moving.trap("CREATE TABLE p (id INTEGER PRIMARY KEY);
            CREATE TABLE c (x REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER trap AFTER INSERT ON secrets BEGIN INSERT INTO c VALUES (1); END").await;
        let failed = move_keyring(moving.from.url(), to.url()).await;
        assert!(matches!(failed, Err(MoveError::Frozen(_))), "{failed:?}");
        moving.must_be_frozen().await;
        execute(to.url(), "DROP TRIGGER trap".to_owned()).await.unwrap();
        assert_eq!(move_keyring(moving.from.url(), to.url()).await.unwrap()["tenant_keys"].rows, 1);
    }

    async fn differing_rows_keep_the_old_keyring_frozen(moving) {
        let to = moving.trap("CREATE TRIGGER trap AFTER INSERT ON secrets BEGIN UPDATE secrets SET wrapped = 'x'; END").await;
        for _ in 0..2 {
            let failed = move_keyring(moving.from.url(), to.url()).await;
            assert!(failed.as_ref().is_err_and(|why| why.to_string().contains("stays read-only")), "{failed:?}");
            moving.must_be_frozen().await;
        }
        let empty = TestDatabase::sqlite();
        assert_eq!(move_keyring(moving.from.url(), empty.url()).await.unwrap()["tenant_keys"].rows, 1);
    }

    async fn a_rejected_row_keeps_the_old_keyring_in_use(moving) {
        let to = moving.trap("CREATE TRIGGER trap BEFORE INSERT ON secrets BEGIN SELECT RAISE(ABORT, 'no'); END").await;
        let failed = move_keyring(moving.from.url(), to.url()).await;
        assert!(matches!(failed, Err(MoveError::Copy { table: "secrets", .. })), "{failed:?}");
        moving.old.create(TenantId::new()).await.unwrap();
    }
}

#[tokio::test]
async fn an_open_file_is_rejected_as_target() {
    let moving = Moving::of(TestDatabase::sqlite()).await;
    let to = TestDatabase::sqlite();
    let there = open(&moving.folder, &to).await;
    let failed = move_keyring(moving.from.url(), to.url()).await;
    assert!(failed.as_ref().is_err_and(|why| why.to_string().contains("a server runs on it")), "{failed:?}");
    there.close().await;
    let failed = move_keyring(moving.from.url(), to.url()).await;
    assert!(failed.as_ref().is_err_and(|why| why.to_string().contains("rows already")), "{failed:?}");
    moving.old.create(TenantId::new()).await.unwrap();
}
