//! One run: calm neighbours first, then customers and faults for a time, rest, the end of the servers, and the invariants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tenantry_testkit::Raw;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Ask, Client, text};
use crate::draw::Draw;
use crate::faults::Injector;
use crate::fleet::Fleet;
use crate::installation::{Installation, own};
use crate::invariants::{self, Checked, Ground};
use crate::replica;
use crate::rest::{Rest, rest};
use crate::tally::Tally;
use crate::use_cases::Customer;
use crate::watch::{self as looks, Watch};

/// Customers at the same time, and sources of faults at the same time.
const CUSTOMERS: usize = 8;
const INJECTORS: usize = 2;
/// Plans of the first tenants, which are there before the first fault.
const FIRST: [&str; 3] = ["starter", "growth", "enterprise"];
/// Faults that are printed of one invariant.
const SHOWN: usize = 20;

/// Runs; returns whether every invariant holds. Keeps configuration and logs if one does not.
pub async fn run(admin: &str, seed: u64, time: Duration) -> Result<bool> {
    println!("chaos: {} s, repeat with --seed {seed}", time.as_secs());
    let installation = Arc::new(Installation::start(admin).await?);
    let held = run_on(&installation, admin, seed, time).await;
    if !matches!(held, Ok(true)) {
        println!("\nrepeat with --seed {seed}");
        if let Some(mut installation) = Arc::into_inner(installation) {
            println!("configuration and logs: {}", installation.keep_logs().display());
        }
    }
    held
}

async fn run_on(installation: &Arc<Installation>, admin: &str, seed: u64, time: Duration) -> Result<bool> {
    let (tally, fleet, watch) =
        (Arc::new(Tally::default()), Arc::new(Fleet::default()), Arc::new(Watch::default()));
    let mut supervisors = supervise(installation, &tally);
    let (stop, stopped) = watch::channel(false);
    let client = Client::new(Arc::clone(installation), Arc::clone(&tally), stopped.clone())?;
    for replica in &installation.replicas {
        replica.ready(client.http()).await?;
    }
    let customer = |number| Customer {
        number,
        client: client.clone(),
        fleet: Arc::clone(&fleet),
        tally: Arc::clone(&tally),
    };
    let first = customer(CUSTOMERS);
    for (n, plan) in FIRST.into_iter().enumerate() {
        let marker = format!("chaosfirst{n}mark");
        let made = first.onboard_with(&marker, plan, true).await;
        made.map_err(|refusal| anyhow!("the first {plan} tenant: {}", refusal.code))?;
    }

    let mut work = JoinSet::new();
    for number in 0..CUSTOMERS {
        let (customer, stopped) = (customer(number), stopped.clone());
        let draw = Draw::of(seed, &format!("customer {number}"));
        work.spawn(async move { customer.go_on(draw, || *stopped.borrow()).await });
    }
    for number in 0..INJECTORS {
        let injector = Injector {
            installation: Arc::clone(installation),
            fleet: Arc::clone(&fleet),
            tally: Arc::clone(&tally),
            server: server_of(admin)?,
        };
        let (draw, stopped) = (Draw::of(seed, &format!("faults {number}")), stopped.clone());
        work.spawn(async move { injector.go_on(draw, || *stopped.borrow()).await });
    }
    let (looking, registry) = (Arc::clone(&watch), installation.registry.clone());
    let until = stopped.clone();
    work.spawn(async move { looking.go_on(&registry, || *until.borrow()).await });
    tokio::time::sleep(time).await;
    stop.send_replace(true);
    while let Some(ended) = work.join_next().await {
        ended.context("a task of the run")?;
    }

    let started = Instant::now();
    for replica in &installation.replicas {
        replica.ready(client.http()).await?;
    }
    let Rest { restless, parked } = rest(&client, &installation.registry).await;
    println!("at rest after {} s, with {} parked operations", started.elapsed().as_secs(), parked.len());
    parked.iter().for_each(|parked| println!("  {parked}"));
    watch.look(&installation.registry).await?;
    let key = client.send(Ask::get("/v1/certificates/public-key").with("")).await;
    let key = key.map_err(|refusal| anyhow!("the certificates' key: {}", refusal.code))?;
    supervisors.shutdown().await;
    let mut all = vec![Checked { name: "everything_comes_to_rest", faults: restless }];
    let mut ends = Vec::new();
    for replica in &installation.replicas {
        let status = replica.stop().await?;
        if !status.success() {
            ends.push(format!("SIGTERM: {status}"));
        }
    }
    all.push(Checked { name: "servers_end_cleanly", faults: ends });
    let ground = Ground {
        registry: Raw::connect(&own(&installation.registry)).await,
        keyring: Raw::connect(&own(&installation.keyring)).await,
        tenants: Raw::connect(&own(&installation.tenants)).await,
        tenants_url: installation.tenants.clone(),
        fleet: known(&fleet, &installation.registry).await,
        shared: installation.shared(),
        logs: installation.replicas.iter().map(|replica| replica.log().to_owned()).collect(),
        certificate_key: URL_SAFE_NO_PAD.decode(text(&key["public_key"]))?,
    };
    all.extend(invariants::check(&ground).await);
    all.push(Checked { name: "the_audit_trail_verifies", faults: verify(installation)? });
    all.push(Checked { name: "no_answer_is_wrong", faults: tally.surprises() });
    for name in [looks::PLAN, looks::DONE, looks::EPOCH] {
        let broken = watch.breaches().into_iter().filter(|(invariant, _)| *invariant == name);
        all.push(Checked { name, faults: broken.map(|(_, what)| what).collect() });
    }
    for database in [ground.registry, ground.keyring, ground.tenants] {
        database.close().await;
    }
    tally.print();
    println!("  clocks were not changed: a process has no clock that can be set");
    if installation.disk.is_none() {
        println!("  no disk was filled: a file system cannot be mounted here");
    }
    println!("\n{} looks at the registry. {} tenants.", watch.looks(), fleet.all().len());
    Ok(report(&all))
}

/// Prints every invariant; returns whether all hold.
fn report(all: &[Checked]) -> bool {
    println!("\nInvariants");
    for Checked { name, faults } in all {
        println!("  {}  {name}", if faults.is_empty() { "holds " } else { "BROKEN" });
        for fault in faults.iter().take(SHOWN) {
            println!("          {fault}");
        }
        if faults.len() > SHOWN {
            println!("          … {} more", faults.len() - SHOWN);
        }
    }
    let broken: Vec<&str> = all.iter().filter(|one| !one.faults.is_empty()).map(|one| one.name).collect();
    if !broken.is_empty() {
        println!("\nbroken: {}", broken.join(", "));
    }
    broken.is_empty()
}

/// Keeps the replicas running. A process that ends by itself after it was ready is a surprise.
fn supervise(installation: &Arc<Installation>, tally: &Arc<Tally>) -> JoinSet<()> {
    let mut supervisors = JoinSet::new();
    for n in 0..installation.replicas.len() {
        let (installation, tally) = (Arc::clone(installation), Arc::clone(tally));
        supervisors.spawn(async move {
            let ended = |status: std::process::ExitStatus| {
                if replica::ended_by_itself(status) {
                    tally.surprise(format!("a server ended by itself: {status}"));
                }
            };
            installation.replicas[n].supervise(ended).await;
        });
    }
    supervisors
}

/// What the run knows of its tenants, with the ids of those whose creation was never answered.
async fn known(fleet: &Fleet, registry: &str) -> Vec<crate::fleet::Tenant> {
    let connection = Raw::connect(&own(registry)).await;
    let rows = connection.rows("SELECT name, id FROM tenants WHERE name IS NOT NULL").await;
    connection.close().await;
    for row in rows {
        let (name, id): (String, String) = (row.get(0), row.get(1));
        let marker = name.rsplit(' ').next().unwrap_or_default();
        fleet.change(marker, |tenant| tenant.id = id);
    }
    fleet.all()
}

/// The product's own verification of the audit trail, which checks the signatures too.
fn verify(installation: &Installation) -> Result<Vec<String>> {
    let mut command = replica::command()?;
    let output = command.args(["audit", "verify", "--config"]).arg(installation.config()).output()?;
    Ok(match output.status.success() {
        true => Vec::new(),
        false => vec![String::from_utf8_lossy(&output.stderr).trim().to_owned()],
    })
}

/// Host and port in a URL.
fn server_of(admin: &str) -> Result<String> {
    let after = admin.split_once('@').map_or(admin, |(_, rest)| rest);
    Ok(after.split('/').next().context("a host")?.to_owned())
}
