//! A tenant's password: random, stored sealed under the tenant's key until it is handed out once, and never in an
//! output. Until the registry has it, it waits, sealed, beside the role that it was made with: an attempt that was cut
//! off loses none, and of two attempts at once both hand out the same.

use std::sync::Arc;

use serde_json::json;
use tenantry_model::{Failure, TenantId, Write, columns};

use super::directory::{Owner, State};
use super::name::Name;
use crate::tables::literal;
use tenantry_provider::passwords;
use tenantry_provider::verbs::{Context, Rows, Sealer, Spec};

/// What an attempt knows about the password, and a new one in case it is needed.
#[derive(Clone)]
pub struct Handout {
    password: Option<String>,
    sealed: Option<String>,
    /// Who asks for it.
    operation: String,
    /// What the registry has had of the tenant's secrets: who made each, and its name.
    had: Vec<(String, String)>,
    sealer: Option<(Arc<dyn Sealer>, TenantId)>,
}

/// What an attempt did about the password.
#[derive(Debug, PartialEq, Eq)]
pub struct Handed {
    /// The login role that has the newest one.
    pub login: Name,
    secret: Secret,
}

#[derive(Debug, PartialEq, Eq)]
enum Secret {
    /// Made it: this is it, sealed.
    New(String),
    /// Found one that the registry does not have yet.
    Waiting(String),
    /// Nothing: the registry has it.
    Known,
    /// Nothing, and nobody has it.
    None,
}

/// Under which name the password of a login role waits to be claimed.
fn name(login: &Name) -> String {
    format!("postgres_password:{}", login.as_str())
}

impl Handout {
    /// For a spec.
    pub async fn of(context: &Context, spec: &Spec) -> Result<Self, Failure> {
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

    /// The same, where the role that the tenant gets has this password already.
    pub fn with(&self, password: String) -> Result<Self, Failure> {
        let seal = |(sealer, tenant): &(Arc<dyn Sealer>, TenantId)| sealer.seal(*tenant, &password);
        let sealed = self.sealer.as_ref().map(seal).transpose()?;
        Ok(Self { password: Some(password), sealed, ..self.clone() })
    }

    /// A password that only the caller knows: whatever the role had before, it has this one now.
    pub const fn told(password: String) -> Self {
        Self::without_operation(Some(password))
    }

    /// For a role that nobody logs in with.
    pub const fn nobodys() -> Self {
        Self::without_operation(None)
    }

    const fn without_operation(password: Option<String>) -> Self {
        Self { password, sealed: None, operation: String::new(), had: Vec::new(), sealer: None }
    }

    /// Whether the registry has had the newest password of the tenant's.
    fn is_known(&self, owner: &Owner, state: &State) -> bool {
        let name = name(&owner.newest(state).name);
        // A login that has its turn again had other passwords before.
        let made_by = state.rotation.as_ref().map(|rotation| &rotation.made_by);
        let is_it = |(by, had): &(String, String)| *had == name && made_by.is_none_or(|it| it == by);
        self.password.is_none() || self.had.iter().any(is_it)
    }

    /// The new password, for a login that never had one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The new password, if the newest login needs one: it is missing, shut out, or nobody has its password any more.
    pub fn needed(&self, owner: &Owner, state: &State) -> Option<&str> {
        let lost = state.sealed.is_none() && !self.is_known(owner, state);
        self.password.as_deref().filter(|_| lost || owner.newest(state).is != Some(true))
    }

    /// What is done about the password where the state is this.
    pub fn handed(&self, owner: &Owner, state: &State) -> Handed {
        let secret = match (self.needed(owner, state), &self.sealed, &state.sealed) {
            (Some(_), Some(sealed), _) => Secret::New(sealed.clone()),
            (Some(_), None, _) => Secret::None,
            (None, _, Some(sealed)) if !self.is_known(owner, state) => Secret::Waiting(sealed.clone()),
            (None, ..) => Secret::Known,
        };
        Handed { login: owner.newest(state).name, secret }
    }

    /// What a rotation by this operation handed out; `sealed` is what waits, if it was done before.
    pub fn rotated(&self, login: Name, done: Option<&State>) -> Handed {
        let secret = match (done, &self.sealed) {
            (Some(State { sealed: Some(sealed), .. }), _) => Secret::Waiting(sealed.clone()),
            (None, Some(sealed)) => Secret::New(sealed.clone()),
            _ => Secret::Known,
        };
        Handed { login, secret }
    }

    /// The operation that asks.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The statement that notes, of a tenant whose password was rotated, who hands the newest one out.
    pub fn noted(&self, owner: &Owner, state: &State) -> String {
        match self.handed(owner, state).secret {
            Secret::New(_) | Secret::Waiting(_) => format!(
                "UPDATE tenantry.logins SET made_by = {} WHERE name = {};",
                literal(&self.operation),
                literal(owner.second.as_str())
            ),
            Secret::Known | Secret::None => String::new(),
        }
    }
}

impl Handed {
    /// The new password, sealed, if it made one.
    pub fn made(&self) -> Option<&str> {
        match &self.secret {
            Secret::New(sealed) => Some(sealed),
            Secret::Waiting(_) | Secret::Known | Secret::None => None,
        }
    }

    /// Whether the registry has the password, so that it is kept nowhere else.
    pub fn is_known(&self) -> bool {
        self.secret == Secret::Known
    }

    /// Hands it to the registry.
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
            Secret::Waiting(sealed) => vec![Write::insert_absent("credentials", row(sealed))],
            Secret::Known | Secret::None => Vec::new(),
        }
    }
}

/// Takes what waits, or was claimed, of these logins out of the registry, but for what this operation hands out.
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
