//! Writes an archive in bounded memory. A file's length is known before its bytes, its hash after them.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::Level;
use async_compression::tokio::write::ZstdEncoder;
use async_compression::zstd::CParameter;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tenantry_model::{Failure, Timestamp};
use tenantry_provider::transfer::{Bytes, Sink, broken};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf};

use super::pages::{Listing, PAGE, PackedFile, Pages};
use super::{MANIFEST, Manifest};

/// Block size of tar, in bytes: a header is one block, and files are padded to whole blocks.
pub const BLOCK: u64 = 512;
/// Buffer for hashing and compressing, in bytes.
const TOGETHER: usize = 128 << 10;
/// Longest path that a header holds, in bytes; a longer one precedes it in an entry of GNU tar.
const SHORT: usize = 100;
/// Name of such an entry.
const LONG_NAME: &str = "././@LongLink";

/// Writes an archive.
pub struct ArchiveWriter<W> {
    out: ZstdEncoder<W>,
    at: Timestamp,
    listing: Listing,
    /// Length that ends a page, in bytes.
    page: usize,
}

impl<W: AsyncWrite + Send + Unpin> ArchiveWriter<W> {
    /// Writes an archive that was made at this time.
    pub fn new(out: W, at: Timestamp) -> Self {
        Self::with_pages(out, at, PAGE)
    }

    /// The same, with pages of this many bytes.
    pub fn with_pages(out: W, at: Timestamp, page: usize) -> Self {
        // The manifest has the hashes of all files but its own: zstd's checksum is over all of it.
        let checked = [CParameter::checksum_flag(true)];
        let out = ZstdEncoder::with_quality_and_params(out, Level::Default, &checked);
        Self { out, at, listing: Listing::default(), page }
    }

    /// A sink that writes files into this folder.
    pub fn folder<'a>(&'a mut self, name: &'a str) -> Folder<'a, W> {
        Folder { archive: self, name }
    }

    /// Ends the archive with the manifest, which is made from the summary of the pages.
    pub async fn finish(mut self, manifest: impl FnOnce(Pages) -> Manifest) -> Result<Manifest, Failure> {
        if self.listing.open() > 0 {
            self.turn().await?;
        }
        let manifest = manifest(std::mem::take(&mut self.listing).end());
        let text = serde_json::to_vec_pretty(&manifest).map_err(|why| {
            Failure::fatal("bad_manifest", format!("the manifest cannot be written: {why}"))
        })?;
        self.write(MANIFEST, text.len() as u64, &mut &*text).await?;
        self.end().await.map(|()| manifest)
    }

    /// Ends the tar.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        let ended = async {
            self.out.write_all(&[0; 2 * BLOCK as usize]).await?;
            self.out.shutdown().await
        };
        ended.await.map_err(|error| broken(&error))
    }

    async fn file(&mut self, path: String, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let sha256 = self.write(&path, size, bytes).await?;
        self.listing.add(&PackedFile { path, size, sha256 })?;
        if self.listing.open() >= self.page { self.turn().await } else { Ok(()) }
    }

    /// Writes the page of the files since the last one.
    async fn turn(&mut self) -> Result<(), Failure> {
        let (path, page) = (self.listing.path(), self.listing.turn());
        self.write(&path, page.len() as u64, &mut &*page).await.map(drop)
    }

    /// Writes a file without listing it in the manifest. Returns its hash.
    pub(super) async fn write(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<String, Failure> {
        let room = usize::try_from(size).unwrap_or(TOGETHER).clamp(1, TOGETHER);
        let hashed = Hashed { inner: bytes.take(size), hash: Sha256::new() };
        let mut hashed = BufReader::with_capacity(room, hashed);
        let written = async {
            if path.len() > SHORT {
                let name = [path.as_bytes(), b"\0"].concat();
                self.header(LONG_NAME, name.len() as u64, EntryType::GNULongName).await?;
                self.out.write_all(&name).await?;
                self.pad(name.len() as u64).await?;
            }
            self.header(path, size, EntryType::Regular).await?;
            if tokio::io::copy_buf(&mut hashed, &mut self.out).await? != size {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.pad(size).await
        };
        written.await.map_err(|error| broken(&error))?;
        Ok(hex::encode(hashed.into_inner().hash.finalize()))
    }

    async fn header(&mut self, path: &str, size: u64, kind: EntryType) -> std::io::Result<()> {
        let mut header = Header::new_gnu();
        // A long path is cut: what reads it takes the one before.
        let name = header.as_old_mut().name.iter_mut();
        name.zip(path.bytes()).for_each(|(to, from)| *to = from);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(self.at.seconds()).unwrap_or_default());
        header.set_cksum();
        self.out.write_all(header.as_bytes()).await
    }

    async fn pad(&mut self, size: u64) -> std::io::Result<()> {
        let missing = size.next_multiple_of(BLOCK) - size;
        let zeroes = [0; BLOCK as usize];
        self.out.write_all(zeroes.get(..missing as usize).unwrap_or_default()).await
    }
}

/// Writes files into one folder of an archive.
pub struct Folder<'a, W> {
    archive: &'a mut ArchiveWriter<W>,
    name: &'a str,
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> Sink for Folder<'_, W> {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let path = format!("{}/{path}", self.name);
        self.archive.file(path, size, bytes).await
    }
}

/// A reader that hashes what is read.
pub struct Hashed<R> {
    pub inner: R,
    pub hash: Sha256,
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashed<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.hash.update(buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}
