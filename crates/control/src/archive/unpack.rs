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

use super::pack::{BLOCK, Hashed};
use super::{MANIFEST, Manifest, PackedFile, VERSION};

/// Most bytes of a manifest: some two hundred for each file.
const MANIFEST_MOST: u64 = 256 << 20;
/// What it says of each at least, over its path: the SHA-256 in hexadecimal and the size.
const ENTRY: u64 = 100;
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
        let (mut files, mut described) = (Vec::new(), 0);
        loop {
            let Some((path, size)) = self.peek().await?.map(|(path, size)| (path.to_owned(), size)) else {
                return Err(bad_archive("it has no manifest: it was cut off"));
            };
            if path == MANIFEST {
                break;
            }
            // What its manifest could not say of them is too much to remember of them.
            described += path.len() as u64 + ENTRY;
            if described > MANIFEST_MOST {
                return Err(bad_archive("it has more files than any archive of ours"));
            }
            let mut hashed = Hashed { inner: self.enter(size), hash: Sha256::new() };
            let read = tokio::io::copy(&mut hashed, &mut tokio::io::sink()).await.map_err(|e| damaged(&e))?;
            if read != size {
                return Err(cut_off());
            }
            files.push(PackedFile { path, size, sha256: hex::encode(hashed.hash.finalize()) });
        }
        let manifest = self.manifest().await?;
        if self.peek().await?.is_some() {
            return Err(bad_archive("it goes on behind its manifest"));
        }
        self.end().await?;
        if manifest.files == files {
            return Ok(manifest);
        }
        let differs = files.iter().zip(&manifest.files).find(|(found, said)| found != said);
        let which = differs.map_or("its number of files", |(found, _)| found.path.as_str());
        Err(bad_archive(format!("`{}` is not as its manifest says", which.escape_debug())))
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

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tenantry_model::{TenantId, Timestamp};
    use tenantry_providers::portable::Sink as _;

    use super::super::pack::Packer;
    use super::*;

    /// Awkward lengths, and a path that no header of a tar has room for.
    fn files() -> Vec<(String, Vec<u8>)> {
        let sizes = [0, 1, 511, 512, 513, 70_000];
        let path = |place: usize| if place == 3 { "%c3%a4".repeat(60) } else { format!("f{place}") };
        sizes.iter().enumerate().map(|(place, size)| (path(place), vec![place as u8; *size])).collect()
    }

    async fn packed() -> (Manifest, Vec<u8>) {
        let mut bytes = Vec::new();
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let mut packer = Packer::new(&mut bytes, at);
        for (path, content) in files() {
            packer.folder("one").file(&path, content.len() as u64, &mut &*content).await.unwrap();
        }
        packer.folder("two").file("only", 3, &mut &b"two"[..]).await.unwrap();
        let manifest = Manifest {
            version: VERSION,
            tenant: TenantId::new(),
            made_at: at,
            resources: Vec::new(),
            left_out: Vec::new(),
            files: packer.take_files(),
        };
        packer.finish(&manifest).await.unwrap();
        (manifest, bytes)
    }

    fn open(bytes: &[u8]) -> Unpacker {
        Unpacker::new(Box::pin(std::io::Cursor::new(bytes.to_vec())))
    }

    #[tokio::test]
    async fn what_was_packed_is_unpacked() {
        let (manifest, bytes) = packed().await;
        assert_eq!(open(&bytes).verify().await.unwrap(), manifest);
        let mut unpacker = open(&bytes);
        assert_eq!(unpacker.folder().await.unwrap().as_deref(), Some("one"));
        let mut one = unpacker.files("one");
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
        assert_eq!(unpacker.folder().await.unwrap().as_deref(), Some("two"));
        unpacker.files("two").pass().await.unwrap();
        assert_eq!(unpacker.folder().await.unwrap(), None);
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
        let expected = manifest.files.iter().map(|file| file.path.as_str()).chain([MANIFEST]);
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
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
            assert_eq!(open(&bytes).verify().await.unwrap_err().code, "bad_archive");
        }
    }
}
