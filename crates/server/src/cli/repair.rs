//! `tenantry repair`: repairs every tenant that is not as it was made, several at the same time, and says what came of each.

use anyhow::Result;
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tenantry_control::status::StatusView;
use tenantry_control::view::OperationView;
use tenantry_engine::OperationState;

use super::{Board, Exit, Format, Session, drift, ended};
use crate::client::{Client, ClientError};

#[derive(Debug, Args)]
pub struct Options {
    /// Only this tenant, by id or slug; again for more [default: all that are active or suspended]
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<String>,
    /// Repairs under way at the same time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let client = session.client()?;
    let (mut checked, mut drifted) = (0, Vec::new());
    drift::unhealthy(&client, &options.tenants, |more, found| {
        checked += more;
        drifted.extend(found);
        Ok(())
    })
    .await?;
    let board = Board::new(drifted.len());
    let repairs = stream::iter(&drifted).map(|status| one(&client, &board, status));
    let repairs: Vec<(Value, bool)> = repairs.buffered(options.concurrency.into()).collect().await;
    board.clear();
    let failed = repairs.iter().filter(|(_, repaired)| !repaired).count();
    let shown: Vec<Value> =
        repairs.into_iter().map(|(operation, _)| operation).filter(|shown| !shown.is_null()).collect();
    // People have read it already, line by line.
    if session.output.format != Format::Table {
        session.output.value(&Value::from(shown))?;
    }
    match (drifted.len(), failed) {
        (0, _) => eprintln!("No drift among {checked} tenants"),
        (all, 0) => eprintln!("{all} of {checked} tenants were not as they were made, and are repaired"),
        (all, failed) => {
            let message = format!("{failed} of {all} repairs need a person, as said above");
            return Err(Exit::Conflict.with(message));
        }
    }
    Ok(())
}

/// Repairs one tenant: its operation, if one was begun, and whether the tenant is repaired.
async fn one(client: &Client, board: &Board, status: &StatusView) -> (Value, bool) {
    let label = drift::name(status);
    let mut place = board.place(&label);
    let repair = async {
        let begun = client.post(&format!("/v1/tenants/{}/repair", status.id), Some(&json!({}))).await?;
        let id = begun["id"].as_str().unwrap_or_default();
        client.follow(id, |view| place.show(view)).await
    };
    let view: Result<OperationView, ClientError> = repair.await;
    match view {
        Ok(view) => {
            place.end(&format!("{label}: {}", ended(&view)));
            (json!(view), view.state == OperationState::Succeeded)
        }
        Err(why) => {
            place.end(&format!("{label}: {why}"));
            (Value::Null, false)
        }
    }
}
