//! The last run of each background task in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;

/// A background task and its last run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Name of the task.
    pub name: String,
    /// Seconds from the end of a run to the start of the next.
    pub interval_seconds: u64,
    /// Whether the task is running now.
    pub running: bool,
    /// Start of the last run, which may still be running; null if the task has not run in this process.
    pub last_run_at: Option<Timestamp>,
    /// Duration of the last run that has ended, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Number of objects that the last run changed.
    pub changed: Option<u64>,
    /// Error of the last run that has ended; null if it succeeded.
    pub error: Option<String>,
    /// Start of the next run; null while the task is running, and while this process is not the leader.
    pub next_run_at: Option<Timestamp>,
}

/// The last run of every task.
#[derive(Debug)]
pub struct Records(Mutex<BTreeMap<&'static str, TaskView>>);

impl Records {
    /// Creates records without a run, for tasks with these names and intervals.
    pub fn new(tasks: impl Iterator<Item = (&'static str, Duration)>) -> Self {
        let views = tasks.map(|(name, interval)| {
            let view = TaskView { interval_seconds: interval.as_secs(), ..TaskView::default() };
            (name, TaskView { name: name.to_owned(), ..view })
        });
        Self(Mutex::new(views.collect()))
    }

    /// All tasks, by name.
    pub fn views(&self) -> Vec<TaskView> {
        self.0.lock().values().cloned().collect()
    }

    /// Changes the record of this task.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut TaskView)) {
        if let Some(view) = self.0.lock().get_mut(name) {
            change(view);
        }
    }
}
