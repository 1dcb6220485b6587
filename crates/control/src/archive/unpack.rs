//! Reading an archive, in bounded memory, whoever wrote it. Refuses what is cut off, what does not have the hashes of its
//! manifest, and what is not a plain file.

use async_compression::tokio::bufread::ZstdDecoder;
use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tenantry_model::Failure;
use tenantry_provider::objects::Body;
use tenantry_provider::portable::{Arriving, Source, bad_archive};
use tokio::io::{AsyncReadExt as _, BufReader, Take};

use super::pack::{BLOCK, Hashed};
use super::pages::{Listing, PAGE_MOST, PackedFile, is_page};
use super::{MANIFEST, Manifest, VERSION, first_form};

/// Most bytes of a manifest without pages, which lists all files itself.
const UNPAGED_MOST: u64 = 256 << 20;
/// Most bytes of zeroes at the end: tars come in records of twenty blocks.
const TAIL_MOST: u64 = 20 * BLOCK;
/// Longest path.
const PATH_MOST: u64 = 4096;

/// An archive that is read from its beginning.
pub struct Unpacker {
    input: Take<BufReader<ZstdDecoder<BufReader<Body>>>>,
    /// The entry whose bytes come next; none before its header was read.
    next: Option<(String, u64)>,
    /// Bytes between the end of the present file and the next header.
    padding: u64,
}

impl Unpacker {
    /// The archive of these bytes.
    pub fn new(bytes: Body) -> Self {
        let input = BufReader::new(ZstdDecoder::new(BufReader::new(bytes)));
        Self { input: input.take(0), next: None, padding: 0 }
    }

    /// Reads all of it, and compares every file with the manifest.
    pub async fn verify(mut self) -> Result<Manifest, Failure> {
        let mut passed = Listing::default();
        loop {
            let Some((path, size)) = self.peek().await?.map(|(path, size)| (path.to_owned(), size)) else {
                return Err(bad_archive("it has no manifest: it was cut off"));
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
            if passed.open() as u64 > most(&passed) {
                return Err(bad_archive("it has more files in a row than any page of a manifest lists"));
            }
        }
        let size = self.peek().await?.map_or(0, |(_, size)| size);
        let text = self.text(size, most(&passed)).await?;
        if self.peek().await?.is_some() {
            return Err(bad_archive("it goes on behind its manifest"));
        }
        self.end().await?;
        manifest(&text, passed)
    }

    /// What comes behind the last file is nothing but the checksum of the whole, which is compared on the way.
    async fn end(&mut self) -> Result<(), Failure> {
        self.input.set_limit(TAIL_MOST + 1);
        let mut tail = Vec::new();
        self.input.read_to_end(&mut tail).await.map_err(|error| damaged(&error))?;
        if tail.len() as u64 > TAIL_MOST || tail.iter().any(|byte| *byte != 0) {
            return Err(bad_archive("it goes on behind its end"));
        }
        Ok(())
    }

    /// All of the file that was peeked at, which has at most so many bytes.
    async fn text(&mut self, size: u64, most: u64) -> Result<Vec<u8>, Failure> {
        if size > most {
            return Err(bad_archive("its manifest is too long"));
        }
        let mut text = Vec::new();
        self.enter(size).read_to_end(&mut text).await.map_err(|error| damaged(&error))?;
        if text.len() as u64 == size { Ok(text) } else { Err(cut_off()) }
    }

    /// Path and size of the next file, which is not entered yet.
    async fn peek(&mut self) -> Result<Option<(&str, u64)>, Failure> {
        if self.next.is_none() {
            self.next = self.header().await?;
        }
        Ok(self.next.as_ref().map(|(path, size)| (path.as_str(), *size)))
    }

    /// The bytes of the file that was peeked at.
    fn enter(&mut self, size: u64) -> &mut Take<BufReader<ZstdDecoder<BufReader<Body>>>> {
        self.next = None;
        self.padding = size.next_multiple_of(BLOCK) - size;
        self.input.set_limit(size);
        &mut self.input
    }

    /// What is left of the file before is passed over.
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
                        String::from_utf8(path).map_err(|_| bad_archive("one of its paths is no text"))?;
                    return Ok(Some((path.trim_end_matches('\0').to_owned(), size)));
                }
                _ => return Err(bad_archive("it holds something else than plain files")),
            }
        }
    }

    /// Path and size of the next file that is no page.
    async fn past_pages(&mut self) -> Result<Option<(&str, u64)>, Failure> {
        while let Some((path, size)) = self.peek().await?
            && is_page(path)
        {
            self.enter(size);
        }
        self.peek().await
    }

    /// The folder that comes next; none when there is no other.
    pub async fn folder(&mut self) -> Result<Option<String>, Failure> {
        let folder = self.past_pages().await?.and_then(|(path, _)| path.split_once('/'));
        Ok(folder.map(|(folder, _)| folder.to_owned()))
    }

    /// The files of this folder, which comes next.
    pub fn files<'a>(&'a mut self, folder: &'a str) -> Files<'a> {
        Files { unpacker: self, folder }
    }
}

/// The files of one folder.
pub struct Files<'a> {
    unpacker: &'a mut Unpacker,
    folder: &'a str,
}

impl Files<'_> {
    /// Passes over what nobody has taken.
    pub async fn pass(&mut self) -> Result<(), Failure> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

#[async_trait]
impl Source for Files<'_> {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        let Some((path, size)) = self.unpacker.past_pages().await? else { return Ok(None) };
        let inside = path.strip_prefix(self.folder).and_then(|path| path.strip_prefix('/'));
        let Some(path) = inside.map(str::to_owned) else { return Ok(None) };
        Ok(Some(Arriving { path, size, bytes: self.unpacker.enter(size) }))
    }
}

/// Most bytes of a list of files: one without pages is of the first form.
fn most(passed: &Listing) -> u64 {
    if passed.pages() == 0 { UNPAGED_MOST } else { PAGE_MOST }
}

/// What a manifest says, if these are its files.
fn manifest(text: &[u8], passed: Listing) -> Result<Manifest, Failure> {
    /// What every form says.
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    match parsed::<Form>(text)?.version {
        VERSION => {
            let manifest: Manifest = parsed(text)?;
            // Files that stand on no page are in the sums of none.
            if passed.open() > 0 || passed.end() != manifest.pages {
                return Err(bad_archive("its pages are not as its manifest says"));
            }
            Ok(manifest)
        }
        first_form::VERSION => first_form::read(text, passed),
        other => {
            let message = format!("it has the form {other}; this Tenantry reads {VERSION} and those before");
            Err(bad_archive(message))
        }
    }
}

/// A manifest's text.
pub(super) fn parsed<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|why| bad_archive(format!("its manifest cannot be read: {why}")))
}

fn cut_off() -> Failure {
    bad_archive("it was cut off")
}

/// What a stored archive's bytes, or somebody's, fail with: trying again helps only where the disk is at fault.
fn damaged(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::UnexpectedEof => cut_off(),
        K::InvalidData | K::InvalidInput | K::Other => {
            bad_archive(format!("it is damaged, or not a tar inside zstd: {error}"))
        }
        _ => Failure::retryable("io_error", format!("the archive cannot be read: {error}")),
    }
}
