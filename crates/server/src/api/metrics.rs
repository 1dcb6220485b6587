//! What Prometheus reads: requests as they are served, and the state of the registry at the moment of reading. Label
//! values come from the code alone, so their number is bounded: no ids, no names, no paths of clients.

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
use tenantry_control::Control;
use tenantry_control::error::{Error, Result};

/// The media type of the answer.
pub const OPEN_METRICS: &str = "application/openmetrics-text";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

type Count = Gauge<u64, AtomicU64>;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    active: Count,
    timers: Count,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tenantry"),
            requests: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            active: Gauge::default(),
            timers: Gauge::default(),
        };
        let Self { registry, requests, seconds, active, timers } = &mut metrics;
        registry.register("http_requests", "Requests served", requests.clone());
        let took = "Time from the head of a request to the head of its answer";
        registry.register_with_unit("http_request_duration", took, Unit::Seconds, seconds.clone());
        registry.register(
            "executor_active_operations",
            "Operations that do something at this moment",
            active.clone(),
        );
        registry.register("executor_timers", "Operations that wait for a time", timers.clone());
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
    pub fn read(&self, control: &Control) -> Result<String> {
        let (active, timers) = control.executor_load();
        self.active.set(active as u64);
        self.timers.set(timers as u64);
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(Error::internal)?;
        Ok(text)
    }
}
