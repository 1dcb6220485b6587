//! `cargo xtask COMMAND`: commands for developers of this repository, one file each. They use the standard
//! library alone, so that they build in a second on a fresh machine: they find servers, run checks and tests,
//! and add up the results.

mod bench;
mod cargo;
mod chaos;
mod libtest;
mod phase;
mod postgres;
mod releases;
mod services;
mod systemd;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  services [--print]                  show which servers the tests can use
  services install [--with-lint-tools]
                                      install what is missing (apt, as root or by passwordless sudo; npm)
  test [--full] [--filter X] [--postgres N] [-- ARG...]
                                      fmt, tidy, clippy, deny, machete, systemd, then every test, and those that
                                      depend on the release of PostgreSQL once more on the newest (--full: on each);
                                      --filter runs only the tests whose name contains X and no checks;
                                      --postgres runs all tests on release N only; ARGs go to the test binaries
  bench [NAME] [--full]               measure the release build against its limits, e.g. `bench onboard`
  chaos [--seed N] [--minutes M | --seconds S]
                                      run two servers, all use cases and faults at once, drawn by the seed, then check
                                      every invariant; two minutes unless it says otherwise
  tidy [--lower]                      check the rules that no compiler checks; --lower sets each allowance to
                                      the number of findings
";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("--help", &[][..]),
    };
    if matches!(command, "--help" | "-h" | "help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let outcome = enter_root().and_then(|()| match command {
        "services" => services::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "chaos" => chaos::run(rest),
        "tidy" => tidy::run(rest),
        unknown => Err(usage(&format!("there is no command `{unknown}`"))),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {}", error.message);
        ExitCode::from(error.code)
    })
}

/// A command could not run at all. A failed check or test is not an `Error`.
#[derive(Debug)]
struct Error {
    message: String,
    /// 1 for a failure, 2 for wrong usage.
    code: u8,
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self { message, code: 1 }
    }
}

/// An error about how xtask was called.
fn usage(message: &str) -> Error {
    Error { message: format!("{message}\n\n{HELP}"), code: 2 }
}

/// Changes to the root of the repository: every command uses paths relative to it.
fn enter_root() -> Result<(), Error> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = manifest.parent().unwrap_or(&manifest);
    std::env::set_current_dir(root)
        .map_err(|error| format!("cannot enter {}: {error}", root.display()).into())
}
