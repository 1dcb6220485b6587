//! Archives written and read again: complete, truncated, changed, forged with valid checksums, and with many files.

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tenantry_model::{TenantId, Timestamp};
use tenantry_provider::transfer::{Sink as _, Source as _};
use tenantry_testkit::report;
use tokio::io::AsyncReadExt as _;

use super::pack::ArchiveWriter;
use super::pages::{Pages, is_page};
use super::unpack::ArchiveReader;
use super::{MANIFEST, Manifest, VERSION};

/// Bytes of a page here: two files, or three.
const PAGE: usize = 200;

fn at() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000)
}

fn manifest(pages: Pages) -> Manifest {
    static TENANT: LazyLock<TenantId> = LazyLock::new(TenantId::new);
    let (resources, left_out) = (Vec::new(), Vec::new());
    Manifest { version: VERSION, tenant: *TENANT, made_at: at(), resources, left_out, pages }
}

/// Awkward lengths, and a path that no header of a tar has room for.
fn files() -> Vec<(String, Vec<u8>)> {
    let sizes = [0, 1, 511, 512, 513, 70_000];
    let path = |place: usize| if place == 3 { "%c3%a4".repeat(60) } else { format!("f{place}") };
    sizes.iter().enumerate().map(|(place, size)| (path(place), vec![place as u8; *size])).collect()
}

async fn packed() -> (Manifest, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut archive = ArchiveWriter::with_pages(&mut bytes, at(), PAGE);
    for (path, content) in files() {
        archive.folder("one").file(&path, content.len() as u64, &mut &*content).await.unwrap();
    }
    archive.folder("two").file("only", 3, &mut &b"two"[..]).await.unwrap();
    let manifest = archive.finish(manifest).await.unwrap();
    assert!(manifest.pages.count > 2 && manifest.pages.files == 7, "{manifest:?}");
    (manifest, bytes)
}

fn open(bytes: &[u8]) -> ArchiveReader {
    ArchiveReader::new(Box::pin(std::io::Cursor::new(bytes.to_vec())))
}

async fn refused(bytes: &[u8]) -> String {
    let failure = open(bytes).verify().await.unwrap_err();
    assert_eq!(failure.code, "bad_archive", "{failure}");
    failure.message
}

#[tokio::test]
async fn what_was_packed_is_unpacked() {
    let (manifest, bytes) = packed().await;
    assert_eq!(open(&bytes).verify().await.unwrap(), manifest);
    let mut archive = open(&bytes);
    assert_eq!(archive.folder().await.unwrap().as_deref(), Some("one"));
    let mut one = archive.files("one");
    // Some are read, some in part, some not at all.
    for (place, (path, content)) in files().into_iter().enumerate() {
        let mut file = one.next().await.unwrap().unwrap();
        assert_eq!((&*file.path, file.size), (&*path, content.len() as u64));
        let mut read = Vec::new();
        let wanted = [u64::MAX, 0, 100][place % 3];
        (&mut file.bytes).take(wanted).read_to_end(&mut read).await.unwrap();
        assert_eq!(read, content[..content.len().min(usize::try_from(wanted).unwrap_or(usize::MAX))]);
    }
    assert!(one.next().await.unwrap().is_none());
    assert_eq!(archive.folder().await.unwrap().as_deref(), Some("two"));
    archive.files("two").pass().await.unwrap();
    assert_eq!(archive.folder().await.unwrap(), None);
}

#[tokio::test]
async fn any_tar_reads_it() {
    let (manifest, bytes) = packed().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    std::fs::write(&file, bytes).unwrap();
    let mut tar = Command::new("tar");
    let Ok(listed) = tar.args(["--zstd", "-tf"]).arg(&file).stderr(Stdio::null()).output() else {
        // No tar on this machine.
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let (pages, others): (Vec<&str>, Vec<&str>) = listed.lines().partition(|path| is_page(path));
    let pages_expected = (1..=manifest.pages.count).map(|page| format!("manifest.{page:06}.ndjson"));
    assert_eq!(pages, pages_expected.collect::<Vec<_>>());
    let paths = files().into_iter().map(|(path, _)| format!("one/{path}"));
    let expected: Vec<String> = paths.chain(["two/only".to_owned(), MANIFEST.to_owned()]).collect();
    assert_eq!(others, expected);
    assert!(listed.ends_with(&format!("\n{}\n{MANIFEST}\n", pages.last().unwrap())), "{listed}");
}

#[tokio::test]
async fn what_is_cut_off_or_changed_is_refused() {
    let (manifest, bytes) = packed().await;
    for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        assert_eq!(open(&bytes[..end]).verify().await.unwrap_err().code, "bad_archive", "cut at {end}");
    }
    for place in (0..bytes.len()).step_by(5) {
        for bit in [1, 128] {
            let mut changed = bytes.clone();
            changed[place] ^= bit;
            // What says nothing, such as a padding, may differ; what is read may not.
            match open(&changed).verify().await {
                Ok(read) => assert_eq!(read, manifest, "changed at {place}"),
                Err(refused) => assert_eq!(refused.code, "bad_archive", "changed at {place}: {refused}"),
            }
        }
    }
}

/// A file of an archive: its path and its content.
type Entry = (String, Vec<u8>);

/// Everything in an archive, its manifest included.
async fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut plain = async_compression::tokio::bufread::ZstdDecoder::new(bytes);
    let mut tar = Vec::new();
    plain.read_to_end(&mut tar).await.unwrap();
    for entry in tar::Archive::new(&*tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        all.push((path, content));
    }
    all
}

async fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ArchiveWriter::new(&mut bytes, at());
    for (path, content) in entries {
        archive.write(path, content.len() as u64, &mut &**content).await.unwrap();
    }
    archive.end().await.unwrap();
    bytes
}

fn place(entries: &[Entry], path: &str) -> usize {
    entries.iter().position(|(known, _)| known == path).unwrap_or_else(|| panic!("no {path}"))
}

/// Writes some text into a file in the place of other text.
fn put(entries: &mut [Entry], path: &str, from: &str, to: &str) {
    let place = place(entries, path);
    let text = String::from_utf8(entries[place].1.clone()).unwrap();
    assert!(text.contains(from), "{path}: {text}");
    entries[place].1 = text.replacen(from, to, 1).into_bytes();
}

const FIRST: &str = "manifest.000001.ndjson";
const SECOND: &str = "manifest.000002.ndjson";

type Forge<'a> = Box<dyn Fn(&mut Vec<Entry>) + 'a>;

fn forge<'a>(change: fn(&mut Vec<Entry>)) -> Forge<'a> {
    Box::new(change)
}

/// zstd's checksum finds what a disk changes. A forged archive has a valid one, so each rule must hold by itself.
#[tokio::test]
async fn a_forged_archive_is_rejected() {
    let (manifest, bytes) = packed().await;
    let whole = entries(&bytes).await;
    assert_eq!(open(&archive(&whole).await).verify().await.unwrap(), manifest);
    let last = format!("manifest.{:06}.ndjson", manifest.pages.count);
    let cases: Vec<(&str, Forge<'_>)> = vec![
        ("`one/f1` does not match the manifest", forge(|all| put(all, "one/f1", "\u{1}", "x"))),
        ("`one/f1` does not match the manifest", forge(|all| put(all, FIRST, "\"size\":1,", "\"size\":2,"))),
        // The first that is not where it was.
        ("`one/f1` does not match the manifest", forge(|all| drop(all.remove(place(all, "one/f0"))))),
        (
            "its pages do not match its manifest",
            forge(|all| {
                put(all, "one/f1", "\u{1}", "x");
                let digest = |text: &[u8]| hex::encode(Sha256::digest(text));
                put(all, FIRST, &digest(b"\x01"), &digest(b"x"));
            }),
        ),
        ("`manifest.000001.ndjson` is missing", forge(|all| drop(all.remove(place(all, FIRST))))),
        (
            "`manifest.000002.ndjson` is missing",
            forge(|all| {
                let second = place(all, SECOND);
                all[second].0 = FIRST.to_owned();
            }),
        ),
        (
            "its number of files does not match the manifest",
            forge(|all| {
                let first = place(all, FIRST);
                let copy = all[first].1.clone();
                all.insert(first + 1, (SECOND.to_owned(), copy));
            }),
        ),
        ("its pages do not match its manifest", Box::new(|all| drop(all.remove(place(all, &last))))),
        (
            "its pages do not match its manifest",
            forge(|all| {
                let end = all.len() - 1;
                all.insert(end, ("two/more".to_owned(), b"more".to_vec()));
            }),
        ),
        (
            "its pages do not match its manifest",
            forge(|all| put(all, MANIFEST, "\"files\": 7", "\"files\": 6")),
        ),
        ("it has format 3", forge(|all| put(all, MANIFEST, "\"version\": 2", "\"version\": 3"))),
        ("it has format 1", forge(|all| put(all, MANIFEST, "\"version\": 2", "\"version\": 1"))),
        ("it has data after its manifest", forge(|all| all.push(("two/more".to_owned(), Vec::new())))),
        ("it has no manifest", forge(|all| drop(all.pop()))),
    ];
    for (why, change) in cases {
        let mut forged = whole.clone();
        change(&mut forged);
        let said = refused(&archive(&forged).await).await;
        assert!(said.contains(why), "{said:?}, and not {why:?}");
    }
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused() {
    let header = |kind, size| {
        let mut header = Header::new_gnu();
        header.set_path("one/x").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let damaged = [&[0xff; 8], &header(EntryType::Regular, 1)[8..]].concat();
    for tar in [
        header(EntryType::Symlink, 0),
        header(EntryType::Directory, 0),
        header(EntryType::XHeader, 10),
        header(EntryType::GNULongName, u64::MAX / 4),
        header(EntryType::Regular, u64::MAX - 1),
        header(EntryType::Regular, u64::MAX / 4),
        damaged,
        vec![0; 1024],
        vec![1; 1024],
        Vec::new(),
    ] {
        let mut bytes = Vec::new();
        let mut out = async_compression::tokio::write::ZstdEncoder::new(&mut bytes);
        tokio::io::AsyncWriteExt::write_all(&mut out, &tar).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut out).await.unwrap();
        refused(&bytes).await;
    }
}

/// Set in the process whose memory is looked at.
const CHILD: &str = "TENANTRY_TEST_MANY_FILES";
/// Most memory that so many files may take, in megabytes, to write and to read at once: zstd's own, and a few pages.
const MEMORY: u64 = 32;

/// A field of what Linux says of this process's memory, in megabytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() / 1_000
}

/// Written and read at the same time, in a process that does nothing else.
#[tokio::test]
async fn any_number_of_files_takes_a_page_of_memory() {
    if std::env::var_os(CHILD).is_none() {
        let name = "operations::archive::tests::any_number_of_files_takes_a_page_of_memory";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null());
        let child = child.output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
        report::add(said.lines().find(|line| line.starts_with("archive: ")).expect("a figure"));
        return;
    }
    let full = std::env::var_os("TENANTRY_TEST_FULL").is_some();
    let files: u64 = if full { 200_000 } else { 20_000 };
    // Without pages, the lines of the fewer are twenty megabytes too, in each of three places.
    let name = "%c3%a4".repeat(150);
    let before = memory("VmRSS:");
    let (into, from) = tokio::io::duplex(64 << 10);
    let write = async {
        let mut archive = ArchiveWriter::new(into, at());
        for number in 0..files {
            let path = format!("{:06}/{:04}/{name}", number / 1_000, number % 1_000);
            archive.folder("bucket").file(&path, 5, &mut &b"bytes"[..]).await.unwrap();
        }
        archive.finish(manifest).await.unwrap()
    };
    let (written, read) = tokio::join!(write, ArchiveReader::new(Box::pin(from)).verify());
    assert_eq!((read.unwrap(), written.pages.files), (written.clone(), files));
    let grown = memory("VmHWM:").saturating_sub(before);
    println!("archive: {files} files written and read within {grown} MB, in {} pages", written.pages.count);
    assert!(grown <= MEMORY, "{grown} MB");
}
