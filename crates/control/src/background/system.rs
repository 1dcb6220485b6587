//! The state of this process for operators: whether it is the leader, and its background tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TaskView;
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::Result;

/// A process of Tenantry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SystemView {
    /// Whether it runs operations and background tasks: of the processes on one registry, one does.
    pub leader: bool,
    /// All background tasks, by name.
    pub background_tasks: Vec<TaskView>,
}

impl Control {
    /// The state of this process.
    pub fn system(&self, caller: &Caller) -> Result<SystemView> {
        caller.require(Permission::ReadSystem)?;
        Ok(SystemView { leader: *self.runs().borrow(), background_tasks: self.background_tasks() })
    }

    /// All background tasks with their last runs, by name.
    pub fn background_tasks(&self) -> Vec<TaskView> {
        self.shared.background.views()
    }
}
