//! `tenantry drift` and `tenantry tenant status`: compare tenants with the plans of their onboardings; exit code 1
//! if one has drifted.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tenantry_control::drift::DriftView;
use tenantry_control::status::{ResourceStatus, StatusView};

use super::output::Column;
use super::{Exit, Format, Session};
use crate::client::{Client, path_segment};

const RESOURCES: [Column; 8] = [
    ("STEP", "/step"),
    ("KIND", "/kind"),
    ("PROVIDER", "/provider"),
    ("EXISTS", "/exists"),
    ("RESPONDING", "/responding"),
    ("VERSION", "/version"),
    ("FENCE", "/fence"),
    ("DIFFERENCES", "/differences"),
];

#[derive(Debug, Args)]
pub struct Options {
    /// Tenant id or slug; repeatable [default: every active or suspended tenant]
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<String>,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let mut report = Report { session, found: Vec::new(), checked: 0, drifted: 0 };
    unhealthy(&session.client()?, &options.tenants, |checked, found| report.add(checked, found)).await?;
    report.end()
}

/// Checks these tenants, or every tenant, and passes the number checked and the unhealthy ones of each page
/// to `found`.
pub async fn unhealthy(
    client: &Client,
    tenants: &[String],
    mut found: impl FnMut(u64, Vec<StatusView>) -> Result<()>,
) -> Result<()> {
    for tenant in tenants {
        let answer = client.get(&format!("/v1/tenants/{}/status", path_segment(tenant))).await?;
        let status: StatusView = serde_json::from_value(answer)?;
        found(1, Vec::from_iter((!status.healthy).then_some(status)))?;
    }
    let mut cursor = tenants.is_empty().then(String::new);
    while let Some(after) = cursor {
        let after = if after.is_empty() { after } else { format!("&cursor={after}") };
        let answer = client.get(&format!("/v1/drift?limit=100{after}")).await?;
        let DriftView { checked, page } = serde_json::from_value(answer)?;
        cursor = page.next_cursor;
        found(checked, page.data)?;
    }
    Ok(())
}

/// Prints the status of one tenant.
pub async fn status(tenant: &str, session: &Session) -> Result<()> {
    let answer = session.client()?.get(&format!("/v1/tenants/{}/status", path_segment(tenant))).await?;
    let view: StatusView = serde_json::from_value(answer.clone())?;
    if session.output.format == Format::Table {
        let health = if view.healthy { "healthy" } else { "not healthy" };
        eprintln!("{} is {} and {health}, {}", name(&view), view.status, view.at);
        let row = |resource: &ResourceStatus| {
            let mut row = json!(resource);
            row["differences"] = json!((!resource.differs.is_empty()).then(|| resource.differs.join("; ")));
            row
        };
        session.output.list(&view.resources.iter().map(row).collect::<Vec<_>>(), &RESOURCES)?;
    } else {
        session.output.value(&answer)?;
    }
    match view.healthy {
        true => Ok(()),
        false => Err(Exit::Failure
            .with("the tenant differs from the plan of its onboarding; run `tenantry tenant repair` to reconcile it")),
    }
}

/// Result of a drift check so far.
struct Report<'a> {
    session: &'a Session,
    /// Unhealthy tenants, for output as one JSON or YAML document.
    found: Vec<Value>,
    checked: u64,
    drifted: u64,
}

impl Report<'_> {
    /// Adds a page of results; for table output, prints it at once.
    fn add(&mut self, checked: u64, unhealthy: Vec<StatusView>) -> Result<()> {
        (self.checked, self.drifted) = (self.checked + checked, self.drifted + unhealthy.len() as u64);
        let output = &self.session.output;
        if output.format != Format::Table {
            self.found.extend(unhealthy.iter().map(|status| json!(status)));
            return Ok(());
        }
        for status in &unhealthy {
            for ResourceStatus { step, provider, differs, .. } in &status.resources {
                for difference in differs {
                    output.text(&format!("{}  {step} ({provider}): {difference}", name(status)))?;
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let Self { session, found, checked, drifted } = self;
        if session.output.format != Format::Table {
            session.output.value(&Value::from(found))?;
        }
        match drifted {
            0 => eprintln!("No drift among {checked} tenants"),
            _ => {
                let what = format!("{drifted} of {checked} tenants differ from the plan of their onboarding");
                return Err(Exit::Failure.with(format!("{what}; run `tenantry repair` to reconcile them")));
            }
        }
        Ok(())
    }
}

/// The tenant's slug, or its id if it has none.
pub fn name(status: &StatusView) -> String {
    status.slug.clone().unwrap_or_else(|| status.id.to_string())
}
