//! Live progress on stderr (S4.76-77): on a terminal a bar for the operation and a line for each of its steps, with
//! elapsed time and what is left; elsewhere a plain line for each change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tenantry_control::view::{OperationView, StepView};
use tenantry_engine::StepState;
use tenantry_model::Timestamp;

/// More operations than this at once get one line each, without their steps.
const DETAILED: usize = 3;

/// Where progress is shown.
pub struct Board {
    live: Option<MultiProgress>,
    total: Option<ProgressBar>,
    detailed: bool,
}

/// The place of one operation on the board.
pub struct Place<'a> {
    board: &'a Board,
    label: String,
    bar: Option<ProgressBar>,
    steps: BTreeMap<String, ProgressBar>,
    told: BTreeMap<String, (StepState, i32)>,
}

impl Board {
    /// A board for this many operations.
    pub fn new(operations: usize) -> Self {
        let live = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let total = live.as_ref().filter(|_| operations > 1).map(|live| {
            let bar = live.add(ProgressBar::new(operations as u64));
            bar.with_style(style("{bar:30} {pos}/{len} tenants  {elapsed}  {eta} left"))
                .with_elapsed(Duration::ZERO)
        });
        Self { live, total, detailed: operations <= DETAILED }
    }

    /// A place for an operation; `label` says whose it is.
    pub fn place(&self, label: &str) -> Place<'_> {
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new(0));
            bar.enable_steady_tick(Duration::from_millis(100));
            let template = if self.detailed {
                "{prefix}  {bar:30} {pos}/{len}  {elapsed}  {msg}"
            } else {
                "{spinner} {prefix}  {bar:12} {pos}/{len}  {msg}"
            };
            bar.with_style(style(template)).with_prefix(label.to_owned())
        });
        Place { board: self, label: label.to_owned(), bar, steps: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.live {
            Some(live) => live.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// One more of the operations is over.
    pub fn count(&self) {
        if let Some(total) = &self.total {
            total.inc(1);
        }
    }

    /// Takes everything that moves off the screen.
    pub fn clear(&self) {
        if let Some(live) = &self.live {
            // Lines that are gone anyway.
            let _ = live.clear();
        }
    }
}

impl Place<'_> {
    /// Shows what has become of the operation.
    pub fn show(&mut self, view: &OperationView) {
        match (&self.bar, &self.board.live) {
            (Some(bar), Some(live)) => {
                bar.set_length(view.steps.len() as u64);
                bar.set_position(view.steps.iter().filter(|step| is_over(step.state)).count() as u64);
                bar.set_message(outlook(view));
                for step in view.steps.iter().filter(|_| self.board.detailed) {
                    let line = self.steps.entry(step.key.clone()).or_insert_with(|| {
                        let line = live.add(ProgressBar::new_spinner());
                        line.enable_steady_tick(Duration::from_millis(100));
                        line.with_style(style("  {spinner} {msg}"))
                    });
                    line.set_message(describe(step));
                    if is_over(step.state) && !line.is_finished() {
                        line.set_style(style("  ✓ {msg}"));
                        line.finish();
                    }
                }
            }
            _ if self.board.detailed => self.tell_changes(view),
            _ => {}
        }
    }

    /// Ends the place with a last line.
    pub fn end(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        for line in self.steps.values() {
            // Those of one operation stay, as the record of it.
            if !line.is_finished() {
                line.abandon();
            }
        }
        self.board.line(text);
        self.board.count();
    }

    fn tell_changes(&mut self, view: &OperationView) {
        for step in &view.steps {
            let now = (step.state, step.attempts);
            if step.state != StepState::Pending && self.told.insert(step.key.clone(), now) != Some(now) {
                eprintln!("{}  {}", self.label, describe(step));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; one that were wrong would show as the default.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

const fn is_over(state: StepState) -> bool {
    matches!(state, StepState::Done | StepState::Skipped | StepState::Undone | StepState::Failed)
}

/// What is left, or what is waited for.
fn outlook(view: &OperationView) -> String {
    if let Some(step) =
        view.steps.iter().find(|step| step.state == StepState::Waiting && step.due_at.is_none())
    {
        return format!("waits: tenantry operation approve {} --step {}", view.id, step.key);
    }
    let state = view.state.as_str().replace('_', " ");
    match view.eta {
        Some(eta) if !view.done => format!("{state}, about {} left", length(eta.since(Timestamp::now()))),
        _ => state,
    }
}

/// A step in one line: what it is, where it is, how long it took, what went wrong.
fn describe(step: &StepView) -> String {
    let mut text = format!("{:<12} {}", step.key, step.state.as_str().replace('_', " "));
    if let (Some(start), Some(end)) = (step.started_at, step.finished_at) {
        text.push_str(&format!(" in {}", length(end.since(start))));
    }
    if step.attempts > 1 {
        text.push_str(&format!(", attempt {}", step.attempts));
    }
    if let Some(error) = step.error.as_ref().filter(|_| step.state != StepState::Done) {
        text.push_str(&format!(": {}", error.message));
    }
    text
}

/// A length of time for people.
pub fn length(length: Duration) -> String {
    match length.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min {} s", length.as_secs() / 60, length.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let texts = [3, 999, 1_500, 59_999, 61_000].map(|ms| length(Duration::from_millis(ms)));
        assert_eq!(texts, ["3 ms", "999 ms", "1.5 s", "60.0 s", "1 min 1 s"]);
    }

    #[test]
    fn every_template_is_one() {
        for template in
            ["{bar:30} {pos}/{len} tenants  {elapsed}  {eta} left", "  {spinner} {msg}", "  ✓ {msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
