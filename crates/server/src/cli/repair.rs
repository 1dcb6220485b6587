//! `tenantry repair`: repairs every tenant that is not as it was made, several at the same time, and says what came of each.

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
    /// Only this tenant, by id or slug; again for more [default: all that are active or suspended]
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<String>,
    /// Repairs under way at the same time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

pub async fn run(options: Options, session: &Session) -> Result<()> {
    let client = session.client()?;
    let (mut checked, mut drifted, mut silent) = (0, Vec::<StatusView>::new(), 0);
    drift::unhealthy(&client, &options.tenants, |more, found| {
        checked += more;
        for status in found {
            match status.resources.iter().find(|resource| !resource.responding) {
                // An outage is nothing that a repair mends: it would only be stuck in it.
                Some(resource) => {
                    silent += 1;
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
    // People have read it already, line by line.
    if session.output.format != Format::Table {
        session.output.value(&repairs.into_iter().map(|(shown, _)| shown).collect())?;
    }
    let (all, failed) = (drifted.len() + silent, failures.len() + silent);
    match (all, failures.as_slice()) {
        (0, _) => eprintln!("No drift among {checked} tenants"),
        (_, []) if silent == 0 => {
            eprintln!("{all} of {checked} tenants were not as they were made; all repairs succeeded")
        }
        (_, failures) => {
            // One reason for all of them is the exit code; of several, none is.
            let exit = match failures {
                [first, rest @ ..] if silent == 0 && rest.iter().all(|exit| exit == first) => *first,
                _ => Exit::Failure,
            };
            return Err(exit.with(format!("{failed} of {all} tenants are not repaired, as said above")));
        }
    }
    Ok(())
}

/// Repairs one tenant: what to show of it, and whether it is a failure.
async fn one(client: &Client, board: &Board, status: &StatusView) -> (Value, Option<Exit>) {
    let label = drift::name(status);
    let mut place = board.place(&label);
    let repair = async {
        let path = format!("/v1/tenants/{}/repair", status.id);
        let (_, begun) = client.post_once(&path, &json!({}), &OperationId::new().to_string()).await?;
        let id = begun["id"].as_str().unwrap_or_default();
        client.follow(id, |view| place.show(view)).await
    };
    let repaired: Result<OperationView, ClientError> = repair.await;
    match repaired {
        Ok(view) => {
            place.end(&format!("{label}: {}", ended(&view)));
            let failed = match view.state {
                OperationState::Succeeded => None,
                _ if view.done => Some(Exit::OperationFailed),
                _ => Some(Exit::Conflict),
            };
            (json!(view), failed)
        }
        Err(why) => {
            place.end(&format!("{label}: {why}"));
            (json!({ "tenant_id": status.id, "error": why.to_string() }), Some(Exit::of(&why.into())))
        }
    }
}
