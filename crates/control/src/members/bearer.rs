//! What the bearer of a member's token reaches: its identity, and the tenant's own rows behind the embedded data endpoint. The
//! tenant comes from a verified token alone, never from the request.

use std::sync::Arc;
use tenantry_model::ErrorCode;

use serde_json::{Map, Value, json};
use tenantry_model::TenantStatus;
use tenantry_model::suspension::Access;
use tenantry_provider::data::{Page as RowPage, TenantRows};
use tenantry_provider::{Kind, Provider as _};

use crate::control::Control;
use crate::control::token::TenantSession;
use crate::error::{Error, FieldError, Result};
use crate::resource::ResourceHandle;
use tenantry_model::AccessStatus;

impl Control {
    /// The bearer of a token that Tenantry signed and that has not expired. Its session may have ended.
    pub fn verify_token(&self, bearer: &str) -> Result<TenantSession> {
        self.shared.tokens.verify(bearer, self.now())
    }

    /// The public keys that verify tokens (RFC 7517).
    pub fn jwks(&self) -> Value {
        self.shared.tokens.jwks()
    }

    /// The bearer's identity. Returns an error if the tenant's status denies this access.
    pub async fn me(&self, session: &TenantSession) -> Result<Value> {
        let status = self.admit(session, Access::Read).await?;
        Ok(json!({
            "tenant_id": session.tenant, "member_id": session.member, "role": session.role, "status": status,
        }))
    }

    /// Adds a row.
    pub async fn insert_row(
        &self,
        session: &TenantSession,
        table: &str,
        row: Map<String, Value>,
    ) -> Result<Value> {
        self.rows_of(session, Access::Write).await?.insert(table, row).await.map_err(row_error)
    }

    /// A page of the tenant's rows.
    pub async fn rows(
        &self,
        session: &TenantSession,
        table: &str,
        limit: u32,
        after: Option<&str>,
    ) -> Result<RowPage> {
        self.rows_of(session, Access::Read).await?.list(table, limit, after).await.map_err(row_error)
    }

    /// One row.
    pub async fn row(&self, session: &TenantSession, table: &str, id: &str) -> Result<Value> {
        let row = self.rows_of(session, Access::Read).await?.get(table, id).await.map_err(row_error)?;
        row.ok_or_else(|| Error::not_found("row"))
    }

    /// Deletes a row.
    pub async fn delete_row(&self, session: &TenantSession, table: &str, id: &str) -> Result<()> {
        let found = self.rows_of(session, Access::Write).await?.delete(table, id).await.map_err(row_error)?;
        if found { Ok(()) } else { Err(Error::not_found("row")) }
    }

    /// Deletes the rows that the seed marked as samples, and returns their number by table.
    pub async fn remove_samples(&self, session: &TenantSession) -> Result<Value> {
        self.rows_of(session, Access::Write).await?.remove_samples().await.map_err(row_error)
    }

    async fn rows_of(&self, session: &TenantSession, access: Access) -> Result<Arc<dyn TenantRows>> {
        let provider = self.provider_of(session, Kind::Database, access).await?;
        let data = provider.data().ok_or_else(|| Error::not_found("data endpoint"))?;
        Ok(data.scoped(session.tenant))
    }

    /// The provider of the tenant's resource of this kind. Returns an error if the tenant's status denies this access.
    pub(crate) async fn provider_of(
        &self,
        session: &TenantSession,
        kind: Kind,
        access: Access,
    ) -> Result<&ResourceHandle> {
        let found = self.shared.store.tenant_serving(&session.tenant.to_string(), kind).await;
        let (access_status, provider) =
            found.map_err(Error::unavailable)?.ok_or_else(|| Error::not_found("tenant"))?;
        access_status.check(access, session.is_smoke_test())?;
        let provider = provider.and_then(|name| self.shared.resources.get(&name));
        provider.ok_or_else(|| Error::not_found(kind.as_str()))
    }

    /// The tenant's status, if it allows this access.
    pub(super) async fn admit(&self, session: &TenantSession, access: Access) -> Result<TenantStatus> {
        let access_status = self.access_status(&session.tenant.to_string()).await?;
        access_status.check(access, session.is_smoke_test())?;
        Ok(access_status.status)
    }

    /// The tenant's status and suspension, for access checks.
    pub(crate) async fn access_status(&self, tenant: &str) -> Result<AccessStatus> {
        let access_status = self.shared.store.access_status(tenant).await.map_err(Error::unavailable)?;
        access_status.ok_or_else(|| Error::not_found("tenant"))
    }
}

/// A failure of the tenant's rows, for the client.
fn row_error(failure: tenantry_model::Failure) -> Error {
    match failure.class {
        tenantry_model::FailureClass::Invalid => {
            Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("", failure.message)])
        }
        _ => Error::provider("the tenant's database", failure),
    }
}

#[cfg(test)]
mod tests {
    use tenantry_model::Failure;

    use super::row_error;
    use crate::members::objects::object_error;

    #[test]
    fn a_provider_that_does_not_answer_is_not_taken_for_the_registry() {
        let lost = || Failure::unknown("connection_lost", "the connection broke");
        for (error, named) in [(row_error(lost()), "database"), (object_error(lost()), "bucket")] {
            assert_eq!(error.code.as_str(), "provider_unavailable");
            assert!(error.message.contains(named) && !error.message.contains("registry"), "{error}");
        }
    }
}
