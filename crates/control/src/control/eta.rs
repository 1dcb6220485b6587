//! Expected end of operations, estimated from the durations of the same template's steps in earlier operations.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_engine::{Mode, Run, Step, StepState};
use tenantry_model::Timestamp;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::OperationInput;
use crate::templates::Template;

/// Time for which an estimate is cached: new operations change it slowly.
const FRESH: Duration = Duration::from_secs(60);

/// Typical length of a template's steps, by key.
type Lengths = std::sync::Arc<HashMap<String, Duration>>;

/// Estimates by template.
#[derive(Default)]
pub(crate) struct Pace(Mutex<HashMap<String, (Timestamp, Lengths)>>);

impl Control {
    /// Expected end of a run; none if there is no estimate or if it waits for a person.
    pub(crate) async fn eta(&self, start: &OperationInput, run: &Run) -> Result<Option<Timestamp>> {
        let waits = run.steps.iter().any(|s| s.state == StepState::Waiting && s.due_at.is_none());
        let lengths = self.lengths(&start.template).await?;
        let known = run.steps.iter().any(|step| lengths.contains_key(&step.key));
        if waits || !known {
            return Ok(None);
        }
        let now = self.now();
        Ok(Some(now + remaining(&run.steps, &lengths, now)))
    }

    /// Expected duration of a new operation.
    pub(crate) async fn expected_length(
        &self,
        template: &Template,
        steps: &[Step],
    ) -> Result<Option<Duration>> {
        let lengths = self.lengths(&template.template).await?;
        Ok((!lengths.is_empty()).then(|| remaining(steps, &lengths, self.now())))
    }

    async fn lengths(&self, template: &str) -> Result<Lengths> {
        let now = self.now();
        if let Some((at, lengths)) = self.shared.pace.0.lock().get(template)
            && now.since(*at) < FRESH
        {
            return Ok(lengths.clone());
        }
        let lengths = self.shared.store.step_lengths(template).await.map_err(Error::unavailable)?;
        let lengths = Lengths::new(lengths);
        self.shared.pace.0.lock().insert(template.to_owned(), (now, lengths.clone()));
        Ok(lengths)
    }
}

/// Duration of the longest path through the steps that are not done. Detached steps do not count: the operation does not
/// wait for them.
fn remaining(steps: &[Step], lengths: &HashMap<String, Duration>, now: Timestamp) -> Duration {
    let mut ends: HashMap<&str, Duration> = HashMap::new();
    // In a plan without cycles, as many rounds as there are steps settle every end.
    for _ in 0..steps.len() {
        for step in steps.iter().filter(|s| s.policy.mode == Mode::Inline) {
            let before = step
                .needs
                .iter()
                .filter_map(|need| ends.get(need.as_str()))
                .max()
                .copied()
                .unwrap_or_default();
            let usual = lengths.get(&step.key).copied().unwrap_or_default();
            let left = match (step.state.is_over(), step.started_at) {
                (true, _) => Duration::ZERO,
                (false, Some(started)) => usual.saturating_sub(now.since(started)),
                (false, None) => usual,
            };
            ends.insert(&step.key, if step.state.is_over() { Duration::ZERO } else { before + left });
        }
    }
    ends.into_values().max().unwrap_or_default()
}
