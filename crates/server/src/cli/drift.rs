//! `tenantry drift` and `tenantry tenant status`: how tenants really stand, as lines for people as they come, and an exit
//! code for scripts.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tenantry_control::drift::DriftView;
use tenantry_control::status::{ResourceStatus, StatusView};

use super::output::Column;
use super::{Exit, Format, Session};
use crate::client::{Client, part};

const RESOURCES: [Column; 8] = [
    ("STEP", "/step"),
    ("KIND", "/kind"),
    ("PROVIDER", "/provider"),
    ("EXISTS", "/exists"),
    ("RESPONDING", "/responding"),
    ("VERSION", "/version"),
    ("FENCE", "/fence"),
    ("DIFFERS", "/said"),
];

#[derive(Debug, Args)]
pub struct Options {
    /// Only this tenant, by id or slug; again for more [default: all that are active or suspended]
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<String>,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let mut report = Report { session, found: Vec::new(), checked: 0, differ: 0 };
    unhealthy(&session.client()?, &options.tenants, |checked, found| report.add(checked, found)).await?;
    report.end()
}

/// Looks at these tenants, or at all, and hands over how many were looked at and which of them are not healthy.
pub async fn unhealthy(
    client: &Client,
    tenants: &[String],
    mut found: impl FnMut(u64, Vec<StatusView>) -> Result<()>,
) -> Result<()> {
    for tenant in tenants {
        let answer = client.get(&format!("/v1/tenants/{}/status", part(tenant))).await?;
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

/// Shows one tenant.
pub async fn status(tenant: &str, session: &Session) -> Result<()> {
    let answer = session.client()?.get(&format!("/v1/tenants/{}/status", part(tenant))).await?;
    let view: StatusView = serde_json::from_value(answer.clone())?;
    if session.output.format == Format::Table {
        let word = if view.healthy { "healthy" } else { "not healthy" };
        eprintln!("{} is {} and {word}, {}", name(&view), view.status, view.at);
        let row = |resource: &ResourceStatus| {
            let mut row = json!(resource);
            row["said"] = json!((!resource.differs.is_empty()).then(|| resource.differs.join("; ")));
            row
        };
        session.output.list(&view.resources.iter().map(row).collect::<Vec<_>>(), &RESOURCES)?;
    } else {
        session.output.value(&answer)?;
    }
    match view.healthy {
        true => Ok(()),
        false => Err(Exit::Failure
            .with("the tenant is not as it was made; `tenantry tenant repair` mends what it can")),
    }
}

/// What was found so far.
struct Report<'a> {
    session: &'a Session,
    /// For programs, which get one document.
    found: Vec<Value>,
    checked: u64,
    differ: u64,
}

impl Report<'_> {
    /// Adds the unhealthy ones among so many tenants, and shows them to people at once.
    fn add(&mut self, checked: u64, unhealthy: Vec<StatusView>) -> Result<()> {
        (self.checked, self.differ) = (self.checked + checked, self.differ + unhealthy.len() as u64);
        let output = &self.session.output;
        if output.format != Format::Table {
            self.found.extend(unhealthy.iter().map(|status| json!(status)));
            return Ok(());
        }
        for status in &unhealthy {
            for ResourceStatus { step, provider, differs, .. } in &status.resources {
                for said in differs {
                    output.text(&format!("{}  {step} ({provider}): {said}", name(status)))?;
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let Self { session, found, checked, differ } = self;
        if session.output.format != Format::Table {
            session.output.value(&Value::from(found))?;
        }
        match differ {
            0 => eprintln!("No drift among {checked} tenants"),
            _ => {
                let what = format!("{differ} of {checked} tenants are not as they were made");
                return Err(Exit::Failure.with(format!("{what}; `tenantry repair` mends what it can")));
            }
        }
        Ok(())
    }
}

/// What people call the tenant.
pub fn name(status: &StatusView) -> String {
    status.slug.clone().unwrap_or_else(|| status.id.to_string())
}
