//! The arithmetic of the statistics: from onboardings that have ended to figures. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use tenantry_engine::OperationState;
use tenantry_store::outcome::{Outcome, Taken};

use super::{CapacityStats, FailureCause, Lengths, PlanStats, StepStats, TemplateStats};
use crate::resource::capacity::Capacity;

/// Statistics of the onboardings of each plan: counts by result, success rate and duration.
pub fn plans(outcomes: &[Outcome]) -> Vec<PlanStats> {
    let of_plan = |(plan, outcomes): (&str, Vec<&Outcome>)| {
        let count = |state| outcomes.iter().filter(|o| o.state == state).count() as u64;
        let onboardings = outcomes.len() as u64;
        let succeeded = count(OperationState::Succeeded);
        PlanStats {
            plan: plan.to_owned(),
            onboardings,
            succeeded,
            failed: onboardings - succeeded,
            rolled_back: count(OperationState::RolledBack),
            cancelled: count(OperationState::Cancelled),
            needs_attention: count(OperationState::NeedsAttention),
            success_rate: ratio(succeeded as f64, onboardings as f64).unwrap_or_default(),
            duration: lengths(outcomes.iter().filter(|o| o.succeeded()).map(|o| o.took()).collect()),
        }
    };
    grouped(outcomes, |outcome| &outcome.plan).into_iter().map(of_plan).collect()
}

/// Statistics of the steps of each template, and how much they overlap.
pub fn templates(outcomes: &[Outcome]) -> Vec<TemplateStats> {
    grouped(outcomes, |outcome| &outcome.template)
        .into_iter()
        .map(|(name, all)| of_template(name, &all))
        .collect()
}

/// Utilisation of each limited resource kind in each region.
pub fn capacity(limits: &Capacity, taken: &[Taken]) -> Vec<CapacityStats> {
    let each = limits
        .iter()
        .flat_map(|(region, kinds)| kinds.iter().map(move |(kind, limit)| (region, kind, *limit)));
    each.map(|(region, kind, limit)| {
        let there = taken.iter().find(|t| t.region == *region && t.kind == *kind);
        let (used, reserved) = there.map_or((0, 0), |t| (t.used, t.reserved));
        CapacityStats {
            region: region.clone(),
            kind: kind.clone(),
            capacity: limit.into(),
            used,
            reserved,
            utilisation: ratio((used + reserved) as f64, limit.into()).unwrap_or(1.0),
        }
    })
    .collect()
}

/// Sums over all onboardings for one step.
#[derive(Default)]
struct Tally<'a> {
    kind: &'a str,
    lengths: Vec<Duration>,
    attempts: u64,
    retried: u64,
    waited: Duration,
    held_up_by: BTreeMap<&'a str, u64>,
    causes: BTreeMap<&'a str, u64>,
    critical: u64,
    critical_time: Duration,
}

fn of_template(name: &str, outcomes: &[&Outcome]) -> TemplateStats {
    let mut steps: IndexMap<&str, Tally<'_>> = IndexMap::new();
    let (mut succeeded, mut whole) = (0, Duration::ZERO);
    for outcome in outcomes {
        for step in &outcome.steps {
            steps.entry(&step.key).or_default().kind = &step.kind;
        }
        if let Some((step, code)) = &outcome.stopped_by {
            *steps.entry(step).or_default().causes.entry(code).or_default() += 1;
        }
        if outcome.succeeded() {
            succeeded += 1;
            whole += outcome.took();
            learn(outcome, &mut steps);
        }
    }
    let worked: Duration = steps.values().flat_map(|tally| &tally.lengths).sum();
    let critical: Duration = steps.values().map(|tally| tally.critical_time).sum();
    TemplateStats {
        template: name.to_owned(),
        succeeded,
        overlap: share(worked, whole),
        critical_share: share(critical, whole),
        steps: steps.into_iter().map(|(key, tally)| tally.stats(key, whole)).collect(),
    }
}

/// Adds the durations of a successful onboarding to the sums. Detached steps do not count, as it did not wait for them.
fn learn<'a>(outcome: &'a Outcome, steps: &mut IndexMap<&'a str, Tally<'a>>) {
    for step in outcome.steps.iter().filter(|step| step.over && !step.detached) {
        let tally = steps.entry(&step.key).or_default();
        tally.lengths.push(step.took());
        tally.attempts += u64::from(step.attempts);
        tally.retried += u64::from(step.attempts > 1);
        let need = outcome.held_up(step);
        let ready = need.and_then(|need| need.ended).unwrap_or(outcome.began);
        tally.waited += step.started.map(|started| started.since(ready)).unwrap_or_default();
        if let Some(need) = need {
            *tally.held_up_by.entry(&need.key).or_default() += 1;
        }
    }
    for step in outcome.critical_path() {
        let tally = steps.entry(&step.key).or_default();
        tally.critical += 1;
        tally.critical_time += step.took();
    }
}

impl Tally<'_> {
    /// As people see it; `whole` is how long the onboardings took together.
    fn stats(self, key: &str, whole: Duration) -> StepStats {
        let done = self.lengths.len() as u64;
        let mut causes: Vec<FailureCause> = self
            .causes
            .into_iter()
            .map(|(code, count)| FailureCause { code: code.to_owned(), count })
            .collect();
        causes.sort_by_key(|cause| Reverse(cause.count));
        let held_up_by = self.held_up_by.into_iter().max_by_key(|(_, count)| *count);
        StepStats {
            step: key.to_owned(),
            kind: self.kind.to_owned(),
            done,
            duration: lengths(self.lengths),
            mean_attempts: ratio(self.attempts as f64, done as f64),
            retried: self.retried,
            failures: causes.iter().map(|cause| cause.count).sum(),
            causes,
            mean_waited_ms: ratio(millis(self.waited), done as f64),
            held_up_by: held_up_by.map(|(need, _)| need.to_owned()),
            critical: self.critical,
            critical_share: share(self.critical_time, whole).filter(|_| done > 0),
        }
    }
}

fn grouped(outcomes: &[Outcome], name: impl Fn(&Outcome) -> &str) -> BTreeMap<&str, Vec<&Outcome>> {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(name(outcome)).or_default().push(outcome);
    }
    groups
}

/// None without anything to measure.
fn lengths(mut all: Vec<Duration>) -> Option<Lengths> {
    all.sort_unstable();
    let mean = ratio(millis(all.iter().sum()), all.len() as f64)?;
    // The nearest rank: a length that really occurred.
    let at = |percent: usize| all[(all.len() * percent).div_ceil(100).max(1) - 1];
    Some(Lengths { mean_ms: mean, p50_ms: millis(at(50)), p95_ms: millis(at(95)) })
}

fn millis(length: Duration) -> f64 {
    length.as_micros() as f64 / 1_000.0
}

fn share(part: Duration, whole: Duration) -> Option<f64> {
    ratio(part.as_secs_f64(), whole.as_secs_f64())
}

/// To four digits; none of nothing.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole * 10_000.0).round() / 10_000.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tenantry_model::Timestamp;

    use tenantry_store::outcome::StepOutcome;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    fn step(key: &str, needs: &[&str], from: i64, to: i64) -> StepOutcome {
        StepOutcome {
            key: key.to_owned(),
            kind: key.to_owned(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            attempts: 1,
            started: Some(at(from)),
            ended: Some(at(to)),
            over: true,
            detached: false,
        }
    }

    fn outcome(state: OperationState, ended: i64, steps: Vec<StepOutcome>) -> Outcome {
        let (plan, template) = ("starter".to_owned(), "starter".to_owned());
        Outcome { plan, template, state, stopped_by: None, began: at(0), ended: Some(at(ended)), steps }
    }

    /// Two branches side by side; the database is the longer one, and waits 5 ms for its turn.
    fn succeeded() -> Outcome {
        let steps = vec![
            step("identity", &[], 0, 10),
            step("database", &[], 5, 45),
            step("activate", &["identity", "database"], 45, 50),
            StepOutcome { detached: true, ..step("welcome", &["activate"], 50, 900) },
        ];
        outcome(OperationState::Succeeded, 50, steps)
    }

    fn failed(state: OperationState, step: &str, code: &str) -> Outcome {
        let stopped_by = Some((step.to_owned(), code.to_owned()));
        let steps = succeeded().steps.into_iter().map(|step| StepOutcome { over: false, ..step });
        Outcome { stopped_by, ..outcome(state, 5_000, steps.collect()) }
    }

    #[test]
    fn plans_are_counted_by_how_they_ended() {
        use OperationState::{Cancelled, NeedsAttention, RolledBack};
        let mut outcomes = vec![
            succeeded(),
            Outcome { ended: Some(at(150)), ..succeeded() },
            failed(RolledBack, "database", "timeout"),
            failed(NeedsAttention, "database", "timeout"),
        ];
        outcomes.push(Outcome { plan: "growth".to_owned(), ..failed(Cancelled, "database", "timeout") });
        let [growth, starter] = &plans(&outcomes)[..] else { panic!("two plans") };
        assert_eq!((growth.onboardings, growth.cancelled, growth.duration), (1, 1, None));
        assert_eq!((starter.onboardings, starter.succeeded, starter.failed), (4, 2, 2));
        assert_eq!((starter.rolled_back, starter.cancelled, starter.needs_attention), (1, 0, 1));
        assert_eq!((starter.success_rate, growth.success_rate), (0.5, 0.0));
        // What failed after five seconds says nothing of how long it takes to make a tenant.
        assert_eq!(starter.duration, Some(Lengths { mean_ms: 100.0, p50_ms: 50.0, p95_ms: 150.0 }));
        assert_eq!(plans(&[]), []);
    }

    #[test]
    fn the_critical_path_is_what_the_end_waited_for() {
        let all = [succeeded(), failed(OperationState::RolledBack, "identity", "taken")];
        let [template] = &templates(&all)[..] else { panic!("one template") };
        assert_eq!(template.succeeded, 1);
        assert_eq!(template.overlap, Some(1.1), "(10 + 40 + 5) / 50");
        assert_eq!(template.critical_share, Some(0.9), "(40 + 5) / 50");
        let keys: Vec<&str> = template.steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(keys, ["identity", "database", "activate", "welcome"], "plan order");
        let [identity, database, activate, welcome] = &template.steps[..] else { panic!("four steps") };
        assert_eq!((identity.critical, database.critical, activate.critical, welcome.critical), (0, 1, 1, 0));
        assert_eq!((database.critical_share, activate.critical_share), (Some(0.8), Some(0.1)));
        assert_eq!((database.mean_waited_ms, activate.mean_waited_ms), (Some(5.0), Some(0.0)));
        assert_eq!((&database.held_up_by, activate.held_up_by.as_deref()), (&None, Some("database")));
        assert_eq!((welcome.done, welcome.duration), (0, None), "an operation of its own");
    }

    #[test]
    fn the_commonest_cause_comes_first() {
        let failed = |code| failed(OperationState::RolledBack, "database", code);
        let mut tried_again = succeeded();
        tried_again.steps[1].attempts = 3;
        let all = [failed("full"), failed("timeout"), failed("timeout"), succeeded(), tried_again];
        let database = &templates(&all)[0].steps[1];
        assert_eq!(database.failures, 3);
        let causes: Vec<_> = database.causes.iter().map(|cause| (cause.code.as_str(), cause.count)).collect();
        assert_eq!(causes, [("timeout", 2), ("full", 1)]);
        assert_eq!((database.done, database.retried, database.mean_attempts), (2, 1, Some(2.0)));
    }

    #[test]
    fn percentiles_are_lengths_that_occurred() {
        let all = |n: u64| lengths((1..=n).map(Duration::from_millis).collect());
        assert_eq!(all(0), None);
        assert_eq!(all(1), Some(Lengths { mean_ms: 1.0, p50_ms: 1.0, p95_ms: 1.0 }));
        assert_eq!(all(100), Some(Lengths { mean_ms: 50.5, p50_ms: 50.0, p95_ms: 95.0 }));
    }

    #[test]
    fn what_has_a_limit_is_listed_taken_or_not() {
        let kinds = BTreeMap::from([("bucket".to_owned(), 10), ("database".to_owned(), 0)]);
        let limits = Capacity::from([("eu".to_owned(), kinds)]);
        let taken =
            |kind: &str| Taken { region: "eu".to_owned(), kind: kind.to_owned(), used: 3, reserved: 1 };
        let [bucket, database] = &capacity(&limits, &[taken("bucket"), taken("mail")])[..] else {
            panic!("two kinds")
        };
        assert_eq!((bucket.used, bucket.reserved, bucket.utilisation), (3, 1, 0.4));
        assert_eq!((database.used, database.utilisation), (0, 1.0), "no room is full");
    }
}
