//! Section 1: onboardings per second and one at a time, each beside the limit, measured alternately because
//! of noise.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::{self, Until, Wait};
use crate::limit::Limit;
use crate::report::{self, Cpu, at_least, at_most, milliseconds, per_second};
use crate::sample::{Base, Sample};
use crate::sandbox::{Postgres, Sandbox, Store};
use crate::server::Server;
use crate::statistics::{Spread, percentile};

/// Concurrent requests.
pub const IN_FLIGHT: usize = 64;
/// Name of the tenant whose rows the limit copies.
pub const SAMPLE: &str = "Sample Tenant";
/// The measured plan.
pub const PLAN: &str = "starter";

/// Aims in onboardings per second.
const fn aim(store: Store) -> f64 {
    match store {
        Store::Sqlite => 2000.0,
        Store::Postgres => 1000.0,
    }
}
/// Longest single onboarding, in milliseconds.
const ALONE: f64 = 10.0;
/// Highest ratio of a single onboarding to its bare commits.
const TIMES_BARE: f64 = 3.0;

/// Size of the measurement.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Number of runs; the median counts.
    pub runs: usize,
    /// Duration of a run.
    pub run: Duration,
    /// Number of sequential requests.
    pub alone: usize,
}

impl Effort {
    /// A run of throughput.
    pub const fn until(self) -> Until {
        Until { count: usize::MAX, within: self.run }
    }

    /// Onboardings of the limit in a run at this rate.
    fn count(self, rate: f64) -> usize {
        // Bounded by memory.
        ((rate * self.run.as_secs_f64()) as usize).clamp(IN_FLIGHT, 50_000)
    }
}

/// Creates a sandbox with one tenant, whose server has stopped.
pub async fn sampled(postgres: Option<&Postgres>) -> Result<(Sandbox, Sample)> {
    let sandbox = Sandbox::create(postgres).await?;
    let server = Server::start(&sandbox).await?;
    let mut connections = server.connect(1).await?;
    connections[0].onboard(SAMPLE, PLAN, Wait::Active).await?;
    server.drain().await?;
    server.stop().await?;
    let sample = Sample::read(&sandbox, SAMPLE).await?;
    Ok((sandbox, sample))
}

/// Measures one store and prints it.
pub async fn measure(postgres: Option<&Postgres>, effort: Effort) -> Result<()> {
    let (sandbox, sample) = sampled(postgres).await?;
    let limit = Limit::new(sandbox, sample)?;
    let sandbox = Sandbox::create(postgres).await?;
    let server = Server::start(&sandbox).await?;
    let store = sandbox.store();
    report::section(&format!(
        "1. Onboardings on {store}: {IN_FLIGHT} in flight, median of {} runs of {:.1} s (lowest..highest)",
        effort.runs,
        effort.run.as_secs_f64()
    ));
    let postmaster = postgres.map(|server| server.postmaster);
    let cpu = || Cpu::now(Some(server.pid()), postmaster);
    // Warms up server and limit, and measures the rate of the limit.
    client::onboard(server.connect(IN_FLIGHT).await?, "Warm", PLAN, effort.until(), Wait::Active).await?;
    server.drain().await?;
    let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    let few = 2 * IN_FLIGHT;
    limit.grouped(few, IN_FLIGHT).await?;
    let many_grouped = effort.count(rate(4 * few, limit.grouped(4 * few, IN_FLIGHT).await?));
    let many_single = effort.count(rate(few, limit.by_itself(few, IN_FLIGHT).await?));

    let (mut product, mut grouped, mut single) = (Vec::new(), Vec::new(), Vec::new());
    let (mut answered, mut of_product, mut of_grouped) = (Vec::new(), Cpu::default(), Cpu::default());
    let mut made = 0;
    for n in 0..effort.runs {
        let connections = server.connect(IN_FLIGHT).await?;
        let before = cpu();
        let run =
            client::onboard(connections, &format!("Run {n}"), PLAN, effort.until(), Wait::Active).await?;
        let rest = server.drain().await?;
        of_product = of_product.plus(cpu().since(before));
        made += run.latencies.len();
        product.push(run.rate(rest));
        answered.push(run.rate(Duration::ZERO));
        let before = cpu();
        grouped.push(rate(many_grouped, limit.grouped(many_grouped, IN_FLIGHT).await?));
        of_grouped = of_grouped.plus(cpu().since(before));
        single.push(rate(many_single, limit.by_itself(many_single, IN_FLIGHT).await?));
    }
    let [product, answered, grouped, single] =
        [product, answered, grouped, single].map(|runs| Spread::of(&runs));
    let of_limit = |limit: &Spread| format!("the product has {:.2} of it", product.median / limit.median);
    report::line(
        "onboardings, until all work is done",
        &per_second(&product),
        &at_least(product.median, aim(store), "/s"),
    );
    report::line(
        "onboardings, until the last answer",
        &per_second(&answered),
        "mail and billing continue after it",
    );
    report::line("limit, commits grouped", &per_second(&grouped), &of_limit(&grouped));
    report::line("limit, commits one by one", &per_second(&single), &of_limit(&single));
    report::note(&format!(
        "CPU time per onboarding: {}; of the limit, grouped: {}",
        of_product.each(made),
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
    report::line("one at a time, p50", &milliseconds(p50), &at_most(p50, ALONE, " ms"));
    report::line("one at a time, p99", &milliseconds(percentile(&alone, 0.99)), "");
    report::line(
        "its bare commits, p50",
        &milliseconds(bare50),
        &format!("{:.2} times as long; {}", p50 / bare50, at_most(p50 / bare50, TIMES_BARE, "")),
    );
    if store == Store::Sqlite {
        count(&server, &sandbox, &limit).await?;
    }
    server.stop().await?;
    limit.remove().await?;
    sandbox.remove().await
}

/// Counts the commits of one onboarding in SQLite's write-ahead logs, beside those of the limit.
async fn count(server: &Server, sandbox: &Sandbox, limit: &Limit) -> Result<()> {
    let logs = || -> Result<Vec<usize>> {
        Base::ALL.iter().map(|base| commits(&sandbox.file(base.file()))).collect()
    };
    let mut connection = server.connect(1).await?;
    // A checkpoint may restart a log during one of the onboardings.
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
    let counted = counted.context("a log restarted during each onboarding")?;
    for (base, commits) in Base::ALL.iter().zip(counted) {
        let (commits_of_limit, rows) = (limit.script().count(*base), limit.sample().count(*base));
        report::line(
            &format!("commits and rows of one in {}", base.file()),
            &format!("{commits} and {rows}"),
            &format!("the limit makes {commits_of_limit} commits"),
        );
    }
    Ok(())
}

/// Commits in the write-ahead log of a SQLite file (sqlite.org/fileformat2.html, section 4): frames of the
/// current generation with a database size.
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
