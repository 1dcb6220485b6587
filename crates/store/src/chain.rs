//! The audit chain: each record's hash covers the record before it, so that no record can be changed, removed, added
//! or moved without changing every hash after it. Pure; the hashed form of a record is API for ever.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_model::Timestamp;

use super::ReadError;
use super::entity::audit;

/// Number and hash of a record in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The record's number; the first is 1.
    pub seq: i64,
    /// The record's hash, 64 hexadecimal digits.
    pub hash: String,
}

impl Link {
    /// The link before the first record: number 0, and a hash of zeros.
    pub fn start() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }

    /// The link of the record that follows: SHA-256 over the hash before it and the record as canonical JSON, with its
    /// number and without its hash. Sealed fields are hashed as ciphertext, so the chain outlives an erasure.
    pub fn next(&self, record: &audit::Model) -> Result<Self, ReadError> {
        let seq = self.seq + 1;
        let mut json = serde_json::to_value(audit::Model { seq: Some(seq), ..record.clone() })?;
        if let Value::Object(columns) = &mut json {
            columns.remove("hash");
        }
        let mut text = self.hash.clone();
        canonical(&json, &mut text);
        Ok(Self { seq, hash: hex::encode(Sha256::digest(text)) })
    }
}

/// Text that is signed for the latest record of the chain, the head.
pub(super) fn head_message(seq: i64, hash: &str, at: Timestamp) -> Vec<u8> {
    format!("tenantry audit head v1\n{seq}\n{hash}\n{at}").into_bytes()
}

/// JSON with the keys of every object in order and no spaces: databases keep objects in orders of their own.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (n, (key, value)) in entries.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> audit::Model {
        audit::Model {
            id: "aud_1".to_owned(),
            seq: None,
            tenant_id: None,
            actor: "key_1".to_owned(),
            action: "tenant.create".to_owned(),
            target: "ten_1".to_owned(),
            data: json!({ "b": [1, { "z": null, "a": "é\n" }], "a": true }),
            sealed: Some("v1.x".to_owned()),
            request_id: None,
            at: Timestamp::from_micros(1_795_000_000_000_000).into(),
            hash: None,
        }
    }

    #[test]
    fn the_hashed_form_never_changes() {
        let link = Link::start().next(&record()).unwrap();
        assert_eq!(link.seq, 1);
        let text = concat!(
            "0000000000000000000000000000000000000000000000000000000000000000",
            r#"{"action":"tenant.create","actor":"key_1","at":"2026-11-18T11:06:40.000000Z","#,
            r#""data":{"a":true,"b":[1,{"a":"é\n","z":null}]},"id":"aud_1","request_id":null,"sealed":"v1.x","#,
            r#""seq":1,"target":"ten_1","tenant_id":null}"#
        );
        assert_eq!(link.hash, hex::encode(Sha256::digest(text)));
        assert_eq!(link.hash.len(), 64);
    }

    #[test]
    fn every_field_and_the_place_count() {
        let link = Link::start().next(&record()).unwrap();
        let changes: [fn(&mut audit::Model); 9] = [
            |r| r.id.push('2'),
            |r| r.tenant_id = Some(String::new()),
            |r| r.actor.push('2'),
            |r| r.action.push('2'),
            |r| r.target.push('2'),
            |r| r.data = json!({}),
            |r| r.sealed = None,
            |r| r.request_id = Some("r".to_owned()),
            |r| r.at = Timestamp::from_micros(0).into(),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            assert_ne!(Link::start().next(&changed).unwrap().hash, link.hash, "change {n}");
        }
        assert_ne!(link.next(&record()).unwrap().hash, link.hash, "the second of two equal records");
    }
}
