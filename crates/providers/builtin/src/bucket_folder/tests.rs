//! Objects, quotas, signatures and lifecycle. Encryption on the disk is tested in `encryption`, the provider
//! contract in `tests/it`.

mod encryption;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tenantry_model::FailureClass;
use tenantry_model::id::{OperationId, ResourceId};
use tokio::io::AsyncReadExt;

use super::*;
use tenantry_provider::objects::{Body, MAX_LIFE, Meta, Method, New, Range};
use tenantry_provider::verbs::{Key, Person, Tenant};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn spec(settings: Value) -> Spec {
    let (tenant, resource) = (TenantId::new(), ResourceId::new());
    Spec {
        resource,
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "growth".to_owned(),
            region: "eu".to_owned(),
            locale: "en".to_owned(),
            admin: Person::default(),
        },
        name: format!("tenant-{}-eu", tenant.suffix()),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings,
        inputs: Default::default(),
        note: None,
    }
}

/// Reverses texts instead of encrypting them; opens for the same tenant only, and not after its key was
/// destroyed.
#[derive(Default)]
struct TestSealer {
    destroyed: Mutex<HashSet<TenantId>>,
}

impl TestSealer {
    fn check_key(&self, tenant: TenantId) -> Result<(), Failure> {
        let destroyed = self.destroyed.lock().contains(&tenant);
        if destroyed { Err(Failure::fatal("key_destroyed", "gone")) } else { Ok(()) }
    }
}

impl Sealer for TestSealer {
    fn seal(&self, tenant: TenantId, clear: &str) -> Result<String, Failure> {
        self.check_key(tenant)?;
        let reversed: String = clear.chars().rev().collect();
        Ok(format!("{tenant}:{reversed}"))
    }
    fn open(&self, tenant: TenantId, sealed: &str) -> Result<String, Failure> {
        self.check_key(tenant)?;
        let body = sealed.strip_prefix(&format!("{tenant}:"));
        body.map(|body| body.chars().rev().collect())
            .ok_or_else(|| Failure::fatal("wrong_tenant_key", "sealed for another tenant"))
    }
    fn derive(&self, tenant: TenantId, purpose: &str) -> Result<Key, Failure> {
        self.check_key(tenant)?;
        Ok(Key::new(Sha256::digest(format!("{tenant} {purpose}")).into()))
    }
    fn mac(&self, purpose: &str, text: &str) -> String {
        hex::encode(Sha256::digest(format!("{purpose} {text}")))
    }
}

struct Fixture {
    dir: TempDir,
    buckets: BucketFolder,
    sealer: Arc<TestSealer>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let buckets = BucketFolder::new(Config::new(dir.path().join("buckets")));
        Self { dir, buckets, sealer: Arc::default() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("buckets")
    }

    async fn make(&self, spec: &Spec) -> Result<(), Failure> {
        let buckets = self.buckets.buckets.clone();
        ensure(buckets, self.buckets.folder_of(spec)?, spec.clone(), self.sealer.clone()).await
    }

    fn of(&self, tenant: TenantId) -> Arc<dyn TenantObjects> {
        self.buckets.scoped(tenant, self.sealer.clone())
    }

    /// Creates a bucket of a new tenant.
    async fn bucket(&self, settings: Value) -> (Spec, Arc<dyn TenantObjects>) {
        let spec = spec(settings);
        self.make(&spec).await.unwrap();
        let handle = self.of(spec.tenant.id);
        (spec, handle)
    }

    fn objects(&self, spec: &Spec) -> PathBuf {
        objects_folder(&self.root().join(&spec.name))
    }

    fn files(&self, spec: &Spec) -> usize {
        std::fs::read_dir(self.objects(spec)).unwrap().count()
    }
}

fn new(key: &str) -> New<'_> {
    New { key, content_type: Some("text/plain"), at: NOW }
}

fn body(bytes: impl Into<Vec<u8>>) -> Body {
    Box::pin(std::io::Cursor::new(bytes.into()))
}

async fn put(objects: &Arc<dyn TenantObjects>, key: &str, bytes: &[u8]) -> Result<Meta, Failure> {
    objects.put(new(key), body(bytes)).await
}

async fn get(objects: &Arc<dyn TenantObjects>, key: &str, range: Option<Range>) -> Option<Vec<u8>> {
    let mut content = objects.get(key, range).await.unwrap()?;
    let mut bytes = Vec::new();
    content.body.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, content.length);
    Some(bytes)
}

#[tokio::test]
async fn stores_reads_replaces_and_deletes_objects() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    let meta = put(&objects, "a/b.txt", b"hello").await.unwrap();
    assert_eq!(meta.etag, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((meta.size, meta.content_type.as_deref(), meta.modified), (5, Some("text/plain"), NOW));
    assert_eq!(objects.meta("a/b.txt").await.unwrap(), Some(meta));
    assert_eq!(get(&objects, "a/b.txt", None).await.unwrap(), b"hello");
    assert!(get(&objects, "a/b", None).await.is_none());
    for (range, bytes) in [
        (Range::From(1), "ello"),
        (Range::Between(1, 3), "ell"),
        (Range::Between(3, 99), "lo"),
        (Range::Last(2), "lo"),
        (Range::Last(99), "hello"),
    ] {
        assert_eq!(get(&objects, "a/b.txt", Some(range)).await.unwrap(), bytes.as_bytes(), "{range:?}");
    }
    for range in [Range::From(5), Range::Between(3, 2), Range::Last(0), Range::Between(5, u64::MAX)] {
        assert_eq!(objects.get("a/b.txt", Some(range)).await.err().unwrap().code, "bad_range", "{range:?}");
    }
    put(&objects, "empty", b"").await.unwrap();
    assert_eq!(get(&objects, "empty", None).await.unwrap(), b"");

    let mut reading = objects.get("a/b.txt", None).await.unwrap().unwrap();
    put(&objects, "a/b.txt", b"another").await.unwrap();
    let mut old = String::new();
    reading.body.read_to_string(&mut old).await.unwrap();
    assert_eq!(old, "hello", "an open reader keeps reading the replaced object");
    assert_eq!(get(&objects, "a/b.txt", None).await.unwrap(), b"another");
    assert_eq!(fixture.files(&spec), 2, "the replaced file is deleted");
    assert!(objects.delete("a/b.txt").await.unwrap());
    assert!(!objects.delete("a/b.txt").await.unwrap());
    assert_eq!(fixture.files(&spec), 1);

    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    put(&objects, "big", &big).await.unwrap();
    assert_eq!(get(&objects, "big", None).await.unwrap(), big);
    let usage = objects.usage().await.unwrap();
    assert_eq!((usage.objects, usage.bytes, usage.quota_bytes), (2, 3_000_000, None));
}

#[tokio::test]
async fn keys_neither_leave_the_folder_nor_collide() {
    let fixture = Fixture::new();
    let (_, objects) = fixture.bucket(json!({})).await;
    for bad in ["", "/etc/passwd", "../x", "a/../../x", "a\0b", "..\\x", &"x".repeat(1025)] {
        assert_eq!(put(&objects, bad, b"").await.unwrap_err().code, "bad_key", "{bad:?}");
        assert_eq!(objects.get(bad, None).await.err().unwrap().code, "bad_key", "{bad:?}");
        assert_eq!(objects.delete(bad).await.unwrap_err().code, "bad_key", "{bad:?}");
    }
    // Composed and decomposed, upper and lower case, names that some systems reserve, and a key below another
    // key.
    let keys =
        ["A", "a", "a/b", "a//b", "a/", "\u{e4}", "a\u{308}", "CON", "index.db", "漢字/🎉", "%41", "'; --"];
    for key in keys {
        put(&objects, key, key.as_bytes()).await.unwrap();
    }
    for key in keys {
        assert_eq!(get(&objects, key, None).await.unwrap(), key.as_bytes(), "{key:?}");
    }
    let bad = New { content_type: Some("text/html\r\nx: y"), ..new("x") };
    assert_eq!(objects.put(bad, body("")).await.unwrap_err().code, "bad_content_type");
}

#[tokio::test]
async fn lists_by_prefix_and_page() {
    let fixture = Fixture::new();
    let (_, objects) = fixture.bucket(json!({})).await;
    for key in ["a", "b.x", "b/1", "b/2", "b/3", "b0", "b/\u{10ffff}z", "c", "ä"] {
        put(&objects, key, b"1").await.unwrap();
    }
    let keys = async |prefix: &str, limit, after: Option<&str>| {
        let page = objects.list(prefix, limit, after).await.unwrap();
        (page.objects.into_iter().map(|meta| meta.key).collect::<Vec<_>>().join(" "), page.next)
    };
    assert_eq!(keys("", 100, None).await.0, "a b.x b/1 b/2 b/3 b/\u{10ffff}z b0 c ä");
    assert_eq!(keys("b/", 2, None).await, ("b/1 b/2".to_owned(), Some("b/2".to_owned())));
    assert_eq!(keys("b/", 2, Some("b/2")).await, ("b/3 b/\u{10ffff}z".to_owned(), None));
    assert_eq!(keys("b/", 2, Some("a")).await.0, "b/1 b/2");
    assert_eq!(keys("b/", 2, Some("z")).await, (String::new(), None));
    assert_eq!(keys("zz", 2, None).await, (String::new(), None));
    for limit in [0, 1001] {
        assert_eq!(objects.list("", limit, None).await.unwrap_err().code, "bad_limit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uploads_stay_within_the_quota() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({ "quota_bytes": "10kB" })).await;
    let uploads = (0..20).map(|n| {
        let objects = objects.clone();
        async move { put(&objects, &format!("k{n}"), &[7; 1000]).await }
    });
    let done = futures::future::join_all(uploads).await;
    let refused: Vec<_> = done.iter().filter_map(|one| one.as_ref().err()).collect();
    assert_eq!(refused.len(), 10);
    assert!(refused.iter().all(|failure| failure.code == "quota_exceeded"), "{refused:?}");
    assert_eq!(objects.usage().await.unwrap().bytes, 10_000);
    assert_eq!(fixture.files(&spec), 10, "rejected uploads leave no files");
    let key = objects.list("", 1, None).await.unwrap().objects.remove(0).key;
    put(&objects, &key, &[1; 1000]).await.unwrap();
    assert_eq!(put(&objects, &key, &[1; 1001]).await.unwrap_err().code, "quota_exceeded");
    assert_eq!(get(&objects, &key, None).await.unwrap(), [1; 1000], "the old object stays");
    let smaller = Spec { settings: json!({ "quota_bytes": 100 }), ..spec };
    fixture.make(&smaller).await.unwrap();
    put(&objects, &key, &[1; 500]).await.unwrap();
    assert_eq!(put(&objects, "more", &[1]).await.unwrap_err().code, "quota_exceeded");
    assert!(objects.delete(&key).await.unwrap());
}

#[tokio::test]
async fn an_interrupted_upload_leaves_no_file() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    let (near, mut far) = tokio::io::duplex(64);
    let upload = tokio::spawn({
        let objects = objects.clone();
        async move { objects.put(new("a"), Box::pin(near)).await }
    });
    tokio::io::AsyncWriteExt::write_all(&mut far, b"half of").await.unwrap();
    while fixture.files(&spec) == 0 {
        tokio::task::yield_now().await;
    }
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    // The thread that created the file may still hold it.
    while fixture.files(&spec) > 0 {
        tokio::task::yield_now().await;
    }
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("gone")))
        }
    }
    let failure = objects.put(new("a"), Box::pin(Broken)).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("cut_off", FailureClass::Retryable));
    assert_eq!((fixture.files(&spec), objects.usage().await.unwrap().objects), (0, 0));
}

#[tokio::test]
async fn a_signature_allows_one_method_on_one_object_until_its_expiry() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    let (other, _) = fixture.bucket(json!({})).await;
    put(&objects, "ä b.txt", b"hello").await.unwrap();
    let signed = objects.sign("ä b.txt", Method::Get, NOW + DAY, NOW).await.unwrap();
    assert_eq!(fixture.buckets.verify(&signed, NOW).await.unwrap(), spec.tenant.id);
    let again = BucketFolder::new(Config::new(fixture.root()));
    again.verify(&signed, NOW).await.expect("a restart keeps the key");

    type Change = fn(&mut Signed, &Spec);
    let changes: [Change; 8] = [
        |signed, _| signed.method = Method::Put,
        |signed, _| signed.key = "other".to_owned(),
        |signed, other| signed.bucket.clone_from(&other.name),
        |signed, _| signed.bucket = "../x".to_owned(),
        |signed, _| signed.bucket = "nowhere".to_owned(),
        |signed, _| signed.expires_at += 1,
        |signed, _| signed.signature.replace_range(0..2, "__"),
        |signed, _| signed.signature.clear(),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut changed = signed.clone();
        change(&mut changed, &other);
        let failure = fixture.buckets.verify(&changed, NOW).await.err().unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("bad_signature", FailureClass::Invalid),
            "{index}"
        );
    }
    assert_eq!(fixture.buckets.verify(&signed, NOW + DAY).await.err().unwrap().code, "expired");
    fixture.buckets.verify(&signed, NOW + (DAY - Duration::from_secs(1))).await.unwrap();
    for (at, code) in [(NOW, "expired"), (NOW + MAX_LIFE + Duration::from_secs(1), "bad_expiry")] {
        assert_eq!(objects.sign("a", Method::Put, at, NOW).await.unwrap_err().code, code);
    }
    objects.sign("a", Method::Put, NOW + MAX_LIFE, NOW).await.unwrap();

    // Another bucket of the same name.
    remove(&fixture.buckets.folder_of(&spec).unwrap(), &spec).unwrap();
    assert_eq!(fixture.buckets.verify(&signed, NOW).await.err().unwrap().code, "bad_signature");
    let successor = Spec { claim: "tenantry:another".to_owned(), resource: ResourceId::new(), ..spec };
    fixture.make(&successor).await.unwrap();
    assert_eq!(fixture.buckets.verify(&signed, NOW).await.err().unwrap().code, "bad_signature");
}

#[tokio::test]
async fn the_signing_secret_is_private_and_long_enough() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    fixture.buckets.probe().await.unwrap();
    let file = fixture.root().join(".tenantry/signing.key");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let given = fixture.dir.path().join("secret");
    let config = Config { secret_file: Some(given.clone()), ..Config::new(fixture.root()) };
    let failure = BucketFolder::new(config.clone()).probe().await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.class), ("unreadable", FailureClass::Retryable));
    std::fs::write(&given, "short secret").unwrap();
    let failure = BucketFolder::new(config.clone()).probe().await.unwrap_err();
    assert_eq!(failure.code, "bad_config");
    assert!(!failure.message.contains("short secret"));
    std::fs::write(&given, "x".repeat(32)).unwrap();
    BucketFolder::new(config).probe().await.unwrap();
}

#[tokio::test]
async fn expiry_deletes_due_objects_only() {
    let fixture = Fixture::new();
    let rules = json!([{ "prefix": "tmp/", "expire_after": 2 }, { "prefix": "logs/", "expire_after": 30 }]);
    let (spec, objects) = fixture.bucket(json!({ "lifecycle": rules })).await;
    let (_, forever) = fixture.bucket(json!({})).await;
    for key in ["tmp/a", "tmp/b", "tmp", "logs/a", "TMP/a"] {
        put(&objects, key, b"12345").await.unwrap();
    }
    put(&forever, "tmp/a", b"1").await.unwrap();
    std::fs::create_dir(fixture.root().join("foreign")).unwrap();
    let just_before = NOW + (2 * DAY - Duration::from_micros(1));
    assert_eq!(fixture.buckets.expire(just_before).await.unwrap(), Expired::default());
    let late = New { at: NOW + DAY, ..new("tmp/b") };
    objects.put(late, body("12345")).await.unwrap();
    assert_eq!(fixture.buckets.expire(NOW + 2 * DAY).await.unwrap(), Expired { objects: 1, bytes: 5 });
    assert_eq!(fixture.buckets.expire(NOW + 2 * DAY).await.unwrap(), Expired::default());
    assert_eq!(fixture.buckets.expire(NOW + 40 * DAY).await.unwrap(), Expired { objects: 2, bytes: 10 });
    let left = objects.list("", 10, None).await.unwrap().objects;
    assert_eq!(left.iter().map(|meta| &*meta.key).collect::<Vec<_>>(), ["TMP/a", "tmp"]);
    assert_eq!((fixture.files(&spec), forever.usage().await.unwrap().objects), (2, 1));
}

#[tokio::test]
async fn sweeps_old_files_of_killed_uploads() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    put(&objects, "a", b"1").await.unwrap();
    std::fs::write(fixture.objects(&spec).join(".partABC"), "half").unwrap();
    for number in 1000..2200 {
        std::fs::write(fixture.objects(&spec).join(number.to_string()), "no entry").unwrap();
    }
    fixture.buckets.expire(Timestamp::now()).await.unwrap();
    assert_eq!(fixture.files(&spec), 1202, "a recent file may belong to a running upload");
    fixture.buckets.expire(Timestamp::now() + 2 * DAY).await.unwrap();
    assert_eq!(fixture.files(&spec), 1);
    assert_eq!(get(&objects, "a", None).await.unwrap(), b"1");
}

#[tokio::test]
async fn objects_survive_a_restart_and_end_with_a_removal() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({ "encryption": "enhanced" })).await;
    put(&objects, "a", b"12345").await.unwrap();
    let again = BucketFolder::new(Config::new(fixture.root()));
    assert_eq!(
        get(&again.scoped(spec.tenant.id, fixture.sealer.clone()), "a", None).await.unwrap(),
        b"12345"
    );
    let receipt = remove(&again.folder_of(&spec).unwrap(), &spec).unwrap();
    assert_eq!(receipt, json!({ "bucket": spec.name, "objects": 1, "bytes": 5 }));
    for failure in [objects.get("a", None).await.err().unwrap(), put(&objects, "a", b"").await.unwrap_err()] {
        assert_eq!(failure.code, "no_such_bucket");
    }
    fixture.make(&spec).await.unwrap();
    assert!(get(&objects, "a", None).await.is_none(), "the index is the new bucket's");
    let no_bucket = fixture.of(TenantId::new());
    assert_eq!(no_bucket.usage().await.unwrap_err().code, "no_such_bucket");

    std::fs::remove_file(fixture.root().join(&spec.name).join("index.db")).unwrap();
    assert_eq!(
        fixture.make(&spec).await.unwrap_err().code,
        "corrupt",
        "an empty index would lose the objects"
    );
    let another = Spec { name: "another".to_owned(), ..spec };
    assert_eq!(fixture.make(&another).await.unwrap_err().code, "name_taken", "a tenant has one bucket");
}

#[tokio::test]
async fn a_damaged_policy_is_never_taken_for_another_owner() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    put(&objects, "a", b"1").await.unwrap();
    let target = fixture.buckets.folder_of(&spec).unwrap();
    for text in ["", "{", "null", "{}"] {
        std::fs::write(policy_file(&target.path()), text).unwrap();
        for failure in [
            look(&target, &spec).unwrap_err(),
            remove(&target, &spec).unwrap_err(),
            fixture.make(&spec).await.unwrap_err(),
            objects.get("a", None).await.err().unwrap(),
        ] {
            assert_eq!((failure.code.as_str(), failure.class), ("corrupt", FailureClass::Fatal), "{text:?}");
        }
    }
    assert_eq!(fixture.files(&spec), 1, "no file was changed");
}

#[test]
fn rejects_invalid_settings() {
    let buckets = BucketFolder::new(Config::new("/nowhere"));
    let paths = |settings: Value| buckets.check(&settings).into_iter().map(|f| f.path).collect::<Vec<_>>();
    assert!(paths(json!({})).is_empty());
    assert!(paths(json!({ "quota_bytes": "1TiB", "encryption": "enhanced", "public": false })).is_empty());
    assert_eq!(paths(json!({ "public": true })), ["public"]);
    assert_eq!(paths(json!({ "lifecycle": [{ "expire_after": 0 }] })), ["lifecycle[0].expire_after"]);
    let rules = json!([{ "expire_after": 1 }, { "prefix": "a\n", "expire_after": 1 }]);
    assert_eq!(paths(json!({ "lifecycle": rules })), ["lifecycle[1].prefix"]);
    for bad in [
        json!({ "quota_bytes": "much" }),
        json!({ "quota_bytes": -1 }),
        json!({ "encryption": "none" }),
        json!({ "lifecycle": [{ "expire_after": -1 }] }),
        json!({ "lifecycle": {} }),
    ] {
        assert_eq!(paths(bad.clone()), [""], "{bad}");
    }
}
