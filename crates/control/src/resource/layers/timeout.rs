//! Timeout layer: no call lasts longer than the limit of its verb.

use tenantry_model::Failure;

use super::{Call, Layer, Work};

/// Ends calls at the limit of their verb, with a failure `timeout`: retryable if the verb only reads, else of unknown
/// outcome.
pub struct Timeout;

impl Layer for Timeout {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let limit = call.verb.time_limit();
        Box::pin(async move {
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let message = format!("{} did not respond within {} s", call.provider, limit.as_secs());
                Err(match call.verb.only_reads() {
                    true => Failure::retryable("timeout", message),
                    false => Failure::unknown("timeout", message),
                })
            })
        })
    }
}
