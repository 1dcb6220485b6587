//! What a tenant has in a resource, on its way out and back: as files, one after the other, in bounded memory. A provider
//! says what the files are; where they go, and who may have them, is not its business.
//!
//! Rows are tables in CSV ([`crate::csv`]), named by their columns, in files of a few MiB. Whatever holds no rows says in its
//! own documentation what it writes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tenantry_model::{Failure, Write};
use tokio::io::AsyncRead;

use crate::verbs::{Context, Spec};

/// A provider that holds what is its tenants' own.
#[async_trait]
pub trait Portable: Send + Sync {
    /// The form of its files, one word. What one provider has written, every other of the same form takes back.
    fn form(&self) -> &'static str;

    /// Hands the sink all that the tenant has in the resource, as it was at one moment where the server knows such a thing,
    /// and whatever access the tenant has by now. Touches nothing. A sink that fails ends it with that failure.
    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure>;

    /// Puts what the source has in the place of what the resource holds: the same content afterwards, however often it is
    /// done and wherever it was cut off before. Answers rows of the registry to be written with the step's end. What the
    /// resource cannot take is a failure of class `Invalid`, code `bad_archive`.
    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure>;

    /// Why it takes nothing back, if it does not: `load` is not called then.
    fn one_way(&self) -> Option<&'static str> {
        None
    }
}

/// Bytes of a file on its way.
pub type Bytes<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

/// Where files go.
#[async_trait]
pub trait Sink: Send {
    /// Takes a file: its path in the resource, which nothing but letters, digits and `._%/-` are in, and exactly `size` bytes.
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure>;
}

/// Where files come from, in the order in which they went out.
#[async_trait]
pub trait Source: Send {
    /// The next one; what was not read of the one before is passed over. None at the end.
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure>;
}

/// A file that comes.
pub struct Arriving<'a> {
    /// Its path in the resource.
    pub path: String,
    /// How many bytes it has.
    pub size: u64,
    /// Those.
    pub bytes: Bytes<'a>,
}

/// What a resource holds, in a few words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Content {
    /// The same for the same content, in whatever order it lies and whosesoever it is: SHA-256 in hexadecimal.
    pub digest: String,
    /// How much there is, by the name of a table or of what else there is.
    pub counts: BTreeMap<String, u64>,
}

/// Adds content up. The sum of its items' hashes does not depend on their order, so that nothing has to be sorted for it; it
/// tells whether something was lost on the way, and not whether somebody has forged it.
#[derive(Default)]
pub struct Tally {
    sum: [u8; 32],
    counts: BTreeMap<String, u64>,
}

impl Tally {
    /// A set that is there, though it may stay empty.
    pub fn open(&mut self, set: &str) {
        self.counts.entry(set.to_owned()).or_default();
    }

    /// One item of a set.
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

    /// The whole.
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

/// Takes everything and keeps nothing: for whoever wants to know the content alone.
pub struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn file(&mut self, _: &str, _: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let passed = tokio::io::copy(bytes, &mut tokio::io::sink()).await;
        passed.map(drop).map_err(|error| broken(&error))
    }
}

/// Files that do not fit the resource.
pub fn bad_archive(why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_archive", why)
}

/// Bytes that stopped coming.
pub fn broken(error: &std::io::Error) -> Failure {
    Failure::retryable("cut_off", format!("the bytes broke off: {error}"))
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
    fn order_is_nothing_and_all_else_is() {
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
