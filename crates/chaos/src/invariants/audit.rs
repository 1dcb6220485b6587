//! The audit chain: each record's hash covers the record before it, each head is one of its records, and the anchor in the
//! keyring names its end.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Ground;

/// The hashed columns of a record as JSON, with times as the product writes them.
const RECORDS: &str = "SELECT seq, coalesce(hash, ''), jsonb_build_object('id', id, 'seq', seq, 'tenant_id', tenant_id,
        'actor', actor, 'action', action, 'target', target, 'data', data, 'sealed', sealed, 'request_id', request_id,
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))::text
    FROM audit ORDER BY seq NULLS LAST";
const HEADS: &str = "SELECT h.seq || ': ' || coalesce(a.hash, 'no record') FROM audit_heads h
    LEFT JOIN audit a ON a.seq = h.seq WHERE a.hash IS DISTINCT FROM h.hash";
const LAST_HEAD: &str = "SELECT coalesce(max(seq), 0) FROM audit_heads";
const ANCHOR: &str = "SELECT seq, hash FROM audit_anchor";

/// Faults of the chain.
pub async fn check(ground: &Ground) -> Vec<String> {
    let (mut faults, mut hash, mut last) = (Vec::new(), "0".repeat(64), 0);
    for row in ground.registry.rows(RECORDS).await {
        let record: Value = serde_json::from_str(&row.get::<String>(2)).expect("JSON");
        last += 1;
        if record["seq"] != last {
            faults.push(format!("record {last} is missing: {} follows", record["seq"]));
            return faults;
        }
        hash = hex::encode(Sha256::digest(format!("{hash}{}", sorted(&record))));
        if hash != row.get::<String>(1) {
            faults.push(format!("the hash of record {last} does not follow from the one before"));
            return faults;
        }
    }
    faults
        .extend(ground.registry.rows(HEADS).await.iter().map(|row| format!("head {}", row.get::<String>(0))));
    let head: i64 = ground.registry.rows(LAST_HEAD).await[0].get(0);
    if head != last {
        faults.push(format!("the last head is {head}, the last record {last}"));
    }
    match ground.keyring.rows(ANCHOR).await.first() {
        Some(anchor) if (anchor.get::<i64>(0), anchor.get::<String>(1)) == (last, hash) => {}
        Some(anchor) => {
            faults.push(format!("the anchor is at {}, the chain at {last}", anchor.get::<i64>(0)))
        }
        None => faults.push("there is no anchor".to_owned()),
    }
    faults
}

/// JSON with sorted keys and without spaces.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = Map::iter(map).collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries =
                entries.iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), sorted(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(sorted).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
