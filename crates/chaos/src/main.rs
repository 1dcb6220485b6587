//! `cargo xtask chaos`: real servers under load while faults are injected, all by a seed; at the end everything must come to
//! rest, and every invariant is checked. Needs PostgreSQL (`TENANTRY_TEST_POSTGRES`).

mod client;
mod draw;
mod faults;
mod fleet;
mod installation;
mod invariants;
mod replica;
mod rest;
mod run;
mod tally;
mod use_cases;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

/// URL of the administrator of a PostgreSQL server.
const POSTGRES: &str = "TENANTRY_TEST_POSTGRES";
const USAGE: &str = "usage: tenantry-chaos [--seed N] [--minutes M | --seconds S]";

/// What to run.
struct Options {
    seed: u64,
    time: Duration,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Ok(admin) = std::env::var(POSTGRES) else {
        eprintln!("{POSTGRES} is not set: run `cargo xtask chaos`");
        return ExitCode::from(2);
    };
    match run::run(&admin, options.seed, options.time).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the run failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The options; a drawn seed and two minutes unless they are given.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { seed: rand::random::<u32>().into(), time: Duration::from_secs(120) };
    while let Some(argument) = arguments.next() {
        let number: u64 = arguments.next()?.parse().ok()?;
        match argument.as_str() {
            "--seed" => options.seed = number,
            "--minutes" => options.time = Duration::from_secs(number * 60),
            "--seconds" => options.time = Duration::from_secs(number),
            _ => return None,
        }
    }
    Some(options)
}
