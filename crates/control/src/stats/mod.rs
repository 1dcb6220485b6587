//! Statistics of onboarding: durations, failures, bottlenecks, and the capacity of the regions. Reads the
//! ledger for each request and changes nothing; the arithmetic is in `figures.rs`.

mod figures;
pub mod meter;

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::templates::Span;

/// Start of the period of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A fixed time.
    At(Timestamp),
    /// A duration before the request.
    Last(Span),
}

impl Default for Since {
    /// The last week.
    fn default() -> Self {
        Self::Last(Span::from_secs(7 * 86_400))
    }
}

impl FromStr for Since {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let at = text.parse().map(Self::At);
        let or_last = at.or_else(|_| Span::parse(text).map(Self::Last));
        or_last.map_err(|_| {
            "must be an instant such as 2026-01-31T00:00:00Z, or how far back, such as 30d".to_owned()
        })
    }
}

impl Since {
    fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Last(span) => {
                let micros = i64::try_from(span.duration().as_micros()).unwrap_or(i64::MAX);
                Timestamp::from_micros(now.micros().saturating_sub(micros))
            }
        }
    }
}

/// Statistics of onboarding since a point in time, over all tenants. Contains no data of a single tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatsView {
    /// Start of the period: onboardings that began before are left out.
    pub since: Timestamp,
    /// Time of the statistics.
    pub at: Timestamp,
    /// Number of evaluated onboardings: those that have ended or need attention.
    pub onboardings: u64,
    /// Whether all onboardings of the period were evaluated. If there are too many, only the newest are.
    pub complete: bool,
    /// Statistics by plan, in the order of the names.
    pub plans: Vec<PlanStats>,
    /// Statistics by template, in the order of the names.
    pub templates: Vec<TemplateStats>,
    /// Capacity by region and resource kind, for kinds with a limit.
    pub capacity: Vec<CapacityStats>,
}

/// Statistics of a plan's onboardings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStats {
    /// Name of the plan.
    pub plan: String,
    /// Number of onboardings.
    pub onboardings: u64,
    /// Number of onboardings that activated their tenant.
    pub succeeded: u64,
    /// Number of all others: the sum of the next three fields.
    pub failed: u64,
    /// Number of onboardings that failed and were rolled back.
    pub rolled_back: u64,
    /// Number of onboardings that a caller cancelled.
    pub cancelled: u64,
    /// Number of onboardings that stopped and need an operator.
    pub needs_attention: u64,
    /// Share of onboardings that succeeded, from 0 to 1.
    pub success_rate: f64,
    /// Time from the request to the active tenant, over those that succeeded.
    pub duration: Option<Lengths>,
}

/// Distribution of durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lengths {
    /// Mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
}

/// Statistics of a template's steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateStats {
    /// Name of the template. All its versions are counted together.
    pub template: String,
    /// Number of onboardings that succeeded, from which the durations come.
    pub succeeded: u64,
    /// Mean number of steps that ran at the same time: the duration of all steps divided by that of the
    /// onboardings.
    pub overlap: Option<f64>,
    /// Share of the onboardings' duration in which a step of the critical path ran, from 0 to 1. In the rest
    /// they waited.
    pub critical_share: Option<f64>,
    /// The steps, in the order of the plan.
    pub steps: Vec<StepStats>,
}

/// Statistics of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepStats {
    /// Key of the step in the template.
    pub step: String,
    /// Resource kind or action.
    pub kind: String,
    /// Number of successful onboardings in which the step was done.
    pub done: u64,
    /// Time from the first start to the end, including pauses between attempts.
    pub duration: Option<Lengths>,
    /// Mean number of attempts.
    pub mean_attempts: Option<f64>,
    /// Number of times that the step needed more than one attempt.
    pub retried: u64,
    /// Number of onboardings that the step stopped.
    pub failures: u64,
    /// Causes of these failures, the most frequent first.
    pub causes: Vec<FailureCause>,
    /// Mean time for which the step had not started although all steps that it needs were over, in milliseconds.
    pub mean_waited_ms: Option<f64>,
    /// The needed step that was most often the last to be over.
    pub held_up_by: Option<String>,
    /// Number of times that the step was on the critical path: the last step, the step that it waited for,
    /// and so on.
    pub critical: u64,
    /// Share of the onboardings' duration that the step took while on the critical path, from 0 to 1: the
    /// most that a faster step can save.
    pub critical_share: Option<f64>,
}

/// A cause for which a step stopped onboardings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureCause {
    /// Error code.
    pub code: String,
    /// Number of failures with this code.
    pub count: u64,
}

/// Capacity of a region for one resource kind, in slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityStats {
    /// Region.
    pub region: String,
    /// Resource kind.
    pub kind: String,
    /// Number of slots.
    pub capacity: u64,
    /// Number of slots in use.
    pub used: u64,
    /// Number of slots that running onboardings have reserved.
    pub reserved: u64,
    /// Share of the slots that are used or reserved; above 1 if the capacity was reduced.
    pub utilisation: f64,
}

impl Control {
    /// Returns the statistics of onboarding since this time.
    pub async fn stats(&self, caller: &Caller, since: Since) -> Result<StatsView> {
        caller.require(Permission::ReadStats)?;
        let at = self.now();
        let since = since.from(at);
        let store = &self.shared.store;
        let (outcomes, complete) = store.onboardings(since).await.map_err(Error::unavailable)?;
        let taken = store.slots_taken(at).await.map_err(Error::unavailable)?;
        Ok(StatsView {
            since,
            at,
            onboardings: outcomes.len() as u64,
            complete,
            plans: figures::plans(&outcomes),
            templates: figures::templates(&outcomes),
            capacity: figures::capacity(&self.shared.config.capacity, &taken),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_or_a_length_of_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let from = |text: &str| text.parse::<Since>().map(|since| since.from(now).to_string());
        assert_eq!(from("12h").unwrap(), "2026-01-31T00:00:00.000000Z");
        assert_eq!(from("2026-01-01T01:00:00+01:00").unwrap(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(Since::default(), "7d".parse().unwrap());
        assert!(from("").is_err() && from("yesterday").is_err());
    }
}
