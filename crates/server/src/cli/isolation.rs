//! `tenantry isolation`: whether tenants are kept apart, as a table for people and an exit code for scripts.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use tenantry_control::isolation::{Change, IsolationReportView};
use tenantry_provider::Cell;

use super::output::Column;
use super::{Exit, Format, Session};

const MATRIX: [Column; 6] = [
    ("MODEL", "/model"),
    ("WHO", "/who"),
    ("WHAT", "/what"),
    ("TRIED", "/tried"),
    ("OUTCOME", "/outcome"),
    ("WHERE", "/where"),
];
const CHANGES: [Column; 5] =
    [("MODEL", "/model"), ("WHO", "/who"), ("CHANGED", "/what"), ("BEFORE", "/before"), ("NOW", "/now")];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try to get from one tenant to another, in every way of keeping them apart; exit code 1 on a leak
    Check {
        /// A tenant that is got at, by id or slug; again for more [default: the oldest and the newest]
        #[arg(long = "tenant", value_name = "ID")]
        tenants: Vec<String>,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Check { tenants } = command;
    let answer = session.client()?.post("/v1/isolation-checks", Some(&json!({ "tenants": tenants }))).await?;
    let view: IsolationReportView = serde_json::from_value(answer.clone())?;
    show(&view, &answer, session)?;
    match view.report.leaks {
        0 => Ok(()),
        1 => Err(Exit::Failure.with("there is a leak")),
        many => Err(Exit::Failure.with(format!("there are leaks of {many} sorts"))),
    }
}

fn show(view: &IsolationReportView, answer: &Value, session: &Session) -> Result<()> {
    let (output, report) = (&session.output, &view.report);
    if output.format != Format::Table {
        return output.value(answer);
    }
    eprintln!("Report {} on {} tenants, {}", report.id, report.tenants.len(), report.at);
    output.list(&report.matrix.iter().map(row).collect::<Vec<_>>(), &MATRIX)?;
    if report.previous.is_some() && !report.changes.is_empty() {
        output.text("")?;
        output.list(
            &report.changes.iter().map(|change: &Change| json!(change)).collect::<Vec<_>>(),
            &CHANGES,
        )?;
    }
    for left in &report.left_out {
        eprintln!("Not checked: {} tenants of {}: {}", left.tenants, left.provider, left.why);
    }
    for trusted in &report.trusted {
        eprintln!("Trusted: {trusted}");
    }
    Ok(())
}

fn row(cell: &Cell) -> Value {
    let mut row = json!(cell);
    let found = cell.found.join("; ");
    let place = cell.why.as_ref().map_or(found.clone(), |why| format!("{found} ({why})"));
    row["where"] = json!((!place.is_empty()).then(|| place.trim().to_owned()));
    row
}
