//! Reading an archive, in bounded memory, whoever wrote it. Refuses what is cut off, what does not have the hashes of its
//! manifest, and what is not a plain file.

use async_compression::tokio::bufread::ZstdDecoder;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tenantry_model::Failure;
use tenantry_providers::objects::Body;
use tenantry_providers::portable::{Arriving, Source, bad_archive};
use tokio::io::{AsyncReadExt as _, BufReader, Take};

use super::pack::{BLOCK, Hashed, hex};
use super::{MANIFEST, Manifest, PackedFile, VERSION};

/// Most bytes of a manifest: some two hundred for each file.
const MANIFEST_MOST: u64 = 256 << 20;
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
        let mut files = Vec::new();
        loop {
            let Some((path, size)) = self.peek().await?.map(|(path, size)| (path.to_owned(), size)) else {
                return Err(bad_archive("it has no manifest: it was cut off"));
            };
            if path == MANIFEST {
                break;
            }
            let mut hashed = Hashed { inner: self.enter(size), hash: Sha256::new() };
            let read = tokio::io::copy(&mut hashed, &mut tokio::io::sink()).await.map_err(|e| damaged(&e))?;
            if read != size {
                return Err(cut_off());
            }
            files.push(PackedFile { path, size, sha256: hex(&hashed.hash.finalize()) });
        }
        let manifest = self.manifest().await?;
        if self.peek().await?.is_some() {
            return Err(bad_archive("it goes on behind its manifest"));
        }
        if manifest.files == files {
            return Ok(manifest);
        }
        let differs = files.iter().zip(&manifest.files).find(|(found, said)| found != said);
        let which = differs.map_or("its number of files", |(found, _)| found.path.as_str());
        Err(bad_archive(format!("`{}` is not as its manifest says", which.escape_debug())))
    }

    async fn manifest(&mut self) -> Result<Manifest, Failure> {
        let size = self.peek().await?.map_or(0, |(_, size)| size);
        if size > MANIFEST_MOST {
            return Err(bad_archive("its manifest is too long"));
        }
        let mut text = Vec::new();
        self.enter(size).read_to_end(&mut text).await.map_err(|error| damaged(&error))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|why| bad_archive(format!("its manifest cannot be read: {why}")))?;
        match manifest.version {
            VERSION => Ok(manifest),
            other => Err(bad_archive(format!("it has the form {other}; this Tenantry reads {VERSION}"))),
        }
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

    /// The folder that comes next; none when there is no other.
    pub async fn folder(&mut self) -> Result<Option<String>, Failure> {
        let folder = self.peek().await?.and_then(|(path, _)| path.split_once('/'));
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
        let Some((path, size)) = self.unpacker.peek().await? else { return Ok(None) };
        let inside = path.strip_prefix(self.folder).and_then(|path| path.strip_prefix('/'));
        let Some(path) = inside.map(str::to_owned) else { return Ok(None) };
        Ok(Some(Arriving { path, size, bytes: self.unpacker.enter(size) }))
    }
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
