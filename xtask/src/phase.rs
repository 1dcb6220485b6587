//! A phase of a longer run: prints a heading before it, and its result and duration after it.

use std::process::Command;
use std::time::{Duration, Instant};

/// Prints a heading, runs `work`, prints its result and duration, and returns whether it succeeded.
pub fn run(name: &str, work: impl FnOnce() -> Result<bool, String>) -> bool {
    println!("\n==> {name}");
    let started = Instant::now();
    let outcome = work();
    let took = seconds(started.elapsed());
    match &outcome {
        Ok(true) => println!("    {name}: ok in {took}"),
        Ok(false) => println!("    {name}: FAILED after {took}"),
        Err(error) => println!("    {name}: FAILED after {took}: {error}"),
    }
    matches!(outcome, Ok(true))
}

/// Runs a command that prints to the terminal of xtask; true when it succeeds.
pub fn succeeds(command: &mut Command) -> Result<bool, String> {
    let shown = format!("{command:?}");
    command.status().map(|status| status.success()).map_err(|error| format!("cannot run {shown}: {error}"))
}

/// A duration in seconds with one decimal.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
