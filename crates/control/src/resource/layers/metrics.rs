//! Metrics layer: reports every call of a provider with its outcome and duration to a function. Changes no call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry_model::FailureClass;

use super::{Call, Layer, ProviderVerb, Work};

/// A call that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderCall<'a> {
    /// Name of the provider.
    pub provider: &'a str,
    /// Verb that was called.
    pub verb: ProviderVerb,
    /// `ok`, the class of the failure, or `cancelled` if the caller gave up.
    pub outcome: &'static str,
    /// Duration, including the wait for a permit.
    pub took: Duration,
}

/// Function that receives every call when it has ended.
pub type OnCall = Arc<dyn Fn(ProviderCall<'_>) + Send + Sync>;

/// The layer.
pub struct Metrics {
    on_call: Option<OnCall>,
}

impl Metrics {
    /// Reports calls to this function; without one, the layer does nothing.
    pub fn new(on_call: Option<OnCall>) -> Self {
        Self { on_call }
    }
}

/// A call in progress. Reports the call when it is dropped, so that cancelled calls are counted too.
struct Running<'a> {
    call: &'a Call<'a>,
    on_call: &'a OnCall,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        (self.on_call)(ProviderCall {
            provider: self.call.provider,
            verb: self.call.verb,
            outcome: self.outcome,
            took: self.began.elapsed(),
        });
    }
}

impl Layer for Metrics {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let Some(on_call) = &self.on_call else { return work };
        Box::pin(async move {
            let mut running = Running { call, on_call, began: Instant::now(), outcome: "cancelled" };
            let done = work.await;
            running.outcome = match &done {
                Ok(()) => "ok",
                Err(failure) => match failure.class {
                    FailureClass::Retryable => "retryable",
                    FailureClass::Unknown => "unknown",
                    FailureClass::Invalid => "invalid",
                    FailureClass::Fatal => "fatal",
                },
            };
            done
        })
    }
}
