//! `cargo xtask test`: every check and every test, with `--full` chaos, and the sum of them. All tests run on one PostgreSQL, and those
//! that depend on its release once more on others. A test whose server is missing counts as skipped. Environment of the test processes: `TENANTRY_TEST_POSTGRES` (a URL; unset without a
//! PostgreSQL), `TENANTRY_TEST_FULL=1` under `--full`, `TENANTRY_SKIP_FILE` (a test that skips itself appends
//! one line `suite<TAB>reason<TAB>command` in one write), `TENANTRY_REPORT_FILE` (lines to show before the
//! sum).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::chaos::Server;
use crate::libtest::Tally;
use crate::postgres::{Cluster, Durability};
use crate::releases::{RELEASES, Release};
use crate::services::{self, INSTALL, INSTALL_LINT_TOOLS, Postgres};
use crate::{Error, cargo, phase, systemd, tidy, usage};

/// Environment variable with the URL of an administrator of a PostgreSQL server.
pub const POSTGRES: &str = "TENANTRY_TEST_POSTGRES";

/// Time without output after which a test process counts as hanging, without and with `--full`.
const OUTPUT_TIMEOUT: [Duration; 2] = [Duration::from_secs(900), Duration::from_secs(4 * 3_600)];

/// Time of the faults of chaos under `--full`, in minutes. Start, rest and checks take some more.
const CHAOS_MINUTES: u32 = 30;

/// Test binaries that depend on the release of PostgreSQL, by the folder of their package, and a part of their
/// tests' names.
const RELEASE_SUITES: [(&str, &str); 3] =
    [("crates/postgres", ""), ("crates/store", "postgres"), ("crates/providers/databases", "postgres")];

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    full: bool,
    filter: Option<String>,
    /// The only release to run on.
    postgres: Option<u32>,
    extra: Vec<String>,
}

/// Results that the last line shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// What checks and tests gave so far.
#[derive(Default)]
struct Results {
    sum: Sum,
    skips: Vec<Skip>,
    failures: Vec<String>,
    report: Vec<String>,
    /// Number of tests that ran.
    ran: u64,
}

/// Where tests run: a server that xtask has started, if any, and the files that they append to.
struct Place {
    cluster: Option<Cluster>,
    notes: Notes,
    full: bool,
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
    let mut results = Results::default();
    if options.filter.is_none() {
        results.check_all();
    }
    // All targets, so that the tests and the programs that they start share one build of their dependencies.
    let build = ["build", "--workspace", "--all-targets"];
    if phase::run("build", || phase::succeeds(&mut cargo::command(&build))) {
        test_all(&options, &mut results)?;
        if options.filter.is_none() && options.full {
            results.chaos();
        }
    } else {
        results.fail("build: the workspace does not compile".to_owned());
    }
    let Results { sum, skips, failures, report, ran } = results;
    section("report", report.into_iter());
    section("skipped", skips.iter().map(Skip::to_string));
    section("failed", failures.into_iter());
    println!("\n    all phases took {}", phase::seconds(started.elapsed()));
    if ran == 0 && sum.failed == 0 {
        println!("    no test ran, which counts as a failure");
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(if sum.failed > 0 || ran == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs all tests on one server, and those that depend on its release on others.
fn test_all(options: &Options, results: &mut Results) -> Result<(), Error> {
    if options.postgres.is_none() && std::env::var_os(POSTGRES).is_some() {
        println!("\n==> postgresql: only the server in {POSTGRES}");
        return results.test("", options, None, cargo_test);
    }
    println!("\n==> postgresql");
    let chosen = RELEASES.iter().find(|release| Some(release.version) == options.postgres);
    let found = match chosen.map_or_else(services::find_postgres, Release::find) {
        Ok(found) => Some(found),
        Err(reason) if options.postgres.is_some() => {
            return Err(format!("{reason}; get it by `{INSTALL}`").into());
        }
        Err(reason) => {
            println!("    none: {reason}; get it by `{INSTALL}`");
            None
        }
    };
    let main = found.as_ref().map(|found| found.version);
    let cluster = found.and_then(|found| results.start(&found));
    results.test("", options, cluster, cargo_test)?;
    for release in further(options, main) {
        let server = format!(" on PostgreSQL {}", release.version);
        let found = match release.find() {
            Ok(found) => found,
            Err(reason) => {
                let (suite, command) = (format!("tests{server}"), INSTALL.to_owned());
                println!("\n==> {suite}: skipped, {reason}; get it by `{INSTALL}`");
                results.skip(Skip { suite, reason, command, times: 1 });
                continue;
            }
        };
        println!("\n==> postgresql");
        let Some(cluster) = results.start(&found) else { continue };
        results.test(&server, options, Some(cluster), release_suites)?;
    }
    Ok(())
}

/// The releases to run on besides the main one: the newest, or all under `--full`; none if the caller has chosen
/// tests or a release.
fn further(options: &Options, main: Option<u32>) -> Vec<&'static Release> {
    if options.filter.is_some() || options.postgres.is_some() {
        return Vec::new();
    }
    let first = if options.full { 0 } else { RELEASES.len() - 1 };
    RELEASES[first..].iter().filter(|release| Some(release.version) != main).collect()
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
            "--postgres" => {
                let release = arguments.next().and_then(|release| release.parse().ok());
                let known = release.filter(|version| RELEASES.iter().any(|known| known.version == *version));
                options.postgres =
                    Some(known.ok_or_else(|| usage("--postgres needs a supported major release"))?);
            }
            "--" => options.extra = arguments.by_ref().cloned().collect(),
            unknown => return Err(usage(&format!("test does not know `{unknown}`"))),
        }
    }
    Ok(options)
}

impl Results {
    fn fail(&mut self, what: String) {
        self.failures.push(what);
        self.sum.failed += 1;
    }

    fn skip(&mut self, skip: Skip) {
        self.sum.skipped += skip.times;
        self.skips.push(skip);
    }

    /// Each check counts as one test.
    fn check_all(&mut self) {
        self.check("fmt", || phase::succeeds(&mut cargo::command(&["fmt", "--all", "--check"])));
        self.check("tidy", tidy::check);
        self.check("clippy", || {
            let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            phase::succeeds(&mut cargo::command(&clippy))
        });
        // Advisories need a database from the network, so the scheduled workflow checks them.
        let deny = ["deny", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
        for command in [&deny[..], &["machete"]] {
            let tool = command[0];
            if services::lint_tool_installed(tool) {
                self.check(tool, || phase::succeeds(&mut cargo::command(command)));
            } else {
                self.skip(Skip {
                    suite: tool.to_owned(),
                    reason: format!("cargo-{tool} is not installed"),
                    command: INSTALL_LINT_TOOLS.to_owned(),
                    times: 1,
                });
            }
        }
        match systemd::missing() {
            None => self.check("systemd", systemd::check),
            Some(reason) => {
                self.skip(Skip { suite: "systemd".to_owned(), reason, command: String::new(), times: 1 });
            }
        }
    }

    /// Runs servers under faults, with a drawn seed, which the program prints. Counts as one test.
    fn chaos(&mut self) {
        match Server::find() {
            Ok(server) => {
                let minutes = ["--minutes".to_owned(), CHAOS_MINUTES.to_string()];
                self.check("chaos", || server.run(&minutes));
            }
            Err(reason) => {
                let (suite, command) = ("chaos".to_owned(), INSTALL.to_owned());
                self.skip(Skip { suite, reason, command, times: 1 });
            }
        }
    }

    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<bool, String>) {
        if phase::run(name, work) {
            self.sum.passed += 1;
        } else {
            self.fail(name.to_owned());
        }
    }

    /// Starts a server. None, counted as a failure, if it does not start.
    fn start(&mut self, postgres: &Postgres) -> Option<Cluster> {
        let started = Instant::now();
        match Cluster::start(postgres, Durability::None) {
            Ok(cluster) => {
                let took = phase::seconds(started.elapsed());
                println!("    PostgreSQL {} at {} in {took}", postgres.version, cluster.url());
                Some(cluster)
            }
            Err(error) => {
                println!("    {error}");
                self.fail(format!("postgresql {}: it is installed but does not start", postgres.version));
                None
            }
        }
    }

    /// Runs tests on a server, whose name follows theirs, and stops it.
    fn test(
        &mut self,
        server: &str,
        options: &Options,
        cluster: Option<Cluster>,
        work: fn(&Options, &Place, &mut Tally) -> Result<bool, String>,
    ) -> Result<(), Error> {
        let place = Place { cluster, notes: Notes::create()?, full: options.full };
        let mut tally = Tally::default();
        let passed = phase::run(&format!("tests{server}"), || work(options, &place, &mut tally));
        if !passed && tally.failed + tally.died == 0 {
            self.fail(format!("tests{server}: they ended with an error, shown above"));
        }
        self.report.extend(place.notes.read_report().lines().map(|line| format!("{line}{server}")));
        self.add(server, &tally, parse_skips(&place.notes.read_skips()));
        Ok(())
    }

    /// Adds the tests of a server. Test binaries count a test that skipped itself as passed.
    fn add(&mut self, server: &str, tally: &Tally, skips: Vec<Skip>) {
        let skipped: u64 = skips.iter().map(|skip| skip.times).sum();
        self.ran += tally.ran();
        self.sum.passed += tally.passed.saturating_sub(skipped);
        self.sum.failed += tally.failed + tally.died;
        self.sum.skipped += tally.ignored;
        for skip in skips {
            self.skip(Skip { suite: format!("{}{server}", skip.suite), ..skip });
        }
        self.failures.extend(tally.failures.iter().map(|name| format!("{name}{server}")));
        if tally.died > 0 {
            self.failures.push(format!("{} test processes died without a result{server}", tally.died));
        }
    }
}

impl Place {
    /// Gives a test process its environment.
    fn describe(&self, command: &mut Command) {
        let notes = &self.notes;
        command.env("TENANTRY_SKIP_FILE", notes.skips()).env("TENANTRY_REPORT_FILE", notes.report());
        if let Some(cluster) = &self.cluster {
            command.env(POSTGRES, cluster.url());
        }
        if self.full {
            command.env("TENANTRY_TEST_FULL", "1");
        }
    }
}

/// Runs the tests of every workspace member.
fn cargo_test(options: &Options, place: &Place, tally: &mut Tally) -> Result<bool, String> {
    let mut command = cargo::command(&["test", "--workspace", "--no-fail-fast"]);
    command.args(&options.filter).arg("--").args(&options.extra);
    place.describe(&mut command);
    follow(&mut command, options.full, end_tests_of, tally)
}

/// Runs the tests that depend on the release of PostgreSQL. They are built already.
fn release_suites(options: &Options, place: &Place, tally: &mut Tally) -> Result<bool, String> {
    let mut list = cargo::command(&["test", "--workspace", "--no-run", "--message-format=json"]);
    let built =
        list.stderr(Stdio::inherit()).output().map_err(|error| format!("cannot run cargo: {error}"))?;
    let built = String::from_utf8_lossy(&built.stdout).into_owned();
    let mut passed = true;
    for (folder, part) in RELEASE_SUITES {
        let folder = Path::new(folder).canonicalize().map_err(|error| format!("{folder}: {error}"))?;
        let binary =
            test_binary(&built, &folder).ok_or_else(|| format!("no tests in {}", folder.display()))?;
        println!("\n     Running {} {part}", binary.display());
        let mut command = Command::new(binary);
        command.current_dir(&folder).arg(part).args(&options.extra);
        place.describe(&mut command);
        let end = |process: &mut Child| process.kill().map_err(|error| format!("cannot end a test: {error}"));
        let before = tally.ran();
        passed &= follow(&mut command, options.full, end, tally)?;
        if tally.ran() == before {
            return Err(format!("no test in {} has `{part}` in its name", folder.display()));
        }
    }
    Ok(passed)
}

/// The integration tests of the package in this folder, from cargo's messages: a JSON object in each line.
fn test_binary(messages: &str, folder: &Path) -> Option<PathBuf> {
    let package = format!("\"manifest_path\":\"{}\"", folder.join("Cargo.toml").display());
    let mut tests =
        messages.lines().filter(|line| line.contains(&package) && line.contains("\"kind\":[\"test\"]"));
    tests.find_map(|line| Some(line.split_once("\"executable\":\"")?.1.split_once('"')?.0.into()))
}

/// Runs a command, and prints and reads the output of its tests. `end` kills a test process that hangs.
fn follow(
    command: &mut Command,
    full: bool,
    end: impl Fn(&mut Child) -> Result<(), String>,
    tally: &mut Tally,
) -> Result<bool, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    let mut reader = BufReader::new(child.stdout.take().ok_or("the tests have no output")?);
    let (read, lines) = channel();
    // Bytes: a test may print text that is not UTF-8.
    let reads = std::thread::spawn(move || {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && read.send(std::mem::take(&mut line)).is_ok() {}
        Ok::<_, std::io::Error>(())
    });
    let mut shown = std::io::stdout().lock();
    let complete = loop {
        match lines.recv_timeout(OUTPUT_TIMEOUT[usize::from(full)]) {
            Ok(line) => {
                let written = shown.write_all(&line).and_then(|()| shown.flush());
                written.map_err(|error| format!("cannot print: {error}"))?;
                tally.read(String::from_utf8_lossy(&line).trim_end());
            }
            // The command has ended, and a process that a killed test left behind keeps the pipe open.
            Err(RecvTimeoutError::Timeout) if !matches!(child.try_wait(), Ok(None)) => break false,
            Err(RecvTimeoutError::Timeout) => {
                println!("    no output for too long: the test process is killed");
                end(&mut child)?;
            }
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    if complete {
        let read = reads.join().map_err(|_| "the reader of the tests' output ended")?;
        read.map_err(|error| format!("cannot read the tests' output: {error}"))?;
    }
    tally.close();
    let status = child.wait().map_err(|error| format!("cannot wait for the tests: {error}"))?;
    Ok(status.success())
}

/// Kills the test process that hangs, which counts as one that died; cargo continues with the next.
fn end_tests_of(cargo: &mut Child) -> Result<(), String> {
    match Command::new("pkill").args(["-KILL", "-P", &cargo.id().to_string()]).status() {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = cargo.kill();
            Err(format!("a test hangs and cannot be killed: pkill: {error}"))
        }
    }
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
    use std::path::Path;

    use super::{Options, Results, Sum, further, parse, parse_skips, test_binary};
    use crate::libtest::Tally;

    fn parsed(arguments: &[&str]) -> Result<Options, u8> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        parse(&arguments).map_err(|error| error.code)
    }

    #[test]
    fn reads_its_arguments() {
        let all = parsed(&["--full", "--filter", "onboard", "--", "--test-threads", "1"]);
        let extra = vec!["--test-threads".to_owned(), "1".to_owned()];
        let filter = Some("onboard".to_owned());
        assert_eq!(all, Ok(Options { full: true, filter, postgres: None, extra }));
        assert_eq!(parsed(&["--postgres", "16"]), Ok(Options { postgres: Some(16), ..Options::default() }));
        assert_eq!(parsed(&["--postgres", "9"]), Err(2));
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
        let sum = Sum { passed: 3, failed: 1, skipped: 1 };
        let mut results = Results { sum, ..Results::default() };
        let mut tally = Tally::default();
        tally.failures.push("a".to_owned());
        (tally.passed, tally.failed, tally.ignored, tally.died) = (10, 2, 1, 1);
        results.add(" on PostgreSQL 18", &tally, skips);
        assert_eq!(results.sum, Sum { passed: 10, failed: 4, skipped: 5 });
        assert_eq!(results.failures[0], "a on PostgreSQL 18");
        assert!(results.skips[0].suite.ends_with("on PostgreSQL 18"), "{:?}", results.skips);
    }

    #[test]
    fn finds_the_integration_tests_of_a_package() {
        let line = |folder: &str, kind: &str, file: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"{folder}/Cargo.toml\",\
                 \"target\":{{\"kind\":[\"{kind}\"],\"name\":\"it\"}},\"executable\":\"{file}\",\"fresh\":true}}\n"
            )
        };
        let messages = line("/w/a", "lib", "/t/a-1")
            + &line("/w/ab", "test", "/t/it-2")
            + &line("/w/a", "test", "/t/it-3");
        assert_eq!(test_binary(&messages, Path::new("/w/a")), Some("/t/it-3".into()));
        assert_eq!(test_binary(&messages, Path::new("/w/b")), None);
    }

    #[test]
    fn further_releases_are_those_beside_the_main_one() {
        let versions = |options: &Options, main| -> Vec<u32> {
            further(options, main).iter().map(|release| release.version).collect()
        };
        let (plain, full) = (Options::default(), Options { full: true, ..Options::default() });
        assert_eq!(versions(&plain, Some(15)), [18]);
        assert_eq!(versions(&plain, Some(18)), [0; 0]);
        assert_eq!(versions(&full, Some(16)), [15, 17, 18]);
        assert_eq!(versions(&parse(&["--filter".to_owned(), "x".to_owned()]).unwrap(), Some(15)), [0; 0]);
    }
}
