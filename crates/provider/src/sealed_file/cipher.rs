//! How a file lies on the disk: encrypted in segments, each authenticated together with its place, so that any of them
//! can be opened by itself. Pure: keys and bytes in, bytes out. Nothing that was changed, cut off, moved or swapped opens.
//!
//! The form is the one of Tink's AES256-GCM-HKDF streaming with segments of 64 KiB and a raw prefix, so that Tink's
//! libraries read it too: a header (its length, a salt, the beginning of every nonce), then the segments. The key of a file
//! is derived from the bucket's with the salt and the file's name.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use crate::verbs::Key;

/// Bytes of a segment on the disk, the header being part of the first.
pub const SEGMENT: u64 = 64 << 10;
/// Bytes of the header.
pub const HEADER: usize = 1 + SALT + PREFIX;
const SALT: usize = 32;
/// Bytes of a nonce that all segments of a file have; its other bytes are the segment's number and whether it is the last.
const PREFIX: usize = NONCE_LEN - 5;
/// Bytes that authenticate a segment.
const TAG: u64 = 16;
/// Clear bytes of a segment that is full; the first has as many fewer as the header has.
const CLEAR: u64 = SEGMENT - TAG;

/// What a file begins with.
pub type Header = [u8; HEADER];

/// It does not open: it was changed, or is another file's, or of another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes on the disk are not those that were stored")]
pub struct Damaged;

/// Seals and opens the segments of one file.
pub struct Cipher {
    key: LessSafeKey,
    prefix: [u8; PREFIX],
}

/// A segment of a file: where its clear bytes are in the object, and where it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number; files that need more cannot be written.
    pub number: u32,
    /// Whether none comes after it.
    pub last: bool,
    /// The first of its clear bytes.
    pub first: u64,
    /// The one after the last of them.
    pub end: u64,
    /// Where it begins on the disk.
    pub offset: u64,
}

/// A header that no file has yet.
pub fn fresh() -> Header {
    let mut header: Header = rand::random();
    header[0] = HEADER as u8;
    header
}

impl Cipher {
    /// For the file of this name and header.
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

    /// No two segments of a file have the same, and no two files the same key: the one danger of this cipher is kept off.
    fn nonce(&self, number: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX].copy_from_slice(&self.prefix);
        nonce[PREFIX..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Puts the segment's bytes on the disk in the place of the clear ones.
    pub fn seal(&self, number: u32, last: bool, bytes: &mut Vec<u8>) -> Result<(), Damaged> {
        let nonce = self.nonce(number, last);
        self.key.seal_in_place_append_tag(nonce, Aad::empty(), bytes).map_err(|_| Damaged)
    }

    /// Puts the clear bytes in the place of those on the disk.
    pub fn open(&self, segment: &Segment, bytes: &mut Vec<u8>) -> Result<(), Damaged> {
        let nonce = self.nonce(segment.number, segment.last);
        let length = self.key.open_in_place(nonce, Aad::empty(), bytes).map_err(|_| Damaged)?.len();
        bytes.truncate(length);
        Ok(())
    }
}

/// How many clear bytes the segment of this number can have.
pub const fn room(number: u32) -> u64 {
    if number == 0 { CLEAR - HEADER as u64 } else { CLEAR }
}

impl Segment {
    /// The one with the byte `at` of an object of `size` bytes; of an empty object the only one, which is empty.
    pub fn with(at: u64, size: u64) -> Result<Self, Damaged> {
        let number = (at + HEADER as u64) / CLEAR;
        let first = (number * CLEAR).saturating_sub(HEADER as u64);
        let end = ((number + 1) * CLEAR - HEADER as u64).min(size);
        let offset = (number * SEGMENT).max(HEADER as u64);
        Ok(Self { number: number.try_into().map_err(|_| Damaged)?, last: end == size, first, end, offset })
    }

    /// Its bytes on the disk.
    pub const fn length(&self) -> u64 {
        self.end - self.first + TAG
    }
}

/// The clear bytes in a file of this length; none if it is too short to be whole.
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

    /// Made by Tink for Python 1.16 from this key and the associated data `a-file`: header, and SHA-256 of the whole.
    #[test]
    fn it_is_tinks_form() {
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
        assert_eq!(Segment::with(u64::MAX / 2, u64::MAX / 2 + 1), Err(Damaged), "more than can be numbered");
    }

    #[test]
    fn nothing_opens_but_what_was_stored_where_it_was_stored() {
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
