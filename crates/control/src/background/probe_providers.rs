//! Probes providers whose calls failed, every two seconds: tells when an outage begins and when it ends, and then wakes the
//! operations that wait. Providers that work are not probed.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::json;
use tenantry_model::Failure;
use tenantry_provider::Provider as _;
use tenantry_store::WriteBatch;
use tenantry_store::record::fleet_event;

use super::Task;
use crate::control::Control;
use crate::error::Result;
use crate::resource::{OutageChange, ResourceHandle};

/// Name of the task.
pub(super) const NAME: &str = "probe_providers";

/// Time that a provider has to answer, its wait for a permit included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Probes providers that may be down.
pub(super) struct ProbeProviders;

#[async_trait]
impl Task for ProbeProviders {
    fn name(&self) -> &'static str {
        NAME
    }
    fn interval(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn run(&self, control: &Control) -> Result<usize> {
        Ok(control.probe_providers().await)
    }
}

async fn probe(provider: &ResourceHandle) -> (&str, std::result::Result<(), Failure>) {
    let late = |_| Failure::retryable("timeout", format!("no response within {} s", PATIENCE.as_secs()));
    let probed = tokio::time::timeout(PATIENCE, provider.probe()).await.map_err(late);
    (provider.name(), probed.flatten())
}

impl Control {
    /// Probes the providers whose calls failed. Returns the number of outages that began or ended.
    pub async fn probe_providers(&self) -> usize {
        let resources = &self.shared.resources;
        let suspects = resources.outages().to_probe();
        let suspects = suspects.iter().filter_map(|name| resources.get(name));
        let mut changes = 0;
        for (name, probed) in join_all(suspects.map(probe)).await {
            if let Some(change) = resources.outages().probed(name, probed, self.now()) {
                changes += 1;
                self.tell_outage(name, change).await;
            }
        }
        self.write_outages().await;
        changes
    }

    /// Logs that an outage began or ended, prepares its event, and at its end wakes the operations that wait.
    async fn tell_outage(&self, provider: &str, change: OutageChange) {
        let (outages, now) = (self.shared.resources.outages(), self.now());
        match change {
            OutageChange::Began(outage) => {
                let Failure { code, message, .. } = &outage.failure;
                tracing::warn!(provider, code, message, "provider is down; operations wait for it");
                let data = json!({ "provider": provider, "code": code, "message": message });
                outages.tell(fleet_event("provider.down", data, now));
            }
            OutageChange::Ended(outage) => {
                let operations = self.shared.executor.waiting_for(provider);
                let seconds = now.since(outage.since).as_secs();
                tracing::warn!(provider, seconds, operations, "provider works again; operations continue");
                let data = json!({ "provider": provider, "since": outage.since, "operations": operations });
                outages.tell(fleet_event("provider.up", data, now));
                // If the registry does not take the signals, the operations continue at their own next attempt.
                if let Err(why) = self.shared.executor.wake(provider).await {
                    tracing::debug!(provider, %why, "waiting operations are not woken");
                }
            }
        }
    }

    /// Writes the events of outages. Those that the registry does not take, because it is down as well, are written by a later
    /// run.
    async fn write_outages(&self) {
        let outages = self.shared.resources.outages();
        let events = outages.untold();
        if !events.is_empty()
            && let Err(why) = self.shared.store.commit(WriteBatch::new(events.clone())).await
        {
            tracing::debug!(%why, "events of outages are not written yet");
            events.into_iter().for_each(|event| outages.tell(event));
        }
    }
}
