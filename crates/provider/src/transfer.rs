//! Export and import of a resource's content as a sequence of files, in bounded memory. A provider defines
//! the files; the caller decides where they are stored and checks access.
//!
//! Rows are exported as CSV tables ([`crate::csv`]) in files of a few MiB. Providers without rows document
//! their own form.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tenantry_model::{Failure, Write};
use tokio::io::AsyncRead;

use crate::verbs::{Context, Spec};

/// A provider that can export and import the content of its resources.
#[async_trait]
pub trait Transfer: Send + Sync {
    /// Form of the exported files, one word. Every provider with the same form can import them.
    fn form(&self) -> &'static str;

    /// Writes the resource's whole content to the sink, as one consistent snapshot where the resource's
    /// server supports it. Works regardless of the tenant's fence and changes nothing. An error of the sink
    /// ends the export with that error.
    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure>;

    /// Replaces the resource's content with the source's. Idempotent, also after an interrupted attempt.
    /// Returns registry rows to write in the transaction that ends the step. Content that the resource cannot
    /// store is a failure of class `Invalid`, code `bad_archive`.
    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure>;

    /// The reason why import is not supported, if it is not; `load` is not called then.
    fn one_way(&self) -> Option<&'static str> {
        None
    }
}

/// Stream of a file's bytes.
pub type Bytes<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

/// Receives exported files.
#[async_trait]
pub trait Sink: Send {
    /// Stores a file of exactly `size` bytes. Its path in the resource consists of letters, digits and
    /// `._%/-`.
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure>;
}

/// Returns the files of an archive in the order in which they were exported.
#[async_trait]
pub trait Source: Send {
    /// The next file; none at the end. Skips unread bytes of the previous file.
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure>;
}

/// A file of an archive.
pub struct Arriving<'a> {
    /// Path in the resource.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The bytes.
    pub bytes: Bytes<'a>,
}

/// Digest and counts of a resource's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Content {
    /// SHA-256 in hexadecimal. Equal content has equal digests, independent of its order and of the tenant.
    pub digest: String,
    /// Number of items by the name of their table or set.
    pub counts: BTreeMap<String, u64>,
}

/// Computes digest and counts. It sums the hashes of the items, so that their order does not matter. Detects
/// loss but not forgery.
#[derive(Default)]
pub struct Tally {
    sum: [u8; 32],
    counts: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds a set, which may stay empty.
    pub fn open(&mut self, set: &str) {
        self.counts.entry(set.to_owned()).or_default();
    }

    /// Adds an item to a set.
    pub fn add(&mut self, set: &str, parts: &[&[u8]]) {
        let mut hash = Sha256::new();
        for part in [set.as_bytes()].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut carry = 0;
        for (sum, byte) in self.sum.iter_mut().zip(hash.finalize()) {
            let added = u16::from(*sum) + u16::from(byte) + carry;
            *sum = added.to_le_bytes()[0];
            carry = added >> 8;
        }
        *self.counts.entry(set.to_owned()).or_default() += 1;
    }

    /// Digest and counts of all items.
    pub fn content(self) -> Content {
        let mut hash = Sha256::new();
        hash.update(self.sum);
        for (set, count) in &self.counts {
            hash.update(set);
            hash.update(count.to_be_bytes());
        }
        Content { digest: hex::encode(hash.finalize()), counts: self.counts }
    }
}

/// Discards all data; used to compute a digest and counts.
pub struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn file(&mut self, _: &str, _: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let passed = tokio::io::copy(bytes, &mut tokio::io::sink()).await;
        passed.map(drop).map_err(|error| broken(&error))
    }
}

/// The error for files that the resource cannot import.
pub fn bad_archive(why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_archive", why)
}

/// The error for a stream that ended early.
pub fn broken(error: &std::io::Error) -> Failure {
    Failure::retryable("cut_off", format!("the transfer was interrupted: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(items: &[(&str, &str)]) -> Content {
        let mut tally = Tally::default();
        items.iter().for_each(|(set, item)| tally.add(set, &[item.as_bytes()]));
        tally.content()
    }

    #[test]
    fn the_digest_depends_on_everything_but_the_order() {
        let one = content(&[("a", "1"), ("a", "2"), ("b", "1")]);
        assert_eq!(one, content(&[("b", "1"), ("a", "2"), ("a", "1")]));
        for other in [
            content(&[("a", "1"), ("b", "2"), ("b", "1")]),
            content(&[("a", "1"), ("a", "1"), ("b", "1")]),
            content(&[("a", "1"), ("a", "2")]),
            content(&[("a", "1"), ("a", "2"), ("b", "1"), ("b", "1")]),
            content(&[]),
        ] {
            assert_ne!(one.digest, other.digest);
        }
        assert_eq!(one.counts, BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    }
}
