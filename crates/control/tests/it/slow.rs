//! A provider of the tests that has every capability, takes some time for each call, and counts how many are under way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, TenantId, Timestamp, Write};
use tenantry_provider::data::Page;
use tenantry_provider::objects::{Body, Content, Expired, Listing, Meta, Method, New, Range, Signed, Usage};
use tenantry_provider::transfer::{self, Bytes, Sink, Source};
use tenantry_provider::*;

/// Calls that are under way, the most of them at the same time, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub now: u32,
    pub most: u32,
    pub calls: u32,
}

/// The provider, and its tenants' rows and objects.
#[derive(Clone, Default)]
pub struct Slow(Arc<Mutex<Load>>);

impl Slow {
    /// What has happened since the last look.
    pub fn take(&self) -> Load {
        std::mem::take(&mut *self.0.lock())
    }

    async fn call<T>(&self, answer: T) -> Result<T, Failure> {
        {
            let mut load = self.0.lock();
            (load.now, load.calls) = (load.now + 1, load.calls + 1);
            load.most = load.most.max(load.now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.0.lock().now -= 1;
        Ok(answer)
    }
}

#[async_trait]
impl Provider for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn kind(&self) -> Kind {
        Kind::Custom
    }
    fn settings_schema(&self) -> Value {
        json!({})
    }
    async fn ensure(&self, _: &Context, _: &Spec) -> Result<Ensured, Failure> {
        self.call(Ensured::default()).await
    }
    async fn observe(&self, _: &Context, _: &Spec) -> Result<Observed, Failure> {
        self.call(Observed::Absent).await
    }
    async fn remove(&self, _: &Context, _: &Spec) -> Result<Removed, Failure> {
        self.call(Removed::default()).await
    }
    async fn probe(&self) -> Result<(), Failure> {
        self.call(()).await
    }
    fn data(&self) -> Option<&dyn Data> {
        Some(self)
    }
    fn fence(&self) -> Option<&dyn Fence> {
        Some(self)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }
    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        Some(self)
    }
    fn objects(&self) -> Option<&dyn Objects> {
        Some(self)
    }
    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
    fn purge(&self) -> Option<&dyn Purge> {
        Some(self)
    }
}

#[async_trait]
impl Fence for Slow {
    async fn fence(&self, _: &Order) -> Result<(), Failure> {
        self.call(()).await
    }
    async fn denies(&self, _: &Order) -> Result<Option<SuspensionMode>, Failure> {
        self.call(None).await
    }
}

#[async_trait]
impl Rotate for Slow {
    async fn rotate(&self, _: &Context, _: &Spec, _: Former) -> Result<Rotated, Failure> {
        self.call(Rotated::default()).await
    }
    async fn retire(&self, _: &dyn Rows, _: &Retirement) -> Result<Vec<Write>, Failure> {
        self.call(Vec::new()).await
    }
}

#[async_trait]
impl Transfer for Slow {
    fn form(&self) -> &'static str {
        "nothing"
    }
    async fn export(&self, _: &Context, _: &Spec, sink: &mut dyn Sink) -> Result<transfer::Content, Failure> {
        let mut bytes: &[u8] = b"x";
        let bytes: Bytes<'_> = &mut bytes;
        sink.file("file", 1, bytes).await?;
        self.call(transfer::Content::default()).await
    }
    async fn load(&self, _: &Context, _: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
        while source.next().await?.is_some() {}
        self.call(Vec::new()).await
    }
}

#[async_trait]
impl IsolationCheck for Slow {
    async fn check(&self, _: &[TenantId]) -> Result<Checked, Failure> {
        self.call(Checked::default()).await
    }
}

#[async_trait]
impl Purge for Slow {
    async fn purge(&self) -> Result<Vec<Purged>, Failure> {
        self.call(Vec::new()).await
    }
}

#[async_trait]
impl Objects for Slow {
    fn scoped(&self, _: TenantId, _: Arc<dyn Sealer>) -> Arc<dyn TenantObjects> {
        Arc::new(self.clone())
    }
    async fn verify(&self, _: &Signed, _: Timestamp) -> Result<TenantId, Failure> {
        self.call(TenantId::new()).await
    }
    async fn expire(&self, _: Timestamp) -> Result<Expired, Failure> {
        self.call(Expired::default()).await
    }
}

fn meta(key: &str) -> Meta {
    let (etag, modified) = (String::new(), Timestamp::now());
    Meta { key: key.to_owned(), size: 0, etag, content_type: None, modified }
}

#[async_trait]
impl TenantObjects for Slow {
    async fn put(&self, new: New<'_>, _: Body) -> Result<Meta, Failure> {
        self.call(meta(new.key)).await
    }
    async fn get(&self, _: &str, _: Option<Range>) -> Result<Option<Content>, Failure> {
        self.call(None).await
    }
    async fn meta(&self, _: &str) -> Result<Option<Meta>, Failure> {
        self.call(None).await
    }
    async fn list(&self, _: &str, _: u32, _: Option<&str>) -> Result<Listing, Failure> {
        self.call(Listing { objects: Vec::new(), next: None }).await
    }
    async fn delete(&self, _: &str) -> Result<bool, Failure> {
        self.call(false).await
    }
    async fn sign(&self, _: &str, method: Method, _: Timestamp, _: Timestamp) -> Result<Signed, Failure> {
        self.call(signed(method)).await
    }
    async fn usage(&self) -> Result<Usage, Failure> {
        self.call(Usage { objects: 0, bytes: 0, quota_bytes: None }).await
    }
}

/// A signature of nothing.
pub fn signed(method: Method) -> Signed {
    let empty = String::new;
    Signed { method, bucket: empty(), key: empty(), expires_at: 0, signature: empty() }
}

impl Data for Slow {
    fn scoped(&self, _: TenantId) -> Arc<dyn TenantRows> {
        Arc::new(self.clone())
    }
    fn canary(&self) -> Canary {
        Canary { tenant: TenantId::new(), table: String::new(), id: String::new(), row: Map::new() }
    }
}

#[async_trait]
impl TenantRows for Slow {
    async fn insert(&self, _: &str, _: Map<String, Value>) -> Result<Value, Failure> {
        self.call(Value::Null).await
    }
    async fn list(&self, _: &str, _: u32, _: Option<&str>) -> Result<Page, Failure> {
        self.call(Page { rows: Vec::new(), next: None }).await
    }
    async fn get(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        self.call(None).await
    }
    async fn delete(&self, _: &str, _: &str) -> Result<bool, Failure> {
        self.call(false).await
    }
    async fn remove_samples(&self) -> Result<Value, Failure> {
        self.call(Value::Null).await
    }
}

/// A registry without rows, keys that encrypt nothing, and notes that are not kept.
pub struct Nothing;

#[async_trait]
impl Rows for Nothing {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Notes for Nothing {
    async fn note(&self, _: Value) -> Result<(), Failure> {
        Ok(())
    }
}

impl Sealer for Nothing {
    fn seal(&self, _: TenantId, clear: &str) -> Result<String, Failure> {
        Ok(clear.to_owned())
    }
    fn open(&self, _: TenantId, sealed: &str) -> Result<String, Failure> {
        Ok(sealed.to_owned())
    }
    fn derive(&self, _: TenantId, _: &str) -> Result<Key, Failure> {
        Ok(Key::new([0; 32]))
    }
    fn mac(&self, _: &str, text: &str) -> String {
        text.to_owned()
    }
}

/// What a verb may use.
pub fn context() -> Context {
    let nothing = Arc::new(Nothing);
    Context { now: Timestamp::now(), sealer: nothing.clone(), rows: nothing.clone(), notes: nothing }
}

/// A resource in the region `here`.
pub fn spec() -> Spec {
    Spec {
        resource: ResourceId::new(),
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: TenantId::new(),
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "growth".to_owned(),
            region: "here".to_owned(),
            locale: "en".to_owned(),
            admin: Person::default(),
        },
        name: "acme".to_owned(),
        claim: "tenantry".to_owned(),
        settings: json!({}),
        inputs: BTreeMap::new(),
        note: None,
    }
}

/// A body without bytes.
pub fn body() -> Body {
    let empty: Pin<Box<tokio::io::Empty>> = Box::pin(tokio::io::empty());
    empty
}
