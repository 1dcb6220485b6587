//! API keys: random, stored as SHA-256, shown once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_model::ErrorCode;
use tenantry_model::id::KeyId;
use tenantry_model::suspension::Access;
use tenantry_model::text::line_fault;
use tenantry_model::{Denied, TenantId, TenantStatus, Timestamp, Write, columns};

use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::secret::{fingerprint, generate};
use crate::access::{Caller, Permission, Scope};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::error::{Error, FieldError, Result};
use crate::templates::shape;
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::{WriteBatch, entity};

/// Prefix of every key, by which secret scanners recognise a leaked one.
const PREFIX: &str = "tnt_";

/// Request to create an API key.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Display name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Scopes.
    #[schemars(length(min = 1, max = 6))]
    pub scopes: Vec<Scope>,
    /// The only tenant that the key can read: required with the scope `tenant`, rejected without it.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Expiry.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KeyView {
    /// Key id.
    pub id: KeyId,
    /// Display name.
    pub name: String,
    /// Scopes.
    pub scopes: Vec<Scope>,
    /// The only tenant that the key can read; null without the scope `tenant`.
    pub tenant_id: Option<TenantId>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of expiry; null: never.
    pub expires_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
}

/// A new API key with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewKeyView {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// The bearer token. Missing if the request repeats an earlier one: a secret is shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The error for a key that gives no access, whatever the reason is.
fn refused() -> Error {
    Error::new(ErrorCode::Unauthenticated, "the API key is missing, unknown, expired or revoked")
}

impl Control {
    /// Makes a key. Sent again under the same idempotency key, it gives that API key without its secret.
    pub async fn create_key(
        &self,
        caller: &Caller,
        document: &Value,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<NewKeyView>> {
        caller.require(Permission::ManageKeys)?;
        let once = key.map(|key| Once::new(caller, &key, "create_key", document));
        match self.once(once.as_ref(), self.make_key(caller, document, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => {
                let row =
                    self.key_row(answer.get("key_id").and_then(Value::as_str).unwrap_or_default()).await?;
                let value = NewKeyView { key: row.try_into()?, secret: None };
                Ok(Answered { value, replayed: true })
            }
        }
    }

    async fn make_key(&self, caller: &Caller, document: &Value, once: Option<&Once>) -> Result<NewKeyView> {
        let faults = shape::faults(schemars::schema_for!(CreateKey).as_value(), document);
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        }
        let request: CreateKey = serde_json::from_value(document.clone())
            .map_err(|why| Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("", why)]))?;
        let now = self.now();
        let mut faults = Vec::new();
        let bound = request.scopes.contains(&Scope::Tenant);
        if bound && request.scopes.len() > 1 {
            faults.push(FieldError::new(
                "scopes",
                "`tenant` cannot be combined with other scopes: its key reads one tenant only",
            ));
        }
        if bound != request.tenant.is_some() {
            faults.push(FieldError::new(
                "tenant",
                "is required with the scope `tenant`, and not allowed with other scopes",
            ));
        }
        if request.expires_at.is_some_and(|at| at <= now) {
            faults.push(FieldError::new("expires_at", "must be in the future"));
        }
        if let Some(why) = line_fault(&request.name) {
            faults.push(FieldError::new("name", why));
        }
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        }
        let tenant = match &request.tenant {
            Some(tenant) => {
                Some(self.tenant_row(caller, tenant).await?.id.parse::<TenantId>().map_err(Error::internal)?)
            }
            None => None,
        };
        let secret = generate(PREFIX);
        self.store_key(&caller.principal, &secret, request, tenant, once).await
    }

    async fn key_row(&self, id: &str) -> Result<entity::api_key::Model> {
        let row = self.shared.store.key(id).await.map_err(Error::unavailable)?;
        row.ok_or_else(|| Error::not_found("key"))
    }

    /// Keys, newest first.
    pub async fn keys(&self, caller: &Caller, page: &PageQuery) -> Result<Page<KeyView>> {
        caller.require(Permission::ManageKeys)?;
        let rows = self.shared.store.keys(page.cursor(), page.probe()).await.map_err(Error::unavailable)?;
        page.cut(rows, |row| row.id.clone(), KeyView::try_from)
    }

    /// Ends a key at once. Ending it again changes nothing.
    pub async fn revoke_key(
        &self,
        caller: &Caller,
        id: KeyId,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<KeyView>> {
        caller.require(Permission::ManageKeys)?;
        let target = id.to_string();
        let once = key.map(|key| Once::new(caller, &key, &format!("revoke_key {target}"), &Value::Null));
        let done = self.once(once.as_ref(), self.end_key(caller, &target, once.as_ref())).await?;
        let value = self.key_row(&target).await?.try_into()?;
        Ok(Answered { value, replayed: matches!(done, Outcome::Before(_)) })
    }

    async fn end_key(&self, caller: &Caller, target: &str, once: Option<&Once>) -> Result<()> {
        let row = self.key_row(target).await?;
        let now = self.now();
        let mut writes: Vec<Write> =
            once.map(|once| once.guard(&json!({ "key_id": target }), None, now)).into_iter().collect();
        if row.revoked_at.is_none() {
            let audited = AuditRecord {
                actor: &caller.principal,
                action: "key.revoke",
                target,
                tenant: None,
                data: Value::Null,
            };
            let revoke = Write::update("api_keys", columns! { "id": target }, columns! { "revoked_at": now });
            writes.extend([revoke, audit(audited, now)]);
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.shared.store.commit(WriteBatch::new(writes)).await.map_err(Error::unavailable)
    }

    /// Authenticates a request by its API key. Returns the error `unauthenticated` if the key is unknown, expired or
    /// revoked, or belongs to a tenant that is being or was deleted; the error of the suspension if it belongs to a tenant
    /// whose suspension denies reading.
    pub async fn authenticate(&self, bearer: &str) -> Result<Caller> {
        if !bearer.starts_with(PREFIX) || bearer.len() > 100 {
            return Err(refused());
        }
        let row = self.shared.store.key_by_hash(&fingerprint(bearer)).await.map_err(Error::unavailable)?;
        self.admit_key(row).await
    }

    /// Authenticates a caller again, for a request that lasts: returns the error that [`Self::authenticate`] would return now.
    pub async fn reauthenticate(&self, caller: &Caller) -> Result<()> {
        let row = self.shared.store.key(&caller.principal).await.map_err(Error::unavailable)?;
        self.admit_key(row).await.map(drop)
    }

    /// The caller of this key.
    async fn admit_key(&self, row: Option<entity::api_key::Model>) -> Result<Caller> {
        let row = row.filter(|row| row.revoked_at.is_none()).ok_or_else(refused)?;
        if row.expires_at.is_some_and(|at| *at <= self.now()) {
            return Err(refused());
        }
        let key = KeyView::try_from(row)?;
        if let Some(tenant) = key.tenant_id {
            // A tenant's own keys stop working when its deletion starts, and are denied what a suspension denies. They
            // work before the activation, to follow the onboarding.
            let access_status = self.shared.store.access_status(&tenant.to_string()).await;
            let access_status = access_status.map_err(Error::unavailable)?.ok_or_else(refused)?;
            match access_status.check(Access::Read, false) {
                Ok(()) | Err(Denied::NotActive(TenantStatus::Pending | TenantStatus::Provisioning)) => {}
                Err(Denied::NotActive(_)) => return Err(refused()),
                Err(denied) => return Err(denied.into()),
            }
        }
        Ok(Caller {
            principal: key.id.to_string(),
            scopes: key.scopes.into_iter().collect(),
            tenant: key.tenant_id,
        })
    }

    /// Stores this secret as an admin key if it is not one yet. It is the key that the server keeps in a file.
    pub async fn adopt_admin_key(&self, secret: &str) -> Result<()> {
        if self.shared.store.key_by_hash(&fingerprint(secret)).await.map_err(Error::unavailable)?.is_none() {
            let name = "admin.key".to_owned();
            let request = CreateKey { name, scopes: vec![Scope::Admin], tenant: None, expires_at: None };
            self.store_key("system", secret, request, None, None).await?;
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
        request: CreateKey,
        tenant: Option<TenantId>,
        once: Option<&Once>,
    ) -> Result<NewKeyView> {
        let (id, now) = (KeyId::new(), self.now());
        let CreateKey { name, scopes, expires_at, .. } = request;
        let target = id.to_string();
        let audited = AuditRecord {
            actor,
            action: "key.create",
            target: &target,
            tenant,
            data: json!({ "scopes": scopes }),
        };
        let row = columns! {
            "id": id, "hash": fingerprint(secret), "name": name, "scopes": scopes, "tenant_id": tenant,
            "created_at": now, "expires_at": expires_at, "revoked_at": (),
        };
        let mut writes = vec![Write::insert_unique("api_keys", row), audit(audited, now)];
        writes.extend(once.map(|once| once.guard(&json!({ "key_id": id }), tenant, now)));
        self.shared.store.commit(WriteBatch::new(writes)).await.map_err(Error::unavailable)?;
        let key =
            KeyView { id, name, scopes, tenant_id: tenant, created_at: now, expires_at, revoked_at: None };
        Ok(NewKeyView { key, secret: Some(secret.to_owned()) })
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
