//! Probes providers whose calls failed, every two seconds: tells when an outage begins and when it ends, and then wakes the
//! operations that wait. Providers that work are not probed.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::json;
use tenantry_model::Failure;
use tenantry_provider::Provider as _;
use tenantry_store::record::fleet_event;
use tenantry_store::{Rejected, Store, WriteBatch};

use super::Task;
use crate::control::Control;
use crate::error::Result;
use crate::resource::{OutageChange, Outages, ResourceHandle};

/// Name of the task.
pub(super) const NAME: &str = "probe_providers";

/// Time that a provider has to answer. PostgreSQL's providers try to connect for ten seconds before they say what is wrong.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

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
    let late = |_| Failure::retryable("timeout", format!("no response within {} s", PROBE_TIMEOUT.as_secs()));
    let probed = tokio::time::timeout(PROBE_TIMEOUT, provider.probe()).await.map_err(late);
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
                self.report_change(name, change).await;
            }
        }
        write_events(&self.shared.store, resources.outages()).await;
        changes
    }

    /// Logs that an outage began or ended, prepares its event, and at its end wakes the operations that wait.
    async fn report_change(&self, provider: &str, change: OutageChange) {
        let (outages, now) = (self.shared.resources.outages(), self.now());
        match change {
            OutageChange::Began(outage) => {
                let Failure { code, message, .. } = &outage.failure;
                tracing::warn!(provider, code, message, "provider is down; operations wait for it");
                let data = json!({ "provider": provider, "code": code, "message": message });
                outages.queue_event(fleet_event("provider.down", data, now));
            }
            OutageChange::Ended(outage) => {
                let operations = self.shared.executor.waiting_for(provider);
                let seconds = now.since(outage.since).as_secs();
                tracing::warn!(provider, seconds, operations, "provider works again; operations continue");
                let data = json!({ "provider": provider, "since": outage.since, "operations": operations });
                outages.queue_event(fleet_event("provider.up", data, now));
                // If the registry does not take the signals, the operations continue at their own next attempt.
                if let Err(why) = self.shared.executor.wake(provider).await {
                    tracing::debug!(provider, %why, "waiting operations are not woken");
                }
            }
        }
    }
}

/// Writes the events of outages, each alone, so that none keeps another from being written. Those that the registry does not
/// take, because it is down as well, are written by a later run.
async fn write_events(store: &Store, outages: &Outages) {
    let mut events = outages.take_events().into_iter();
    while let Some(event) = events.next() {
        match store.commit(WriteBatch::new(vec![event.clone()])).await {
            // A conflict is with itself: an earlier commit had written it, and its answer was lost.
            Ok(()) | Err(Rejected::Conflict { .. }) => {}
            Err(Rejected::Unavailable(why)) => {
                tracing::debug!(why, "events of outages are not written yet");
                return outages.requeue_events(std::iter::once(event).chain(events));
            }
            Err(why) => tracing::warn!(%why, "an event of an outage is not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tenantry_model::Timestamp;
    use tenantry_store::StoreConfig;
    use tenantry_testkit::Raw;

    use super::*;

    #[tokio::test]
    async fn each_event_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("registry.db").display());
        let store = Store::open(&StoreConfig { url: url.clone(), readers: 1 }).await.unwrap();
        let outages = Outages::default();
        let [first, second, third] = ["provider.down", "provider.up", "provider.down"]
            .map(|kind| fleet_event(kind, json!({}), Timestamp::from_micros(1)));
        // Written by a commit whose answer was lost.
        store.commit(WriteBatch::new(vec![first.clone()])).await.unwrap();
        [first, second].into_iter().for_each(|event| outages.queue_event(event));
        write_events(&store, &outages).await;
        assert_eq!(outages.take_events(), []);
        store.close().await;
        // The registry does not answer.
        outages.queue_event(third.clone());
        write_events(&store, &outages).await;
        assert_eq!(outages.take_events(), [third]);
        let registry = Raw::connect(&url).await;
        let written = registry.rows("SELECT type FROM events ORDER BY id").await;
        assert_eq!(written.len(), 2, "{written:?}");
        registry.close().await;
    }
}
