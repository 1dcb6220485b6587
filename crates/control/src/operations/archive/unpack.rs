//! Reads an untrusted archive in bounded memory. Rejects archives that are truncated, that differ from their manifest, or that
//! hold anything but plain files.

use async_compression::tokio::bufread::ZstdDecoder;
use async_trait::async_trait;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tenantry_model::Failure;
use tenantry_provider::objects::Body;
use tenantry_provider::transfer::{Arriving, Source, bad_archive};
use tokio::io::{AsyncReadExt as _, BufReader, Take};

use super::pack::{BLOCK, Hashed};
use super::pages::{Listing, PAGE_MOST, PackedFile, is_page};
use super::{MANIFEST, Manifest, VERSION};

/// Most zero bytes at the end: tar writes records of twenty blocks.
const TAIL_MOST: u64 = 20 * BLOCK;
/// Longest path, in bytes.
const PATH_MOST: u64 = 4096;

/// Reads an archive from its beginning.
pub struct ArchiveReader {
    input: Take<BufReader<ZstdDecoder<BufReader<Body>>>>,
    /// The entry whose bytes come next; none before its header was read.
    next: Option<(String, u64)>,
    /// Bytes between the end of the present file and the next header.
    padding: u64,
}

impl ArchiveReader {
    /// Reads these bytes.
    pub fn new(bytes: Body) -> Self {
        let input = BufReader::new(ZstdDecoder::new(BufReader::new(bytes)));
        Self { input: input.take(0), next: None, padding: 0 }
    }

    /// Reads the whole archive and compares every file with the manifest.
    pub async fn verify(mut self) -> Result<Manifest, Failure> {
        let mut passed = Listing::default();
        loop {
            let Some((path, size)) = self.peek().await?.map(|(path, size)| (path.to_owned(), size)) else {
                return Err(bad_archive("it has no manifest: it is incomplete"));
            };
            if path == MANIFEST {
                break;
            }
            if is_page(&path) {
                if path != passed.path() {
                    return Err(bad_archive(format!("`{}` is missing", passed.path())));
                }
                let said = self.text(size, PAGE_MOST).await?;
                passed.compare(&said)?;
                continue;
            }
            let mut hashed = Hashed { inner: self.enter(size), hash: Sha256::new() };
            let read = tokio::io::copy(&mut hashed, &mut tokio::io::sink()).await.map_err(|e| damaged(&e))?;
            if read != size {
                return Err(cut_off());
            }
            passed.add(&PackedFile { path, size, sha256: hex::encode(hashed.hash.finalize()) })?;
            if passed.open() as u64 > PAGE_MOST {
                return Err(bad_archive("it has more consecutive files than a page of a manifest can list"));
            }
        }
        let size = self.peek().await?.map_or(0, |(_, size)| size);
        let text = self.text(size, PAGE_MOST).await?;
        if self.peek().await?.is_some() {
            return Err(bad_archive("it has data after its manifest"));
        }
        self.end().await?;
        manifest(&text, passed)
    }

    /// Reads to the end, so that zstd compares its checksum, and fails if more than padding follows the last file.
    async fn end(&mut self) -> Result<(), Failure> {
        self.input.set_limit(TAIL_MOST + 1);
        let mut tail = Vec::new();
        self.input.read_to_end(&mut tail).await.map_err(|error| damaged(&error))?;
        if tail.len() as u64 > TAIL_MOST || tail.iter().any(|byte| *byte != 0) {
            return Err(bad_archive("it has data after its end"));
        }
        Ok(())
    }

    /// Reads the peeked file into memory. Fails if it is longer than `most` bytes.
    async fn text(&mut self, size: u64, most: u64) -> Result<Vec<u8>, Failure> {
        if size > most {
            return Err(bad_archive("its manifest is too long"));
        }
        let mut text = Vec::new();
        self.enter(size).read_to_end(&mut text).await.map_err(|error| damaged(&error))?;
        if text.len() as u64 == size { Ok(text) } else { Err(cut_off()) }
    }

    /// Path and size of the next file, without entering it.
    async fn peek(&mut self) -> Result<Option<(&str, u64)>, Failure> {
        if self.next.is_none() {
            self.next = self.header().await?;
        }
        Ok(self.next.as_ref().map(|(path, size)| (path.as_str(), *size)))
    }

    /// Enters the peeked file: its bytes.
    fn enter(&mut self, size: u64) -> &mut Take<BufReader<ZstdDecoder<BufReader<Body>>>> {
        self.next = None;
        self.padding = size.next_multiple_of(BLOCK) - size;
        self.input.set_limit(size);
        &mut self.input
    }

    /// Skips the rest of the current file.
    async fn skip(&mut self) -> Result<(), Failure> {
        let left = self.input.limit() + self.padding;
        self.input.set_limit(left);
        self.padding = 0;
        let passed = tokio::io::copy(&mut self.input, &mut tokio::io::sink()).await;
        if passed.map_err(|error| damaged(&error))? == left { Ok(()) } else { Err(cut_off()) }
    }

    async fn header(&mut self) -> Result<Option<(String, u64)>, Failure> {
        let mut long = None;
        loop {
            self.skip().await?;
            let mut header = Header::new_old();
            self.input.set_limit(BLOCK);
            self.input.read_exact(header.as_mut_bytes()).await.map_err(|error| damaged(&error))?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let bad = |_| bad_archive("one of its headers is damaged");
            let sum: u64 = header.as_bytes().iter().map(|byte| u64::from(*byte)).sum();
            let own: u64 = header.as_old().cksum.iter().map(|byte| u64::from(*byte)).sum();
            // The sum is over a field of spaces in the place of its own.
            if u64::from(header.cksum().map_err(bad)?) != sum - own + 8 * u64::from(b' ') {
                return Err(bad_archive("one of its headers is damaged"));
            }
            let size = header.entry_size().map_err(bad)?;
            if size > u64::MAX / 2 {
                return Err(bad_archive("one of its files is too long"));
            }
            match header.entry_type() {
                EntryType::GNULongName if size <= PATH_MOST => {
                    let mut name = Vec::new();
                    self.enter(size).read_to_end(&mut name).await.map_err(|error| damaged(&error))?;
                    long = Some(name);
                }
                EntryType::Regular => {
                    let path = long.unwrap_or_else(|| header.path_bytes().into_owned());
                    let path =
                        String::from_utf8(path).map_err(|_| bad_archive("one of its paths is not UTF-8"))?;
                    return Ok(Some((path.trim_end_matches('\0').to_owned(), size)));
                }
                _ => return Err(bad_archive("it contains entries that are not regular files")),
            }
        }
    }

    /// Path and size of the next file that is not a page.
    async fn past_pages(&mut self) -> Result<Option<(&str, u64)>, Failure> {
        while let Some((path, size)) = self.peek().await?
            && is_page(path)
        {
            self.enter(size);
        }
        self.peek().await
    }

    /// The next folder; none after the last one.
    pub async fn folder(&mut self) -> Result<Option<String>, Failure> {
        let folder = self.past_pages().await?.and_then(|(path, _)| path.split_once('/'));
        Ok(folder.map(|(folder, _)| folder.to_owned()))
    }

    /// The files of the next folder.
    pub fn files<'a>(&'a mut self, folder: &'a str) -> Files<'a> {
        Files { reader: self, folder }
    }
}

/// The files of one folder.
pub struct Files<'a> {
    reader: &'a mut ArchiveReader,
    folder: &'a str,
}

impl Files<'_> {
    /// Skips the remaining files of the folder.
    pub async fn pass(&mut self) -> Result<(), Failure> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

#[async_trait]
impl Source for Files<'_> {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        let Some((path, size)) = self.reader.past_pages().await? else { return Ok(None) };
        let inside = path.strip_prefix(self.folder).and_then(|path| path.strip_prefix('/'));
        let Some(path) = inside.map(str::to_owned) else { return Ok(None) };
        Ok(Some(Arriving { path, size, bytes: self.reader.enter(size) }))
    }
}

/// Reads a manifest and compares it with the files that were read before it.
fn manifest(text: &[u8], passed: Listing) -> Result<Manifest, Failure> {
    /// The field that every version of the format has.
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }
    let unread = |why| bad_archive(format!("its manifest cannot be read: {why}"));
    let Format { version } = serde_json::from_slice(text).map_err(unread)?;
    if version != VERSION {
        return Err(bad_archive(format!("it has format {version}; this release reads format {VERSION}")));
    }
    let manifest: Manifest = serde_json::from_slice(text).map_err(unread)?;
    // The pages' sums do not cover files that stand on no page.
    if passed.open() > 0 || passed.end() != manifest.pages {
        return Err(bad_archive("its pages do not match its manifest"));
    }
    Ok(manifest)
}

fn cut_off() -> Failure {
    bad_archive("it is incomplete")
}

/// The failure for a read error: final if the archive is damaged, retryable if the disk is at fault.
fn damaged(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::UnexpectedEof => cut_off(),
        K::InvalidData | K::InvalidInput | K::Other => {
            bad_archive(format!("it is damaged, or not a tar archive compressed with zstd: {error}"))
        }
        _ => Failure::retryable("io_error", format!("the archive cannot be read: {error}")),
    }
}
