//! Drift: tenants whose resources differ from what was created. Read page by page, so that a fleet of any size needs the
//! memory of one page.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::error::{Error, Result};
use crate::tenants::status::StatusView;

/// The differences among the tenants of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftView {
    /// Number of tenants of the page that were checked: those that are active or suspended.
    pub checked: u64,
    /// Tenants that are not healthy. A page may be empty although another one follows.
    #[serde(flatten)]
    pub page: Page<StatusView>,
}

impl Control {
    /// Active and suspended tenants, newest first, that differ from what was created.
    pub async fn drift(&self, caller: &Caller, page: &PageQuery) -> Result<DriftView> {
        caller.require(Permission::ReadTenants)?;
        let (store, own) = (&self.shared.store, caller.tenant.map(|tenant| tenant.to_string()));
        let rows = store.standing_tenants(own.as_deref(), page.cursor(), page.probe()).await;
        let rows = page.cut(rows.map_err(Error::unavailable)?, |row| row.id.clone(), Ok)?;
        let mut found = self.observe_tenants(rows.data).await?;
        let checked = found.len() as u64;
        found.retain(|status| !status.healthy);
        // An operation may have changed a tenant between two observations, so each is observed once more. Tenants with a
        // resource that does not respond are not.
        let again = found.iter().filter(|status| status.resources.iter().all(|it| it.responding));
        let again: Vec<String> = again.map(|status| status.id.to_string()).collect();
        if !again.is_empty() {
            let rows = store.standing(&again).await.map_err(Error::unavailable)?;
            let seen = self.observe_tenants(rows).await?;
            let mut seen: HashMap<_, _> = seen.into_iter().map(|status| (status.id, status)).collect();
            found = found
                .into_iter()
                .filter_map(|status| match again.contains(&status.id.to_string()) {
                    true => seen.remove(&status.id).filter(|status| !status.healthy),
                    false => Some(status),
                })
                .collect();
        }
        let page = Page { data: found, has_more: rows.has_more, next_cursor: rows.next_cursor };
        Ok(DriftView { checked, page })
    }
}
