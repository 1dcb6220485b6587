//! Background tasks: periodic work of the leader. Each task is one file with its name, interval and work; the list is
//! [`tasks`]. A task that fails or hangs delays no other.

mod apply_fences;
mod check_isolation;
mod expire_archives;
mod expire_objects;
mod forget_answers;
mod forget_codes;
mod forget_sessions;
mod probe_providers;
mod reconcile_fences;
mod renew_resources;
mod retire_credentials;
mod schedule;
mod system;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use system::SystemView;

use crate::control::Control;
use crate::control::tasks::Records;
pub use crate::control::tasks::TaskView;
use crate::error::Result;
use schedule::Job;

const HOUR: Duration = Duration::from_secs(3600);

/// Periodic work. Safe to run at any time, and again.
#[async_trait]
pub(crate) trait Task: Send + Sync {
    /// Name in the API, in logs and in metrics.
    fn name(&self) -> &'static str;

    /// Time from the end of a run to the start of the next.
    fn interval(&self) -> Duration {
        HOUR
    }

    /// Longest time that a run may take.
    fn time_limit(&self) -> Duration {
        schedule::TIME_LIMIT
    }

    /// Runs once. Returns the number of things that it changed.
    async fn run(&self, control: &Control) -> Result<usize>;
}

/// All background tasks.
pub(crate) fn tasks() -> Vec<Arc<dyn Task>> {
    vec![
        Arc::new(probe_providers::ProbeProviders),
        Arc::new(expire_objects::ExpireObjects),
        Arc::new(apply_fences::ApplyFences),
        Arc::new(retire_credentials::RetireCredentials),
        Arc::new(reconcile_fences::ReconcileFences),
        Arc::new(expire_archives::ExpireArchives),
        Arc::new(check_isolation::CheckIsolation),
        Arc::new(forget_answers::ForgetAnswers),
        Arc::new(forget_codes::ForgetCodes),
        Arc::new(forget_sessions::ForgetSessions),
        Arc::new(renew_resources::RenewResources),
    ]
}

/// Records for all background tasks, none of which has run.
pub(crate) fn records() -> Records {
    Records::new(tasks().iter().map(|task| (task.name(), task.interval())))
}

impl Control {
    /// Runs the background tasks, each at its own interval, for as long as the future is polled and while this process is the
    /// leader.
    pub async fn run_background_tasks(&self) -> Infallible {
        let jobs = tasks().into_iter().map(|task| {
            let control = self.clone();
            let (name, interval, time_limit) = (task.name(), task.interval(), task.time_limit());
            let mut job = Job::new(name, interval, move || {
                let (task, control) = (task.clone(), control.clone());
                async move { task.run(&control).await }
            });
            job.time_limit = time_limit;
            job
        });
        schedule::run(jobs.collect(), &self.shared.background, &self.runs(), &*self.shared.clock).await
    }

    /// Runs every background task once, in the order of the list, and returns what each changed. Of a task that fails, the
    /// error is logged and the next one runs.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        for task in tasks() {
            let changed = match task.run(self).await {
                Ok(changed) => changed,
                Err(why) => {
                    tracing::warn!(task = task.name(), %why, "background task failed");
                    continue;
                }
            };
            match task.name() {
                probe_providers::NAME => swept.outages = changed,
                expire_objects::NAME => swept.expired = changed,
                apply_fences::NAME | reconcile_fences::NAME => swept.fenced += changed,
                retire_credentials::NAME => swept.retired = changed,
                expire_archives::NAME => swept.archives = changed,
                check_isolation::NAME => swept.isolation_checks = changed,
                forget_answers::NAME => swept.answers = changed,
                forget_codes::NAME => swept.codes = changed,
                forget_sessions::NAME => swept.sessions = changed,
                renew_resources::NAME => swept.renewals = changed,
                _ => {}
            }
        }
        Ok(swept)
    }
}

/// What one run of all background tasks changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Renewals that were begun.
    pub renewals: usize,
    /// Former secrets that were ended.
    pub retired: usize,
    /// Tenants whose fences were applied again.
    pub fenced: usize,
    /// Objects that were deleted by their buckets' own rules.
    pub expired: usize,
    /// Archives that were deleted at the end of their retention.
    pub archives: usize,
    /// Isolation checks.
    pub isolation_checks: usize,
    /// Stored answers to idempotent requests that were deleted.
    pub answers: usize,
    /// Sign-in codes that were deleted.
    pub codes: usize,
    /// Sessions that were deleted after their end.
    pub sessions: usize,
    /// Outages of providers that began or ended.
    pub outages: usize,
}
