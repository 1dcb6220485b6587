//! Decides whether and when a failed attempt is retried; no other code does. Exponential backoff with full
//! jitter: the delay before retry n is uniform in 0 to base × 2ⁿ⁻¹, capped, and at least the server's
//! `Retry-After`.

use std::time::Duration;

use tenantry_model::Failure;

use crate::operation::Policy;

/// Processes that may end during one step before the step fails as their likely cause.
pub const MAX_INTERRUPTIONS: i32 = 10;

/// The delay before the next attempt after `attempts` attempts; none when the failure is not retried.
/// `jitter` is uniform in 0 to 1.
pub fn next_delay(policy: &Policy, attempts: i32, failure: &Failure, jitter: f64) -> Option<Duration> {
    let retries = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0);
    if !failure.may_retry() || retries >= policy.max_retries {
        return None;
    }
    let ceiling = policy
        .backoff_ms
        .saturating_mul(1u64.checked_shl(retries).unwrap_or(u64::MAX))
        .min(policy.backoff_cap_ms);
    let drawn = Duration::from_millis(ceiling).mul_f64(jitter.clamp(0.0, 1.0));
    let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
    Some(drawn.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end() {
        let policy = Policy::default();
        let failure = Failure::retryable("busy", "try later");
        let delays: Vec<_> = (1..=4).map(|n| next_delay(&policy, n, &failure, 1.0)).collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(delays, [ms(500), ms(1000), ms(2000), None]);
    }

    #[test]
    fn caps_the_delay_and_respects_retry_after() {
        let policy = Policy { max_retries: 100, ..Policy::default() };
        let failure = Failure::retryable("busy", "try later");
        assert_eq!(next_delay(&policy, 99, &failure, 1.0), Some(Duration::from_secs(60)));
        assert_eq!(next_delay(&policy, 1, &failure, 0.0), Some(Duration::ZERO));
        let limited = failure.after(Duration::from_secs(90));
        assert_eq!(next_delay(&policy, 1, &limited, 0.5), Some(Duration::from_secs(90)));
    }

    #[test]
    fn permanent_failures_are_not_retried() {
        for failure in [Failure::invalid("x", ""), Failure::fatal("x", "")] {
            assert_eq!(next_delay(&Policy::default(), 1, &failure, 0.5), None);
        }
        assert!(next_delay(&Policy::default(), 1, &Failure::unknown("x", ""), 0.5).is_some());
    }
}
