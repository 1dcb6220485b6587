//! Drift: what of the fleet is not as it was made. Tenants are asked for page by page, so that a fleet of any size takes as
//! much memory as a page.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::page::PageQuery;
use crate::status::StatusView;
use crate::view::Page;

/// The differences among the tenants of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftView {
    /// How many tenants of the page were asked for: those that are active or suspended.
    pub checked: u64,
    /// Those that are not healthy. The page may be empty, and another one follow.
    #[serde(flatten)]
    pub page: Page<StatusView>,
}

impl Control {
    /// Which active and suspended tenants, newest first, are not as they were made.
    pub async fn drift(&self, caller: &Caller, page: &PageQuery) -> Result<DriftView> {
        caller.require(Permission::ReadTenants)?;
        let (store, own) = (&self.shared.store, caller.tenant.map(|tenant| tenant.to_string()));
        let rows = store.standing_tenants(own.as_deref(), page.cursor(), page.probe()).await;
        let rows = page.cut(rows.map_err(Error::unavailable)?, |row| row.id.clone(), Ok)?;
        let checked = rows.data.len() as u64;
        let mut found = self.look_at(rows.data).await?;
        found.retain(|status| !status.healthy);
        // What an operation changed while it was looked at is looked at once more. What is silent stays so.
        let again = found.iter().filter(|status| status.resources.iter().all(|it| it.responding));
        let again: Vec<String> = again.map(|status| status.id.to_string()).collect();
        if !again.is_empty() {
            let rows = store.standing(&again).await.map_err(Error::unavailable)?;
            let seen = self.look_at(rows).await?;
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
