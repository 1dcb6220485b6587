//! What Prometheus reads: requests, onboardings and calls of providers as they end, and the state of the process and of the
//! registry at the moment of reading. Label values come from code and configuration alone, so their number is bounded: no ids, no names,
//! no paths of clients.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tenantry_control::error::{Error, Result};
use tenantry_control::resource::ProviderCall;
use tenantry_control::{Control, Meter};
use tenantry_engine::OperationState;

/// The media type of the answer.
pub const OPEN_METRICS: &str = "application/openmetrics-text";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Onboarding {
    plan: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPlan {
    plan: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStep {
    template: String,
    step: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepFailure {
    template: String,
    step: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: String,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderOutcome {
    provider: String,
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTask {
    task: String,
}

type Count = Gauge<u64, AtomicU64>;
/// A histogram for each value of the labels, with buckets of its own.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// From 10 ms to 45 minutes.
fn of_onboardings() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 10))
}

/// From 1 ms to 17 minutes.
fn of_steps() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 11))
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    runs: Count,
    active: Count,
    timers: Count,
    red_cells: Count,
    checked: Count,
    onboardings: Family<Onboarding, Counter>,
    onboarding_seconds: Histograms<OfPlan>,
    step_seconds: Histograms<OfStep>,
    step_failures: Family<StepFailure, Counter>,
    provider_calls: Family<ProviderOutcome, Counter>,
    provider_seconds: Histograms<OfProvider>,
    task_last_run: Family<OfTask, Count>,
    task_seconds: Family<OfTask, Gauge<f64, AtomicU64>>,
    task_failed: Family<OfTask, Count>,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tenantry"),
            requests: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            runs: Gauge::default(),
            active: Gauge::default(),
            timers: Gauge::default(),
            red_cells: Gauge::default(),
            checked: Gauge::default(),
            onboardings: Family::default(),
            onboarding_seconds: Family::new_with_constructor(of_onboardings),
            step_seconds: Family::new_with_constructor(of_steps),
            step_failures: Family::default(),
            provider_calls: Family::default(),
            provider_seconds: Family::new_with_constructor(of_steps),
            task_last_run: Family::default(),
            task_seconds: Family::default(),
            task_failed: Family::default(),
        };
        let Self { registry, requests, seconds, runs, active, timers, .. } = &mut metrics;
        registry.register("http_requests", "Requests served", requests.clone());
        let took = "Time from the head of a request to the head of its answer";
        registry.register_with_unit("http_request_duration", took, Unit::Seconds, seconds.clone());
        let one = "Whether this process runs operations: of the processes on one registry, one does";
        registry.register("runs", one, runs.clone());
        registry.register(
            "executor_active_operations",
            "Operations that do something at this moment",
            active.clone(),
        );
        registry.register("executor_timers", "Operations that wait for a time", timers.clone());
        let Self { registry, red_cells, checked, .. } = &mut metrics;
        let leaks = "Red cells of the last isolation check of the fleet: ways from one tenant to another";
        registry.register("isolation_red_cells", leaks, red_cells.clone());
        let at = "When that check ended, in seconds since 1970; 0 if there is none";
        registry.register("isolation_last_check_timestamp_seconds", at, checked.clone());
        let Self { registry, onboardings, onboarding_seconds, step_seconds, step_failures, .. } =
            &mut metrics;
        registry.register("onboardings", "Onboardings that have ended, by how", onboardings.clone());
        let took = "Time from the request to the active tenant";
        registry.register_with_unit("onboarding_duration", took, Unit::Seconds, onboarding_seconds.clone());
        let took = "Time from the first start of a step until it was done";
        registry.register_with_unit("step_duration", took, Unit::Seconds, step_seconds.clone());
        registry.register("step_failures", "Attempts at steps that failed", step_failures.clone());
        let Self { registry, provider_calls, provider_seconds, .. } = &mut metrics;
        registry.register("provider_calls", "Calls of providers, by outcome", provider_calls.clone());
        let took = "Duration of calls of providers, with the wait for a permit";
        registry.register_with_unit("provider_call_duration", took, Unit::Seconds, provider_seconds.clone());
        let Self { registry, task_last_run, task_seconds, task_failed, .. } = &mut metrics;
        let at = "Start of the last run of a background task, in seconds since 1970; 0 before the first";
        registry.register("background_task_last_run_timestamp_seconds", at, task_last_run.clone());
        let took = "Duration of the last run of a background task that has ended";
        registry.register_with_unit("background_task_duration", took, Unit::Seconds, task_seconds.clone());
        let failed = "Whether the last run of a background task failed";
        registry.register("background_task_failed", failed, task_failed.clone());
        metrics
    }

    /// A request was served. `route` is the pattern of its path, not the path.
    pub fn served(&self, method: &Method, route: &str, status: u16, took: Duration) {
        // A client may make a method up.
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .contains(method);
        let method = if known { method.as_str() } else { "other" }.to_owned();
        self.requests.get_or_create(&Request { method, route: route.to_owned(), status }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub async fn read(&self, control: &Control) -> Result<String> {
        // Where the registry does not answer, the last figures stand: the others are all the more needed.
        if let Ok(Some(report)) = control.fleet_report().await {
            self.red_cells.set(report.leaks);
            self.checked.set(u64::try_from(report.at.seconds()).unwrap_or_default());
        }
        let (active, timers) = control.executor_load();
        self.runs.set(u64::from(*control.runs().borrow()));
        self.active.set(active as u64);
        self.timers.set(timers as u64);
        for task in control.background_tasks() {
            let label = OfTask { task: task.name };
            let last = task.last_run_at.map_or(0, |at| u64::try_from(at.seconds()).unwrap_or_default());
            self.task_last_run.get_or_create(&label).set(last);
            let took = Duration::from_millis(task.duration_ms.unwrap_or_default());
            self.task_seconds.get_or_create(&label).set(took.as_secs_f64());
            self.task_failed.get_or_create(&label).set(u64::from(task.error.is_some()));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(Error::internal)?;
        Ok(text)
    }
}

impl Meter for Metrics {
    fn onboarded(&self, plan: &str, outcome: OperationState, took: Duration) {
        let plan = plan.to_owned();
        self.onboardings.get_or_create(&Onboarding { plan: plan.clone(), outcome: outcome.as_str() }).inc();
        // How long it takes to give up says nothing of how long it takes to make a tenant.
        if outcome == OperationState::Succeeded {
            self.onboarding_seconds.get_or_create(&OfPlan { plan }).observe(took.as_secs_f64());
        }
    }

    fn step_done(&self, template: &str, step: &str, took: Duration) {
        let step = OfStep { template: template.to_owned(), step: step.to_owned() };
        self.step_seconds.get_or_create(&step).observe(took.as_secs_f64());
    }

    fn step_failed(&self, template: &str, step: &str, code: &str) {
        let (template, step, code) = (template.to_owned(), step.to_owned(), code.to_owned());
        self.step_failures.get_or_create(&StepFailure { template, step, code }).inc();
    }

    fn provider_called(&self, call: ProviderCall<'_>) {
        let (provider, verb) = (call.provider.to_owned(), call.verb.as_str());
        let outcome = ProviderOutcome { provider: provider.clone(), verb, outcome: call.outcome };
        self.provider_calls.get_or_create(&outcome).inc();
        self.provider_seconds.get_or_create(&OfProvider { provider, verb }).observe(call.took.as_secs_f64());
    }
}
