//! Shows progress on stderr. On a terminal: a bar per operation and a line per step, with elapsed and
//! remaining time. Elsewhere: a plain line per change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tenantry_control::view::{OperationView, StepView};
use tenantry_engine::StepState;
use tenantry_model::Timestamp;

/// With more operations than this, each has one line, without its steps.
const DETAILED: usize = 3;

/// The progress of several operations.
pub struct Board {
    live: Option<MultiProgress>,
    total: Option<ProgressBar>,
    detailed: bool,
}

/// The progress of one operation.
pub struct Row<'a> {
    board: &'a Board,
    label: String,
    bar: Option<ProgressBar>,
    steps: BTreeMap<String, ProgressBar>,
    printed: BTreeMap<String, (StepState, i32)>,
}

impl Board {
    /// Creates a board for this many operations.
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

    /// Adds an operation under this label.
    pub fn row(&self, label: &str) -> Row<'_> {
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
        Row { board: self, label: label.to_owned(), bar, steps: BTreeMap::new(), printed: BTreeMap::new() }
    }

    /// Prints a line that stays on the screen.
    pub fn line(&self, text: &str) {
        match &self.live {
            Some(live) => live.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Counts one operation as finished.
    pub fn count(&self) {
        if let Some(total) = &self.total {
            total.inc(1);
        }
    }

    /// Removes all live progress from the screen.
    pub fn clear(&self) {
        if let Some(live) = &self.live {
            // An error means that the lines could not be redrawn; nothing depends on them.
            let _ = live.clear();
        }
    }
}

impl Row<'_> {
    /// Shows the present state of the operation.
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
            _ if self.board.detailed => self.print_changes(view),
            _ => {}
        }
    }

    /// Replaces the progress bar by a last line.
    pub fn end(self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        for line in self.steps.values() {
            // The lines of the steps stay on the screen.
            if !line.is_finished() {
                line.abandon();
            }
        }
        self.board.line(text);
        self.board.count();
    }

    fn print_changes(&mut self, view: &OperationView) {
        for step in &view.steps {
            let now = (step.state, step.attempts);
            if step.state != StepState::Pending && self.printed.insert(step.key.clone(), now) != Some(now) {
                eprintln!("{}  {}", self.label, describe(step));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; a test parses each of them.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

const fn is_over(state: StepState) -> bool {
    matches!(state, StepState::Done | StepState::Skipped | StepState::Undone | StepState::Failed)
}

/// The operation's state with the remaining time, or the command that approves the step it waits for.
fn outlook(view: &OperationView) -> String {
    if let Some(step) =
        view.steps.iter().find(|step| step.state == StepState::Waiting && step.due_at.is_none())
    {
        return format!("waits for approval: tenantry operation approve {} --step {}", view.id, step.key);
    }
    let state = view.state.as_str().replace('_', " ");
    match view.eta {
        Some(eta) if !view.done => format!("{state}, about {} left", length(eta.since(Timestamp::now()))),
        _ => state,
    }
}

/// A step in one line: key, state, duration, attempts, error.
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

/// Formats a duration for people.
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
    fn templates_parse() {
        for template in
            ["{bar:30} {pos}/{len} tenants  {elapsed}  {eta} left", "  {spinner} {msg}", "  ✓ {msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
