//! Runs background tasks side by side, each in a loop of its own, and records the last run of each.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use tenantry_engine::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::control::tasks::Records;
use crate::error::{Error, Result};

/// Longest time that one run may take.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(1800);

/// A background task, ready to run.
pub(super) struct Job {
    name: &'static str,
    interval: Duration,
    pub time_limit: Duration,
    work: Box<dyn Fn() -> BoxFuture<'static, Result<usize>> + Send + Sync>,
}

impl Job {
    /// A task that does this work.
    pub fn new<F>(
        name: &'static str,
        interval: Duration,
        work: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<usize>> + Send + 'static,
    {
        Self { name, interval, time_limit: TIME_LIMIT, work: Box::new(move || Box::pin(work())) }
    }
}

/// Runs all jobs while `leads` is true, for as long as the future is polled.
pub(super) async fn run(
    jobs: Vec<Job>,
    records: &Records,
    leads: &watch::Receiver<bool>,
    clock: &dyn Clock,
) -> Infallible {
    join_all(jobs.iter().map(|job| repeat(job, records, leads.clone(), clock))).await;
    // The process is ending.
    std::future::pending().await
}

async fn repeat(job: &Job, records: &Records, mut leads: watch::Receiver<bool>, clock: &dyn Clock) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        records.change(job.name, |task| {
            (task.running, task.last_run_at, task.next_run_at) = (true, Some(clock.now()), None);
        });
        let began = Instant::now();
        let result = run_once(job).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(changed) => tracing::debug!(task = job.name, changed, took_ms = took, "background task ended"),
            Err(why) => {
                tracing::warn!(task = job.name, code = why.code.as_str(), cause = why.cause, %why, "background task failed");
            }
        }
        records.change(job.name, |task| {
            (task.running, task.duration_ms) = (false, Some(took));
            task.changed = result.as_ref().ok().map(|changed| *changed as u64);
            task.error = result.err().map(|why| why.to_string());
            task.next_run_at = Some(clock.now() + job.interval);
        });
        let deposed = async {
            if leads.wait_for(|leads| !*leads).await.is_err() {
                // A process without standbys leads for as long as it lives.
                std::future::pending::<()>().await;
            }
        };
        if timeout(job.interval, deposed).await.is_ok() {
            records.change(job.name, |task| task.next_run_at = None);
        }
    }
}

/// One run, in a task of its own, so that a panic ends the run alone.
async fn run_once(job: &Job) -> Result<usize> {
    let mut run = JoinSet::new();
    run.spawn((job.work)());
    match timeout(job.time_limit, run.join_next()).await {
        Ok(Some(Ok(result))) => result,
        Ok(_) => Err(Error::internal("the background task panicked")),
        Err(_) => Err(Error::internal(format!("not done within {} s", job.time_limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tenantry_engine::SystemClock;

    use super::*;
    use crate::control::tasks::TaskView;

    const INTERVAL: Duration = Duration::from_millis(40);

    fn find<'a>(views: &'a [TaskView], name: &str) -> &'a TaskView {
        views.iter().find(|view| view.name == name).unwrap()
    }

    /// Runs the tasks until their records are as wanted, and returns these.
    async fn run_until(
        jobs: Vec<Job>,
        records: &Records,
        leads: &watch::Receiver<bool>,
        wanted: impl Fn(&[TaskView]) -> bool,
    ) -> Vec<TaskView> {
        let settled = async {
            loop {
                let views = records.views();
                if wanted(&views) {
                    return views;
                }
                tokio::time::sleep(INTERVAL / 10).await;
            }
        };
        tokio::select! {
            _ = run(jobs, records, leads, &SystemClock) => panic!("it goes on for ever"),
            views = timeout(Duration::from_secs(60), settled) => views.expect("it settles"),
        }
    }

    #[tokio::test]
    async fn a_task_that_fails_panics_or_hangs_delays_no_other() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let jobs = vec![
            Job::new("fails", INTERVAL, || async { Err(Error::unavailable("the server is down")) }),
            Job::new("hangs", INTERVAL, std::future::pending),
            Job::new("panics", INTERVAL, || async { panic!("a defect") }),
            Job::new("works", INTERVAL, move || {
                let counted = counted.clone();
                async move { Ok(counted.fetch_add(1, Ordering::Relaxed)) }
            }),
        ];
        let records = Records::new(jobs.iter().map(|job| (job.name, job.interval)));
        let leads = watch::Sender::new(true).subscribe();
        let error = |views: &[TaskView], name| find(views, name).error.clone().unwrap_or_default();
        let views = run_until(jobs, &records, &leads, |views| {
            let failed = ["fails", "panics"].iter().all(|name| !error(views, name).is_empty());
            failed && runs.load(Ordering::Relaxed) >= 3 && !find(views, "works").running
        });
        let views = views.await;
        assert!(error(&views, "fails").starts_with("unavailable: "), "{views:?}");
        assert!(error(&views, "panics").starts_with("internal: "), "{views:?}");
        assert!(find(&views, "hangs").running && find(&views, "hangs").duration_ms.is_none(), "{views:?}");
        let works = find(&views, "works");
        assert_eq!(works.error, None);
        assert!(works.last_run_at.is_some() && works.next_run_at > works.last_run_at, "{works:?}");
    }

    #[tokio::test]
    async fn a_run_that_hangs_is_cut_off() {
        let hangs = Job::new("hangs", INTERVAL, std::future::pending);
        let jobs = vec![Job { time_limit: INTERVAL, ..hangs }];
        let records = Records::new(jobs.iter().map(|job| (job.name, job.interval)));
        let leads = watch::Sender::new(true).subscribe();
        let views = run_until(jobs, &records, &leads, |views| find(views, "hangs").error.is_some()).await;
        let error = find(&views, "hangs").error.clone();
        assert!(error.is_some_and(|error| error.starts_with("internal: ")));
    }

    #[tokio::test]
    async fn only_the_leader_runs_tasks() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let jobs = vec![Job::new("works", INTERVAL, move || {
            let counted = counted.clone();
            async move { Ok(counted.fetch_add(1, Ordering::Relaxed)) }
        })];
        let records = Records::new(jobs.iter().map(|job| (job.name, job.interval)));
        let lead = watch::Sender::new(false);
        let leads = lead.subscribe();
        let driver = run(jobs, &records, &leads, &SystemClock);
        tokio::pin!(driver);
        let _ = timeout(INTERVAL * 2, &mut driver).await;
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        lead.send_replace(true);
        let twice = async {
            while runs.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(INTERVAL / 10).await;
            }
        };
        tokio::select! {
            _ = &mut driver => panic!("it goes on for ever"),
            ran = timeout(Duration::from_secs(60), twice) => ran.expect("it runs twice"),
        }
        lead.send_replace(false);
        let _ = timeout(INTERVAL, &mut driver).await;
        let before = runs.load(Ordering::Relaxed);
        let _ = timeout(INTERVAL * 3, &mut driver).await;
        assert_eq!(runs.load(Ordering::Relaxed), before);
        assert_eq!(find(&records.views(), "works").next_run_at, None);
    }
}
