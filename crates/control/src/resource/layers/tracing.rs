//! Tracing layer: a span around every call of a provider, with ids and names of providers only.

use tracing::Instrument as _;

use super::{Call, Layer, Work};

/// Opens a span for each call and logs failures at level `debug`; the engine logs those that an operation meets.
pub struct Tracing;

impl Layer for Tracing {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let span = tracing::debug_span!(
            "provider_call",
            provider = call.provider,
            verb = call.verb.as_str(),
            region = call.region,
            resource = call.resource.map(tracing::field::display),
        );
        let logged = async move {
            let done = work.await;
            if let Err(failure) = &done {
                tracing::debug!(code = failure.code, class = ?failure.class, "provider call failed");
            }
            done
        };
        Box::pin(logged.instrument(span))
    }
}
