//! What onboarding has been like: how long it takes, how often and where it fails, which step holds the others up, and
//! how full the regions are. Computed from the ledger for each request; the arithmetic is in `figures.rs`.

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

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From this instant on.
    At(Timestamp),
    /// For so long.
    Last(Span),
}

impl Default for Since {
    /// A week.
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

/// What onboarding has been like since some instant. Figures over all tenants: nothing in it tells of a single one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatsView {
    /// Onboardings that began before this are left out.
    pub since: Timestamp,
    /// When this was true.
    pub at: Timestamp,
    /// Onboardings that have ended or need a person: those that are looked at.
    pub onboardings: u64,
    /// Whether these are all of them. Of very many, the newest ones are looked at.
    pub complete: bool,
    /// By plan, in the order of the names.
    pub plans: Vec<PlanStats>,
    /// By template, in the order of the names.
    pub templates: Vec<TemplateStats>,
    /// By region and kind: every one that has a limit.
    pub capacity: Vec<CapacityStats>,
}

/// How the onboardings of a plan went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStats {
    /// The plan.
    pub plan: String,
    /// All of them.
    pub onboardings: u64,
    /// Those whose tenant is active.
    pub succeeded: u64,
    /// Those that are not: the sum of the next three.
    pub failed: u64,
    /// Failed, and undone.
    pub rolled_back: u64,
    /// Ended by a person, and undone.
    pub cancelled: u64,
    /// Stopped; a person must act.
    pub needs_attention: u64,
    /// Share of those that succeeded, from 0 to 1.
    pub success_rate: f64,
    /// From the request to the active tenant, of those that succeeded.
    pub duration: Option<Lengths>,
}

/// Lengths of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lengths {
    /// The mean.
    pub mean_ms: f64,
    /// Half of them are no longer than this.
    pub p50_ms: f64,
    /// 95 of 100 are no longer than this.
    pub p95_ms: f64,
}

/// How a template's steps work together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateStats {
    /// The template; its versions are taken together.
    pub template: String,
    /// Onboardings that succeeded: times are learned from these.
    pub succeeded: u64,
    /// How many steps ran side by side on average: the time of all steps over that of the onboardings.
    pub overlap: Option<f64>,
    /// Share of the onboardings' time in which a step of the critical path ran, from 0 to 1; in the rest they only waited.
    pub critical_share: Option<f64>,
    /// Its steps, in plan order.
    pub steps: Vec<StepStats>,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepStats {
    /// Its key in the template.
    pub step: String,
    /// What it makes.
    pub kind: String,
    /// How often it got done in an onboarding that succeeded.
    pub done: u64,
    /// From its first start to its end, pauses between attempts included.
    pub duration: Option<Lengths>,
    /// Attempts that it took.
    pub mean_attempts: Option<f64>,
    /// How often it took more than one.
    pub retried: u64,
    /// How often it stopped an onboarding.
    pub failures: u64,
    /// Why, the commonest first.
    pub causes: Vec<FailureCause>,
    /// How long it stood still on average although all that it needs was over.
    pub mean_waited_ms: Option<f64>,
    /// The step that it most often waited for longest: of those that it needs, the one that was over last.
    pub held_up_by: Option<String>,
    /// How often it was on the critical path: the chain of steps by which the end came when it did.
    pub critical: u64,
    /// Share of the onboardings' whole time that it took while on that path, from 0 to 1: what is gained at most by
    /// making it faster.
    pub critical_share: Option<f64>,
}

/// Why a step stopped onboardings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureCause {
    /// The failure's code.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// How full a region is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityStats {
    /// Where.
    pub region: String,
    /// Of what.
    pub kind: String,
    /// How many there is room for.
    pub capacity: u64,
    /// How many tenants have.
    pub used: u64,
    /// How many are reserved by onboardings under way.
    pub reserved: u64,
    /// Share of the room that is used or reserved; above 1 if it was made smaller.
    pub utilisation: f64,
}

impl Control {
    /// What onboarding has been like since then.
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
