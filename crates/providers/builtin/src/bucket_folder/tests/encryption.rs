//! Encryption on the disk: no cleartext, no file that another key opens, and an error instead of wrong bytes
//! after tampering.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::*;
use tenantry_provider::objects::Content;

const LEVELS: [&str; 2] = ["standard", "enhanced"];
/// Sizes around the ends of segments, as stored and as decrypted.
const SIZES: [usize; 12] =
    [0, 1, 65_479, 65_480, 65_481, 65_535, 65_536, 65_537, 130_999, 131_000, 131_001, 200_000];

/// Recognisable text in which no two segments are equal.
fn text(size: usize) -> Vec<u8> {
    (0u32..).flat_map(|line| format!("plain {line:08} text\n").into_bytes()).take(size).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn only(folder: &Path) -> PathBuf {
    let mut all = files(folder);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let copy = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, copy).unwrap();
    }
}

async fn error_code(objects: &Arc<dyn TenantObjects>, key: &str, range: Option<Range>) -> String {
    objects.get(key, range).await.err().unwrap().code
}

#[tokio::test]
async fn no_cleartext_is_on_the_disk() {
    for level in LEVELS {
        let fixture = Fixture::new();
        let (spec, objects) = fixture.bucket(json!({ "encryption": level })).await;
        for size in [10, 100, 3_000_000] {
            put(&objects, &size.to_string(), &text(size)).await.unwrap();
        }
        for file in files(fixture.dir.path()) {
            let bytes = fs::read(&file).unwrap();
            assert!(!bytes.windows(6).any(|part| part == b"plain "), "{level}: {file:?}");
        }
        assert_eq!(objects.usage().await.unwrap().bytes, 3_000_110, "the usage counts decrypted bytes");
        assert!(resource_folder::size(&fixture.objects(&spec)).unwrap().bytes > 3_000_110);
        let receipt = remove(&fixture.buckets.folder_of(&spec).unwrap(), &spec).unwrap();
        assert_eq!((&receipt["objects"], &receipt["bytes"]), (&json!(3), &json!(3_000_110)));
    }
}

#[tokio::test]
async fn ranges_refer_to_the_decrypted_object() {
    let fixture = Fixture::new();
    let (_, objects) = fixture.bucket(json!({})).await;
    for size in SIZES {
        let clear = text(size);
        put(&objects, "a", &clear).await.unwrap();
        assert!(get(&objects, "a", None).await.unwrap() == clear, "{size}");
        let borders = SIZES.into_iter().flat_map(|border| [border.wrapping_sub(1), border, border + 1]);
        let borders: Vec<usize> = borders.filter(|border| *border < size).collect();
        for (at, first) in borders.iter().copied().enumerate() {
            for last in borders[at..].iter().copied().filter(|last| *last >= first) {
                let range = Range::Between(first as u64, last as u64);
                let part = get(&objects, "a", Some(range)).await.unwrap();
                assert!(part == clear[first..=last], "{size}: {range:?}");
            }
            assert!(get(&objects, "a", Some(Range::From(first as u64))).await.unwrap() == clear[first..]);
            let tail = get(&objects, "a", Some(Range::Last(first as u64 + 1))).await.unwrap();
            assert!(tail == clear[size - first - 1..], "{size}: the last {}", first + 1);
        }
    }
}

#[tokio::test]
async fn a_range_reads_only_its_segments() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    let clear = text(200_000);
    put(&objects, "a", &clear).await.unwrap();
    let file = only(&fixture.objects(&spec));
    let mut bytes = fs::read(&file).unwrap();
    // All but the header and the third segment.
    bytes[40..131_072].fill(0);
    bytes[196_608..].fill(0);
    fs::write(&file, bytes).unwrap();
    let part = get(&objects, "a", Some(Range::Between(140_000, 150_000))).await.unwrap();
    assert!(part == clear[140_000..=150_000]);
}

#[tokio::test]
async fn tampering_is_an_error_and_never_wrong_bytes() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    let clear = text(150_000);
    put(&objects, "a", &clear).await.unwrap();
    let file = only(&fixture.objects(&spec));
    let whole = fs::read(&file).unwrap();
    // Damage in the header or the first segment is found before the response begins.
    for at in [0, 1, 39, 40, 65_535] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(error_code(&objects, "a", None).await, "corrupt", "{at}");
    }
    // Damage in a later segment ends the body with an error.
    let cut = async |bytes: &[u8], how: ErrorKind, good: usize| {
        fs::write(&file, bytes).unwrap();
        let Content { mut body, .. } = objects.get("a", None).await.unwrap().unwrap();
        let mut read = Vec::new();
        let error = body.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), read.len()), (how, good));
        assert!(clear.starts_with(&read));
        assert_eq!(error_code(&objects, "a", Some(Range::From(good as u64))).await, "corrupt");
    };
    let mut flipped = whole.clone();
    flipped[150_000] ^= 0x80;
    cut(&flipped, ErrorKind::InvalidData, 131_000).await;
    cut(&whole[..whole.len() - 1], ErrorKind::UnexpectedEof, 131_000).await;
    cut(&whole[..131_072], ErrorKind::UnexpectedEof, 131_000).await;
    let mut swapped = whole.clone();
    swapped[65_536..131_072].copy_from_slice(&whole[..65_536]);
    cut(&swapped, ErrorKind::InvalidData, 65_480).await;
    fs::write(&file, &whole).unwrap();
    assert!(get(&objects, "a", None).await.unwrap() == clear);

    // The file of another object of the same length.
    put(&objects, "b", &text(150_000)).await.unwrap();
    let other = files(&fixture.objects(&spec)).into_iter().find(|other| *other != file).unwrap();
    fs::copy(&file, &other).unwrap();
    assert_eq!(error_code(&objects, "b", None).await, "corrupt");
}

#[tokio::test]
async fn no_object_opens_without_the_tenants_key() {
    for level in LEVELS {
        let fixture = Fixture::new();
        let (spec, objects) = fixture.bucket(json!({ "encryption": level })).await;
        put(&objects, "a", b"hello").await.unwrap();
        let other_tenant = Arc::new(Handle {
            buckets: fixture.buckets.buckets.clone(),
            tenant: spec.tenant.id,
            sealer: Arc::new(Another(fixture.sealer.clone())),
        });
        let other_tenant: Arc<dyn TenantObjects> = other_tenant;
        assert!(
            ["corrupt", "wrong_tenant_key"].contains(&&*error_code(&other_tenant, "a", None).await),
            "{level}"
        );
        fixture.sealer.destroyed.lock().insert(spec.tenant.id);
        assert_eq!(error_code(&objects, "a", None).await, "key_destroyed", "{level}");
        assert_eq!(put(&objects, "b", b"").await.unwrap_err().code, "key_destroyed", "{level}");
        assert_eq!(fixture.make(&spec).await.unwrap_err().code, "key_destroyed", "{level}");
        assert_eq!(fixture.files(&spec), 1, "{level}");
        assert!(objects.delete("a").await.unwrap(), "an unreadable object can still be deleted");
    }
}

/// A sealer that uses another tenant's key.
struct Another(Arc<TestSealer>);

impl Sealer for Another {
    fn seal(&self, _: TenantId, clear: &str) -> Result<String, Failure> {
        self.0.seal(TenantId::new(), clear)
    }
    fn open(&self, _: TenantId, sealed: &str) -> Result<String, Failure> {
        self.0.open(TenantId::new(), sealed)
    }
    fn derive(&self, _: TenantId, purpose: &str) -> Result<Key, Failure> {
        self.0.derive(TenantId::new(), purpose)
    }
    fn mac(&self, purpose: &str, text: &str) -> String {
        self.0.mac(purpose, text)
    }
}

/// The difference between the levels: whether a copy of the files opens again after the bucket was deleted.
#[tokio::test]
async fn deleting_an_enhanced_bucket_destroys_its_key() {
    for (level, survives) in [("standard", true), ("enhanced", false)] {
        let fixture = Fixture::new();
        let (spec, objects) = fixture.bucket(json!({ "encryption": level })).await;
        let folder = fixture.root().join(&spec.name);
        let key = || fs::read(key_file(&folder)).ok();
        let first = key();
        assert_eq!(first.is_some(), level == "enhanced");
        fixture.make(&spec).await.unwrap();
        assert_eq!(key(), first, "a repeated ensure keeps the key");
        put(&objects, "a", b"hello").await.unwrap();
        let backup = fixture.dir.path().join("backup");
        copy(&folder, &backup);

        fixture.buckets.buckets.forget(&folder);
        remove(&fixture.buckets.folder_of(&spec).unwrap(), &spec).unwrap();
        fixture.make(&spec).await.unwrap();
        assert!(first.is_none() || key() != first, "a new bucket has a new key");
        // Restore all files except the key.
        for file in files(&backup).into_iter().filter(|file| !file.ends_with("key.sealed")) {
            fs::rename(&file, folder.join(file.strip_prefix(&backup).unwrap())).unwrap();
        }
        match survives {
            true => assert_eq!(get(&objects, "a", None).await.unwrap(), b"hello"),
            false => assert_eq!(error_code(&objects, "a", None).await, "corrupt"),
        }
    }
}

#[tokio::test]
async fn enhanced_buckets_have_different_keys() {
    let fixture = Fixture::new();
    let (one, first) = fixture.bucket(json!({ "encryption": "enhanced" })).await;
    let (two, second) = fixture.bucket(json!({ "encryption": "enhanced" })).await;
    let key = |spec: &Spec| {
        keys::open(Encryption::Enhanced, &fixture.root().join(&spec.name), spec.tenant.id, &*fixture.sealer)
            .unwrap()
    };
    assert_ne!(key(&one), key(&two));
    for objects in [&first, &second] {
        put(objects, "a", b"hello").await.unwrap();
    }
    fs::copy(only(&fixture.objects(&one)), only(&fixture.objects(&two))).unwrap();
    assert_eq!(error_code(&second, "a", None).await, "corrupt");
}

#[tokio::test]
async fn a_changed_level_applies_to_new_objects() {
    let fixture = Fixture::new();
    let (spec, objects) = fixture.bucket(json!({})).await;
    put(&objects, "before", b"1").await.unwrap();
    let enhanced = Spec { settings: json!({ "encryption": "enhanced" }), ..spec.clone() };
    fixture.make(&enhanced).await.unwrap();
    put(&objects, "after", b"2").await.unwrap();
    let folder = fixture.root().join(&spec.name);
    let kept = fs::read(key_file(&folder)).unwrap();
    fs::remove_file(key_file(&folder)).unwrap();
    assert_eq!(fixture.make(&enhanced).await.unwrap_err().code, "corrupt", "a new key would lose the object");
    assert_eq!(error_code(&objects, "after", None).await, "corrupt");
    assert_eq!(get(&objects, "before", None).await.unwrap(), b"1");
    fs::write(key_file(&folder), kept).unwrap();
    fixture.make(&spec).await.unwrap();
    assert_eq!(get(&objects, "after", None).await.unwrap(), b"2");
    assert!(objects.delete("after").await.unwrap());
    fs::write(key_file(&folder), "no key").unwrap();
    assert_eq!(fixture.make(&enhanced).await.unwrap_err().code, "wrong_tenant_key");
    fs::remove_file(key_file(&folder)).unwrap();
    fixture.make(&enhanced).await.unwrap();
    put(&objects, "before", b"3").await.unwrap();
    assert_eq!(get(&objects, "before", None).await.unwrap(), b"3");
}
