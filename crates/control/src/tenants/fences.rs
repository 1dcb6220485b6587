//! Fences follow the access that suspensions deny: the change is committed first, then the fences of the resources that
//! clients reach directly are applied. A fence that did not answer is applied again by a background task; the tenant's
//! version decides between orders that overtake each other.

use std::time::Duration;

use futures::future::join_all;
use tenantry_model::{Write, columns};
use tenantry_provider::{Order, Provider as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::id_of;
use crate::resource::ResourceHandle;
use crate::tenants::view::FenceView;
use tenantry_store::{WriteBatch, entity};

/// Time that a suspension waits for the fences; they are applied in the background after that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Tenants whose fences are applied at the same time.
const BATCH: u64 = 100;

/// The fence of one resource, with what it is to deny.
struct FenceOrder {
    provider: ResourceHandle,
    order: Order,
}

impl Control {
    /// Whether any provider has fences.
    pub(crate) fn has_fences(&self) -> bool {
        self.shared.resources.iter().any(|provider| provider.fence().is_some())
    }

    /// Applies the fences of a tenant as its row says, and returns which were acknowledged in time. The others are applied
    /// in the background.
    pub(crate) async fn fence(&self, row: entity::tenant::Model) -> Result<Vec<FenceView>> {
        if !self.has_fences() && row.denied == row.fenced {
            return Ok(Vec::new());
        }
        let (mut views, orders): (Vec<_>, Vec<_>) = self.fences_of(&row).await?.into_iter().unzip();
        let until = Instant::now() + PATIENCE;
        let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
        // A task of its own: the fences are applied even if the client closes the connection.
        tokio::spawn(self.clone().apply_fences(row, orders, acknowledge));
        while let Ok(Some(n)) = timeout_at(until, acknowledged.recv()).await {
            let view: Option<&mut FenceView> = views.get_mut(n);
            view.into_iter().for_each(|view| view.acknowledged = true);
        }
        Ok(views)
    }

    /// The fences around a tenant's resources, each with the order that the tenant's row gives.
    async fn fences_of(&self, row: &entity::tenant::Model) -> Result<Vec<(FenceView, FenceOrder)>> {
        let resources = self.shared.store.resources(&row.id).await.map_err(Error::unavailable)?;
        let mut all = Vec::new();
        for resource in resources.into_iter().filter(|resource| resource.state == "present") {
            let Some(provider) = self.shared.resources.get(&resource.provider) else { continue };
            if provider.fence().is_none() {
                continue;
            }
            let mode = row.denied.as_deref().map(str::parse).transpose().map_err(Error::internal)?;
            let view = FenceView {
                resource: resource.step_key,
                kind: resource.kind,
                provider: resource.provider,
                mode,
                acknowledged: false,
            };
            let order = Order {
                tenant: id_of(row)?,
                resource: resource.id.parse().map_err(Error::internal)?,
                region: row.region.clone(),
                name: resource.name,
                claim: resource.claim,
                mode,
                version: row.version,
            };
            all.push((view, FenceOrder { provider: provider.clone(), order }));
        }
        Ok(all)
    }

    /// Applies the fences of a tenant whose change is committed already; a failure is logged, and the background task tries
    /// again.
    pub(crate) async fn fence_in_time(&self, tenant: &str) {
        let applied = async {
            let row = self.shared.store.tenant(tenant).await.map_err(Error::unavailable)?;
            match row {
                Some(row) => self.fence(row).await.map(drop),
                None => Ok(()),
            }
        };
        if let Err(why) = applied.await {
            tracing::warn!(tenant, %why, "fences not applied; a background task applies them");
        }
    }

    async fn apply_fences(
        self,
        row: entity::tenant::Model,
        orders: Vec<FenceOrder>,
        acknowledge: mpsc::UnboundedSender<usize>,
    ) {
        let calls = orders.iter().enumerate().map(|(n, FenceOrder { provider, order })| {
            let (acknowledge, tenant) = (acknowledge.clone(), &row.id);
            async move {
                let Some(fence) = provider.fence() else { return true };
                match fence.fence(order).await {
                    // The receiver may have stopped waiting.
                    Ok(()) => drop(acknowledge.send(n)),
                    Err(why) => {
                        tracing::warn!(
                            tenant,
                            resource = %order.resource,
                            provider = provider.name(),
                            %why,
                            "fence not acknowledged"
                        );
                        return false;
                    }
                }
                true
            }
        });
        if !join_all(calls).await.into_iter().all(|done| done) {
            return;
        }
        let denied = || row.denied.clone();
        let done = Write::update_if(
            "tenants",
            columns! { "id": row.id.clone() },
            // Only if this order is the last one: an order that was overtaken records nothing.
            columns! { "denied": denied(), "version": row.version },
            columns! { "fenced": denied() },
        );
        if let Err(why) = self.shared.store.commit(WriteBatch::new(vec![done])).await {
            tracing::debug!(tenant = row.id, %why, "fences are applied again");
        }
    }

    /// Applies the fences that are not recorded as applied: a provider did not answer, the process ended, or the tenant was
    /// suspended while the resource was created. Returns the number of tenants.
    pub(crate) async fn apply_pending_fences(&self) -> Result<usize> {
        let (mut tenants, mut after) = (0, String::new());
        loop {
            let rows = self.shared.store.unfenced(&after, BATCH).await.map_err(Error::unavailable)?;
            let Some(last) = rows.last() else { return Ok(tenants) };
            after = last.id.clone();
            tenants += rows.len();
            for applied in join_all(rows.into_iter().map(|row| self.fence(row))).await {
                if let Err(why) = applied {
                    tracing::warn!(%why, "a tenant's fences are not applied; they are tried again");
                }
            }
        }
    }

    /// Applies fences again that deny something else than is recorded, as after a failover to a standby that had not
    /// received them. Returns the number of tenants.
    pub(crate) async fn reconcile_fences(&self) -> Result<usize> {
        let (mut tenants, mut after) = (0, String::new());
        loop {
            let rows = self.shared.store.fenced(&after, BATCH).await.map_err(Error::unavailable)?;
            let Some(last) = rows.last() else { return Ok(tenants) };
            after = last.id.clone();
            for applied in join_all(rows.into_iter().map(|row| self.reconcile_fences_of(row))).await {
                tenants += usize::from(applied?);
            }
        }
    }

    async fn reconcile_fences_of(&self, row: entity::tenant::Model) -> Result<bool> {
        for (_, FenceOrder { provider, order }) in self.fences_of(&row).await? {
            let Some(fence) = provider.fence() else { continue };
            // A fence that cannot be read could not be applied either.
            if fence.denies(&order).await.is_ok_and(|denied| denied != order.mode) {
                tracing::warn!(
                    tenant = row.id,
                    resource = %order.resource,
                    provider = provider.name(),
                    "fence differs from what is recorded; applying it again"
                );
                return self.fence(row).await.map(|_| true);
            }
        }
        Ok(false)
    }
}
