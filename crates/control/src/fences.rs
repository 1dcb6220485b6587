//! Fences follow what is denied: the fact is committed first, then the resources that clients reach past Tenantry are told.
//! What does not answer is told again by the sweep; the tenant's version orders what overtakes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tenantry_model::{Write, columns};
use tenantry_provider::{Order, Provider};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::id_of;
use crate::view::FenceView;
use tenantry_store::{Unit, entity};

/// How long whoever suspends waits for the fences (design §5: denied within a second).
const PATIENCE: Duration = Duration::from_secs(1);
/// Tenants that are fenced side by side.
const SIDE_BY_SIDE: u64 = 100;

/// An order, and who carries it out.
struct Told {
    provider: Arc<dyn Provider>,
    order: Order,
}

impl Control {
    /// Whether any provider has fences.
    pub(crate) fn has_fences(&self) -> bool {
        self.shared.providers.iter().any(|provider| provider.fence().is_some())
    }

    /// Has the fences of a tenant deny what the row says, and tells which did in time. The others are told on.
    pub(crate) async fn fence(&self, row: entity::tenant::Model) -> Result<Vec<FenceView>> {
        if !self.has_fences() && row.denied == row.fenced {
            return Ok(Vec::new());
        }
        let (mut views, all): (Vec<_>, Vec<_>) = self.fences_of(&row).await?.into_iter().unzip();
        let until = Instant::now() + PATIENCE;
        let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
        // Whoever asked may go away, and what is denied is denied all the same.
        tokio::spawn(self.clone().tell(row, all, acknowledge));
        while let Ok(Some(n)) = timeout_at(until, acknowledged.recv()).await {
            let view: Option<&mut FenceView> = views.get_mut(n);
            view.into_iter().for_each(|view| view.acknowledged = true);
        }
        Ok(views)
    }

    /// The fences around what a tenant has, each with the order that its row gives.
    async fn fences_of(&self, row: &entity::tenant::Model) -> Result<Vec<(FenceView, Told)>> {
        let resources = self.shared.store.resources(&row.id).await.map_err(Error::unavailable)?;
        let mut all = Vec::new();
        for resource in resources.into_iter().filter(|resource| resource.state == "present") {
            let Some(provider) = self.shared.providers.get(&resource.provider) else { continue };
            if provider.fence().is_none() {
                continue;
            }
            let grade = row.denied.as_deref().map(str::parse).transpose().map_err(Error::internal)?;
            let view = FenceView {
                resource: resource.step_key,
                kind: resource.kind,
                provider: resource.provider,
                grade,
                acknowledged: false,
            };
            let order = Order {
                tenant: id_of(row)?,
                resource: resource.id.parse().map_err(Error::internal)?,
                region: row.region.clone(),
                name: resource.name,
                claim: resource.claim,
                grade,
                version: row.version,
            };
            all.push((view, Told { provider: provider.clone(), order }));
        }
        Ok(all)
    }

    /// The same of what has happened already, whether that can be told now or only later.
    pub(crate) async fn fence_in_time(&self, tenant: &str) {
        let told = async {
            let row = self.shared.store.tenant(tenant).await.map_err(Error::unavailable)?;
            match row {
                Some(row) => self.fence(row).await.map(drop),
                None => Ok(()),
            }
        };
        if let Err(why) = told.await {
            tracing::warn!(tenant, "its fences are told later: {why}");
        }
    }

    async fn tell(
        self,
        row: entity::tenant::Model,
        all: Vec<Told>,
        acknowledge: mpsc::UnboundedSender<usize>,
    ) {
        let calls = all.iter().enumerate().map(|(n, Told { provider, order })| {
            let acknowledge = acknowledge.clone();
            async move {
                let Some(fence) = provider.fence() else { return true };
                match fence.fence(order).await {
                    // Nobody waiting is fine.
                    Ok(()) => drop(acknowledge.send(n)),
                    Err(why) => {
                        tracing::warn!(resource = %order.resource, "its fence does not answer: {why}");
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
            // By this order and no later one: an order that was overtaken does nothing.
            columns! { "denied": denied(), "version": row.version },
            columns! { "fenced": denied() },
        );
        if let Err(why) = self.shared.store.commit(Unit::new(vec![done])).await {
            tracing::debug!(tenant = row.id, "its fences are told again: {why}");
        }
    }

    /// Tells the fences that did not answer, that nobody lived to tell, or of tenants that were suspended while they were made.
    /// Gives the number of tenants.
    pub async fn fence_the_rest(&self) -> Result<usize> {
        let (mut tenants, mut after) = (0, String::new());
        loop {
            let rest = self.shared.store.unfenced(&after, SIDE_BY_SIDE).await.map_err(Error::unavailable)?;
            let Some(last) = rest.last() else { return Ok(tenants) };
            after = last.id.clone();
            tenants += rest.len();
            for told in join_all(rest.into_iter().map(|row| self.fence(row))).await {
                if let Err(why) = told {
                    tracing::warn!("a tenant's fences are told later: {why}");
                }
            }
        }
    }

    /// Tells the fences once more that deny something else than what they were told: a standby may have taken over that had
    /// not heard of it. Gives the number of tenants.
    pub async fn fence_again(&self) -> Result<usize> {
        let (mut tenants, mut after) = (0, String::new());
        loop {
            let fenced = self.shared.store.fenced(&after, SIDE_BY_SIDE).await.map_err(Error::unavailable)?;
            let Some(last) = fenced.last() else { return Ok(tenants) };
            after = last.id.clone();
            for told in join_all(fenced.into_iter().map(|row| self.fence_if_it_is_down(row))).await {
                tenants += usize::from(told?);
            }
        }
    }

    async fn fence_if_it_is_down(&self, row: entity::tenant::Model) -> Result<bool> {
        for (_, Told { provider, order }) in self.fences_of(&row).await? {
            let Some(fence) = provider.fence() else { continue };
            // One that does not answer could not be told either.
            if fence.denies(&order).await.is_ok_and(|denied| denied != order.grade) {
                tracing::warn!(tenant = row.id, resource = %order.resource, "its fence is down; it is told again");
                return self.fence(row).await.map(|_| true);
            }
        }
        Ok(false)
    }
}
