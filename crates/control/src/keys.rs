//! API keys: random, stored as SHA-256, shown once.

use serde::Deserialize;
use serde_json::{Value, json};
use tenantry_model::id::KeyId;
use tenantry_model::{TenantId, Timestamp, Write, columns};

use crate::access::{Caller, Permission, Scope};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::page::PageQuery;
use crate::record::{Deed, audit};
use crate::secret::{fingerprint, generate};
use crate::shape;
use crate::store::{Unit, entity};
use crate::view::{KeyView, NewKeyView, Page};

/// What every key begins with, so that scanners find one that leaked.
const PREFIX: &str = "tnt_";

/// What a client sends to have a key made.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// What people call it.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// What it may do.
    #[schemars(length(min = 1, max = 6))]
    pub scopes: Vec<Scope>,
    /// The one tenant that it sees: required with the scope `tenant`, refused without.
    #[serde(default)]
    pub tenant: Option<String>,
    /// When it ends by itself.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl Control {
    /// Makes a key.
    pub async fn create_key(&self, caller: &Caller, document: &Value) -> Result<NewKeyView> {
        caller.require(Permission::ManageKeys)?;
        let faults = shape::faults(schemars::schema_for!(CreateKey).as_value(), document);
        if !faults.is_empty() {
            return Err(Error::invalid("request_invalid", faults));
        }
        let request: CreateKey = serde_json::from_value(document.clone())
            .map_err(|why| Error::invalid("request_invalid", vec![FieldError::new("", why)]))?;
        let now = self.now();
        let mut faults = Vec::new();
        let bound = request.scopes.contains(&Scope::Tenant);
        if bound && request.scopes.len() > 1 {
            faults.push(FieldError::new(
                "scopes",
                "`tenant` stands alone: such a key sees one tenant and nothing else",
            ));
        }
        if bound != request.tenant.is_some() {
            faults.push(FieldError::new("tenant", "goes with the scope `tenant`, and with no other"));
        }
        if request.expires_at.is_some_and(|at| at <= now) {
            faults.push(FieldError::new("expires_at", "must be in the future"));
        }
        if request.name.chars().any(char::is_control) || request.name.trim().is_empty() {
            faults.push(FieldError::new("name", "must not be blank or hold control characters"));
        }
        if !faults.is_empty() {
            return Err(Error::invalid("request_invalid", faults));
        }
        let tenant = match &request.tenant {
            Some(tenant) => {
                Some(self.tenant_row(caller, tenant).await?.id.parse::<TenantId>().map_err(Error::internal)?)
            }
            None => None,
        };
        let secret = generate(PREFIX);
        self.store_key(&caller.principal, &secret, &request.name, &request.scopes, tenant, request.expires_at)
            .await
    }

    /// Keys, newest first.
    pub async fn keys(&self, caller: &Caller, page: &PageQuery) -> Result<Page<KeyView>> {
        caller.require(Permission::ManageKeys)?;
        let rows = self.shared.store.keys(page.cursor(), page.probe()).await.map_err(Error::unavailable)?;
        page.cut(rows, |row| row.id.clone(), KeyView::try_from)
    }

    /// Ends a key at once. Ending it again changes nothing.
    pub async fn revoke_key(&self, caller: &Caller, id: KeyId) -> Result<KeyView> {
        caller.require(Permission::ManageKeys)?;
        let target = id.to_string();
        let row = self.shared.store.key(&target).await.map_err(Error::unavailable)?;
        let row = row.ok_or_else(|| Error::not_found("key"))?;
        if row.revoked_at.is_some() {
            return row.try_into();
        }
        let now = self.now();
        let deed = Deed {
            actor: &caller.principal,
            action: "key.revoke",
            target: &target,
            tenant: None,
            data: Value::Null,
        };
        let revoke = Write::update("api_keys", columns! { "id": target }, columns! { "revoked_at": now });
        let unit = Unit::new(vec![revoke, audit(deed, now)]);
        self.shared.store.commit(unit).await.map_err(Error::unavailable)?;
        entity::api_key::Model { revoked_at: Some(now.into()), ..row }.try_into()
    }

    /// Who bears this key.
    pub async fn authenticate(&self, bearer: &str) -> Result<Caller> {
        let refused = || {
            Error::new(
                ErrorKind::Unauthenticated,
                "unauthenticated",
                "the API key is missing, unknown, expired or revoked",
            )
        };
        if !bearer.starts_with(PREFIX) || bearer.len() > 100 {
            return Err(refused());
        }
        let row = self.shared.store.key_by_hash(&fingerprint(bearer)).await.map_err(Error::unavailable)?;
        let row = row.filter(|row| row.revoked_at.is_none()).ok_or_else(refused)?;
        if row.expires_at.is_some_and(|at| *at <= self.now()) {
            return Err(refused());
        }
        let key = KeyView::try_from(row)?;
        Ok(Caller {
            principal: key.id.to_string(),
            scopes: key.scopes.into_iter().collect(),
            tenant: key.tenant_id,
        })
    }

    /// Makes sure that this secret is an admin key: the embedded server's own, kept in a file.
    pub async fn adopt_admin_key(&self, secret: &str) -> Result<()> {
        if self.shared.store.key_by_hash(&fingerprint(secret)).await.map_err(Error::unavailable)?.is_none() {
            self.store_key("system", secret, "admin.key", &[Scope::Admin], None, None).await?;
        }
        Ok(())
    }

    /// A fresh secret in the form of an API key.
    pub fn generate_key() -> String {
        generate(PREFIX)
    }

    async fn store_key(
        &self,
        actor: &str,
        secret: &str,
        name: &str,
        scopes: &[Scope],
        tenant: Option<TenantId>,
        expires_at: Option<Timestamp>,
    ) -> Result<NewKeyView> {
        let (id, now) = (KeyId::new(), self.now());
        let target = id.to_string();
        let deed =
            Deed { actor, action: "key.create", target: &target, tenant, data: json!({ "scopes": scopes }) };
        let row = columns! {
            "id": id, "hash": fingerprint(secret), "name": name, "scopes": scopes, "tenant_id": tenant,
            "created_at": now, "expires_at": expires_at, "revoked_at": (),
        };
        let unit = Unit::new(vec![Write::insert_unique("api_keys", row), audit(deed, now)]);
        self.shared.store.commit(unit).await.map_err(Error::unavailable)?;
        let key = KeyView {
            id,
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            tenant_id: tenant,
            created_at: now,
            expires_at,
            revoked_at: None,
        };
        Ok(NewKeyView { key, secret: secret.to_owned() })
    }
}

impl TryFrom<entity::api_key::Model> for KeyView {
    type Error = Error;

    fn try_from(row: entity::api_key::Model) -> Result<Self> {
        Ok(Self {
            id: row.id.parse().map_err(Error::internal)?,
            name: row.name,
            scopes: serde_json::from_value(row.scopes).map_err(Error::internal)?,
            tenant_id: row.tenant_id.map(|id| id.parse()).transpose().map_err(Error::internal)?,
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Into::into),
            revoked_at: row.revoked_at.map(Into::into),
        })
    }
}
