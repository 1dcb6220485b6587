//! `tenantry repair`: repairs every tenant that differs from the plan of its onboarding, several at a time,
//! and prints each result.

use anyhow::Result;
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tenantry_control::status::StatusView;
use tenantry_control::view::OperationView;
use tenantry_engine::OperationState;
use tenantry_model::id::OperationId;

use super::{Board, Exit, Format, Session, drift, ended};
use crate::client::{Client, ClientError};

#[derive(Debug, Args)]
pub struct Options {
    /// Tenant id or slug; repeatable [default: every active or suspended tenant]
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<String>,
    /// Repairs at the same time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let client = session.client()?;
    let (mut checked, mut drifted, mut unavailable) = (0, Vec::<StatusView>::new(), 0);
    drift::unhealthy(&client, &options.tenants, |more, found| {
        checked += more;
        for status in found {
            match status.resources.iter().find(|resource| !resource.responding) {
                // A repair cannot succeed while the provider is down.
                Some(resource) => {
                    unavailable += 1;
                    let (step, provider) = (&resource.step, &resource.provider);
                    eprintln!("{}: {step} ({provider}) does not respond; not repaired", drift::name(&status));
                }
                None if drifted.iter().any(|known| known.id == status.id) => {}
                None => drifted.push(status),
            }
        }
        Ok(())
    })
    .await?;
    let board = Board::new(drifted.len());
    let repairs = stream::iter(&drifted).map(|status| one(&client, &board, status));
    let repairs: Vec<(Value, Option<Exit>)> =
        repairs.buffer_unordered(options.concurrency.into()).collect().await;
    board.clear();
    let failures: Vec<Exit> = repairs.iter().filter_map(|(_, failed)| *failed).collect();
    // As a table, each result was already printed as a line.
    if session.output.format != Format::Table {
        session.output.value(&repairs.into_iter().map(|(shown, _)| shown).collect())?;
    }
    let (all, failed) = (drifted.len() + unavailable, failures.len() + unavailable);
    match (all, failures.as_slice()) {
        (0, _) => eprintln!("No drift among {checked} tenants"),
        (_, []) if unavailable == 0 => {
            eprintln!(
                "{all} of {checked} tenants differed from the plan of their onboarding; all repairs succeeded"
            )
        }
        (_, failures) => {
            let exit = match failures {
                [first, rest @ ..] if unavailable == 0 && rest.iter().all(|exit| exit == first) => *first,
                _ => Exit::Failure,
            };
            return Err(exit.with(format!("{failed} of {all} tenants were not repaired; see above")));
        }
    }
    Ok(())
}

/// Repairs one tenant. Returns the operation, or the error, and the exit code of a failure.
async fn one(client: &Client, board: &Board, status: &StatusView) -> (Value, Option<Exit>) {
    let label = drift::name(status);
    let mut row = board.row(&label);
    let repair = async {
        let path = format!("/v1/tenants/{}/repair", status.id);
        let (_, begun) = client.post_once(&path, &json!({}), &OperationId::new().to_string()).await?;
        let id = begun["id"].as_str().unwrap_or_default();
        client.follow(id, |view| row.show(view)).await
    };
    let repaired: Result<OperationView, ClientError> = repair.await;
    match repaired {
        Ok(view) => {
            row.end(&format!("{label}: {}", ended(&view)));
            let failed = match view.state {
                OperationState::Succeeded => None,
                _ if view.done => Some(Exit::OperationFailed),
                _ => Some(Exit::Conflict),
            };
            (json!(view), failed)
        }
        Err(error) => {
            row.end(&format!("{label}: {error}"));
            (json!({ "tenant_id": status.id, "error": error.to_string() }), Some(Exit::of(&error.into())))
        }
    }
}
