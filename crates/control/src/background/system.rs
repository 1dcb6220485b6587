//! The state of this process for operators: whether it is the leader, and its background tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TaskView;
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::Result;
use crate::resource::OutageRecord;
use tenantry_model::Timestamp;

/// A process of Tenantry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SystemView {
    /// Whether it runs operations and background tasks: of the processes on one registry, one does.
    pub leader: bool,
    /// All background tasks, by name.
    pub background_tasks: Vec<TaskView>,
    /// Providers that are down, by name; only the leader knows them.
    #[serde(default)]
    pub outages: Vec<OutageView>,
}

/// An outage of a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutageView {
    /// Name of the provider.
    pub provider: String,
    /// Time at which a probe confirmed it.
    pub since: Timestamp,
    /// A stable word for what is wrong.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Number of operations that wait for it.
    pub operations: u64,
}

impl Control {
    /// The state of this process.
    pub fn system(&self, caller: &Caller) -> Result<SystemView> {
        caller.require(Permission::ReadSystem)?;
        let (leader, background_tasks) = (*self.runs().borrow(), self.background_tasks());
        let outages = if leader { self.outages() } else { Vec::new() };
        Ok(SystemView { leader, background_tasks, outages })
    }

    fn outages(&self) -> Vec<OutageView> {
        let down = self.shared.resources.outages().down().into_iter();
        let view = |(provider, OutageRecord { since, failure }): (String, _)| {
            let operations = self.shared.executor.waiting_for(&provider) as u64;
            OutageView { provider, since, code: failure.code, message: failure.message, operations }
        };
        down.map(view).collect()
    }

    /// All background tasks with their last runs, by name.
    pub fn background_tasks(&self) -> Vec<TaskView> {
        self.shared.background.views()
    }
}
