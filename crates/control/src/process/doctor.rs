//! The doctor: asks every provider of this process whether it can be reached and do its work.

use std::time::Duration;

use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Failure;
use tenantry_provider::{Kind, Provider as _};
use tokio::time::timeout;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::control::page::Page;
use crate::error::Result;

/// Time that a provider has to answer, its wait for a permit included.
const PATIENCE: Duration = Duration::from_secs(20);

/// A provider as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderStatus {
    /// Its name in templates and configuration.
    pub name: String,
    /// The kind that it serves.
    pub kind: Kind,
    /// Whether it can be reached and do its work.
    pub healthy: bool,
    /// A stable word for what is wrong; null: nothing.
    pub code: Option<String>,
    /// What is wrong and the fix, with the server that it is about where there are several; null: nothing.
    pub message: Option<String>,
}

impl Control {
    /// Every provider of this process, by name.
    pub async fn doctor(&self, caller: &Caller) -> Result<Page<ProviderStatus>> {
        caller.require(Permission::ProbeProviders)?;
        let each = self.shared.resources.iter().map(|provider| async move {
            let late = || Failure::retryable("timeout", "the provider did not respond in time");
            let probed = timeout(PATIENCE, provider.probe()).await.unwrap_or_else(|_| Err(late()));
            let failure = probed.err();
            ProviderStatus {
                name: provider.name().to_owned(),
                kind: provider.kind(),
                healthy: failure.is_none(),
                code: failure.as_ref().map(|failure| failure.code.clone()),
                message: failure.map(|failure| failure.message),
            }
        });
        Ok(Page { data: join_all(each).await, has_more: false, next_cursor: None })
    }
}
