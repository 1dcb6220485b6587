//! `cargo xtask test`: every check and every test, and the sum of them. A test whose server is missing counts
//! as skipped. Environment of the test processes: `TENANTRY_TEST_POSTGRES` (a URL; unset without a
//! PostgreSQL), `TENANTRY_TEST_FULL=1` under `--full`, `TENANTRY_SKIP_FILE` (a test that skips itself appends
//! one line `suite<TAB>reason<TAB>command` in one write), `TENANTRY_REPORT_FILE` (lines to show before the
//! sum).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::libtest::Tally;
use crate::postgres::{Cluster, Durability};
use crate::services::{self, INSTALL, INSTALL_LINT_TOOLS};
use crate::{Error, cargo, phase, tidy, usage};

const POSTGRES: &str = "TENANTRY_TEST_POSTGRES";

/// Time without output after which a test process counts as hanging, without and with `--full`.
const OUTPUT_TIMEOUT: [Duration; 2] = [Duration::from_secs(900), Duration::from_secs(4 * 3_600)];

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    full: bool,
    filter: Option<String>,
    extra: Vec<String>,
}

/// Results that the last line shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Something that did not run, and the command that installs what it needs.
#[derive(Debug, PartialEq, Eq)]
struct Skip {
    suite: String,
    reason: String,
    command: String,
    times: u64,
}

/// Entry point of the command.
pub fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    let options = parse(arguments)?;
    let started = Instant::now();
    let notes = Notes::create()?;
    let mut sum = Sum::default();
    let mut skips = Vec::new();
    let mut failures = Vec::new();

    if options.filter.is_none() {
        check_all(&mut sum, &mut skips, &mut failures);
    }
    let mut tally = Tally::default();
    // All targets, so that the tests and the programs that they start share one build of their dependencies.
    let build = ["build", "--workspace", "--all-targets"];
    let built = phase::run("build", || phase::succeeds(&mut cargo::command(&build)));
    if built {
        let postgres = start_postgres();
        if let Err(error) = &postgres {
            println!("    {error}");
            failures.push("postgresql: it is installed but does not start".to_owned());
            sum.failed += 1;
        }
        let cluster = postgres.ok().flatten();
        let passed = phase::run("tests", || cargo_test(&options, cluster.as_ref(), &notes, &mut tally));
        drop(cluster);
        if !passed && tally.failed + tally.died == 0 {
            failures.push("cargo test: it ended with an error, shown above".to_owned());
            sum.failed += 1;
        }
    } else {
        failures.push("build: the workspace does not compile".to_owned());
        sum.failed += 1;
    }
    failures.append(&mut tally.failures);
    if tally.died > 0 {
        failures.push(format!("{} test processes died without a result", tally.died));
    }

    let skipped_tests = parse_skips(&notes.read_skips());
    add(&mut sum, &tally, skipped_tests.iter().map(|skip| skip.times).sum());
    sum.skipped += skips.len() as u64;
    skips.extend(skipped_tests);

    section("report", notes.read_report().lines().map(str::to_owned));
    section("skipped", skips.iter().map(Skip::to_string));
    section("failed", failures.into_iter());
    println!("\n    all phases took {}", phase::seconds(started.elapsed()));
    if tally.ran() == 0 && sum.failed == 0 {
        println!("    no test ran, which counts as a failure");
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if sum.failed > 0 || tally.ran() == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn parse(arguments: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => options.full = true,
            "--filter" => {
                let filter = arguments.next().ok_or_else(|| usage("--filter needs part of a name"))?;
                options.filter = Some(filter.clone());
            }
            "--" => options.extra = arguments.by_ref().cloned().collect(),
            unknown => return Err(usage(&format!("test does not know `{unknown}`"))),
        }
    }
    Ok(options)
}

/// Each check counts as one test.
fn check_all(sum: &mut Sum, skips: &mut Vec<Skip>, failures: &mut Vec<String>) {
    let mut check = |name: &str, work: &dyn Fn() -> Result<bool, String>| {
        if phase::run(name, work) {
            sum.passed += 1;
        } else {
            sum.failed += 1;
            failures.push(name.to_owned());
        }
    };
    check("fmt", &|| phase::succeeds(&mut cargo::command(&["fmt", "--all", "--check"])));
    check("tidy", &tidy::check);
    check("clippy", &|| {
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        phase::succeeds(&mut cargo::command(&clippy))
    });
    // Advisories need a database from the network, so the scheduled workflow checks them.
    let deny = ["deny", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
    for command in [&deny[..], &["machete"]] {
        let tool = command[0];
        if services::lint_tool_installed(tool) {
            check(tool, &|| phase::succeeds(&mut cargo::command(command)));
        } else {
            skips.push(Skip {
                suite: tool.to_owned(),
                reason: format!("cargo-{tool} is not installed"),
                command: INSTALL_LINT_TOOLS.to_owned(),
                times: 1,
            });
        }
    }
}

/// The server for the tests; `None` when no PostgreSQL is installed or the caller named one.
fn start_postgres() -> Result<Option<Cluster>, String> {
    if std::env::var_os(POSTGRES).is_some() {
        println!("\n==> postgresql: the server in {POSTGRES}");
        return Ok(None);
    }
    println!("\n==> postgresql");
    let started = Instant::now();
    match services::find_postgres() {
        Ok(found) => {
            let cluster = Cluster::start(&found, Durability::None)?;
            println!(
                "    PostgreSQL {} at {} in {}",
                found.version,
                cluster.url(),
                phase::seconds(started.elapsed())
            );
            Ok(Some(cluster))
        }
        Err(reason) => {
            println!("    none: {reason}; get it by `{INSTALL}`");
            Ok(None)
        }
    }
}

/// Runs the tests of every workspace member, and prints and reads their output.
fn cargo_test(
    options: &Options,
    cluster: Option<&Cluster>,
    notes: &Notes,
    tally: &mut Tally,
) -> Result<bool, String> {
    let mut command = cargo::command(&["test", "--workspace", "--no-fail-fast"]);
    command.args(&options.filter).arg("--").args(&options.extra);
    command.env("TENANTRY_SKIP_FILE", notes.skips()).env("TENANTRY_REPORT_FILE", notes.report());
    if let Some(cluster) = cluster {
        command.env(POSTGRES, cluster.url());
    }
    if options.full {
        command.env("TENANTRY_TEST_FULL", "1");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut reader = BufReader::new(child.stdout.take().ok_or("cargo has no output")?);
    let (read, lines) = channel();
    // Bytes: a test may print text that is not UTF-8.
    let reads = std::thread::spawn(move || {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && read.send(std::mem::take(&mut line)).is_ok() {}
        Ok::<_, std::io::Error>(())
    });
    let mut shown = std::io::stdout().lock();
    let complete = loop {
        match lines.recv_timeout(OUTPUT_TIMEOUT[usize::from(options.full)]) {
            Ok(line) => {
                let written = shown.write_all(&line).and_then(|()| shown.flush());
                written.map_err(|error| format!("cannot print: {error}"))?;
                tally.read(String::from_utf8_lossy(&line).trim_end());
            }
            // cargo has ended, and a process that a killed test left behind keeps the pipe open.
            Err(RecvTimeoutError::Timeout) if !matches!(child.try_wait(), Ok(None)) => break false,
            Err(RecvTimeoutError::Timeout) => end_tests_of(&mut child)?,
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    if complete {
        let read = reads.join().map_err(|_| "the reader of cargo's output ended")?;
        read.map_err(|error| format!("cannot read cargo: {error}"))?;
    }
    tally.close();
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    Ok(status.success())
}

/// Kills the test process that hangs, which counts as one that died; cargo continues with the next.
fn end_tests_of(cargo: &mut Child) -> Result<(), String> {
    println!(
        "    no output for too long: the test process is killed; cargo listed tests of over 60 seconds above"
    );
    match Command::new("pkill").args(["-KILL", "-P", &cargo.id().to_string()]).status() {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = cargo.kill();
            Err(format!("a test hangs and cannot be killed: pkill: {error}"))
        }
    }
}

/// Adds the tests to the checks. Test binaries count a test that skipped itself as passed.
fn add(sum: &mut Sum, tally: &Tally, skipped_tests: u64) {
    sum.passed += tally.passed.saturating_sub(skipped_tests);
    sum.failed += tally.failed + tally.died;
    sum.skipped += tally.ignored + skipped_tests;
}

/// One entry per different line, in the order of their first appearance.
fn parse_skips(text: &str) -> Vec<Skip> {
    let mut skips: Vec<Skip> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.splitn(3, '\t').map(|field| field.trim().to_owned());
        let mut next = || fields.next().unwrap_or_default();
        let skip = Skip { suite: next(), reason: next(), command: next(), times: 1 };
        let same = skips.iter_mut().find(|other| {
            (&other.suite, &other.reason, &other.command) == (&skip.suite, &skip.reason, &skip.command)
        });
        match same {
            Some(known) => known.times += 1,
            None => skips.push(skip),
        }
    }
    skips
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = if self.reason.is_empty() { "no reason given" } else { &self.reason };
        write!(f, "{} ({}): {reason}", self.suite, self.times)?;
        if self.command.is_empty() { Ok(()) } else { write!(f, "; get it by `{}`", self.command) }
    }
}

fn section(title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        println!("\n==> {title}");
        lines.for_each(|line| println!("    {line}"));
    }
}

/// The folder of the files that tests append to. Dropping it removes the folder.
struct Notes {
    folder: PathBuf,
}

impl Notes {
    fn create() -> Result<Self, String> {
        let folder = cargo::target_directory().join(format!("xtask-test-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)
            .and_then(|()| folder.canonicalize())
            .map(|folder| Self { folder })
            .map_err(|error| format!("cannot create {}: {error}", folder.display()))
    }

    fn skips(&self) -> PathBuf {
        self.folder.join("skips")
    }

    fn report(&self) -> PathBuf {
        self.folder.join("report")
    }

    fn read_skips(&self) -> String {
        read(&self.skips())
    }

    fn read_report(&self) -> String {
        read(&self.report())
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The file's text; empty when no test wrote it.
fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Options, Sum, add, parse, parse_skips};
    use crate::libtest::Tally;

    fn parsed(arguments: &[&str]) -> Result<Options, u8> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        parse(&arguments).map_err(|error| error.code)
    }

    #[test]
    fn reads_its_arguments() {
        let all = parsed(&["--full", "--filter", "onboard", "--", "--test-threads", "1"]);
        let extra = vec!["--test-threads".to_owned(), "1".to_owned()];
        assert_eq!(all, Ok(Options { full: true, filter: Some("onboard".to_owned()), extra }));
        assert_eq!(parsed(&["--filter"]), Err(2));
        assert_eq!(parsed(&["--fast"]), Err(2));
    }

    #[test]
    fn a_test_that_skipped_itself_counts_as_skipped() {
        let skips = parse_skips(
            "store on PostgreSQL\tno server\tinstall it\nstore on PostgreSQL\tno server\tinstall it\n\nlone\n",
        );
        assert_eq!(
            skips.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["store on PostgreSQL (2): no server; get it by `install it`", "lone (1): no reason given"]
        );
        let mut sum = Sum { passed: 3, failed: 1, skipped: 1 };
        let mut tally = Tally::default();
        (tally.passed, tally.failed, tally.ignored, tally.died) = (10, 2, 1, 1);
        add(&mut sum, &tally, 3);
        assert_eq!(sum, Sum { passed: 10, failed: 4, skipped: 5 });
    }
}
