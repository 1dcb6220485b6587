//! `tenantry demo`: the product in front of your eyes, with nothing but this binary. It makes tenants, looks inside one
//! by that tenant's own way in, kills its server in the middle of a batch and shows that nothing is lost or made twice, and
//! erases one more and checks the certificate of that.
//! It succeeds only if all of that is so.

mod batch;
mod child;
mod leave;
mod look;
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

/// The shipped requests.
const REQUESTS: &str = include_str!("../../../../templates/demo/requests.yaml");

/// What can be chosen.
#[derive(Debug, Args)]
pub struct Options {
    /// Tenants to make; the server is killed while it makes all but the first six. One more is made and erased
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(7..=5000))]
    tenants: u16,
    /// Keep the folder, and say how to go on from there
    #[arg(long)]
    keep: bool,
}

/// Where everything is: a folder that goes when the demo ends, or one that stays.
enum Folder {
    Temporary(TempDir),
    Given(PathBuf),
}

impl Folder {
    fn choose(given: Option<PathBuf>, keep: bool) -> Result<Self> {
        match given {
            Some(folder) => {
                let used = folder.join("registry.db").exists();
                ensure!(!used, "{} holds a registry; give the demo a folder of its own", folder.display());
                Ok(Self::Given(folder))
            }
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("tenantry-demo-")
                    .tempdir()
                    .context("a temporary folder")?;
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

/// Runs the demo. Whatever happens, its server ends with it.
pub async fn run(options: Options, data: Option<PathBuf>, output: &Output) -> Result<()> {
    let folder = Folder::choose(data, options.keep)?;
    let shown = tokio::select! {
        shown = show(&options, folder.path()) => shown?,
        () = interrupted() => return Err(Exit::Failure.with("interrupted; the demo's server has ended too")),
    };
    if let Folder::Given(folder) = &folder {
        let folder = folder.display();
        eprintln!("\nEverything is in {folder}. Go on with:");
        eprintln!("  tenantry dev --data {folder}");
        eprintln!("  tenantry --data {folder} tenant list");
        eprintln!("  tenantry --data {folder} event list");
    }
    if output.format == Format::Table { Ok(()) } else { output.value(&shown) }
}

async fn show(options: &Options, folder: &Path) -> Result<Value> {
    let started = std::time::Instant::now();
    heading("A server of its own, on this machine alone");
    let server = Child::start(folder).await?;
    eprintln!("  {} in {}", server.url(), folder.display());
    let client = server.client()?;

    heading("Six customers sign up for three plans, from a file of requests");
    let entries = read_entries("requests.yaml", REQUESTS).map_err(|why| anyhow::anyhow!(why))?;
    let made = batch::make(&client, entries).await?;
    for one in &made {
        look::smoke_test(&client, one).await?;
    }

    heading("One of them, from the inside");
    let [first, other, ..] = made.as_slice() else { bail!("the shipped requests are too few") };
    look::inside(&server, first, other).await?;

    heading("The enterprise tenant, by tools that are not ours");
    let enterprise = made.iter().find(|one| one.steps.iter().any(|step| step.kind == "certificate"));
    tools::show(&server, enterprise.context("the shipped requests have no enterprise tenant")?).await?;

    heading("Many at once, and a kill -9 in the middle");
    let rest = usize::from(options.tenants).saturating_sub(made.len());
    let (server, client) = batch::kill_and_go_on(server, folder, rest).await?;

    heading("One more comes, and is erased");
    let proof = leave::erase(&server, folder).await?;

    heading("The proof");
    let tenants = whole(&client, usize::from(options.tenants)).await?;
    server.stop().await?;
    audit(folder).await?;

    heading("The certificate of the deletion, checked now that the server has ended");
    leave::verify(&proof, folder)?;
    eprintln!("\nAll of it took {:.1} s.", started.elapsed().as_secs_f64());
    let brief = |tenant: &Value| json!({ "id": tenant["id"], "slug": tenant["slug"], "plan": tenant["plan"], "status": tenant["status"] });
    Ok(json!({ "tenants": tenants.iter().map(brief).collect::<Vec<_>>() }))
}

/// Every tenant that was not erased is there once and active, and nothing is left to do.
async fn whole(client: &client::Client, expected: usize) -> Result<Vec<Value>> {
    let mut tenants = client.list("/v1/tenants", usize::MAX).await?;
    tenants.retain(|tenant| tenant.get("status") != Some(&json!("deprovisioned")));
    tenants.reverse();
    let names: std::collections::BTreeSet<&str> =
        tenants.iter().filter_map(|t| t.get("name")?.as_str()).collect();
    let active = tenants.iter().filter(|tenant| tenant.get("status") == Some(&json!("active"))).count();
    eprintln!("  {active} of {expected} tenants are active, {} names, each once", names.len());
    ensure!(
        (tenants.len(), names.len(), active) == (expected, expected, expected),
        "there should be {expected} tenants, each once and active; there are {} with {} names, {active} active",
        tenants.len(),
        names.len()
    );
    Ok(tenants)
}

/// What was done is on record, and the record is whole.
async fn audit(folder: &Path) -> Result<()> {
    // As the server was started: nothing that the environment says is meant for the demo.
    let mut config = Config::read("", [])?;
    folder.clone_into(&mut config.data_dir);
    let report = process::verify_audit(&config).await?;
    ensure!(report.broken.is_none() && report.unsealed == 0, "the audit trail is not whole: {report:?}");
    eprintln!("  {} audit records, chained and signed", report.verified);
    Ok(())
}

/// A line that opens a part.
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
