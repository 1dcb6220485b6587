//! `tenantry isolation`: runs an isolation check and prints its report; exit code 1 on a leak or an obstruction.

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
    /// Try to access one tenant from another through every isolation model, and find what obstructs others; exit code 1 on a
    /// finding
    Check {
        /// Id or slug of a tenant to check; repeatable [default: the 20 oldest and the 20 newest tenants of each
        /// database provider]
        #[arg(long = "tenant", value_name = "ID")]
        tenants: Vec<String>,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Check { tenants } = command;
    let answer = session.client()?.post("/v1/isolation-checks", Some(&json!({ "tenants": tenants }))).await?;
    let view: IsolationReportView = serde_json::from_value(answer.clone())?;
    show(&view, &answer, session)?;
    let leaks = match view.report.leaks {
        0 => None,
        1 => Some("1 kind of access leaks between tenants".to_owned()),
        leaks => Some(format!("{leaks} kinds of access leak between tenants")),
    };
    let obstructions = match view.report.obstructions {
        0 => None,
        1 => Some("1 kind of obstruction by tenants was found".to_owned()),
        kinds => Some(format!("{kinds} kinds of obstruction by tenants were found")),
    };
    let found: Vec<String> = leaks.into_iter().chain(obstructions).collect();
    if found.is_empty() { Ok(()) } else { Err(Exit::Failure.with(found.join("; "))) }
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
    let details = cell.why.as_ref().map_or(found.clone(), |why| format!("{found} ({why})"));
    row["where"] = json!((!details.is_empty()).then(|| details.trim().to_owned()));
    row
}
