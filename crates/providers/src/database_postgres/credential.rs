//! A tenant's password: random, stored sealed under the tenant's key until it is handed out once, and never in an
//! output. Until the registry has it, it waits, sealed, beside the role that it was made with: an attempt that was cut
//! off loses none, and of two attempts at once both hand out the same.

use serde_json::json;
use tenantry_model::{Failure, Write, columns};

use super::directory::State;
use crate::passwords;
use crate::verbs::{Context, Spec};

/// What an attempt knows about the password, and a new one in case it is needed.
#[derive(Clone)]
pub struct Handout {
    password: Option<String>,
    sealed: Option<String>,
    known: bool,
}

/// What an attempt did about the password.
#[derive(Debug, PartialEq, Eq)]
pub enum Secret {
    /// Made it: this is it, sealed.
    New(String),
    /// Found one that the registry does not have yet.
    Waiting(String),
    /// Nothing: there is one that the registry has had, or none is needed.
    Settled,
}

/// Under which name the password waits to be claimed.
fn name(spec: &Spec) -> String {
    format!("postgres_password:{}", spec.name)
}

impl Handout {
    /// For a spec.
    pub async fn of(context: &Context, spec: &Spec) -> Result<Self, Failure> {
        let of_it = [("tenant_id", json!(spec.tenant.id)), ("name", json!(name(spec)))];
        let known = !context.rows.find("credentials", &of_it).await?.is_empty();
        let password = passwords::random();
        let sealed = context.sealer.seal(spec.tenant.id, &password)?;
        Ok(Self { password: Some(password), sealed: Some(sealed), known })
    }

    /// A password that only the caller knows: whatever the role had before, it has this one now.
    pub const fn told(password: String) -> Self {
        Self { password: Some(password), sealed: None, known: false }
    }

    /// For a role that nobody logs in with.
    pub const fn nobodys() -> Self {
        Self { password: None, sealed: None, known: true }
    }

    /// Whether the registry has a password of the tenant's.
    pub const fn known(&self) -> bool {
        self.known
    }

    /// The new password of a role that never had one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The new password, if the role needs one: it is missing, shut out, or nobody has its password any more.
    pub fn needed(&self, state: &State) -> Option<&str> {
        let lost = !self.known && state.sealed.is_none();
        self.password.as_deref().filter(|_| state.role != Some(true) || lost)
    }

    /// What was done about the password where the state was this.
    pub fn secret(&self, state: &State) -> Secret {
        match (self.needed(state), &self.sealed, &state.sealed) {
            (Some(_), Some(sealed), _) => Secret::New(sealed.clone()),
            (None, _, Some(sealed)) if !self.known => Secret::Waiting(sealed.clone()),
            _ => Secret::Settled,
        }
    }
}

impl Secret {
    /// The new password, sealed, if it made one.
    pub fn made(&self) -> Option<&str> {
        match self {
            Self::New(sealed) => Some(sealed),
            Self::Waiting(_) | Self::Settled => None,
        }
    }

    /// Hands it to the registry.
    pub fn writes(self, context: &Context, spec: &Spec) -> Vec<Write> {
        let row = |sealed: String| {
            columns! {
                "operation_id": spec.operation, "name": name(spec), "tenant_id": spec.tenant.id,
                "sealed": sealed, "created_at": context.now, "claimed_at": (),
            }
        };
        match self {
            Self::New(sealed) => vec![Write::upsert("credentials", row(sealed))],
            Self::Waiting(sealed) => vec![Write::insert_absent("credentials", row(sealed))],
            Self::Settled => Vec::new(),
        }
    }
}

/// Takes what waits, or was claimed, out of the registry.
pub async fn forget(context: &Context, spec: &Spec) -> Result<Vec<Write>, Failure> {
    let of_it = [("tenant_id", json!(spec.tenant.id)), ("name", json!(name(spec)))];
    let rows = context.rows.find("credentials", &of_it).await?;
    let key = |row: &serde_json::Value| {
        columns! { "operation_id": row.get("operation_id"), "name": row.get("name") }
    };
    Ok(rows.iter().map(|row| Write::delete("credentials", key(row))).collect())
}
