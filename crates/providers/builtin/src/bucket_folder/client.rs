//! Reads and writes buckets: their policies and objects. Callers have verified the tenant or the signature
//! before.

use std::fs::{self, File, ReadDir};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::hmac::Key;
use serde::{Deserialize, Serialize};
use tempfile::{Builder, TempPath};
use tenantry_model::quota::Quota;
use tenantry_model::{Failure, TenantId, Timestamp};
use tokio::sync::OnceCell;

use super::config::Config;
use super::index::{Entry, Index};
use super::keys;
use super::signing::{self, bad_signature};
use tenantry_provider::files::is_plain;
use tenantry_provider::kinds::bucket::{Encryption, LifecycleRule as Rule};
use tenantry_provider::objects::{
    Body, Content, Expired, Listing, MAX_PAGE, Meta, Method, New, Range, Signed, TenantObjects, Usage,
    check_key, part,
};
use tenantry_provider::open_files::OpenFiles;
use tenantry_provider::resource_folder::{self, Size};
use tenantry_provider::resource_locks::blocking;
use tenantry_provider::sealed_file::cipher;
use tenantry_provider::sealed_file::stream::{self, Stored, is_damage};
use tenantry_provider::verbs::{Key as Secret, Sealer};

/// Prefix of files whose upload is not complete.
const PART: &str = ".part";
/// Age at which a file without an index entry counts as left by an interrupted upload.
const ABANDONED_AFTER: Duration = Duration::from_secs(86_400);
/// Files looked up in the index at a time, because a bucket may hold millions.
const SWEEP_BATCH: usize = 500;
const DAY: Duration = Duration::from_secs(86_400);

/// Owner and rules of a bucket, stored in its `policy.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Version of the file's format.
    pub version: u32,
    /// Owner tag.
    pub owner: String,
    /// The tenant that owns the bucket.
    pub tenant: TenantId,
    /// Id of the resource.
    pub resource: String,
    /// Always false: reading requires a token or a signature.
    pub public: bool,
    /// Encryption level of objects that are stored from now on.
    pub encryption: Encryption,
    /// Most bytes it may hold.
    pub quota_bytes: Option<Quota>,
    /// Rules that delete objects after some days.
    pub lifecycle: Vec<Rule>,
}

/// File of a bucket's policy.
pub fn policy_file(folder: &Path) -> PathBuf {
    folder.join("policy.json")
}

/// File of a bucket's index.
pub fn index_file(folder: &Path) -> PathBuf {
    folder.join("index.db")
}

/// Folder of the files of a bucket's objects.
pub fn objects_folder(folder: &Path) -> PathBuf {
    folder.join("objects")
}

/// Reads the policy of the bucket in a folder; none if there is no such file. A policy that does not parse is
/// a failure, because the bucket's owner is unknown then.
pub fn policy(folder: &Path) -> Result<Option<Policy>, Failure> {
    match fs::read(policy_file(folder)) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| {
            Failure::fatal(
                "corrupt",
                "the bucket's policy.json is damaged: restore it from a backup, with the objects beside it",
            )
        }),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => Ok(None),
            _ => Err(resource_folder::failure(folder.parent().unwrap_or(folder), &error)),
        },
    }
}

/// All buckets below the configured folder.
pub struct Buckets {
    pub(super) config: Config,
    open: OpenFiles<Index>,
    key: OnceCell<Key>,
}

/// Selects a bucket.
#[derive(Clone, Debug)]
pub enum Which {
    /// By tenant.
    Of(TenantId),
    /// By name.
    Named(String),
}

/// An existing bucket.
struct Bucket {
    name: String,
    folder: PathBuf,
    policy: Policy,
    index: Arc<Index>,
}

/// The error for a bucket that does not exist.
pub fn no_such_bucket() -> Failure {
    Failure::invalid("no_such_bucket", "the bucket does not exist")
}

impl Buckets {
    pub fn new(config: Config) -> Self {
        let open = OpenFiles::new(config.open_files);
        Self { config, open, key: OnceCell::new() }
    }

    /// Closes a bucket's index once it is unused.
    pub fn forget(&self, folder: &Path) {
        self.open.forget(&index_file(folder));
    }

    /// The signing key, read or generated at the first call.
    pub async fn key(&self) -> Result<&Key, Failure> {
        let Config { folder, secret_file, .. } = self.config.clone();
        self.key.get_or_try_init(|| blocking(move || signing::key(&folder, secret_file.as_deref()))).await
    }

    /// The index of the bucket in a folder.
    pub async fn index(&self, folder: &Path) -> Result<Arc<Index>, Failure> {
        let file = index_file(folder);
        self.open.get(&file, async { Ok(Index::new(&file)) }).await?.ok_or_else(no_index)
    }

    /// Verifies a signed address and returns the tenant that owns its bucket.
    pub async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure> {
        let which = Which::Named(signed.bucket.clone());
        // Without a valid signature the caller must not learn whether the bucket exists.
        let bucket = self.bucket(&which).await.map_err(|failure| match failure.code.as_str() {
            "no_such_bucket" => bad_signature(),
            _ => failure,
        })?;
        signing::verify(self.key().await?, signed, &bucket.policy.owner, now)?;
        Ok(bucket.policy.tenant)
    }

    /// Opens a bucket with its current policy: the policy may have changed, or the name may belong to another
    /// bucket.
    async fn bucket(&self, which: &Which) -> Result<Bucket, Failure> {
        let (root, which) = (self.config.folder.clone(), which.clone());
        let (name, folder, policy) = blocking(move || {
            let name = match which {
                Which::Of(tenant) => resource_folder::linked(&root, tenant),
                Which::Named(name) => Some(name),
            };
            let name = name.filter(|name| is_plain(name)).ok_or_else(no_such_bucket)?;
            let folder = root.join(&name);
            let policy = policy(&folder)?.ok_or_else(no_such_bucket)?;
            Ok((name, folder, policy))
        })
        .await?;
        let index = self.index(&folder).await?;
        Ok(Bucket { name, folder, policy, index })
    }

    /// Deletes the objects of one bucket that are due at `now`, and files of interrupted uploads.
    pub async fn expire(&self, which: &Which, now: Timestamp) -> Result<Expired, Failure> {
        let bucket = self.bucket(which).await?;
        let mut all = Expired::default();
        for rule in &bucket.policy.lifecycle {
            let age = DAY.saturating_mul(rule.expire_after);
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let until = Timestamp::from_micros(now.micros().saturating_sub(age));
            loop {
                let gone = bucket.index.expire(&rule.prefix, until).await?;
                if gone.is_empty() {
                    break;
                }
                all.objects += gone.len() as u64;
                all.bytes += gone.iter().map(|(_, size)| size).sum::<u64>();
                bucket.discard(gone.into_iter().map(|(file, _)| file).collect()).await;
            }
        }
        bucket.sweep(now).await?;
        Ok(all)
    }
}

/// The error for a missing index. It is not created again, because every object would be lost.
pub fn no_index() -> Failure {
    Failure::fatal(
        "corrupt",
        "the bucket's index.db is missing: restore it from a backup, with the objects beside it",
    )
}

impl Bucket {
    fn root(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        resource_folder::failure(self.root(), error)
    }

    fn file(&self, name: &str) -> PathBuf {
        objects_folder(&self.folder).join(name)
    }

    /// Deletes files that belong to no object any more. Files that cannot be deleted are left for the next
    /// sweep.
    async fn discard(&self, files: Vec<String>) {
        let files: Vec<PathBuf> = files.iter().map(|file| self.file(file)).collect();
        let discarded = blocking(move || {
            for file in files {
                if let Err(error) = fs::remove_file(&file)
                    && error.kind() != ErrorKind::NotFound
                {
                    tracing::warn!(%error, "cannot delete unused bucket file; retrying at the next sweep");
                }
            }
            Ok(())
        });
        // The closure returns no error.
        let _ = discarded.await;
    }

    /// Deletes files of interrupted uploads.
    async fn sweep(&self, now: Timestamp) -> Result<(), Failure> {
        let folder = objects_folder(&self.folder);
        let mut entries = fs::read_dir(folder).map_err(|error| self.failure(&error))?;
        loop {
            let listed = blocking(move || Ok((abandoned(&mut entries, now), entries))).await?;
            let files;
            (files, entries) = listed;
            let files = files.map_err(|error| self.failure(&error))?;
            if files.is_empty() {
                return Ok(());
            }
            self.discard(self.index.unknown(&files).await?).await;
        }
    }

    /// Stores an upload under a temporary name. `name` is its final one, which its encryption is bound to.
    async fn receive(
        &self,
        (key, name): (&Secret, &str),
        body: Body,
        room: Option<u64>,
    ) -> Result<Received, Failure> {
        let folder = objects_folder(&self.folder);
        let made = blocking(move || Ok(Builder::new().prefix(PART).tempfile_in(folder))).await?;
        let (file, path) = made.map_err(|error| self.failure(&error))?.into_parts();
        let file = tokio::fs::File::from_std(file);
        let stored = stream::store(file, self.root(), (key, name), body, room).await?;
        Ok(Received { path, stored })
    }

    /// Renames an upload to its final name and inserts it into the index.
    async fn enter(&self, received: Received, mut entry: Entry) -> Result<Meta, Failure> {
        let quota = self.policy.quota_bytes.map(|quota| quota.0);
        let file = self.file(&entry.file);
        let named = blocking(move || {
            let named = received.path.persist_noclobber(&file).map_err(|refused| refused.error);
            let folder = file.parent().unwrap_or(&file).to_owned();
            Ok(named.and_then(|()| File::open(folder)?.sync_all()))
        });
        named.await?.map_err(|error| self.failure(&error))?;
        entry.meta.size = received.stored.size;
        entry.meta.etag = received.stored.etag;
        match self.index.put(&entry, quota).await {
            Ok(old) => {
                self.discard(old.into_iter().collect()).await;
                Ok(entry.meta)
            }
            // After an unknown outcome the entry may exist; the next sweep deletes the file if it does not.
            Err(failure) if failure.class == tenantry_model::FailureClass::Unknown => Err(failure),
            Err(failure) => {
                self.discard(vec![entry.file]).await;
                Err(failure)
            }
        }
    }
}

/// A stored upload under its temporary name. Dropping it deletes the file.
struct Received {
    path: TempPath,
    stored: Stored,
}

/// Number of object files in a folder and their decrypted size; zero if the folder is missing.
pub fn stored(folder: &Path) -> Size {
    let mut all = Size::default();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for file in entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file) {
        all.files += 1;
        all.bytes += cipher::clear(file.len());
    }
    all
}

/// Up to a batch of file names not written for [`ABANDONED_AFTER`]. Empty when none is left.
fn abandoned(entries: &mut ReadDir, now: Timestamp) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let written = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = Timestamp::from_micros(i64::try_from(written.as_micros()).unwrap_or(i64::MAX));
        if now.since(written) > ABANDONED_AFTER {
            found.extend(entry.file_name().into_string());
        }
        if found.len() == SWEEP_BATCH {
            break;
        }
    }
    Ok(found)
}

/// A handle on the objects of one tenant's bucket.
pub struct Handle {
    pub(super) buckets: Arc<Buckets>,
    pub(super) tenant: TenantId,
    pub(super) sealer: Arc<dyn Sealer>,
}

impl Handle {
    async fn bucket(&self) -> Result<Bucket, Failure> {
        self.buckets.bucket(&Which::Of(self.tenant)).await
    }

    async fn key(&self, bucket: &Bucket, level: Encryption) -> Result<Secret, Failure> {
        let (folder, tenant, sealer) = (bucket.folder.clone(), self.tenant, self.sealer.clone());
        blocking(move || keys::open(level, &folder, tenant, &*sealer)).await
    }
}

#[async_trait]
impl TenantObjects for Handle {
    async fn put(&self, new: New<'_>, body: Body) -> Result<Meta, Failure> {
        check_key(new.key)?;
        let plain = |kind: &str| kind.len() <= 255 && kind.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !new.content_type.is_none_or(plain) {
            return Err(Failure::invalid(
                "bad_content_type",
                "a content type has up to 255 printable ASCII characters",
            ));
        }
        let bucket = self.bucket().await?;
        let old = bucket.index.get(new.key).await?.map_or(0, |entry| entry.meta.size);
        let (_, used) = bucket.index.usage().await?;
        // Stop an upload early that cannot fit. The index decides in its transaction.
        let room =
            bucket.policy.quota_bytes.map(|quota| quota.0.saturating_sub(used.saturating_sub(old)).max(old));
        let encryption = bucket.policy.encryption;
        let key = self.key(&bucket, encryption).await?;
        let file = uuid::Uuid::now_v7().simple().to_string();
        let received = bucket.receive((&key, &file), body, room).await?;
        let meta = Meta {
            key: new.key.to_owned(),
            size: 0,
            etag: String::new(),
            content_type: new.content_type.map(str::to_owned),
            modified: new.at,
        };
        let entry = Entry { meta, file, encryption };
        // Runs to completion even if the caller is cancelled, so that no file is left without an entry.
        let entered = tokio::spawn(async move { bucket.enter(received, entry).await });
        entered.await.unwrap_or_else(|_| {
            Err(Failure::unknown("stopped", "the process was shut down during the operation"))
        })
    }

    async fn get(&self, key: &str, range: Option<Range>) -> Result<Option<Content>, Failure> {
        check_key(key)?;
        let bucket = self.bucket().await?;
        // The object may be replaced between reading its entry and opening its file.
        for _ in 0..8 {
            let Some(entry) = bucket.index.get(key).await? else { return Ok(None) };
            let file = match tokio::fs::File::open(bucket.file(&entry.file)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(|error| bucket.failure(&error))?,
            };
            let (first, length) = part(entry.meta.size, range)?;
            let Entry { meta, file: name, encryption } = entry;
            let key = self.key(&bucket, encryption).await?;
            let body = stream::read(file, (&key, name), meta.size, (first, length)).await;
            let body = body.map_err(|error| match is_damage(&error) {
                true => corrupt("damaged"),
                false => bucket.failure(&error),
            })?;
            return Ok(Some(Content { meta, first, length, body }));
        }
        Err(corrupt("missing"))
    }

    async fn meta(&self, key: &str) -> Result<Option<Meta>, Failure> {
        check_key(key)?;
        Ok(self.bucket().await?.index.get(key).await?.map(|entry| entry.meta))
    }

    async fn list(&self, prefix: &str, limit: u32, after: Option<&str>) -> Result<Listing, Failure> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Failure::invalid("bad_limit", format!("`limit` must be from 1 to {MAX_PAGE}")));
        }
        let (from, beyond) = match after {
            Some(after) if after >= prefix => (after, true),
            _ => (prefix, false),
        };
        let found = self.bucket().await?.index.list(from, beyond, limit + 1).await?;
        // Keys with the same prefix are adjacent.
        let mut objects: Vec<Meta> = found
            .into_iter()
            .map(|entry| entry.meta)
            .take_while(|meta| meta.key.starts_with(prefix))
            .collect();
        let more = objects.len() > limit as usize;
        objects.truncate(limit as usize);
        let next = objects.last().filter(|_| more).map(|meta| meta.key.clone());
        Ok(Listing { objects, next })
    }

    async fn delete(&self, key: &str) -> Result<bool, Failure> {
        check_key(key)?;
        let bucket = self.bucket().await?;
        let gone = bucket.index.delete(key).await?;
        let found = gone.is_some();
        bucket.discard(gone.into_iter().collect()).await;
        Ok(found)
    }

    async fn sign(
        &self,
        key: &str,
        method: Method,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Signed, Failure> {
        check_key(key)?;
        let bucket = self.bucket().await?;
        let (key, expires_at, signature) = (key.to_owned(), expires_at.seconds(), String::new());
        let signed = Signed { method, bucket: bucket.name, key, expires_at, signature };
        signing::sign(self.buckets.key().await?, signed, &bucket.policy.owner, now)
    }

    async fn usage(&self) -> Result<Usage, Failure> {
        let bucket = self.bucket().await?;
        let (objects, bytes) = bucket.index.usage().await?;
        Ok(Usage { objects, bytes, quota_bytes: bucket.policy.quota_bytes.map(|quota| quota.0) })
    }
}

fn corrupt(how: &str) -> Failure {
    Failure::fatal("corrupt", format!("the file of an object is {how}: restore the bucket from a backup"))
}
