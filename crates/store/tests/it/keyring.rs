//! The keyring on both databases: keys survive restarts, destroyed keys never return, and no key is stored in
//! clear text.

use std::sync::Arc;

use tenantry_model::TenantId;
use tenantry_provider::Sealer;
use tenantry_store::keyring::{Keyring, KeyringError, MasterKey, verify};
use tenantry_testkit::{Raw, TestDatabase};

/// A keyring that can be reopened.
struct Fixture {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(database: TestDatabase) -> Self {
        Self { database, folder: tempfile::tempdir().unwrap() }
    }
    async fn open(&self) -> Keyring {
        self.try_open("master.key").await.unwrap()
    }
    async fn try_open(&self, master: &str) -> Result<Keyring, KeyringError> {
        let master = MasterKey::read_or_create(&self.folder.path().join(master)).unwrap();
        Keyring::open(self.database.url(), master).await
    }
    async fn sql(&self, sql: &str) {
        let db = Raw::connect(self.database.url()).await;
        db.execute(sql).await;
        db.close().await;
    }
}

macro_rules! on_both_databases {
    ($(async fn $name:ident($fixture:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn check($fixture: Fixture) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                check(Fixture::new(TestDatabase::sqlite())).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(database) = TestDatabase::postgres().await {
                    check(Fixture::new(database)).await;
                }
            }
        }
    )*};
}

fn code<T: std::fmt::Debug>(result: Result<T, tenantry_model::Failure>) -> String {
    result.unwrap_err().code
}

on_both_databases! {
    async fn a_loaded_key_outlives_an_eviction_and_a_destroyed_one_does_not(fixture) {
        let (tenant, gone, other) = (TenantId::new(), TenantId::new(), fixture.open().await);
        let keyring = fixture.open().await;
        keyring.create(tenant).await.unwrap();
        keyring.create(gone).await.unwrap();
        let sealed = [tenant, gone].map(|tenant| keyring.seal(tenant, "Zoë").unwrap());
        // Another process destroys a key, and this one may have missed it.
        other.destroy(gone, "key_1", "asked for").await.unwrap();
        keyring.load(tenant).await.unwrap();
        keyring.evict_all();
        assert_eq!(keyring.open(tenant, &sealed[0]).unwrap(), "Zoë", "its caller has loaded it");
        assert!(matches!(keyring.load(gone).await, Err(KeyringError::Destroyed(_))));
        assert_eq!(code(keyring.open(gone, &sealed[1])), "key_not_loaded");
        keyring.evict_all();
        assert_eq!(code(keyring.open(tenant, &sealed[0])), "key_not_loaded", "it was not loaded again");
        keyring.load(tenant).await.unwrap();
        assert_eq!(keyring.open(tenant, &sealed[0]).unwrap(), "Zoë");
    }

    async fn keys_survive_a_restart(fixture) {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let keyring = fixture.open().await;
        assert_eq!(code(keyring.seal(tenant, "x")), "key_not_loaded");
        assert!(matches!(keyring.load(tenant).await, Err(KeyringError::Missing(_))));
        keyring.create(tenant).await.unwrap();
        keyring.create(other).await.unwrap();
        let sealed = keyring.seal(tenant, "Zoë").unwrap();
        assert_eq!(keyring.open(tenant, &sealed).unwrap(), "Zoë");
        assert_eq!(code(keyring.open(other, &sealed)), "wrong_tenant_key");
        keyring.create(tenant).await.unwrap();
        assert_eq!(keyring.open(tenant, &sealed).unwrap(), "Zoë", "creating it again keeps the key");
        keyring.close().await;

        let keyring = fixture.open().await;
        keyring.load(tenant).await.unwrap();
        assert_eq!(keyring.open(tenant, &sealed).unwrap(), "Zoë");
        assert_eq!(code(keyring.seal(other, "x")), "key_not_loaded");
        keyring.load_all(&[tenant, other, TenantId::new()]).await.unwrap();
        keyring.seal(other, "x").unwrap();
    }

    async fn concurrent_requests_for_one_tenant_get_the_same_key(fixture) {
        let keyring = Arc::new(fixture.open().await);
        let shared = TenantId::new();
        let tasks = (0..64).map(|n| {
            let keyring = keyring.clone();
            tokio::spawn(async move {
                // Half of the tasks use the same tenant and must get the same key.
                let tenant = if n % 2 == 0 { shared } else { TenantId::new() };
                keyring.create(tenant).await.unwrap();
                (tenant, keyring.seal(tenant, "text").unwrap())
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            let (tenant, sealed) = task.await.unwrap();
            assert_eq!(keyring.open(tenant, &sealed).unwrap(), "text");
        }
    }

    async fn a_destroyed_key_never_returns(fixture) {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let keyring = fixture.open().await;
        keyring.create(tenant).await.unwrap();
        keyring.create(other).await.unwrap();
        let sealed = keyring.seal(tenant, "Zoë").unwrap();
        fixture.sql("CREATE TABLE backup AS SELECT * FROM tenant_keys").await;
        keyring.destroy(tenant, "key_1", "the customer asked").await.unwrap();
        keyring.destroy(tenant, "key_2", "again").await.unwrap();
        assert_eq!(code(keyring.open(tenant, &sealed)), "key_not_loaded");
        assert!(matches!(keyring.load(tenant).await, Err(KeyringError::Destroyed(_))));
        assert!(matches!(keyring.create(tenant).await, Err(KeyringError::Destroyed(_))));
        keyring.seal(other, "still there").unwrap();
        keyring.close().await;

        // A restored backup has the key; the journal destroys it again.
        fixture.sql("DELETE FROM tenant_keys").await;
        fixture.sql("INSERT INTO tenant_keys SELECT * FROM backup").await;
        let keyring = fixture.open().await;
        assert!(matches!(keyring.load(tenant).await, Err(KeyringError::Destroyed(_))));
        keyring.load(other).await.unwrap();
        keyring.close().await;

        // A backup from before the key's creation: the key cannot be created again either.
        fixture.sql("DELETE FROM tenant_keys").await;
        let keyring = fixture.open().await;
        assert!(matches!(keyring.create(tenant).await, Err(KeyringError::Destroyed(_))));
        assert!(matches!(keyring.load(other).await, Err(KeyringError::Missing(_))));
    }

    async fn derived_keys_end_with_the_tenants_key(fixture) {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let keyring = fixture.open().await;
        assert_eq!(code(keyring.derive(tenant, "objects")), "key_not_loaded");
        keyring.create(tenant).await.unwrap();
        keyring.create(other).await.unwrap();
        let key = keyring.derive(tenant, "objects").unwrap();
        assert_ne!(key, keyring.derive(tenant, "object").unwrap(), "another purpose");
        assert_ne!(key, keyring.derive(other, "objects").unwrap(), "another tenant");
        keyring.close().await;
        let keyring = fixture.open().await;
        keyring.load(tenant).await.unwrap();
        assert_eq!(keyring.derive(tenant, "objects").unwrap(), key, "the derived key survives a restart");
        keyring.destroy(tenant, "key_1", "the customer asked").await.unwrap();
        assert_eq!(code(keyring.derive(tenant, "objects")), "key_not_loaded");
    }

    async fn a_tenant_without_a_key_gets_none_after_erasure(fixture) {
        let tenant = TenantId::new();
        let keyring = fixture.open().await;
        keyring.destroy(tenant, "key_1", "the customer asked").await.unwrap();
        assert!(matches!(keyring.create(tenant).await, Err(KeyringError::Destroyed(_))));
    }

    async fn another_master_key_opens_nothing(fixture) {
        let keyring = fixture.open().await;
        keyring.create(TenantId::new()).await.unwrap();
        keyring.close().await;
        assert!(matches!(fixture.try_open("another.key").await.err(), Some(KeyringError::NotOurs(_))));
    }

    async fn macs_need_the_pepper_and_keep_purposes_apart(fixture) {
        let keyring = fixture.open().await;
        let mac = keyring.mac("slug", "acme");
        assert_eq!(mac.len(), 64);
        assert_ne!(mac, keyring.mac("name", "acme"));
        assert_ne!(keyring.mac("ab", "c"), keyring.mac("a", "bc"));
        keyring.close().await;
        assert_eq!(fixture.open().await.mac("slug", "acme"), mac, "the pepper survives a restart");
    }

    async fn signing_keys_are_kept_by_name(fixture) {
        let keyring = fixture.open().await;
        let key = keyring.signing_key("token_signing").await.unwrap();
        let signature = key.sign(b"message");
        assert!(verify(key.public(), b"message", &signature));
        assert!(!verify(key.public(), b"another", &signature));
        assert_ne!(key.public(), keyring.signing_key("audit_signing").await.unwrap().public());
        keyring.close().await;
        let again = fixture.open().await.signing_key("token_signing").await.unwrap();
        assert_eq!((again.public(), again.pkcs8(), again.id()), (key.public(), key.pkcs8(), key.id()));
        assert_eq!(again.x().len(), 43);
    }
}

#[tokio::test]
async fn a_destroyed_key_is_in_no_file() {
    let fixture = Fixture::new(TestDatabase::sqlite());
    let keyring = fixture.open().await;
    let (tenant, other) = (TenantId::new(), TenantId::new());
    keyring.create(tenant).await.unwrap();
    keyring.create(other).await.unwrap();
    let wrapped = |of: TenantId| {
        let url = fixture.database.url().to_owned();
        async move {
            let db = Raw::connect(&url).await;
            let query = format!("SELECT wrapped FROM tenant_keys WHERE tenant_id = '{of}'");
            let wrapped: String = db.rows(&query).await[0].get(0);
            db.close().await;
            wrapped
        }
    };
    let in_files = |text: &str| {
        let files = std::fs::read_dir(fixture.database.folder().unwrap()).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    let (destroyed, kept) = (wrapped(tenant).await, wrapped(other).await);
    assert!(in_files(&destroyed) && in_files(&kept));
    // A long read keeps the key in the write-ahead log, so destroying it fails.
    let reader = Raw::connect(fixture.database.url()).await;
    reader.execute("BEGIN").await;
    reader.rows("SELECT count(*) FROM tenant_keys").await;
    let failed = keyring.destroy(tenant, "key_1", "the customer asked").await;
    assert!(matches!(failed, Err(KeyringError::Unavailable(_))), "{failed:?}");
    assert!(in_files(&destroyed));
    reader.execute("ROLLBACK").await;
    keyring.destroy(tenant, "key_1", "the customer asked").await.unwrap();
    assert!(!in_files(&destroyed));
    assert!(in_files(&kept));
}
