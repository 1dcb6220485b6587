//! Idempotency keys: the same key and request give the same result, which is created once, even for concurrent requests.
//! The key's row is a guard of the transaction that creates the result.

use serde_json::Value;
use tenantry_model::ErrorCode;
use tenantry_model::{TenantId, Timestamp, Write, columns};

use crate::access::Caller;
use crate::access::secret::fingerprint;
use crate::control::Control;
use crate::error::{Error, FieldError, Result};

/// The kind of a request for a new tenant. A clone creates a tenant too.
pub(crate) const CREATE_TENANT: &str = "create_tenant";
/// In place of the hash of a request that was deleted with its tenant: the key stands for any request that creates a tenant.
pub(crate) const FORGOTTEN: &str = "";

/// Whether an answer is that of a request which created a tenant.
pub(crate) fn is_creation(answer: &Value) -> bool {
    ["operation_id", "tenant_id"].iter().all(|field| answer.get(field).is_some())
}

/// A key that a client chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the header's value, quoted or bare: 1 to 255 printable ASCII characters.
    pub fn parse(header: impl AsRef<[u8]>) -> Result<Self> {
        let header = header.as_ref();
        let bare = header.strip_prefix(b"\"").and_then(|h| h.strip_suffix(b"\"")).unwrap_or(header);
        let printable = bare.iter().all(|b| (0x20..0x7f).contains(b));
        match std::str::from_utf8(bare) {
            Ok(text) if printable && (1..=255).contains(&text.len()) => Ok(Self(text.to_owned())),
            _ => Err(Self::refused("must have 1 to 255 printable ASCII characters")),
        }
    }

    /// The error for a value that is not a key.
    pub fn refused(why: &str) -> Error {
        Error::invalid(ErrorCode::IdempotencyKeyInvalid, vec![FieldError::new("Idempotency-Key", why)])
    }
}

/// Result of a use case with an idempotency key.
#[derive(Clone, Debug)]
pub struct Answered<T> {
    /// The result, in its present state if an earlier request created it.
    pub value: T,
    /// Whether an earlier request with the same key created it.
    pub replayed: bool,
}

/// A key with its request.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    principal: String,
    key_hash: String,
    body_hash: String,
    /// Whether the request creates a tenant.
    creates_tenant: bool,
}

impl Once {
    /// `what` distinguishes kinds of requests.
    pub fn new(caller: &Caller, key: &IdempotencyKey, what: &str, document: &Value) -> Self {
        Self {
            principal: caller.principal.clone(),
            key_hash: fingerprint(&key.0),
            // Objects are sorted by key, so the order in which a client writes fields does not matter.
            body_hash: fingerprint(&format!("{what}\n{document}")),
            creates_tenant: what == CREATE_TENANT || what.starts_with("clone "),
        }
    }

    /// The guard for the transaction.
    pub fn guard(&self, answer: &Value, tenant: Option<TenantId>, now: Timestamp) -> Write {
        Write::insert_unique(
            "idempotency_keys",
            columns! {
            "principal": self.principal, "key_hash": self.key_hash, "body_hash": self.body_hash,
            "answer": answer, "tenant_id": tenant, "created_at": now },
        )
    }
}

/// Outcome of a request that may be a repetition.
pub(crate) enum Outcome<T> {
    /// It was done now.
    Now(T),
    /// It was done before; this is the stored answer.
    Before(Value),
}

impl Control {
    /// Does the work unless the same key has done it before. The work commits `Once::guard` with its result, so of concurrent
    /// requests one succeeds; the others fail, by the guard or by the change, and find the stored answer here. So does a
    /// request whose commit had an unknown outcome.
    pub(crate) async fn once<T>(
        &self,
        once: Option<&Once>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Outcome<T>> {
        let Some(once) = once else { return work.await.map(Outcome::Now) };
        if let Some(answer) = self.made_before(once).await? {
            return Ok(Outcome::Before(answer));
        }
        match work.await {
            Ok(made) => Ok(Outcome::Now(made)),
            Err(why) => match self.made_before(once).await {
                Ok(Some(answer)) => Ok(Outcome::Before(answer)),
                Err(reused) if reused.code == ErrorCode::IdempotencyKeyReused => Err(reused),
                _ => Err(why),
            },
        }
    }

    /// The stored answer of the key. Returns an error if the key was sent with another request.
    pub(crate) async fn made_before(&self, once: &Once) -> Result<Option<Value>> {
        let found = self
            .shared
            .store
            .idempotency_key(&once.principal, &once.key_hash)
            .await
            .map_err(Error::unavailable)?;
        match found {
            Some(row)
                if row.body_hash != once.body_hash
                    && !(row.body_hash == FORGOTTEN && once.creates_tenant) =>
            {
                Err(Error {
                    errors: vec![FieldError::new(
                        "Idempotency-Key",
                        "was sent before with another request; choose a new one",
                    )],
                    ..Error::new(
                        ErrorCode::IdempotencyKeyReused,
                        "the idempotency key was sent before with another request; choose a new one",
                    )
                })
            }
            found => Ok(found.map(|row| row.answer)),
        }
    }
}
