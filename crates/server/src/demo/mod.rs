//! `tenantry demo`: shows the product with nothing but this binary. It onboards tenants, inspects one through
//! the public endpoints, kills its server in the middle of a batch and checks that no tenant is lost or
//! duplicated, and erases one and verifies its deletion certificate. It succeeds only if every check passes.

mod batch;
mod child;
mod erase;
mod inspect;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Exit, Format, Output, read_entries};
use crate::client;
use crate::config::Config;
use crate::process;

use child::Child;

/// The requests of the first part, as shipped in `templates/demo`.
const REQUESTS: &str = include_str!("../../../../templates/demo/requests.yaml");

/// Options of `tenantry demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Number of tenants; the server is killed while it onboards all but the first six. One more is erased
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(7..=5000))]
    tenants: u16,
    /// Keep the data folder and print how to continue with it
    #[arg(long)]
    keep: bool,
}

/// The demo's data folder: a temporary one that is deleted at the end, or one that is kept.
enum Folder {
    Temporary(TempDir),
    Given(PathBuf),
}

impl Folder {
    fn choose(given: Option<PathBuf>, keep: bool) -> Result<Self> {
        match given {
            Some(folder) => {
                let used = folder.join("registry.db").exists();
                ensure!(
                    !used,
                    "{} contains a registry; choose another folder for the demo",
                    folder.display()
                );
                Ok(Self::Given(folder))
            }
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("tenantry-demo-")
                    .tempdir()
                    .context("cannot create a temporary folder")?;
                Ok(if keep { Self::Given(folder.keep()) } else { Self::Temporary(folder) })
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

/// Runs the demo. Its server ends with it, also on an error or a signal.
pub async fn run(options: Options, data: Option<PathBuf>, output: &Output) -> Result<()> {
    let folder = Folder::choose(data, options.keep)?;
    let shown = tokio::select! {
        shown = show(&options, folder.path()) => shown?,
        () = interrupted() => return Err(Exit::Failure.with("interrupted; the demo's server was stopped")),
    };
    if let Folder::Given(folder) = &folder {
        let folder = folder.display();
        eprintln!("\nThe demo's data is in {folder}. Continue with:");
        eprintln!("  tenantry dev --data {folder}");
        eprintln!("  tenantry --data {folder} tenant list");
        eprintln!("  tenantry --data {folder} event list");
    }
    if output.format == Format::Table { Ok(()) } else { output.value(&shown) }
}

async fn show(options: &Options, folder: &Path) -> Result<Value> {
    let started = std::time::Instant::now();
    heading("Start a server on this machine");
    let server = Child::start(folder).await?;
    eprintln!("  {} in {}", server.url(), folder.display());
    let client = server.client()?;

    heading("Onboard six customers on three plans from a file of requests");
    let entries = read_entries("requests.yaml", REQUESTS).map_err(|why| anyhow::anyhow!(why))?;
    let made = batch::make(&client, entries).await?;
    for one in &made {
        inspect::smoke_test(&client, one).await?;
    }

    heading("Inspect one tenant from the inside");
    let [first, other, ..] = made.as_slice() else { bail!("requests.yaml has fewer than two requests") };
    inspect::tenant(&server, first, other).await?;

    heading("Inspect an enterprise tenant with standard tools");
    let enterprise = made.iter().find(|one| one.steps.iter().any(|step| step.kind == "certificate"));
    let enterprise = enterprise.context("requests.yaml has no enterprise tenant")?;
    tools::show(&server, enterprise).await?;

    heading("Onboard many tenants and kill -9 the server in the middle");
    let rest = usize::from(options.tenants).saturating_sub(made.len());
    let (server, client) = batch::kill_and_resume(server, folder, rest).await?;

    heading("Erase a tenant");
    let proof = erase::erase(&server, folder).await?;

    heading("Check that nothing is lost");
    let tenants = check_tenants(&client, usize::from(options.tenants)).await?;
    server.stop().await?;
    check_audit(folder).await?;

    heading("Verify the deletion certificate without the server");
    erase::verify(&proof, folder)?;
    eprintln!("\nFinished in {:.1} s.", started.elapsed().as_secs_f64());
    let brief = |tenant: &Value| json!({ "id": tenant["id"], "slug": tenant["slug"], "plan": tenant["plan"], "status": tenant["status"] });
    Ok(json!({ "tenants": tenants.iter().map(brief).collect::<Vec<_>>() }))
}

/// Checks that every tenant that was not erased exists once and is active. Returns the tenants, oldest first.
async fn check_tenants(client: &client::Client, expected: usize) -> Result<Vec<Value>> {
    let mut tenants = client.list("/v1/tenants", usize::MAX).await?;
    tenants.retain(|tenant| tenant.get("status") != Some(&json!("deprovisioned")));
    tenants.reverse();
    let names: std::collections::BTreeSet<&str> =
        tenants.iter().filter_map(|t| t.get("name")?.as_str()).collect();
    let active = tenants.iter().filter(|tenant| tenant.get("status") == Some(&json!("active"))).count();
    eprintln!("  {active} of {expected} tenants active, {} distinct names", names.len());
    ensure!(
        (tenants.len(), names.len(), active) == (expected, expected, expected),
        "expected {expected} active tenants with distinct names; found {}, {} names, {active} active",
        tenants.len(),
        names.len()
    );
    Ok(tenants)
}

/// Verifies the audit trail of the demo's registry.
async fn check_audit(folder: &Path) -> Result<()> {
    // The environment does not apply, as with the demo's server.
    let mut config = Config::read("", [])?;
    folder.clone_into(&mut config.data_dir);
    let report = process::verify_audit(&config).await?;
    ensure!(report.broken.is_none() && report.unsealed == 0, "the audit trail is incomplete: {report:?}");
    eprintln!("  {} audit records, chained and signed", report.verified);
    Ok(())
}

/// Prints the heading of a part.
fn heading(text: &str) {
    eprintln!("\n{text}");
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
