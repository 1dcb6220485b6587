//! Streams bytes between a body and an encrypted file in constant memory. A damaged segment is an error to
//! the reader before any of its bytes are returned.

use std::io::{self, Cursor, ErrorKind, SeekFrom};
use std::path::Path;

use futures::stream::{self, StreamExt};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter};
use tokio_util::io::StreamReader;

use super::cipher::{self, Cipher, Damaged, HEADER, Header, Segment};
use crate::objects::{Body, over_quota};
use crate::resource_folder;
use crate::verbs::Key;

/// Bytes per write to the disk, because each write switches to another thread.
const CHUNK: usize = 256 * 1024;

/// A stored upload.
pub struct Stored {
    /// Size of the cleartext, in bytes.
    pub size: u64,
    /// SHA-256 of the cleartext, in hexadecimal.
    pub etag: String,
}

impl From<Damaged> for io::Error {
    fn from(damaged: Damaged) -> Self {
        Self::new(ErrorKind::InvalidData, damaged)
    }
}

/// Whether a read error means that the file is damaged.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// Encrypts a body into an empty file below `root` and returns when it is on the disk. The encryption is
/// bound to `name`. An error `quota_exceeded` as soon as the body exceeds `room` bytes.
pub async fn store(
    file: File,
    root: &Path,
    (key, name): (&Key, &str),
    mut body: Body,
    room: Option<u64>,
) -> Result<Stored, Failure> {
    let failed = |error: io::Error| resource_folder::failure(root, &error);
    let header = cipher::fresh();
    let cipher = Cipher::new(key, name, &header).map_err(|_| too_long())?;
    let mut file = BufWriter::with_capacity(CHUNK, file);
    file.write_all(&header).await.map_err(failed)?;
    let (mut hash, mut size, mut number) = (Sha256::new(), 0, 0);
    let (mut bytes, mut next) = (Vec::new(), Vec::new());
    fill(&mut bytes, &mut body, number).await?;
    loop {
        size += bytes.len() as u64;
        if room.is_some_and(|room| size > room) {
            return Err(over_quota());
        }
        hash.update(&bytes);
        next.clear();
        if bytes.len() as u64 == cipher::room(number) {
            // Read on to learn whether a full segment is the last one.
            fill(&mut next, &mut body, number + 1).await?;
        }
        cipher.seal(number, next.is_empty(), &mut bytes).map_err(|_| too_long())?;
        file.write_all(&bytes).await.map_err(failed)?;
        if next.is_empty() {
            break;
        }
        std::mem::swap(&mut bytes, &mut next);
        number = number.checked_add(1).filter(|number| *number < u32::MAX).ok_or_else(too_long)?;
    }
    file.flush().await.map_err(failed)?;
    file.get_ref().sync_all().await.map_err(failed)?;
    Ok(Stored { size, etag: hex::encode(hash.finalize()) })
}

/// Reads the cleartext of one segment from the body. Fewer bytes than fit mean the end of the body.
async fn fill(bytes: &mut Vec<u8>, body: &mut Body, number: u32) -> Result<(), Failure> {
    let taken = body.take(cipher::room(number)).read_to_end(bytes).await;
    taken.map(drop).map_err(|_| Failure::retryable("cut_off", "the upload was interrupted: send it again"))
}

fn too_long() -> Failure {
    Failure::invalid("too_long", "the object is larger than 256 TiB: store it in parts")
}

/// Reads a range of an encrypted file.
struct Reader {
    file: File,
    cipher: Cipher,
    name: String,
    size: u64,
    at: u64,
    end: u64,
}

/// Reads `length` cleartext bytes from offset `first` of an object of `size` bytes. Reads only the segments
/// that hold them. The first segment is opened at once, so that its damage is reported before the response
/// begins.
pub async fn read(
    mut file: File,
    (key, name): (&Key, String),
    size: u64,
    (first, length): (u64, u64),
) -> io::Result<Body> {
    let mut header: Header = [0; HEADER];
    file.read_exact(&mut header).await?;
    let cipher = Cipher::new(key, &name, &header)?;
    let segment = Segment::with(first, size)?;
    if segment.number > 0 {
        file.seek(SeekFrom::Start(segment.offset)).await?;
    }
    let mut reader = Reader { file, cipher, name, size, at: first, end: first + length };
    let beginning = reader.next().await?;
    let rest = stream::try_unfold(reader, |mut reader| async move {
        if reader.at == reader.end {
            return Ok(None);
        }
        let next = reader.next().await;
        let next = next.inspect_err(
            |error| tracing::error!(file = reader.name, %error, "cannot read encrypted file to the end"),
        );
        next.map(|bytes| Some((bytes, reader)))
    });
    Ok(Box::pin(StreamReader::new(stream::iter([Ok(beginning)]).chain(rest))))
}

impl Reader {
    /// Decrypts the next segment and returns its part of the range.
    async fn next(&mut self) -> io::Result<Cursor<Vec<u8>>> {
        let segment = Segment::with(self.at, self.size)?;
        let mut bytes = vec![0; segment.length() as usize];
        self.file.read_exact(&mut bytes).await?;
        self.cipher.open(&segment, &mut bytes)?;
        let end = segment.end.min(self.end);
        bytes.truncate((end - segment.first) as usize);
        let mut wanted = Cursor::new(bytes);
        wanted.set_position(self.at - segment.first);
        self.at = end;
        Ok(wanted)
    }
}
