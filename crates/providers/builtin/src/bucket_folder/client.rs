//! Buckets at work: their policy, and objects in and out. Knows nothing of steps; what it is asked by name was planned, and
//! what it is asked by tenant or signature was verified.

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
use tenantry_provider::lanes::blocking;
use tenantry_provider::objects::{
    Body, Content, Expired, Listing, MAX_PAGE, Meta, Method, New, Range, Signed, TenantObjects, Usage,
    check_key, part,
};
use tenantry_provider::open_files::OpenFiles;
use tenantry_provider::place::{self, Size};
use tenantry_provider::sealed_file::cipher;
use tenantry_provider::sealed_file::stream::{self, Stored, is_damage};
use tenantry_provider::verbs::{Key as Secret, Sealer};

/// How files begin that are not whole yet.
const PART: &str = ".part";
/// A file that no object has is left by an upload that was cut off, once it is as old as this.
const FORGOTTEN: Duration = Duration::from_secs(86_400);
/// Files that are looked up together: a bucket may hold millions.
const AT_A_TIME: usize = 500;
const DAY: Duration = Duration::from_secs(86_400);

/// What a bucket is, in a file of its own: whose, how big, for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Of this form.
    pub version: u32,
    /// The owner mark.
    pub owner: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// The resource's id.
    pub resource: String,
    /// Nobody reads it without a token or a signature.
    pub public: bool,
    /// How objects are encrypted that are stored from now on.
    pub encryption: Encryption,
    /// Bytes that it may hold.
    pub quota_bytes: Option<Quota>,
    /// What is deleted after a time.
    pub lifecycle: Vec<Rule>,
}

/// Where the parts of a bucket are.
pub fn policy_file(folder: &Path) -> PathBuf {
    folder.join("policy.json")
}

/// Its index.
pub fn index_file(folder: &Path) -> PathBuf {
    folder.join("index.db")
}

/// Its objects' files.
pub fn objects_folder(folder: &Path) -> PathBuf {
    folder.join("objects")
}

/// The policy of the bucket in a folder; none if there is no such file. One that cannot be understood is a failure: whose
/// the folder is cannot be told then.
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
            _ => Err(place::failure(folder.parent().unwrap_or(folder), &error)),
        },
    }
}

/// All buckets of the folder.
pub struct Buckets {
    pub(super) config: Config,
    open: OpenFiles<Index>,
    key: OnceCell<Key>,
}

/// Which bucket is meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// The tenant's.
    Of(TenantId),
    /// The one of this name.
    Named(String),
}

/// A bucket that is there.
struct Bucket {
    name: String,
    folder: PathBuf,
    policy: Policy,
    index: Arc<Index>,
}

/// Nothing that is ours has the name.
pub fn no_such_bucket() -> Failure {
    Failure::invalid("no_such_bucket", "there is no such bucket")
}

impl Buckets {
    pub fn new(config: Config) -> Self {
        let open = OpenFiles::new(config.open_files);
        Self { config, open, key: OnceCell::new() }
    }

    /// Lets go of a bucket's index.
    pub fn forget(&self, folder: &Path) {
        self.open.forget(&index_file(folder));
    }

    /// The key of signatures; read, or made, the first time.
    pub async fn key(&self) -> Result<&Key, Failure> {
        let Config { folder, secret_file, .. } = self.config.clone();
        self.key.get_or_try_init(|| blocking(move || signing::key(&folder, secret_file.as_deref()))).await
    }

    /// The index of the bucket in a folder.
    pub async fn index(&self, folder: &Path) -> Result<Arc<Index>, Failure> {
        let file = index_file(folder);
        self.open.get(&file, async { Ok(Index::new(&file)) }).await?.ok_or_else(no_index)
    }

    /// Whose bucket a signature opens.
    pub async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure> {
        let which = Which::Named(signed.bucket.clone());
        // Whether there is such a bucket is nobody's business who has no signature for it.
        let bucket = self.bucket(&which).await.map_err(|failure| match failure.code.as_str() {
            "no_such_bucket" => bad_signature(),
            _ => failure,
        })?;
        signing::verify(self.key().await?, signed, &bucket.policy.owner, now)?;
        Ok(bucket.policy.tenant)
    }

    /// Reads the bucket's policy as it is now: it may have changed, or be another bucket's.
    async fn bucket(&self, which: &Which) -> Result<Bucket, Failure> {
        let (root, which) = (self.config.folder.clone(), which.clone());
        let (name, folder, policy) = blocking(move || {
            let name = match which {
                Which::Of(tenant) => place::linked(&root, tenant),
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

    /// Deletes what is due in one bucket.
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

/// An index that is missing is not made anew: every object would be lost.
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
        place::failure(self.root(), error)
    }

    fn file(&self, name: &str) -> PathBuf {
        objects_folder(&self.folder).join(name)
    }

    /// Deletes files that no object has any more. What stays is swept later.
    async fn discard(&self, files: Vec<String>) {
        let files: Vec<PathBuf> = files.iter().map(|file| self.file(file)).collect();
        let discarded = blocking(move || {
            for file in files {
                if let Err(error) = fs::remove_file(&file)
                    && error.kind() != ErrorKind::NotFound
                {
                    tracing::warn!(%error, "a file of a bucket that is not needed any more stays for now");
                }
            }
            Ok(())
        });
        // Nothing in it fails.
        let _ = discarded.await;
    }

    /// Deletes what uploads that were cut off have left.
    async fn sweep(&self, now: Timestamp) -> Result<(), Failure> {
        let folder = objects_folder(&self.folder);
        let mut entries = fs::read_dir(folder).map_err(|error| self.failure(&error))?;
        loop {
            let listed = blocking(move || Ok((forgotten(&mut entries, now), entries))).await?;
            let files;
            (files, entries) = listed;
            let files = files.map_err(|error| self.failure(&error))?;
            if files.is_empty() {
                return Ok(());
            }
            self.discard(self.index.unknown(&files).await?).await;
        }
    }

    /// Brings an upload to the disk under a name that nobody knows; `name` is the one that it gets.
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

    /// Gives an upload its name and enters it.
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
            // After an unknown outcome the object may be there: sweeping will tell.
            Err(failure) if failure.class == tenantry_model::FailureClass::Unknown => Err(failure),
            Err(failure) => {
                self.discard(vec![entry.file]).await;
                Err(failure)
            }
        }
    }
}

/// An upload that is on the disk. Dropped, it is gone.
struct Received {
    path: TempPath,
    stored: Stored,
}

/// Objects in a folder of them, and their clear bytes; a folder that is missing holds none.
pub fn stored(folder: &Path) -> Size {
    let mut all = Size::default();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for file in entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file) {
        all.files += 1;
        all.bytes += cipher::clear(file.len());
    }
    all
}

/// Names of the next files that were last written long ago; none: there are no more.
fn forgotten(entries: &mut ReadDir, now: Timestamp) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let written = entry.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = Timestamp::from_micros(i64::try_from(written.as_micros()).unwrap_or(i64::MAX));
        if now.since(written) > FORGOTTEN {
            found.extend(entry.file_name().into_string());
        }
        if found.len() == AT_A_TIME {
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
        // What surely does not fit is not written first. The transaction decides.
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
        // Goes on if the caller gives up now: between the file and its entry is no good place to stop.
        let entered = tokio::spawn(async move { bucket.enter(received, entry).await });
        entered
            .await
            .unwrap_or_else(|_| Err(Failure::unknown("stopped", "the process was shut down during the work")))
    }

    async fn get(&self, key: &str, range: Option<Range>) -> Result<Option<Content>, Failure> {
        check_key(key)?;
        let bucket = self.bucket().await?;
        // The object can be replaced between its entry and its file, though hardly twice.
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
        // Keys with one prefix stand together.
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
