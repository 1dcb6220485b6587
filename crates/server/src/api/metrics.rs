//! Prometheus metrics: requests, onboardings, provider calls and background tasks as they happen, and gauges that are
//! set when they are read. Label values come from code and configuration only, so their number is bounded.

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

use super::shares::{Kind, Shares};

/// Media type of the metrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Onboarding {
    plan: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    plan: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
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
struct ProviderLabels {
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
struct TaskLabels {
    task: String,
}

type Count = Gauge<u64, AtomicU64>;
/// A histogram per set of labels.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Buckets from 10 ms to 45 minutes.
fn onboarding_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 10))
}

/// Buckets from 1 ms to 17 minutes.
fn step_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 11))
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    limited: Family<Limited, Counter>,
    connections: Count,
    in_flight: Family<KindLabels, Count>,
    runs: Count,
    active: Count,
    timers: Count,
    red_cells: Count,
    obstructions: Count,
    checked: Count,
    onboardings: Family<Onboarding, Counter>,
    onboarding_seconds: Histograms<PlanLabels>,
    step_seconds: Histograms<StepLabels>,
    step_failures: Family<StepFailure, Counter>,
    provider_calls: Family<ProviderOutcome, Counter>,
    provider_seconds: Histograms<ProviderLabels>,
    task_last_run: Family<TaskLabels, Count>,
    task_seconds: Family<TaskLabels, Gauge<f64, AtomicU64>>,
    task_failed: Family<TaskLabels, Count>,
}

impl Metrics {
    /// Creates and registers all metrics.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tenantry"),
            requests: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            limited: Family::default(),
            connections: Gauge::default(),
            in_flight: Family::default(),
            runs: Gauge::default(),
            active: Gauge::default(),
            timers: Gauge::default(),
            red_cells: Gauge::default(),
            obstructions: Gauge::default(),
            checked: Gauge::default(),
            onboardings: Family::default(),
            onboarding_seconds: Family::new_with_constructor(onboarding_histogram),
            step_seconds: Family::new_with_constructor(step_histogram),
            step_failures: Family::default(),
            provider_calls: Family::default(),
            provider_seconds: Family::new_with_constructor(step_histogram),
            task_last_run: Family::default(),
            task_seconds: Family::default(),
            task_failed: Family::default(),
        };
        let Self { registry, requests, seconds, limited, connections, in_flight, .. } = &mut metrics;
        registry.register("http_requests", "Requests served", requests.clone());
        let help = "Time from the head of a request to the head of its response";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, seconds.clone());
        let help = "Connections and requests rejected because a limit was reached, by limit and share";
        registry.register("limited", help, limited.clone());
        registry.register("connections", "Open connections", connections.clone());
        let help = "Requests, event streams, uploads and downloads in flight";
        registry.register("in_flight", help, in_flight.clone());
        let Self { registry, runs, active, timers, .. } = &mut metrics;
        let help = "1 if this process is the leader, which runs operations; 0 otherwise";
        registry.register("runs", help, runs.clone());
        registry.register("executor_active_operations", "Operations with a running task", active.clone());
        registry.register("executor_timers", "Operations that wait for a timer", timers.clone());
        let Self { registry, red_cells, obstructions, checked, .. } = &mut metrics;
        let help = "Kinds of access that leak between tenants, from the last isolation check of the fleet";
        registry.register("isolation_red_cells", help, red_cells.clone());
        let help = "Kinds of obstruction in the last isolation check of all tenants";
        registry.register("isolation_obstructions", help, obstructions.clone());
        let help = "End of the last isolation check of the fleet, in seconds since 1970; 0 if there is none";
        registry.register("isolation_last_check_timestamp_seconds", help, checked.clone());
        let Self { registry, onboardings, onboarding_seconds, step_seconds, step_failures, .. } =
            &mut metrics;
        registry.register("onboardings", "Finished onboardings by outcome", onboardings.clone());
        let help = "Time from the request to the active tenant";
        registry.register_with_unit("onboarding_duration", help, Unit::Seconds, onboarding_seconds.clone());
        let help = "Time from the first start of a step to its end";
        registry.register_with_unit("step_duration", help, Unit::Seconds, step_seconds.clone());
        registry.register("step_failures", "Failed attempts of steps", step_failures.clone());
        let Self { registry, provider_calls, provider_seconds, .. } = &mut metrics;
        registry.register("provider_calls", "Provider calls by outcome", provider_calls.clone());
        let took = "Duration of provider calls, including the wait for a permit";
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

    /// Records a request. `route` is the pattern of its path.
    pub fn served(&self, method: &Method, route: &str, status: u16, took: Duration) {
        // Clients can send arbitrary methods; as label values they would be unbounded.
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .contains(method);
        let method = if known { method.as_str() } else { "other" }.to_owned();
        self.requests.get_or_create(&Request { method, route: route.to_owned(), status }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts what was rejected because this share of a limit is used up.
    pub fn limited(&self, limit: &'static str, by: &'static str) {
        self.limited.get_or_create(&Limited { limit, by }).inc();
    }

    /// Counts a connection that was opened.
    pub fn opened(&self) {
        self.connections.inc();
    }

    /// Counts a connection that was closed.
    pub fn closed(&self) {
        self.connections.dec();
    }

    /// Encodes all metrics as OpenMetrics text.
    pub async fn read(&self, control: &Control, shares: &Shares) -> Result<String> {
        // If the registry is unavailable, the last values stay; the other metrics matter most then.
        if let Ok(Some(report)) = control.fleet_report().await {
            self.red_cells.set(report.leaks);
            self.obstructions.set(report.obstructions);
            self.checked.set(u64::try_from(report.at.seconds()).unwrap_or_default());
        }
        for kind in Kind::ALL {
            let label = KindLabels { kind: kind.as_str() };
            self.in_flight.get_or_create(&label).set(shares.in_flight(kind) as u64);
        }
        let (active, timers) = control.executor_load();
        self.runs.set(u64::from(*control.runs().borrow()));
        self.active.set(active as u64);
        self.timers.set(timers as u64);
        for task in control.background_tasks() {
            let label = TaskLabels { task: task.name };
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
        // The duration of a failed onboarding says nothing about onboarding.
        if outcome == OperationState::Succeeded {
            self.onboarding_seconds.get_or_create(&PlanLabels { plan }).observe(took.as_secs_f64());
        }
    }

    fn step_done(&self, template: &str, step: &str, took: Duration) {
        let step = StepLabels { template: template.to_owned(), step: step.to_owned() };
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
        self.provider_seconds
            .get_or_create(&ProviderLabels { provider, verb })
            .observe(call.took.as_secs_f64());
    }
}
