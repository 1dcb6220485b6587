//! Section 1: onboardings per second and one alone, each beside the limit, run in turns because machines are noisy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::{self, Until, Wait};
use crate::limit::Limit;
use crate::place::{Place, Postgres, Store};
use crate::report::{self, Cpu, at_least, at_most, milliseconds, per_second};
use crate::sample::{Base, Sample};
use crate::server::Server;
use crate::statistics::{Spread, percentile};

/// Requests at the same time.
pub const IN_FLIGHT: usize = 64;
/// Name of the tenant that the limit copies.
pub const SAMPLE: &str = "Sample Tenant";
/// The plan that is measured.
pub const PLAN: &str = "starter";

/// Aims of the design, per second.
const fn aim(store: Store) -> f64 {
    match store {
        Store::Sqlite => 2000.0,
        Store::Postgres => 1000.0,
    }
}
/// Most that one alone may take, in milliseconds.
const ALONE: f64 = 10.0;
/// And how many times the bare commits.
const TIMES_BARE: f64 = 3.0;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Runs of which the median counts.
    pub runs: usize,
    /// How long a run takes.
    pub run: Duration,
    /// Requests one after the other.
    pub alone: usize,
}

impl Effort {
    /// A run of throughput.
    pub const fn until(self) -> Until {
        Until { count: usize::MAX, within: self.run }
    }

    /// How many onboardings the limit makes in a run, if it makes so many per second.
    fn count(self, rate: f64) -> usize {
        // More than this would only fill memory.
        ((rate * self.run.as_secs_f64()) as usize).clamp(IN_FLIGHT, 50_000)
    }
}

/// Makes a place and has one tenant made there; the server has ended.
pub async fn sampled(postgres: Option<&Postgres>) -> Result<(Place, Sample)> {
    let place = Place::make(postgres).await?;
    let server = Server::start(&place).await?;
    let mut connections = server.connect(1).await?;
    connections[0].onboard(SAMPLE, PLAN, Wait::Active).await?;
    server.drain().await?;
    server.stop().await?;
    let sample = Sample::read(&place, SAMPLE).await?;
    Ok((place, sample))
}

/// Measures one store and prints it.
pub async fn measure(postgres: Option<&Postgres>, effort: Effort) -> Result<()> {
    let (place, sample) = sampled(postgres).await?;
    let limit = Limit::new(place, sample)?;
    let place = Place::make(postgres).await?;
    let server = Server::start(&place).await?;
    let store = place.store();
    report::section(&format!(
        "1. Onboardings on {store}: {IN_FLIGHT} in flight, median of {} runs of {:.1} s (lowest..highest)",
        effort.runs,
        effort.run.as_secs_f64()
    ));
    let postmaster = postgres.map(|server| server.postmaster);
    let cpu = || Cpu::now(Some(server.pid()), postmaster);
    // All warm up: statements are prepared, files have grown, and we know how fast the limit is.
    client::onboard(server.connect(IN_FLIGHT).await?, "Warm", PLAN, effort.until(), Wait::Active).await?;
    server.drain().await?;
    let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    let few = 2 * IN_FLIGHT;
    limit.grouped(few, IN_FLIGHT).await?;
    let many_grouped = effort.count(rate(4 * few, limit.grouped(4 * few, IN_FLIGHT).await?));
    let many_single = effort.count(rate(few, limit.by_itself(few, IN_FLIGHT).await?));

    let (mut ours, mut grouped, mut single) = (Vec::new(), Vec::new(), Vec::new());
    let (mut answered, mut of_ours, mut of_grouped) = (Vec::new(), Cpu::default(), Cpu::default());
    let mut made = 0;
    for n in 0..effort.runs {
        let connections = server.connect(IN_FLIGHT).await?;
        let before = cpu();
        let run =
            client::onboard(connections, &format!("Run {n}"), PLAN, effort.until(), Wait::Active).await?;
        let rest = server.drain().await?;
        of_ours = of_ours.plus(cpu().since(before));
        made += run.latencies.len();
        ours.push(run.rate(rest));
        answered.push(run.rate(Duration::ZERO));
        let before = cpu();
        grouped.push(rate(many_grouped, limit.grouped(many_grouped, IN_FLIGHT).await?));
        of_grouped = of_grouped.plus(cpu().since(before));
        single.push(rate(many_single, limit.by_itself(many_single, IN_FLIGHT).await?));
    }
    let [ours, answered, grouped, single] = [ours, answered, grouped, single].map(|runs| Spread::of(&runs));
    let of_limit = |limit: &Spread| format!("ours is {:.2} of it", ours.median / limit.median);
    report::line(
        "ours, until all work is done",
        &per_second(&ours),
        &at_least(ours.median, aim(store), "/s"),
    );
    report::line("ours, until the last answer", &per_second(&answered), "mail and billing go on behind it");
    report::line("limit, commits grouped by hand", &per_second(&grouped), &of_limit(&grouped));
    report::line("limit, each commit by itself", &per_second(&single), &of_limit(&single));
    report::note(&format!(
        "CPU time per onboarding: {}; of the limit, grouped: {}",
        of_ours.each(made),
        of_grouped.each(effort.runs * many_grouped)
    ));

    let mut alone = Vec::new();
    let mut bare = Vec::new();
    let turns = 3;
    for turn in 0..turns {
        let one = server.connect(1).await?;
        let until = Until { count: effort.alone / turns, within: effort.run };
        let run = client::onboard(one, &format!("Alone {turn}"), PLAN, until, Wait::Active).await?;
        server.drain().await?;
        bare.extend(limit.alone(run.latencies.len()).await?);
        alone.extend(run.latencies);
    }
    let (p50, bare50) = (percentile(&alone, 0.5), percentile(&bare, 0.5));
    report::line("one alone, p50", &milliseconds(p50), &at_most(p50, ALONE, " ms"));
    report::line("one alone, p99", &milliseconds(percentile(&alone, 0.99)), "");
    report::line(
        "its commits bare, p50",
        &milliseconds(bare50),
        &format!("ours is {:.2} of it; {}", p50 / bare50, at_most(p50 / bare50, TIMES_BARE, "")),
    );
    if store == Store::Sqlite {
        count(&server, &place, &limit).await?;
    }
    server.stop().await?;
    limit.remove().await?;
    place.remove().await
}

/// Counts the commits of one onboarding in SQLite's logs, and says whether the limit makes as many.
async fn count(server: &Server, place: &Place, limit: &Limit) -> Result<()> {
    let logs =
        || -> Result<Vec<usize>> { Base::ALL.iter().map(|base| commits(&place.file(base.file()))).collect() };
    let mut connection = server.connect(1).await?;
    // The first may begin a log anew; then the second does not.
    let mut counted = None;
    for n in 0..3 {
        let before = logs()?;
        connection[0].onboard(&format!("Counted {n}"), PLAN, Wait::Active).await?;
        server.drain().await?;
        let after = logs()?;
        let differences: Option<Vec<usize>> =
            after.iter().zip(&before).map(|(after, before)| after.checked_sub(*before)).collect();
        counted = counted.or(differences);
    }
    let counted = counted.context("the logs begin anew at each onboarding")?;
    for (base, commits) in Base::ALL.iter().zip(counted) {
        let (ours, rows) = (limit.script().count(*base), limit.sample().count(*base));
        report::line(
            &format!("commits and rows of one in {}", base.file()),
            &format!("{commits} and {rows}"),
            &format!("the limit makes {ours} commits"),
        );
    }
    Ok(())
}

/// Commits in the write-ahead log beside a SQLite file (sqlite.org/fileformat2.html, section 4): frames of the log's
/// present generation that say how large the database is after them.
fn commits(file: &Path) -> Result<usize> {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let log = fs::read(format!("{}-wal", file.display()))?;
    let number =
        |at: usize| log.get(at..at + 4).map(|b| b.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)));
    let Some(page) = number(8) else { return Ok(0) };
    let salt = log.get(16..24);
    let mut count = 0;
    let mut at = HEADER;
    while let Some(size) = number(at + 4)
        && log.get(at + 8..at + 16) == salt
    {
        count += usize::from(size > 0);
        at += FRAME + page;
    }
    Ok(count)
}
