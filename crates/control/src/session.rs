//! The tenant's side: signing in with a one-time code, and the tenant's own rows behind the embedded data endpoint.
//! Which tenant it is, is said by a verified token alone (S2.5, S2.34).

use serde_json::{Map, Value, json};
use tenantry_model::{TenantId, TenantStatus, Write, columns};
use tenantry_providers::data::{Page as RowPage, TenantRows};

use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::secret::fingerprint;
use crate::store::{Rejected, Unit};

/// Who bears a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSession {
    /// The tenant.
    pub tenant: TenantId,
    /// The member, `usr_…`.
    pub member: String,
    /// Their role.
    pub role: String,
    /// What the token is good for, if not for everything: `smoke_test` lets it in before ACTIVE.
    pub purpose: Option<String>,
}

/// A token.
#[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct TokenView {
    /// The bearer token, a signed JWT.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds that it is good for.
    pub expires_in: u64,
}

impl Control {
    /// Exchanges a one-time code for a token. A code works once.
    pub async fn sign_in(&self, code: &str) -> Result<TokenView> {
        let refused =
            || Error::new(ErrorKind::Unauthenticated, "code_refused", "the code is unknown, used or expired");
        let hash = fingerprint(code);
        let store = &self.shared.store;
        let row = store.sign_in_code(&hash).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        let now = self.now();
        if row.used_at.is_some() || *row.expires_at <= now {
            return Err(refused());
        }
        let used = Write::update_if(
            "sign_in_codes",
            columns! { "hash": hash },
            columns! { "used_at": () },
            columns! { "used_at": now },
        );
        match store.commit(Unit::new(vec![used])).await {
            Ok(()) => {}
            Err(Rejected::Stale { .. }) => return Err(refused()),
            Err(why) => return Err(Error::unavailable(why)),
        }
        let tenant: TenantId = row.tenant_id.parse().map_err(Error::internal)?;
        let member = store.member(&row.member_id).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        let session = TenantSession {
            tenant,
            member: member.id,
            role: member.role,
            purpose: Some(row.purpose).filter(|p| p != "login"),
        };
        self.shared.tokens.mint(&session, now)
    }

    /// The bearer of a token that we signed and that is still good.
    pub fn verify_token(&self, bearer: &str) -> Result<TenantSession> {
        self.shared.tokens.verify(bearer, self.now())
    }

    /// The public keys that verify our tokens (RFC 7517).
    pub fn jwks(&self) -> Value {
        self.shared.tokens.jwks()
    }

    /// Who the bearer is, and whether their tenant lets them in.
    pub async fn me(&self, session: &TenantSession) -> Result<Value> {
        let status = self.admit(session).await?;
        Ok(json!({
            "tenant_id": session.tenant, "member_id": session.member, "role": session.role, "status": status,
        }))
    }

    /// Adds a row of the tenant's.
    pub async fn insert_row(
        &self,
        session: &TenantSession,
        table: &str,
        row: Map<String, Value>,
    ) -> Result<Value> {
        self.rows_of(session).await?.insert(table, row).await.map_err(row_error)
    }

    /// A page of the tenant's rows.
    pub async fn rows(
        &self,
        session: &TenantSession,
        table: &str,
        limit: u32,
        after: Option<&str>,
    ) -> Result<RowPage> {
        self.rows_of(session).await?.list(table, limit, after).await.map_err(row_error)
    }

    /// One row of the tenant's.
    pub async fn row(&self, session: &TenantSession, table: &str, id: &str) -> Result<Value> {
        let row = self.rows_of(session).await?.get(table, id).await.map_err(row_error)?;
        row.ok_or_else(|| Error::not_found("row"))
    }

    /// Deletes a row of the tenant's.
    pub async fn delete_row(&self, session: &TenantSession, table: &str, id: &str) -> Result<()> {
        let found = self.rows_of(session).await?.delete(table, id).await.map_err(row_error)?;
        if found { Ok(()) } else { Err(Error::not_found("row")) }
    }

    /// Deletes what the seed marked as samples (S2.28), and counts it by table.
    pub async fn remove_samples(&self, session: &TenantSession) -> Result<Value> {
        self.rows_of(session).await?.remove_samples().await.map_err(row_error)
    }

    async fn rows_of(&self, session: &TenantSession) -> Result<std::sync::Arc<dyn TenantRows>> {
        self.admit(session).await?;
        let data = self.shared.data.as_ref().ok_or_else(|| Error::not_found("data endpoint"))?;
        Ok(data.scoped(session.tenant))
    }

    async fn admit(&self, session: &TenantSession) -> Result<TenantStatus> {
        let row = self.shared.store.tenant(&session.tenant.to_string()).await.map_err(Error::unavailable)?;
        let row = row.ok_or_else(|| Error::not_found("tenant"))?;
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        match (status, session.purpose.as_deref()) {
            (TenantStatus::Active, _) | (TenantStatus::Provisioning, Some("smoke_test")) => Ok(status),
            _ => {
                Err(Error::new(ErrorKind::Forbidden, "tenant_not_active", format!("the tenant is {status}")))
            }
        }
    }
}

/// A failure of the tenant's rows, for the tenant.
fn row_error(failure: tenantry_model::Failure) -> Error {
    match failure.class {
        tenantry_model::FailureClass::Invalid => {
            Error::invalid("request_invalid", vec![FieldError::new("", failure.message)])
        }
        _ => Error::unavailable(failure),
    }
}
