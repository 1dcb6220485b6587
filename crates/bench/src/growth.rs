//! Section 3: duration of an onboarding in a small and in a large registry. Two servers are measured
//! alternately.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::client::{self, Until, Wait};
use crate::fill::fill;
use crate::report::{self, at_most, per_second, whole};
use crate::sandbox::{Postgres, Sandbox};
use crate::server::Server;
use crate::statistics::Spread;
use crate::throughput::{Effort, IN_FLIGHT, PLAN, sampled};

/// Highest ratio of the durations.
const FLAT: f64 = 1.2;

/// A server with a filled registry.
struct Filled {
    tenants: usize,
    sandbox: Sandbox,
    server: Server,
    rates: Vec<f64>,
}

impl Filled {
    async fn make(postgres: Option<&Postgres>, tenants: usize) -> Result<Self> {
        let (sandbox, sample) = sampled(postgres).await?;
        let started = Instant::now();
        fill(&sandbox, &sample, tenants - 1).await.context("filling the registry")?;
        let filled = started.elapsed();
        let server = Server::start(&sandbox).await?;
        report::note(&format!(
            "filled with {} tenants in {:.1} s, ready {:.2} s after the start",
            whole(tenants as f64),
            filled.as_secs_f64(),
            server.started_in.as_secs_f64()
        ));
        Ok(Self { tenants, sandbox, server, rates: Vec::new() })
    }

    async fn run(&self, name: &str, until: Until) -> Result<f64> {
        let connections = self.server.connect(IN_FLIGHT).await?;
        let run = client::onboard(connections, name, PLAN, until, Wait::Active).await?;
        let rest = self.server.drain().await?;
        Ok(run.rate(rest))
    }
}

/// Measures one store and prints it.
pub async fn measure(postgres: Option<&Postgres>, effort: Effort, sizes: [usize; 2]) -> Result<()> {
    let store = if postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    let sizes_text = sizes.map(|size| whole(size as f64)).join(" and ");
    report::section(&format!("3. Onboardings on {store} among {sizes_text} tenants: {IN_FLIGHT} in flight"));
    let mut both = [Filled::make(postgres, sizes[0]).await?, Filled::make(postgres, sizes[1]).await?];
    // At most as many onboardings as tenants, so that a run hardly changes the size of the small registry.
    let until = Until { count: sizes[0], ..effort.until() };
    for filled in &both {
        filled.run("Warm", until).await?;
    }
    for n in 0..effort.runs {
        for filled in &mut both {
            let rate = filled.run(&format!("Run {n}"), until).await?;
            filled.rates.push(rate);
        }
    }
    let [few, many] = [Spread::of(&both[0].rates), Spread::of(&both[1].rates)];
    let times = few.median / many.median;
    for (filled, rates) in both.iter().zip([&few, &many]) {
        let remark = if filled.tenants == sizes[1] {
            format!("takes {times:.2} times as long; {}", at_most(times, FLAT, ""))
        } else {
            String::new()
        };
        report::line(&format!("among {}", whole(filled.tenants as f64)), &per_second(rates), &remark);
    }
    for Filled { sandbox, server, .. } in both {
        server.stop().await?;
        sandbox.remove().await?;
    }
    Ok(())
}
