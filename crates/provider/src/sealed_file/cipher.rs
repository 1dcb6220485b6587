//! Encrypts a file in segments, each authenticated together with its position, so that every segment can be
//! opened by itself. Changed, truncated, moved or swapped segments do not open. Pure, no I/O.
//!
//! The format is Tink's AES256-GCM-HKDF streaming with segments of 64 KiB and a raw prefix: a header (its
//! length, a salt, the prefix of every nonce), then the segments. The key of a file is derived from the given
//! key with the salt and the file's name.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use crate::verbs::Key;

/// Bytes of a segment on the disk. The header is part of the first segment.
pub const SEGMENT: u64 = 64 << 10;
/// Bytes of the header.
pub const HEADER: usize = 1 + SALT + PREFIX;
const SALT: usize = 32;
/// Bytes of the nonce prefix that all segments of a file share. The other bytes are the segment's number and
/// whether it is the last.
const PREFIX: usize = NONCE_LEN - 5;
/// Bytes of a segment's authentication tag.
const TAG: u64 = 16;
/// Cleartext bytes of a full segment; the first one holds [`HEADER`] fewer.
const CLEAR: u64 = SEGMENT - TAG;

/// Header of a file.
pub type Header = [u8; HEADER];

/// The error for a segment that does not open: it was changed, or belongs to another file or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes on the disk are not those that were stored")]
pub struct Damaged;

/// Seals and opens the segments of one file.
pub struct Cipher {
    key: LessSafeKey,
    prefix: [u8; PREFIX],
}

/// A segment of a file: the range of its cleartext bytes in the object, and its offset on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of the segment.
    pub number: u32,
    /// Whether this is the last segment of the file.
    pub last: bool,
    /// Offset of the segment's first cleartext byte in the object.
    pub first: u64,
    /// Offset after the segment's last cleartext byte in the object.
    pub end: u64,
    /// Offset of the segment on the disk.
    pub offset: u64,
}

/// A new random header.
pub fn fresh() -> Header {
    let mut header: Header = rand::random();
    header[0] = HEADER as u8;
    header
}

impl Cipher {
    /// Derives the key of the file with this name and header.
    pub fn new(key: &Key, name: &str, header: &Header) -> Result<Self, Damaged> {
        let [length, rest @ ..] = header;
        let (salt, prefix) = rest.split_first_chunk::<SALT>().ok_or(Damaged)?;
        let prefix = prefix.try_into().map_err(|_| Damaged)?;
        if usize::from(*length) != HEADER {
            return Err(Damaged);
        }
        let derived = Salt::new(HKDF_SHA256, salt).extract(key.as_slice());
        let key: UnboundKey = derived.expand(&[name.as_bytes()], &AES_256_GCM).map_err(|_| Damaged)?.into();
        Ok(Self { key: LessSafeKey::new(key), prefix })
    }

    /// The nonce of a segment. Nonces are unique within a file and every file has its own key, so no nonce is
    /// used twice with one key.
    fn nonce(&self, number: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX].copy_from_slice(&self.prefix);
        nonce[PREFIX..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a segment in place.
    pub fn seal(&self, number: u32, last: bool, bytes: &mut Vec<u8>) -> Result<(), Damaged> {
        let nonce = self.nonce(number, last);
        self.key.seal_in_place_append_tag(nonce, Aad::empty(), bytes).map_err(|_| Damaged)
    }

    /// Decrypts a segment in place.
    pub fn open(&self, segment: &Segment, bytes: &mut Vec<u8>) -> Result<(), Damaged> {
        let nonce = self.nonce(segment.number, segment.last);
        let length = self.key.open_in_place(nonce, Aad::empty(), bytes).map_err(|_| Damaged)?.len();
        bytes.truncate(length);
        Ok(())
    }
}

/// Most cleartext bytes of the segment with this number.
pub const fn room(number: u32) -> u64 {
    if number == 0 { CLEAR - HEADER as u64 } else { CLEAR }
}

impl Segment {
    /// The segment that holds byte `at` of an object of `size` bytes. An empty object has one empty segment.
    pub fn with(at: u64, size: u64) -> Result<Self, Damaged> {
        let number = (at + HEADER as u64) / CLEAR;
        let first = (number * CLEAR).saturating_sub(HEADER as u64);
        let end = ((number + 1) * CLEAR - HEADER as u64).min(size);
        let offset = (number * SEGMENT).max(HEADER as u64);
        Ok(Self { number: number.try_into().map_err(|_| Damaged)?, last: end == size, first, end, offset })
    }

    /// Bytes on the disk.
    pub const fn length(&self) -> u64 {
        self.end - self.first + TAG
    }
}

/// Cleartext bytes in a file of this length; 0 if it is too short.
pub const fn clear(length: u64) -> u64 {
    length.saturating_sub(HEADER as u64 + length.div_ceil(SEGMENT) * TAG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    const SIZES: [u64; 12] =
        [0, 1, 5, 65_479, 65_480, 65_481, 65_535, 65_536, 65_537, 130_999, 131_000, 131_001];

    fn key() -> Key {
        Key::new(std::array::from_fn(|at| at as u8))
    }

    fn sealed(clear: &[u8], header: &Header) -> Vec<u8> {
        let cipher = Cipher::new(&key(), "a-file", header).unwrap();
        let (mut all, mut rest, mut number) = (header.to_vec(), clear, 0);
        loop {
            let (piece, left) = rest.split_at(rest.len().min(room(number) as usize));
            let mut bytes = piece.to_vec();
            cipher.seal(number, left.is_empty(), &mut bytes).unwrap();
            all.extend(bytes);
            if left.is_empty() {
                return all;
            }
            (rest, number) = (left, number + 1);
        }
    }

    fn text(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    /// Headers and SHA-256 of whole files that Tink for Python 1.16 wrote with this key and the associated
    /// data `a-file`.
    #[test]
    fn the_format_is_tinks() {
        let known = [
            (
                0,
                "28987bd4f465f943be117e87174e9d9ae325eb859c097b13cd80d696b0dbb91b8e9565161ab3c944",
                "ebe8c410edf5d9c10ec45d7364264fd8e5f52c9471484015efe13588b97b34ad",
            ),
            (
                5,
                "28141b3cc611ad2b5175c60864a2239f85eefe43832b0312e7f72985e8a88794cab168b30e3e6b53",
                "d6d915e5c6dd1c05e5d030ef8563a00e71add4b7e97bc119ae7ff5bc844375dd",
            ),
            (
                65_480,
                "28486d181b59fd88523185aa035ab1d6cd537d6b9276f430da2c0cca88d81c5bf93f07a273ecb614",
                "bf70fad5001fadfb9cd6976eb7792b0249418b9aa699bc0af60dcb11f1472963",
            ),
            (
                65_481,
                "280b627e3a2a257ff301beda0f8f2d1c0f6a4f26254323421e5f331c9a37b340211b065d924a2b36",
                "68a5137297a43b1a664d6426114ef56a8b3ee85cab86da2326772c6c86cfbf39",
            ),
            (
                200_000,
                "286b384ff510c3320643e6006f2afe88e3c8657f4cd05a444618d099d2ed46820f9c6d640e78cb42",
                "e8f5f6dea9897f1dfca3fcb391f5b8d96e693a8b8ac34f56a7397db1bbbb3a20",
            ),
        ];
        for (size, header, whole) in known {
            let header =
                std::array::from_fn(|at| u8::from_str_radix(&header[2 * at..2 * at + 2], 16).unwrap());
            assert_eq!(hex::encode(Sha256::digest(sealed(&text(size), &header))), whole, "{size}");
        }
    }

    #[test]
    fn segments_cover_the_object_and_the_file() {
        for size in SIZES {
            let file = sealed(&text(size as usize), &fresh());
            assert_eq!(clear(file.len() as u64), size);
            let (mut at, mut offset) = (0, HEADER as u64);
            loop {
                let segment = Segment::with(at, size).unwrap();
                assert_eq!((segment.first, segment.offset), (at, offset), "{size}");
                assert_eq!(segment, Segment::with(segment.end.max(1) - 1, size).unwrap());
                (at, offset) = (segment.end, offset + segment.length());
                if segment.last {
                    break;
                }
            }
            assert_eq!((at, offset), (size, file.len() as u64));
        }
        assert_eq!(clear(0), 0);
        assert_eq!(clear(HEADER as u64), 0);
        assert_eq!(
            Segment::with(u64::MAX / 2, u64::MAX / 2 + 1),
            Err(Damaged),
            "more segments than the number can count"
        );
    }

    #[test]
    fn changed_and_moved_segments_do_not_open() {
        let header = fresh();
        let file = sealed(&text(70_000), &header);
        let second = Segment::with(69_999, 70_000).unwrap();
        let bytes = file[second.offset as usize..].to_vec();
        let open = |key: &Key, name: &str, header: &Header, segment: &Segment, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            Cipher::new(key, name, header)?.open(segment, &mut bytes).map(|()| bytes)
        };
        let mut other = header;
        other[1] ^= 1;
        let mut short = header;
        short[0] ^= 1;
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        assert_eq!(open(&key(), "a-file", &header, &second, &bytes).unwrap(), text(70_000)[65_480..]);
        for (what, opened) in [
            ("key", open(&Key::default(), "a-file", &header, &second, &bytes)),
            ("name", open(&key(), "another", &header, &second, &bytes)),
            ("salt", open(&key(), "a-file", &other, &second, &bytes)),
            ("header", open(&key(), "a-file", &short, &second, &bytes)),
            ("place", open(&key(), "a-file", &header, &Segment { number: 2, ..second }, &bytes)),
            ("end", open(&key(), "a-file", &header, &Segment { last: false, ..second }, &bytes)),
            ("byte", open(&key(), "a-file", &header, &second, &flipped)),
            ("length", open(&key(), "a-file", &header, &second, &bytes[1..])),
            ("nothing", open(&key(), "a-file", &header, &second, &[])),
        ] {
            assert_eq!(opened, Err(Damaged), "{what}");
        }
    }
}
