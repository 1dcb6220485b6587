//! Brings the installation to rest after the faults: everything that waits for a person is approved, resumed or retried, until
//! each operation is finished, waits for its time, or is parked with a refusal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tenantry_testkit::Raw;

use crate::client::{Ask, Client};
use crate::installation::own;

/// Time in which everything comes to rest.
const TIMEOUT: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(300);
/// Times that a parked operation is retried.
const RETRIES: u32 = 3;

/// Unfinished operations with what is left of them: steps that wait for a time or a person, and all others.
pub const UNFINISHED: &str = "SELECT o.id, o.kind, o.state,
        coalesce(string_agg(s.key, ',') FILTER (WHERE s.state = 'waiting'), ''),
        coalesce(string_agg(s.key || ' ' || s.state || ' ' || coalesce(s.error ->> 'code', ''), ',')
            FILTER (WHERE s.state IN ('running', 'retrying', 'undoing', 'undo_pending', 'failed', 'undo_failed')), '')
    FROM operations o LEFT JOIN steps s ON s.operation_id = o.id
    WHERE o.state NOT IN ('succeeded', 'rolled_back', 'cancelled') GROUP BY 1, 2, 3 ORDER BY 1";
const PARKED: &str =
    "SELECT o.kind || ' ' || o.id || ' of ' || o.tenant_id || ': ' || s.key || ': ' || s.error::text
    FROM operations o JOIN steps s ON s.operation_id = o.id
    WHERE o.state = 'needs_attention' AND s.state IN ('failed', 'undo_failed')";
/// What has to follow from finished operations: numbers of events and audit records, fences.
const PENDING: &str =
    "SELECT (SELECT count(*) FROM events WHERE seq IS NULL) + (SELECT count(*) FROM audit WHERE seq IS NULL)
    + (SELECT count(*) FROM tenants WHERE denied IS DISTINCT FROM fenced)";
/// Steps that wait for days by design.
const HOLDS: [&str; 2] = ["hold", "keep"];

/// What is left at the end.
pub struct Rest {
    /// What does not come to rest.
    pub restless: Vec<String>,
    /// Operations that need a person, with the code and the message of each failed step.
    pub parked: Vec<String>,
}

/// Waits for rest.
pub async fn rest(client: &Client, registry: &str) -> Rest {
    let started = Instant::now();
    let mut retried: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let connection = Raw::connect(&own(registry)).await;
        let open = connection.rows(UNFINISHED).await;
        let pending: i64 = connection.rows(PENDING).await[0].get(0);
        let parked = connection.rows(PARKED).await;
        connection.close().await;
        let mut restless = Vec::new();
        for row in open {
            let [id, kind, state, waiting, active]: [String; 5] = [0, 1, 2, 3, 4].map(|n| row.get(n));
            let act = match state.as_str() {
                "paused" => Some(("resume", json!({}))),
                "needs_attention" => {
                    let times = retried.entry(id.clone()).or_default();
                    *times += 1;
                    (*times <= RETRIES).then(|| ("retry", json!({})))
                }
                _ if HOLDS.contains(&&*waiting) && active.is_empty() => None,
                _ if !waiting.is_empty() && active.is_empty() => {
                    Some(("approve", json!({ "step": waiting })))
                }
                _ => {
                    restless.push(format!("{kind} {id}: {state}, {active} {waiting}"));
                    None
                }
            };
            if let Some((verb, body)) = act {
                // It may have gone on by itself.
                let _ = client.send(Ask::post(format!("/v1/operations/{id}/{verb}"), body)).await;
                restless.push(format!("{kind} {id}: {state}, {active} {waiting}: {verb}"));
            }
        }
        if pending > 0 {
            restless.push(format!("{pending} events, audit records or fences"));
        }
        if restless.is_empty() || started.elapsed() > TIMEOUT {
            return Rest { restless, parked: parked.iter().map(|row| row.get(0)).collect() };
        }
        tokio::time::sleep(PAUSE).await;
    }
}
