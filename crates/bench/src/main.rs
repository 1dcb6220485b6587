//! `cargo xtask bench`: measures the release binary from outside, and prints each figure beside a limit
//! measured in the same run on the same machine. A missed aim is printed and is no failure.

mod client;
mod dbos;
mod export;
mod fill;
mod growth;
mod leaving;
mod limit;
mod plans;
mod process;
mod registry;
mod report;
mod sample;
mod sandbox;
mod script;
mod server;
mod statistics;
mod tenants;
mod throughput;
mod waiting;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sandbox::Postgres;
use tenants::Amount;
use throughput::Effort;

/// URL of a durable, temporary PostgreSQL.
const POSTGRES: &str = "TENANTRY_BENCH_POSTGRES";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let known = |it: &&String| {
        let groups = GROUPS.iter().map(|(name, _)| name);
        BENCHES.iter().chain(groups).chain(&["--full", "--quick"]).any(|name| name == it)
    };
    if let Some(unknown) = arguments.iter().find(|it| !known(it)) {
        let groups = GROUPS.map(|(name, names)| format!("{name} ({})", names.join(", ")));
        let (each, groups) = (BENCHES.join(", "), groups.join(", "));
        eprintln!("unknown bench {unknown}; benches: {each}; groups: {groups} [--full | --quick]");
        return ExitCode::from(2);
    }
    let every = !arguments.iter().any(|argument| !argument.starts_with("--"));
    let named = |name: &&str| {
        every || has(name) || GROUPS.iter().any(|(groups, names)| has(groups) && names.contains(name))
    };
    let wanted: Vec<&str> = BENCHES.into_iter().filter(named).collect();
    let plan = match (has("--full"), has("--quick")) {
        (true, _) => FULL,
        (_, true) => QUICK,
        _ => DEFAULT,
    };
    // After Ctrl-C, dropping the benches stops their servers.
    let ended = tokio::select! {
        ended = benches(&plan, &wanted) => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The benches.
const BENCHES: [&str; 9] =
    ["onboard", "leaving", "export", "schemas", "growth", "databases", "claims", "policies", "registry"];

/// Groups of benches under one name.
const GROUPS: [(&str, &[&str]); 2] = [
    ("leaving", &["leaving", "export"]),
    ("postgres", &["schemas", "growth", "databases", "claims", "policies", "registry"]),
];

/// Size of the measurements.
struct Plan {
    name: &'static str,
    effort: Effort,
    /// Tenants in the two compared registries.
    sizes: [usize; 2],
    /// Waiting operations.
    waiting: usize,
    /// Megabytes of the export.
    exported: usize,
    /// Erased tenants; a tenth as many suspensions are measured from outside.
    leaving: usize,
    /// Schemas and databases to create.
    amount: Amount,
    /// Tenants in the queried registry, and requests per kind.
    registry: [usize; 2],
}

const DEFAULT: Plan = Plan {
    name: "",
    effort: Effort { runs: 3, run: Duration::from_millis(2_500), alone: 200 },
    sizes: [1_000, 100_000],
    waiting: 10_000,
    exported: 256,
    leaving: 1_000,
    amount: Amount { schemas: 300, fleet: 300, databases: 30, turns: 3 },
    registry: [100_000, 1_000],
};
/// More and longer runs.
const FULL: Plan = Plan {
    name: " --full",
    effort: Effort { runs: 7, run: Duration::from_secs(10), alone: 1_500 },
    exported: 1_024,
    leaving: 5_000,
    amount: Amount { schemas: 500, fleet: 3_000, databases: 100, turns: 5 },
    registry: [1_000_000, 5_000],
    ..DEFAULT
};
/// Checks that every bench runs; its figures are meaningless.
const QUICK: Plan = Plan {
    name: " --quick",
    effort: Effort { runs: 1, run: Duration::from_secs(1), alone: 6 },
    sizes: [100, 2_000],
    waiting: 200,
    exported: 4,
    leaving: 20,
    amount: Amount { schemas: 8, fleet: 8, databases: 2, turns: 1 },
    registry: [2_000, 20],
};

/// Runs the benches in sequence.
async fn benches(plan: &Plan, wanted: &[&str]) -> Result<()> {
    for bench in wanted {
        let started = Instant::now();
        println!("\ncargo xtask bench {bench}{}", plan.name);
        match *bench {
            "onboard" => onboard(plan).await?,
            "leaving" => leave(plan).await?,
            "export" => export::measure(plan.exported).await?,
            "registry" => registry(plan).await?,
            tenants => match server().await? {
                Ok(server) => tenants::measure(tenants, &server, plan.amount).await?,
                Err(why) => report::skipped("Tenants on PostgreSQL", &why),
            },
        }
        println!("\ntook {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The PostgreSQL server, or why there is none.
async fn server() -> Result<Result<Postgres, String>> {
    Ok(match std::env::var(POSTGRES) {
        Ok(url) => Ok(Postgres::connect(&url).await?),
        Err(_) => Err(format!("{POSTGRES} is not set")),
    })
}

async fn registry(plan: &Plan) -> Result<()> {
    let [tenants, requests] = plan.registry;
    registry::measure(None, tenants, requests).await?;
    match server().await? {
        Ok(server) => registry::measure(Some(&server), tenants, requests).await?,
        Err(why) => report::skipped("The registry on PostgreSQL", &why),
    }
    Ok(())
}

async fn leave(plan: &Plan) -> Result<()> {
    let postgres = server().await?;
    for store in [Ok(None), postgres.as_ref().map(Some)] {
        match store {
            Ok(postgres) => {
                leaving::measure(postgres, plan.leaving).await?;
                leaving::bound(postgres, plan.leaving.div_ceil(10)).await?;
            }
            Err(why) => report::skipped("Suspensions and erasures on PostgreSQL", why),
        }
    }
    Ok(())
}

async fn onboard(plan: &Plan) -> Result<()> {
    let postgres = server().await?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = postgres.as_ref().map_or("none", |server| server.version.as_str());
    println!("{cores} cores, shared by client, server and PostgreSQL ({version})");
    let stores = [Ok(None), postgres.as_ref().map(Some)];
    for store in stores {
        match store {
            Ok(postgres) => throughput::measure(postgres, plan.effort).await?,
            Err(why) => report::skipped("1. Onboardings on PostgreSQL", why),
        }
    }
    for store in stores {
        match store {
            Ok(postgres) => growth::measure(postgres, plan.effort, plan.sizes).await?,
            Err(why) => report::skipped("3. Onboardings on PostgreSQL in a large registry", why),
        }
    }
    for store in stores {
        match store {
            Ok(postgres) => waiting::measure(postgres, plan.waiting).await?,
            Err(why) => report::skipped("4. Waiting operations on PostgreSQL", why),
        }
    }
    // On SQLite only: the registry takes little of the time of these plans.
    plans::measure(plan.effort).await?;
    match &postgres {
        // One run is enough, because it is slow.
        Ok(postgres) => dbos::measure(postgres, Effort { runs: 1, ..plan.effort }).await?,
        Err(why) => report::skipped("6. dbos", why),
    }
    Ok(())
}
