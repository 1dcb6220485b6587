//! `ResourceHandle`: the only way to call a provider. Every verb of the provider and of its capabilities passes the layers
//! in `layers/`: tracing, metrics, region check, outages, concurrency limit, timeout.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation, TenantId, Timestamp, Write};
use tenantry_provider::data::Page;
use tenantry_provider::isolation::Checked;
use tenantry_provider::objects::{Body, Content, Expired, Listing, Meta, Method, New, Range, Signed, Usage};
use tenantry_provider::transfer::{self, Sink, Source};
use tenantry_provider::{
    Canary, Context, Data, Ensured, Fault, Fence, Former, IsolationCheck, Kind, Objects, Observed, Order,
    Provider, Purge, Purged, Removed, Retirement, Rotate, Rotated, Rows, Sealer, Spec, TenantObjects,
    TenantRows, Transfer,
};

use super::layers::{Call, Layers, ProviderVerb};

/// A provider behind the layers. Cheap to clone. It is a provider itself: its capabilities are those of the provider,
/// behind the same layers.
#[derive(Clone)]
pub struct ResourceHandle {
    provider: Arc<dyn Provider>,
    layers: Arc<Layers>,
}

impl ResourceHandle {
    pub(super) fn new(provider: Arc<dyn Provider>, layers: Arc<Layers>) -> Self {
        Self { provider, layers }
    }

    /// A call about the provider as a whole.
    fn call(&self, verb: ProviderVerb) -> Call<'_> {
        let transactional = self.provider.transactional();
        Call { provider: self.provider.name(), verb, region: None, resource: None, transactional }
    }

    /// A call about one resource.
    fn call_for<'a>(&'a self, verb: ProviderVerb, spec: &'a Spec) -> Call<'a> {
        Call { region: Some(&spec.tenant.region), resource: Some(spec.resource), ..self.call(verb) }
    }

    /// A call about the fence of one resource.
    fn call_for_fence<'a>(&'a self, verb: ProviderVerb, order: &'a Order) -> Call<'a> {
        Call { region: Some(&order.region), resource: Some(order.resource), ..self.call(verb) }
    }
}

/// The failure of a capability that the provider does not have. Callers ask for the capability first.
fn lacking(provider: &dyn Provider, capability: &str) -> Failure {
    Failure::fatal(
        "not_supported",
        format!("provider `{}` has no capability `{capability}`", provider.name()),
    )
}

#[async_trait]
impl Provider for ResourceHandle {
    fn name(&self) -> &str {
        self.provider.name()
    }
    fn kind(&self) -> Kind {
        self.provider.kind()
    }
    fn isolates(&self, isolation: Isolation) -> bool {
        self.provider.isolates(isolation)
    }
    fn transactional(&self) -> bool {
        self.provider.transactional()
    }
    fn in_flight(&self) -> Duration {
        self.provider.in_flight()
    }
    async fn start(&self) -> Result<(), Failure> {
        self.provider.start().await
    }
    fn settings_schema(&self) -> Value {
        self.provider.settings_schema()
    }
    fn check(&self, settings: &Value) -> Vec<Fault> {
        self.provider.check(settings)
    }
    fn check_name(&self, name: &str) -> std::result::Result<(), String> {
        self.provider.check_name(name)
    }
    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        self.layers.run(self.call_for(ProviderVerb::Ensure, spec), self.provider.ensure(context, spec)).await
    }
    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        self.layers
            .run(self.call_for(ProviderVerb::Observe, spec), self.provider.observe(context, spec))
            .await
    }
    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        self.layers.run(self.call_for(ProviderVerb::Remove, spec), self.provider.remove(context, spec)).await
    }
    async fn probe(&self) -> Result<(), Failure> {
        self.layers.run(self.call(ProviderVerb::Probe), self.provider.probe()).await
    }
    fn data(&self) -> Option<&dyn Data> {
        self.provider.data().map(|_| self as &dyn Data)
    }
    fn fence(&self) -> Option<&dyn Fence> {
        self.provider.fence().map(|_| self as &dyn Fence)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        self.provider.rotate().map(|_| self as &dyn Rotate)
    }
    fn isolation(&self) -> Option<&dyn IsolationCheck> {
        self.provider.isolation().map(|_| self as &dyn IsolationCheck)
    }
    fn objects(&self) -> Option<&dyn Objects> {
        self.provider.objects().map(|_| self as &dyn Objects)
    }
    fn transfer(&self) -> Option<&dyn Transfer> {
        self.provider.transfer().map(|_| self as &dyn Transfer)
    }
    fn purge(&self) -> Option<&dyn Purge> {
        self.provider.purge().map(|_| self as &dyn Purge)
    }
}

#[async_trait]
impl Purge for ResourceHandle {
    async fn purge(&self) -> Result<Vec<Purged>, Failure> {
        let purge = self.provider.purge().ok_or_else(|| lacking(&*self.provider, "purge"))?;
        self.layers.run(self.call(ProviderVerb::Purge), purge.purge()).await
    }
}

#[async_trait]
impl Fence for ResourceHandle {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        let fence = self.provider.fence().ok_or_else(|| lacking(&*self.provider, "fence"))?;
        self.layers.run(self.call_for_fence(ProviderVerb::ApplyFence, order), fence.fence(order)).await
    }
    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure> {
        let fence = self.provider.fence().ok_or_else(|| lacking(&*self.provider, "fence"))?;
        self.layers.run(self.call_for_fence(ProviderVerb::ObserveFence, order), fence.denies(order)).await
    }
}

#[async_trait]
impl Rotate for ResourceHandle {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        let rotate = self.provider.rotate().ok_or_else(|| lacking(&*self.provider, "rotate"))?;
        let call = self.call_for(ProviderVerb::Rotate, spec);
        self.layers.run(call, rotate.rotate(context, spec, former)).await
    }
    async fn retire(&self, rows: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        let rotate = self.provider.rotate().ok_or_else(|| lacking(&*self.provider, "rotate"))?;
        let (region, resource) = (Some(&*retirement.region), Some(retirement.resource));
        let call = Call { region, resource, ..self.call(ProviderVerb::Retire) };
        self.layers.run(call, rotate.retire(rows, retirement)).await
    }
}

#[async_trait]
impl Transfer for ResourceHandle {
    fn form(&self) -> &'static str {
        self.provider.transfer().map_or("", Transfer::form)
    }
    async fn export(
        &self,
        context: &Context,
        spec: &Spec,
        sink: &mut dyn Sink,
    ) -> Result<transfer::Content, Failure> {
        let transfer = self.provider.transfer().ok_or_else(|| lacking(&*self.provider, "transfer"))?;
        let call = self.call_for(ProviderVerb::Export, spec);
        self.layers.run(call, transfer.export(context, spec, sink)).await
    }
    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure> {
        let transfer = self.provider.transfer().ok_or_else(|| lacking(&*self.provider, "transfer"))?;
        let call = self.call_for(ProviderVerb::Load, spec);
        self.layers.run(call, transfer.load(context, spec, source)).await
    }
    fn one_way(&self) -> Option<&'static str> {
        self.provider.transfer().and_then(Transfer::one_way)
    }
}

#[async_trait]
impl IsolationCheck for ResourceHandle {
    async fn check(&self, tenants: &[TenantId]) -> Result<Checked, Failure> {
        let isolation = self.provider.isolation().ok_or_else(|| lacking(&*self.provider, "isolation"))?;
        self.layers.run(self.call(ProviderVerb::CheckIsolation), isolation.check(tenants)).await
    }
}

#[async_trait]
impl Objects for ResourceHandle {
    fn scoped(&self, tenant: TenantId, sealer: Arc<dyn Sealer>) -> Arc<dyn TenantObjects> {
        let objects = self.provider.objects().map(|objects| objects.scoped(tenant, sealer));
        Arc::new(ObjectsHandle { handle: self.clone(), objects })
    }
    async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure> {
        let objects = self.provider.objects().ok_or_else(|| lacking(&*self.provider, "objects"))?;
        self.layers.run(self.call(ProviderVerb::VerifyUrl), objects.verify(signed, now)).await
    }
    async fn expire(&self, now: Timestamp) -> Result<Expired, Failure> {
        let objects = self.provider.objects().ok_or_else(|| lacking(&*self.provider, "objects"))?;
        self.layers.run(self.call(ProviderVerb::ExpireObjects), objects.expire(now)).await
    }
}

/// One tenant's objects behind the layers.
struct ObjectsHandle {
    handle: ResourceHandle,
    objects: Option<Arc<dyn TenantObjects>>,
}

impl ObjectsHandle {
    fn objects(&self) -> Result<&dyn TenantObjects, Failure> {
        self.objects.as_deref().ok_or_else(|| lacking(&*self.handle.provider, "objects"))
    }

    async fn run<T: Send>(
        &self,
        verb: ProviderVerb,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        self.handle.layers.run(self.handle.call(verb), work).await
    }
}

#[async_trait]
impl TenantObjects for ObjectsHandle {
    async fn put(&self, new: New<'_>, body: Body) -> Result<Meta, Failure> {
        self.run(ProviderVerb::PutObject, self.objects()?.put(new, body)).await
    }
    async fn get(&self, key: &str, range: Option<Range>) -> Result<Option<Content>, Failure> {
        self.run(ProviderVerb::GetObject, self.objects()?.get(key, range)).await
    }
    async fn meta(&self, key: &str) -> Result<Option<Meta>, Failure> {
        self.run(ProviderVerb::ObjectMeta, self.objects()?.meta(key)).await
    }
    async fn list(&self, prefix: &str, limit: u32, after: Option<&str>) -> Result<Listing, Failure> {
        self.run(ProviderVerb::ListObjects, self.objects()?.list(prefix, limit, after)).await
    }
    async fn delete(&self, key: &str) -> Result<bool, Failure> {
        self.run(ProviderVerb::DeleteObject, self.objects()?.delete(key)).await
    }
    async fn sign(
        &self,
        key: &str,
        method: Method,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Signed, Failure> {
        self.run(ProviderVerb::SignUrl, self.objects()?.sign(key, method, expires_at, now)).await
    }
    async fn usage(&self) -> Result<Usage, Failure> {
        self.run(ProviderVerb::BucketUsage, self.objects()?.usage()).await
    }
}

impl Data for ResourceHandle {
    fn scoped(&self, tenant: TenantId) -> Arc<dyn TenantRows> {
        let rows = self.provider.data().map(|data| data.scoped(tenant));
        Arc::new(RowsHandle { handle: self.clone(), rows })
    }
    fn canary(&self) -> Canary {
        let none =
            || Canary { tenant: TenantId::new(), table: String::new(), id: String::new(), row: Map::new() };
        self.provider.data().map_or_else(none, Data::canary)
    }
}

/// One tenant's rows behind the layers.
struct RowsHandle {
    handle: ResourceHandle,
    rows: Option<Arc<dyn TenantRows>>,
}

impl RowsHandle {
    fn rows(&self) -> Result<&dyn TenantRows, Failure> {
        self.rows.as_deref().ok_or_else(|| lacking(&*self.handle.provider, "data"))
    }

    async fn run<T: Send>(
        &self,
        verb: ProviderVerb,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        self.handle.layers.run(self.handle.call(verb), work).await
    }
}

#[async_trait]
impl TenantRows for RowsHandle {
    async fn insert(&self, table: &str, row: Map<String, Value>) -> Result<Value, Failure> {
        self.run(ProviderVerb::InsertRow, self.rows()?.insert(table, row)).await
    }
    async fn list(&self, table: &str, limit: u32, after: Option<&str>) -> Result<Page, Failure> {
        self.run(ProviderVerb::ListRows, self.rows()?.list(table, limit, after)).await
    }
    async fn get(&self, table: &str, id: &str) -> Result<Option<Value>, Failure> {
        self.run(ProviderVerb::GetRow, self.rows()?.get(table, id)).await
    }
    async fn delete(&self, table: &str, id: &str) -> Result<bool, Failure> {
        self.run(ProviderVerb::DeleteRow, self.rows()?.delete(table, id)).await
    }
    async fn remove_samples(&self) -> Result<Value, Failure> {
        self.run(ProviderVerb::RemoveSamples, self.rows()?.remove_samples()).await
    }
}
