//! The keyring: the tenants' keys and the installation's secrets, stored outside the registry and its backups. Destroying
//! a tenant's key erases all data that was encrypted with it.
//!
//! Every key is encrypted with the master key and bound to its name. A tenant's key is created before the tenant's row,
//! and `destroy` deletes it permanently: the journal of erasures is replayed at every start, so that keys from a
//! restored backup are destroyed again.

mod anchor;
mod cipher;
mod entity;
mod master;
mod signing;

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use hmac::{Hmac, KeyInit as _, Mac as _};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{Mutex, RwLock};
use rand::Rng as _;
use sha2::Sha256;
use tenantry_model::{Failure, TenantId, Timestamp, Write, columns};
use tenantry_provider::{Key, Purged, Sealer};
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::database::Database;
use crate::migration::KEYRING;
use crate::moving::move_database;
use crate::query::Query;
use crate::table::{Schema, Table};
use crate::{MoveError, Moved, OpenError, ReadError, Rejected, WriteBatch};
use cipher::{SecretBytes, open, seal};
use entity::{audit_anchor, audit_cut, erasure, secret, tenant_key};

pub(crate) use anchor::Anchor;
pub use anchor::Cut;
pub use master::{MasterKey, MasterKeyError};
pub use signing::{SigningKey, verify};

pub use cipher::{decode as from_base64url, encode as base64url};

/// Maximum number of keys in memory, about 200 bytes each.
const CACHED_KEYS: u64 = 100_000;
/// Time for which a loaded key can be used after all keys were evicted: a caller loads it just before it uses it.
const FORMER_FOR: Duration = Duration::from_secs(5);
/// Number of reading connections.
const READERS: u32 = 2;
/// Name of the secret that `mac` uses. It is never rotated, because HMACs of used slugs are kept permanently.
const PEPPER: &str = "slug_pepper";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema(vec![
        Table::of::<tenant_key::Model>(),
        Table::of::<erasure::Model>(),
        Table::of::<secret::Model>(),
        Table::of::<audit_anchor::Model>(),
        Table::of::<audit_cut::Model>(),
    ])
});

/// Error of the keyring.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyringError {
    /// The keyring's database cannot be opened.
    #[error("the keyring cannot be opened: {0}")]
    Open(#[from] OpenError),
    /// The keyring's database does not answer.
    #[error("the keyring is unavailable: {0}")]
    Unavailable(String),
    /// The tenant has no key.
    #[error("there is no key for {0}")]
    Missing(TenantId),
    /// The tenant's key was destroyed, so data that was encrypted with it cannot be read.
    #[error("the key of {0} is destroyed")]
    Destroyed(TenantId),
    /// A key cannot be decrypted: it was encrypted with another master key, or its row was changed.
    #[error(
        "the key {0} cannot be decrypted: it was encrypted with another master key, or its row was changed"
    )]
    NotOurs(String),
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        match &error {
            KeyringError::Open(_) | KeyringError::Unavailable(_) => {
                Failure::retryable("keyring_unavailable", error)
            }
            KeyringError::Missing(_) => Failure::fatal("key_missing", error),
            KeyringError::Destroyed(_) => Failure::fatal("key_destroyed", error),
            KeyringError::NotOurs(_) => Failure::fatal("wrong_master_key", error),
        }
    }
}

impl From<ReadError> for KeyringError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<Rejected> for KeyringError {
    fn from(rejected: Rejected) -> Self {
        Self::Unavailable(rejected.to_string())
    }
}

/// An entry of the journal of erasures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The erased tenant.
    pub tenant: TenantId,
    /// Id of the caller that requested the erasure.
    pub requested_by: String,
    /// Reason, in the words of the request.
    pub reason: String,
}

/// The keyring. Share it in an `Arc`.
pub struct Keyring {
    database: Database,
    master: MasterKey,
    pepper: SecretBytes,
    cache: Arc<RwLock<Cached>>,
    /// Tenants that this process has erased. A load that started before the erasure must not put their key into the cache.
    erased: Mutex<HashSet<TenantId>>,
    /// Tenants that this process has written to the journal.
    journalled: Mutex<HashSet<TenantId>>,
}

/// Keys in memory.
struct Cached {
    keys: Cache<TenantId, Arc<SecretBytes>>,
    /// The keys before they were last evicted, and that time: a caller that has loaded one goes on to use it.
    former: Option<(Instant, Cache<TenantId, Arc<SecretBytes>>)>,
}

impl Cached {
    fn get(&self, tenant: TenantId) -> Option<Arc<SecretBytes>> {
        let former = || {
            let (at, keys) = self.former.as_ref()?;
            (at.elapsed() < FORMER_FOR).then(|| keys.get(&tenant))?
        };
        self.keys.get(&tenant).or_else(former)
    }

    fn invalidate(&self, tenant: TenantId) {
        self.keys.invalidate(&tenant);
        if let Some((_, keys)) = &self.former {
            keys.invalidate(&tenant);
        }
    }
}

/// An empty cache. The newest must stay: a key is loaded just before it is used.
fn new_cache() -> Cache<TenantId, Arc<SecretBytes>> {
    Cache::builder().max_capacity(CACHED_KEYS).eviction_policy(EvictionPolicy::lru()).build()
}

/// Moves a live keyring to another file or server, as the registry is moved. Gives what each table holds. The old one has no
/// keys then: it would go on to open what is erased in the new one.
pub async fn move_keyring(from: &str, to: &str) -> Result<Moved, MoveError> {
    move_database(from, to, &SCHEMA, &KEYRING, &["tenant_keys"]).await
}

impl Keyring {
    /// Opens the keyring (`sqlite://…` or `postgres://…`, never the registry's database) and replays the erasures.
    pub async fn open(url: &str, master: MasterKey) -> Result<Self, KeyringError> {
        let database = Database::open(url, READERS, &SCHEMA, &KEYRING).await?;
        let pepper = Secrets { database: &database, master: &master }.get(PEPPER, || random(32)).await?;
        let cache = Arc::new(RwLock::new(Cached { keys: new_cache(), former: None }));
        let keyring =
            Self { database, master, pepper, cache, erased: Mutex::default(), journalled: Mutex::default() };
        let again = keyring.replay().await?;
        if again > 0 {
            tracing::warn!(tenants = again, "keys of erased tenants had come back and were destroyed again");
        }
        Ok(keyring)
    }

    /// Makes a tenant's key, unless it has one, and loads it. Durable when it returns. Callers that come together
    /// share one transaction.
    pub async fn create(&self, tenant: TenantId) -> Result<(), KeyringError> {
        let bytes = random(32);
        let wrapped = self.master.wrap(&tenant.to_string(), &bytes)?;
        let row = columns! { "tenant_id": tenant, "wrapped": wrapped, "created_at": Timestamp::now() };
        match self.database.commit(WriteBatch::new(vec![Write::insert_unique("tenant_keys", row)])).await {
            Ok(()) => {
                self.cache.read().keys.insert(tenant, Arc::new(bytes));
                Ok(())
            }
            Err(Rejected::Conflict { .. }) => self.load(tenant).await,
            Err(rejected) => Err(rejected.into()),
        }
    }

    /// Takes back the key of a tenant that never came to be: nothing was sealed with it.
    pub async fn forget(&self, tenant: TenantId) -> Result<(), KeyringError> {
        self.cache.read().invalidate(tenant);
        let key = columns! { "tenant_id": tenant };
        Ok(self.database.commit(WriteBatch::new(vec![Write::delete("tenant_keys", key)])).await?)
    }

    /// Says which keyring this is, and nothing else: the registry remembers it.
    pub fn fingerprint(&self) -> String {
        self.digest("keyring", "fingerprint")
    }

    /// Brings a tenant's key into memory, where [`Sealer`] finds it.
    pub async fn load(&self, tenant: TenantId) -> Result<(), KeyringError> {
        if self.cache.read().keys.get(&tenant).is_some() {
            return Ok(());
        }
        let row = self.row(tenant).await?;
        self.keep(tenant, row.ok_or(KeyringError::Missing(tenant))?)
    }

    /// Brings many keys into memory with one query. Tenants without a key are left out.
    pub async fn load_all(&self, tenants: &[TenantId]) -> Result<(), KeyringError> {
        let keys = self.cache.read().keys.clone();
        let missing = tenants.iter().filter(|tenant| !keys.contains_key(*tenant)).map(TenantId::to_string);
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let rows =
            Query::of::<tenant_key::Model>().filter("tenant_id IN ?", missing).only("wrapped IS NOT NULL");
        let rows: Vec<tenant_key::Model> = self.database.reads.all(rows).await?;
        for row in rows {
            if let Ok(tenant) = row.tenant_id.parse()
                && let Err(why) = self.keep(tenant, row)
            {
                // The caller meets the error again when it uses this key; the other tenants' keys are loaded.
                tracing::error!(%tenant, %why, "the tenant's key cannot be loaded");
            }
        }
        Ok(())
    }

    async fn row(&self, tenant: TenantId) -> Result<Option<tenant_key::Model>, KeyringError> {
        let query = Query::of::<tenant_key::Model>().filter("tenant_id = ?", tenant.to_string());
        Ok(self.database.reads.one(query).await?)
    }

    fn keep(&self, tenant: TenantId, row: tenant_key::Model) -> Result<(), KeyringError> {
        let Some(wrapped) = row.wrapped else {
            self.cache.read().invalidate(tenant);
            return Err(KeyringError::Destroyed(tenant));
        };
        let key = self.master.unwrap(&row.tenant_id, &wrapped)?;
        self.cache.read().keys.insert(tenant, Arc::new(key));
        if self.erased.lock().contains(&tenant) {
            self.cache.read().invalidate(tenant);
            return Err(KeyringError::Destroyed(tenant));
        }
        Ok(())
    }

    /// Writes into the journal that a tenant is deleted from here on, whose key is still needed. Doing it twice is no error; the
    /// first entry stays.
    pub async fn journal(
        &self,
        tenant: TenantId,
        requested_by: &str,
        reason: &str,
    ) -> Result<(), KeyringError> {
        if self.journalled.lock().contains(&tenant) {
            return Ok(());
        }
        self.database.commit(WriteBatch::new(vec![entry(tenant, requested_by, reason, true)])).await?;
        self.journalled.lock().insert(tenant);
        Ok(())
    }

    /// Whether a tenant's key is destroyed, by what stands in the keyring and not by what this process remembers.
    pub async fn is_destroyed(&self, tenant: TenantId) -> Result<bool, KeyringError> {
        let row = self.row(tenant).await?;
        let destroyed = row.is_none_or(|row| row.wrapped.is_none());
        if destroyed {
            self.evict(tenant);
        }
        Ok(destroyed)
    }

    /// Removes a destroyed key from memory.
    pub fn evict(&self, tenant: TenantId) {
        self.erased.lock().insert(tenant);
        self.cache.read().invalidate(tenant);
    }

    /// Removes all keys from memory: another process may have destroyed some of them. A key that was loaded just before
    /// can be used for [`FORMER_FOR`] longer. Call it in a Tokio runtime, which then removes it.
    pub fn evict_all(&self) {
        let now = Instant::now();
        {
            let mut cache = self.cache.write();
            let former = std::mem::replace(&mut cache.keys, new_cache());
            cache.former = Some((now, former));
        }
        let cache = Arc::downgrade(&self.cache);
        tokio::spawn(async move {
            sleep(FORMER_FOR).await;
            if let Some(cache) = cache.upgrade() {
                cache.write().former.take_if(|(at, _)| *at == now);
            }
        });
    }

    /// Destroys a tenant's key and writes the journal, in one transaction. What the key sealed cannot be read again,
    /// from no backup. Doing it twice is no error; the first entry stays. After an error do it again: the key may be gone
    /// from the table, and not from the file.
    pub async fn destroy(
        &self,
        tenant: TenantId,
        requested_by: &str,
        reason: &str,
    ) -> Result<(), KeyringError> {
        let at = Timestamp::now();
        let mut writes = destruction(&tenant.to_string(), at);
        writes.push(entry(tenant, requested_by, reason, false));
        let destroyed = columns! { "key_kept": false };
        writes.push(Write::update("erasures", columns! { "tenant_id": tenant }, destroyed));
        self.erased.lock().insert(tenant);
        self.database.commit(WriteBatch::new(writes)).await?;
        self.cache.read().invalidate(tenant);
        // Until then its wrapped form is in the log.
        self.purge().await.map(drop)
    }

    /// Removes the copies of destroyed keys from the keyring's files, and returns the files; none on PostgreSQL.
    pub async fn purge(&self) -> Result<Vec<Purged>, KeyringError> {
        self.database.purge().await.map_err(|failed| KeyringError::Unavailable(failed.message))
    }

    /// Makes sure that no journalled tenant has a key or can get one. Returns how many keys had come back.
    async fn replay(&self) -> Result<usize, KeyringError> {
        let journal = Query::new("SELECT tenant_id FROM erasures WHERE NOT key_kept");
        let journal: Vec<String> = self.database.reads.column(journal).await?;
        let mut again = 0;
        // Small pieces: each is one batch.
        for erased in journal.chunks(500) {
            let rows = Query::of::<tenant_key::Model>().filter("tenant_id IN ?", erased);
            let rows: Vec<tenant_key::Model> = self.database.reads.all(rows).await?;
            let destroyed: HashSet<&str> =
                rows.iter().filter(|row| row.wrapped.is_none()).map(|row| row.tenant_id.as_str()).collect();
            let at = Timestamp::now();
            let alive = erased.iter().filter(|tenant| !destroyed.contains(tenant.as_str()));
            let writes = alive.flat_map(|tenant| destruction(tenant, at)).collect();
            self.database.commit(WriteBatch::new(writes)).await?;
            again += rows.len() - destroyed.len();
        }
        Ok(again)
    }

    /// Every erasure that was ever begun, by tenant.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, KeyringError> {
        let rows = Query::of::<erasure::Model>().sql("ORDER BY tenant_id");
        let rows: Vec<erasure::Model> = self.database.reads.all(rows).await?;
        let erasure = |erasure::Model { tenant_id, requested_by, reason, .. }| {
            Some(Erasure { tenant: tenant_id.parse().ok()?, requested_by, reason })
        };
        Ok(rows.into_iter().filter_map(erasure).collect())
    }

    /// The Ed25519 key of this name, made on first use.
    pub async fn signing_key(&self, name: &str) -> Result<SigningKey, KeyringError> {
        let secrets = Secrets { database: &self.database, master: &self.master };
        let pkcs8 = secrets.get(name, SigningKey::generate).await?;
        SigningKey::from_pkcs8(pkcs8).ok_or_else(|| KeyringError::NotOurs(format!("the signing key {name}")))
    }

    /// Writes what waits and closes.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

impl Keyring {
    /// HMAC-SHA-256 with the pepper over purpose and text, in hexadecimal. The caller normalises the text.
    fn digest(&self, purpose: &str, text: &str) -> String {
        // HMAC takes keys of any length, so there is always one.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.pepper) else { return String::new() };
        // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

/// Seals and opens with keys in memory: [`Keyring::load`] first.
impl Sealer for Keyring {
    fn seal(&self, tenant: TenantId, clear: &str) -> Result<String, Failure> {
        let sealed = seal(&self.at_hand(tenant)?, &tenant.to_string(), clear.as_bytes());
        sealed.ok_or_else(|| Failure::fatal("cannot_seal", "the text is too long to be sealed"))
    }
    fn open(&self, tenant: TenantId, sealed: &str) -> Result<String, Failure> {
        let clear = open(&self.at_hand(tenant)?, &tenant.to_string(), sealed);
        let clear = clear.and_then(|bytes| std::str::from_utf8(&bytes).map(str::to_owned).ok());
        clear.ok_or_else(|| {
            Failure::fatal("wrong_tenant_key", format!("this was not sealed for {tenant}, or was changed"))
        })
    }
    fn derive(&self, tenant: TenantId, purpose: &str) -> Result<Key, Failure> {
        let mut derived = Key::default();
        // The first part keeps what is derived away from every other use of the tenant's key.
        Salt::new(HKDF_SHA256, b"")
            .extract(&self.at_hand(tenant)?)
            .expand(&[b"tenantry derived key v1:", purpose.as_bytes()], HKDF_SHA256)
            .and_then(|key| key.fill(derived.as_mut_slice()))
            .map_err(|_| Failure::fatal("cannot_derive", "no key can be derived"))?;
        Ok(derived)
    }
    fn mac(&self, purpose: &str, text: &str) -> String {
        self.digest(purpose, text)
    }
}

impl Keyring {
    fn at_hand(&self, tenant: TenantId) -> Result<Arc<SecretBytes>, Failure> {
        let missing =
            || Failure::retryable("key_not_loaded", format!("the key of {tenant} is not in memory"));
        self.cache.read().get(tenant).ok_or_else(missing)
    }
}

/// An entry of the journal.
fn entry(tenant: TenantId, requested_by: &str, reason: &str, key_kept: bool) -> Write {
    let row = columns! {
        "tenant_id": tenant, "requested_by": requested_by, "reason": reason, "at": Timestamp::now(),
        "key_kept": key_kept,
    };
    Write::insert_absent("erasures", row)
}

/// The writes that leave a tenant without a key, whether it has one or not, and never with a new one.
fn destruction(tenant: &str, at: Timestamp) -> Vec<Write> {
    let key = columns! { "tenant_id": tenant };
    vec![
        Write::insert_absent(
            "tenant_keys",
            columns! { "tenant_id": tenant, "wrapped": (), "created_at": at, "destroyed_at": at },
        ),
        Write::update("tenant_keys", key, columns! { "wrapped": (), "destroyed_at": at }),
    ]
}

/// Named secrets, each made on first use.
struct Secrets<'a> {
    database: &'a Database,
    master: &'a MasterKey,
}

impl Secrets<'_> {
    async fn get(&self, name: &str, make: impl FnOnce() -> SecretBytes) -> Result<SecretBytes, KeyringError> {
        if let Some(secret) = self.find(name).await? {
            return Ok(secret);
        }
        let secret = make();
        let wrapped = self.master.wrap(name, &secret)?;
        let row = columns! { "name": name, "wrapped": wrapped, "created_at": Timestamp::now() };
        match self.database.commit(WriteBatch::new(vec![Write::insert_unique("secrets", row)])).await {
            Ok(()) => Ok(secret),
            // Another process was first; its secret counts.
            Err(Rejected::Conflict { .. }) => self
                .find(name)
                .await?
                .ok_or_else(|| KeyringError::Unavailable(format!("the secret {name} does not exist"))),
            Err(rejected) => Err(rejected.into()),
        }
    }

    async fn find(&self, name: &str) -> Result<Option<SecretBytes>, KeyringError> {
        let query = Query::of::<secret::Model>().filter("name = ?", name);
        let row: Option<secret::Model> = self.database.reads.one(query).await?;
        row.map(|row| self.master.unwrap(name, &row.wrapped)).transpose()
    }
}

impl MasterKey {
    fn wrap(&self, name: &str, key: &[u8]) -> Result<String, KeyringError> {
        seal(&self.0, name, key).ok_or_else(|| KeyringError::NotOurs(name.to_owned()))
    }
    fn unwrap(&self, name: &str, wrapped: &str) -> Result<SecretBytes, KeyringError> {
        open(&self.0, name, wrapped).ok_or_else(|| KeyringError::NotOurs(name.to_owned()))
    }
}

/// Fresh random bytes.
fn random(length: usize) -> SecretBytes {
    let mut bytes = Zeroizing::new(vec![0; length]);
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
