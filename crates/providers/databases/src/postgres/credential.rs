//! A tenant's database password: random, sealed under the tenant's key until it is handed out once, and never
//! in an output. Until the registry has it, the sealed password waits beside its role, so an interrupted
//! attempt loses none and two concurrent attempts hand out the same.

use std::sync::Arc;

use serde_json::json;
use tenantry_model::{Failure, TenantId, Write, columns};

use super::directory::{Owner, TenantState};
use super::name::Name;
use crate::tables::literal;
use tenantry_provider::passwords;
use tenantry_provider::verbs::{Context, Rows, Sealer, Spec};

/// What an attempt knows about the tenant's password, and a new one in case it is needed.
#[derive(Clone)]
pub struct PasswordRequest {
    password: Option<String>,
    sealed: Option<String>,
    /// The operation that requests it.
    operation: String,
    /// The registry's credentials of the tenant: operation and name of each.
    had: Vec<(String, String)>,
    sealer: Option<(Arc<dyn Sealer>, TenantId)>,
}

/// The password that an attempt hands to the registry, if any.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuedPassword {
    /// The login role with the newest password.
    pub login: Name,
    secret: Secret,
}

#[derive(Debug, PartialEq, Eq)]
enum Secret {
    /// A new password, sealed.
    New(String),
    /// An earlier password that the registry does not have yet, sealed.
    Pending(String),
    /// The registry has it.
    Stored,
    /// There is none to store: a fixed password, or a role that cannot log in.
    None,
}

/// Name of a login role's password among the tenant's credentials.
fn name(login: &Name) -> String {
    format!("postgres_password:{}", login.as_str())
}

impl PasswordRequest {
    /// The request of a spec's operation, with a new random password.
    pub async fn for_spec(context: &Context, spec: &Spec) -> Result<Self, Failure> {
        let rows = context.rows.find("credentials", &[("tenant_id", json!(spec.tenant.id))]).await?;
        let text =
            |row: &serde_json::Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
        let had = rows.iter().map(|row| (text(row, "operation_id"), text(row, "name"))).collect();
        let password = passwords::random();
        let sealed = context.sealer.seal(spec.tenant.id, &password)?;
        let sealer = Some((context.sealer.clone(), spec.tenant.id));
        let operation = spec.operation.to_string();
        Ok(Self { password: Some(password), sealed: Some(sealed), operation, had, sealer })
    }

    /// The same request for a role that already has this password.
    pub fn with(&self, password: String) -> Result<Self, Failure> {
        let seal = |(sealer, tenant): &(Arc<dyn Sealer>, TenantId)| sealer.seal(*tenant, &password);
        let sealed = self.sealer.as_ref().map(seal).transpose()?;
        Ok(Self { password: Some(password), sealed, ..self.clone() })
    }

    /// Sets this password, which only the caller knows, whatever the role had before.
    pub const fn fixed(password: String) -> Self {
        Self::without_operation(Some(password))
    }

    /// For a role that cannot log in.
    pub const fn no_login() -> Self {
        Self::without_operation(None)
    }

    const fn without_operation(password: Option<String>) -> Self {
        Self { password, sealed: None, operation: String::new(), had: Vec::new(), sealer: None }
    }

    /// Whether the registry has the newest password.
    fn is_stored(&self, owner: &Owner, state: &TenantState) -> bool {
        let name = name(&owner.newest(state).name);
        // A login that became the newest again had other passwords before.
        let made_by = state.rotation.as_ref().map(|rotation| &rotation.made_by);
        let is_it = |(by, had): &(String, String)| *had == name && made_by.is_none_or(|it| it == by);
        self.password.is_none() || self.had.iter().any(is_it)
    }

    /// The new password, for a login that never had one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The new password, if the newest login needs one: the role is missing or may not log in, or its
    /// password is lost.
    pub fn needed(&self, owner: &Owner, state: &TenantState) -> Option<&str> {
        let lost = state.sealed.is_none() && !self.is_stored(owner, state);
        self.password.as_deref().filter(|_| lost || owner.newest(state).is != Some(true))
    }

    /// The password to hand out for a tenant in this state.
    pub fn issue(&self, owner: &Owner, state: &TenantState) -> IssuedPassword {
        let secret = match (self.needed(owner, state), &self.sealed, &state.sealed) {
            (Some(_), Some(sealed), _) => Secret::New(sealed.clone()),
            (Some(_), None, _) => Secret::None,
            (None, _, Some(sealed)) if !self.is_stored(owner, state) => Secret::Pending(sealed.clone()),
            (None, ..) => Secret::Stored,
        };
        IssuedPassword { login: owner.newest(state).name, secret }
    }

    /// The password that a rotation hands out; `done` is the state if this operation has rotated before.
    pub fn rotated(&self, login: Name, done: Option<&TenantState>) -> IssuedPassword {
        let secret = match (done, &self.sealed) {
            (Some(TenantState { sealed: Some(sealed), .. }), _) => Secret::Pending(sealed.clone()),
            (None, Some(sealed)) => Secret::New(sealed.clone()),
            _ => Secret::Stored,
        };
        IssuedPassword { login, secret }
    }

    /// The requesting operation.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The statement that records this operation as the one that hands out a rotated tenant's newest
    /// password.
    pub fn record_issuer(&self, owner: &Owner, state: &TenantState) -> String {
        match self.issue(owner, state).secret {
            Secret::New(_) | Secret::Pending(_) => format!(
                "UPDATE tenantry.logins SET made_by = {} WHERE name = {};",
                literal(&self.operation),
                literal(owner.second.as_str())
            ),
            Secret::Stored | Secret::None => String::new(),
        }
    }
}

impl IssuedPassword {
    /// The new sealed password, if there is one.
    pub fn new_password(&self) -> Option<&str> {
        match &self.secret {
            Secret::New(sealed) => Some(sealed),
            Secret::Pending(_) | Secret::Stored | Secret::None => None,
        }
    }

    /// Whether the registry has the password, so that nothing else keeps it.
    pub fn is_stored(&self) -> bool {
        self.secret == Secret::Stored
    }

    /// The writes that hand it to the registry.
    pub fn writes(self, context: &Context, spec: &Spec) -> Vec<Write> {
        let name = name(&self.login);
        let row = |sealed: String| {
            columns! {
                "operation_id": spec.operation, "name": name, "tenant_id": spec.tenant.id,
                "sealed": sealed, "created_at": context.now, "claimed_at": (),
            }
        };
        match self.secret {
            Secret::New(sealed) => vec![Write::upsert("credentials", row(sealed))],
            Secret::Pending(sealed) => vec![Write::insert_absent("credentials", row(sealed))],
            Secret::Stored | Secret::None => Vec::new(),
        }
    }
}

/// The writes that delete these logins' credentials from the registry, except those of the operation `but`.
pub async fn forget(
    rows: &dyn Rows,
    tenant: TenantId,
    logins: &[&Name],
    but: Option<&str>,
) -> Result<Vec<Write>, Failure> {
    let mut writes = Vec::new();
    for login in logins {
        let of_it = [("tenant_id", json!(tenant)), ("name", json!(name(login)))];
        let found = rows.find("credentials", &of_it).await?;
        let gone = found.iter().filter(|row| row["operation_id"].as_str() != but);
        let key = |row: &serde_json::Value| {
            columns! { "operation_id": row.get("operation_id"), "name": row.get("name") }
        };
        writes.extend(gone.map(|row| Write::delete("credentials", key(row))));
    }
    Ok(writes)
}
