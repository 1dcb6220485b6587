//! Idempotency keys: the same key and request give the same thing, once, however often and however much at the same
//! time they come. The key's row is a guard of the unit of work that makes the thing.

use serde_json::Value;
use tenantry_model::{TenantId, Timestamp, Write, columns};

use crate::access::Caller;
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::secret::fingerprint;

/// A key that a client chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the header's value, quoted or bare: 1 to 255 printable ASCII characters.
    pub fn parse(header: &str) -> Result<Self> {
        let bare = header.strip_prefix('"').and_then(|h| h.strip_suffix('"')).unwrap_or(header);
        if bare.is_empty() || bare.len() > 255 || !bare.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            let message = "must have 1 to 255 printable ASCII characters";
            return Err(Error::invalid(
                "idempotency_key_invalid",
                vec![FieldError::new("Idempotency-Key", message)],
            ));
        }
        Ok(Self(bare.to_owned()))
    }
}

/// A key together with what it was sent for.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    principal: String,
    key_hash: String,
    body_hash: String,
}

impl Once {
    /// `what` tells requests of different sorts apart.
    pub fn new(caller: &Caller, key: &IdempotencyKey, what: &str, document: &Value) -> Self {
        Self {
            principal: caller.principal.clone(),
            key_hash: fingerprint(&key.0),
            // Objects are sorted by key, so the order in which a client writes fields does not matter.
            body_hash: fingerprint(&format!("{what}\n{document}")),
        }
    }

    /// The guard that goes into the unit of work.
    pub fn guard(&self, answer: &Value, tenant: Option<TenantId>, now: Timestamp) -> Write {
        Write::insert_unique(
            "idempotency_keys",
            columns! {
            "principal": self.principal, "key_hash": self.key_hash, "body_hash": self.body_hash, "status": 0,
            "answer": answer, "location": (), "tenant_id": tenant, "created_at": now },
        )
    }
}

impl Control {
    /// What the same key made before; fails if it was sent with another request.
    pub(crate) async fn made_before(&self, once: &Once) -> Result<Option<Value>> {
        let found = self
            .shared
            .store
            .idempotency_key(&once.principal, &once.key_hash)
            .await
            .map_err(Error::unavailable)?;
        match found {
            Some(row) if row.body_hash != once.body_hash => Err(Error {
                errors: vec![FieldError::new(
                    "Idempotency-Key",
                    "was used before with another request; choose a new one",
                )],
                ..Error::new(
                    ErrorKind::KeyReused,
                    "idempotency_key_reused",
                    "this key was sent before with another request",
                )
            }),
            found => Ok(found.map(|row| row.answer)),
        }
    }
}
