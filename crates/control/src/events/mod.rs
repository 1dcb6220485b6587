//! Events, in the order of their sequence numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::id::{EventId, OperationId};
use tenantry_model::{TenantId, Timestamp};
use tenantry_provider::Sealer;
use tokio::sync::watch;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use tenantry_store::entity;

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Event id.
    pub id: EventId,
    /// Sequence number in the order of all events; also the id of the stream's messages.
    pub seq: i64,
    /// Type, such as `tenant.provisioned`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tenant that the event is about; null if it concerns the installation.
    pub tenant_id: Option<TenantId>,
    /// Operation that caused the event.
    pub operation_id: Option<OperationId>,
    /// Time of the change.
    pub at: Timestamp,
    /// Data of the event. Personal data is left out once the tenant's key is destroyed.
    pub data: Value,
}

impl Control {
    /// Up to `limit` events after this sequence number, oldest first.
    pub async fn events(&self, caller: &Caller, after: i64, limit: u64) -> Result<Vec<EventView>> {
        caller.require(Permission::ReadEvents)?;
        let store = &self.shared.store;
        let rows = match caller.tenant {
            Some(own) => store.events_of(&own.to_string(), after, limit).await,
            None => store.events_after(after, limit).await,
        };
        let rows = rows.map_err(Error::unavailable)?;
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            views.push(self.event_view(row).await?);
        }
        Ok(views)
    }

    /// The highest sequence number given so far, as it grows.
    pub fn event_head(&self) -> watch::Receiver<i64> {
        self.shared.sealing.head()
    }

    async fn event_view(&self, row: entity::event::Model) -> Result<EventView> {
        let tenant_id: Option<TenantId> =
            row.tenant_id.map(|id| id.parse()).transpose().map_err(Error::internal)?;
        let mut data = row.data;
        if let (Some(tenant), Some(sealed), Some(data)) = (tenant_id, &row.sealed, data.as_object_mut()) {
            // After an erasure the key is destroyed, so the personal part cannot be decrypted.
            if self.shared.keyring.load(tenant).await.is_ok()
                && let Ok(clear) = self.shared.keyring.open(tenant, sealed)
                && let Ok(Value::Object(personal)) = serde_json::from_str(&clear)
            {
                data.extend(personal.into_iter().filter(|(key, _)| key != "admin"));
            }
        }
        Ok(EventView {
            id: row.id.parse().map_err(Error::internal)?,
            seq: row.seq.unwrap_or_default(),
            kind: row.kind,
            tenant_id,
            operation_id: row.operation_id.map(|id| id.parse()).transpose().map_err(Error::internal)?,
            at: row.at.into(),
            data,
        })
    }
}
