//! The part of the suite for providers that keep a tenant's content: exports and loads, also repeated and interrupted
//! ones, beside the content of other tenants.

use std::collections::VecDeque;
use std::io::{Cursor, ErrorKind};

use async_trait::async_trait;
use serde_json::Value;
use tenantry_model::Failure;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::rival;
use super::world::{World, spec};
use crate::transfer::{Arriving, Bytes, Content, Nowhere, Sink, Source, Transfer, broken};
use crate::{Provider, Spec};

/// Exported files in memory: paths and bytes.
#[derive(Clone, Default)]
pub struct Export(pub Vec<(String, Vec<u8>)>);

#[async_trait]
impl Sink for Export {
    async fn file(&mut self, path: &str, size: u64, bytes: Bytes<'_>) -> Result<(), Failure> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all).await.map_err(|error| broken(&error))?;
        assert_eq!(all.len() as u64, size, "{path}");
        self.0.push((path.to_owned(), all));
        Ok(())
    }
}

impl Export {
    /// All files as one text.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// The files as the source of a load.
    pub fn source(&self) -> impl Source + use<> {
        ExportSource { files: self.0.clone().into(), cut: None, bytes: Box::new(tokio::io::empty()) }
    }

    /// The first `cut` bytes of the files, then an error, as if the connection had broken.
    pub fn interrupted(&self, cut: usize) -> impl Source + use<> {
        ExportSource { files: self.0.clone().into(), cut: Some(cut), bytes: Box::new(tokio::io::empty()) }
    }
}

struct ExportSource {
    files: VecDeque<(String, Vec<u8>)>,
    /// Bytes until the error.
    cut: Option<usize>,
    /// The file that is being read.
    bytes: Box<dyn AsyncRead + Send + Unpin>,
}

#[async_trait]
impl Source for ExportSource {
    async fn next(&mut self) -> Result<Option<Arriving<'_>>, Failure> {
        if self.cut == Some(0) {
            return Err(broken(&ErrorKind::UnexpectedEof.into()));
        }
        let Some((path, mut bytes)) = self.files.pop_front() else { return Ok(None) };
        let size = bytes.len();
        if let Some(cut) = &mut self.cut {
            bytes.truncate(*cut);
            *cut = cut.saturating_sub(size);
        }
        self.bytes = Box::new(Cursor::new(bytes));
        Ok(Some(Arriving { path, size: size as u64, bytes: &mut *self.bytes }))
    }
}

/// A provider with content, and how a test adds some.
#[async_trait]
pub trait ContentEnvironment: Send + Sync {
    /// The provider under test.
    fn provider(&self) -> &dyn Provider;
    /// The registry, keys and notes that it gets.
    fn world(&self) -> &World;
    /// Settings that work.
    fn settings(&self) -> Value;
    /// Adds to the resource every kind of value that it can keep, and this word.
    async fn fill(&self, spec: &Spec, word: &str);

    /// Creates the resource of a new tenant.
    async fn tenant(&self) -> Spec {
        let mut spec = spec(self.settings());
        spec.name = spec.name.replace('-', "_");
        let made = self.provider().ensure(&self.world().context(), &spec).await;
        self.world().registry.apply(&made.expect("the resource is created").writes);
        spec
    }

    /// Exports the resource's content.
    async fn export(&self, spec: &Spec) -> (Export, Content) {
        let mut export = Export::default();
        let content = transfer(self.provider()).export(&self.world().context(), spec, &mut export).await;
        (export, content.expect("the content is exported"))
    }

    /// Loads files into the resource, with the rows of the registry that follow.
    async fn load(&self, spec: &Spec, source: &mut dyn Source) -> Result<(), Failure> {
        let writes = transfer(self.provider()).load(&self.world().context(), spec, source).await?;
        self.world().registry.apply(&writes);
        Ok(())
    }

    /// Digest and counts of the resource's content.
    async fn content(&self, spec: &Spec) -> Content {
        let content = transfer(self.provider()).export(&self.world().context(), spec, &mut Nowhere).await;
        content.expect("the content is exported")
    }
}

fn transfer(provider: &dyn Provider) -> &dyn Transfer {
    provider.transfer().expect("the provider keeps content")
}

/// Fails the test unless content survives export and load as the contract of [`Transfer`](crate::Transfer) asks.
pub async fn must_keep_content(environment: &dyn ContentEnvironment) {
    let (one, two) = (environment.tenant().await, environment.tenant().await);
    let empty = environment.tenant().await;
    environment.fill(&one, "words-of-one").await;
    environment.fill(&two, "words-of-two").await;
    let (export, content) = environment.export(&one).await;
    let content_of_two = environment.content(&two).await;
    assert!(export.text().contains("words-of-one"), "in clear text");
    assert!(!export.text().contains("words-of-two"), "no other tenant's data");
    assert_ne!(content.digest, content_of_two.digest);
    assert_eq!(environment.content(&one).await, content, "a second export is equal");

    let new = environment.tenant().await;
    for cut in [1, export.0.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() / 2] {
        environment.load(&new, &mut export.interrupted(cut)).await.expect_err("it was interrupted");
    }
    for time in ["first", "second"] {
        environment.load(&new, &mut export.source()).await.expect("the content is loaded");
        assert_eq!(environment.content(&new).await, content, "loaded for the {time} time");
    }
    assert_eq!(environment.content(&two).await, content_of_two, "other tenants are unchanged");
    assert_eq!(environment.content(&one).await, content);

    // Loading an empty export deletes everything.
    let (nothing, no_content) = environment.export(&empty).await;
    environment.load(&new, &mut nothing.source()).await.expect("the empty export is loaded");
    assert_eq!(environment.content(&new).await, no_content);

    let (provider, context) = (environment.provider(), environment.world().context());
    let rejected = transfer(provider).export(&context, &rival(&one), &mut Nowhere).await;
    let rejected = rejected.expect_err("another owner's resource");
    assert!(["no_such_tenant", "no_such_bucket"].contains(&&*rejected.code), "{rejected}");
    let foreign = Export(vec![("nothing.000001.csv".to_owned(), b"\"a\"\n1\n".to_vec())]);
    let rejected = environment.load(&new, &mut foreign.source()).await.expect_err("another provider's files");
    assert_eq!(rejected.code, "bad_archive");
    assert_eq!(environment.content(&new).await, no_content, "a rejected load changes nothing");
}
