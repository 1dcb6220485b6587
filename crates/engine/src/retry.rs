//! Decides whether and when a failed attempt is retried; no other code does. Exponential backoff with full
//! jitter: the delay before retry n is uniform in 0 to base × 2ⁿ⁻¹, capped, and at least the server's
//! `Retry-After`, but never later than the end of the time for retries.
//!
//! A dependency that does not work is waited for, bounded by time, so that an outage of hours fails no operation.
//! A dependency that works and gives a wrong answer is asked again a few times only.

use std::time::Duration;

use tenantry_model::{Failure, Timestamp};

use crate::operation::{Policy, Step};

/// Processes that may end during one step before the step fails as their likely cause.
pub const MAX_INTERRUPTIONS: i32 = 10;

/// Time for which a dependency is waited for, if neither the plan nor the configuration names one.
pub const RETRY_FOR: Duration = Duration::from_secs(24 * 3600);

/// What the executor contributes to the decision about one retry.
#[derive(Clone, Copy, Debug)]
pub struct RetryInputs {
    /// Time for which a dependency is waited for, if the step's policy names none.
    pub retry_for: Duration,
    /// Uniform in 0 to 1.
    pub jitter: f64,
}

/// The delay before the next attempt at a step that has just failed; none when the failure is not retried.
pub(crate) fn next_delay(
    step: &Step,
    failure: &Failure,
    now: Timestamp,
    inputs: RetryInputs,
) -> Option<Duration> {
    let Policy { max_retries, retry_for_ms, backoff_ms, backoff_cap_ms, .. } = step.policy;
    let retry_for = retry_for_ms.map_or(inputs.retry_for, Duration::from_millis);
    let left = retry_for.saturating_sub(now.since(step.failing_since.unwrap_or(now)));
    let spent = match failure.wrong_answers {
        0 => left.is_zero(),
        answers => answers > max_retries,
    };
    if !failure.may_retry() || spent || retry_for.is_zero() {
        return None;
    }
    let retries = u32::try_from(step.attempts.saturating_sub(1)).unwrap_or(0);
    let ceiling =
        backoff_ms.saturating_mul(1u64.checked_shl(retries).unwrap_or(u64::MAX)).min(backoff_cap_ms);
    let drawn = Duration::from_millis(ceiling).mul_f64(inputs.jitter.clamp(0.0, 1.0));
    let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0));
    let delay = drawn.max(asked);
    // The last attempt is at the end of the time, not after it.
    Some(if failure.wrong_answers == 0 { delay.min(left) } else { delay })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const INPUTS: RetryInputs = RetryInputs { retry_for: RETRY_FOR, jitter: 1.0 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0) + Duration::from_secs(seconds)
    }

    /// A step that has failed this often, for the first time at 0.
    fn failing(attempts: i32) -> Step {
        let step = Step::new("database", "database", "postgres", Policy::default(), Value::Null);
        Step { attempts, failing_since: Some(at(0)), ..step }
    }

    fn down() -> Failure {
        Failure::retryable("unreachable", "connection refused")
    }

    #[test]
    fn an_outage_is_waited_for_until_its_time_is_up() {
        for failure in [down(), Failure::unknown("timeout", "no answer")] {
            let delay = |seconds| next_delay(&failing(5_000), &failure, at(seconds), INPUTS);
            assert_eq!(delay(24 * 3600 - 60), Some(Duration::from_secs(60)));
            assert_eq!(delay(24 * 3600 - 1), Some(Duration::from_secs(1)));
            assert_eq!(delay(24 * 3600), None);
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_time() {
        let limited = down().after(Duration::from_secs(48 * 3600));
        let left = next_delay(&failing(1), &limited, at(3600), INPUTS);
        assert_eq!(left, Some(Duration::from_secs(23 * 3600)));
        let wrong = next_delay(&failing(1), &limited.wrong_answer(), at(3600), INPUTS);
        assert_eq!(wrong, Some(Duration::from_secs(48 * 3600)), "its retries are counted, not timed");
    }

    #[test]
    fn a_policy_has_a_time_of_its_own() {
        let mut step = failing(2);
        step.policy.retry_for_ms = Some(10_000);
        assert!(next_delay(&step, &down(), at(9), INPUTS).is_some());
        assert_eq!(next_delay(&step, &down(), at(10), INPUTS), None);
        step.policy.retry_for_ms = Some(0);
        step.failing_since = Some(at(10));
        for failure in [down(), down().wrong_answer()] {
            assert_eq!(next_delay(&step, &failure, at(10), INPUTS), None);
        }
    }

    #[test]
    fn a_wrong_answer_is_retried_a_few_times() {
        let delays: Vec<_> = (1..=4)
            .map(|n| {
                let failure = Failure { wrong_answers: n, ..down() };
                next_delay(&failing(i32::try_from(n).unwrap()), &failure, at(1), INPUTS)
            })
            .collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(delays, [ms(500), ms(1000), ms(2000), None]);
    }

    #[test]
    fn caps_the_delay_and_respects_retry_after() {
        let delay = |attempts, failure: &Failure, jitter| {
            next_delay(&failing(attempts), failure, at(1), RetryInputs { jitter, ..INPUTS })
        };
        assert_eq!(delay(99, &down(), 1.0), Some(Duration::from_secs(60)));
        assert_eq!(delay(i32::MAX, &down(), 1.0), Some(Duration::from_secs(60)));
        assert_eq!(delay(1, &down(), 0.0), Some(Duration::ZERO));
        let limited = down().after(Duration::from_secs(90));
        assert_eq!(delay(1, &limited, 0.5), Some(Duration::from_secs(90)));
    }

    #[test]
    fn permanent_failures_are_not_retried() {
        for failure in [Failure::invalid("x", ""), Failure::fatal("x", "")] {
            assert_eq!(next_delay(&failing(1), &failure, at(0), INPUTS), None);
        }
    }
}
