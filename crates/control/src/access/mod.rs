//! Access to use cases: the caller and its permissions, API keys, and idempotency keys of requests.

pub mod idempotency;
pub mod keys;
pub(crate) mod secret;

use std::collections::BTreeSet;

use tenantry_model::{ErrorCode, TenantId};
pub use tenantry_model::{Permission, Scope};

use crate::control::Control;
use crate::error::{Error, Result};
use tenantry_store::entity;

/// The authenticated caller of a use case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Id of the API key, `key_…`, or `system`; for audit records and idempotency keys.
    pub principal: String,
    /// Scopes of the API key.
    pub scopes: BTreeSet<Scope>,
    /// The only tenant that the caller may see; none: all tenants.
    pub tenant: Option<TenantId>,
}

impl Caller {
    /// The process itself, with all permissions: for background tasks and offline commands.
    pub fn system() -> Self {
        Self { principal: "system".to_owned(), scopes: BTreeSet::from([Scope::Admin]), tenant: None }
    }

    /// Returns the error `forbidden` unless one of the caller's scopes has this permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.scopes.iter().any(|scope| scope.allows(permission)) {
            return Ok(());
        }
        let needed: Vec<String> = Scope::ALL
            .into_iter()
            .filter(|s| s.allows(permission))
            .map(|s| format!("{s:?}").to_lowercase())
            .collect();
        let message =
            format!("the API key lacks the permission: use one with the scope {}", needed.join(" or "));
        Err(Error::new(ErrorCode::Forbidden, message))
    }

    /// Whether the caller may see the providers' own settings in templates and plans, which can be secrets.
    pub fn sees_secrets(&self) -> bool {
        self.scopes.iter().any(|scope| matches!(scope, Scope::Admin | Scope::Operator))
    }

    /// Returns an error for a tenant that the caller may not see; the same one as for a tenant that does not exist.
    pub fn may_see(&self, tenant: TenantId) -> Result<()> {
        match self.tenant {
            Some(own) if own != tenant => Err(Error::not_found("tenant")),
            _ => Ok(()),
        }
    }

    /// Returns an error for an operation that the caller may not see; the same one as for an operation that does not
    /// exist. A caller whose permission comes from the scope `signup` alone may see only operations that it requested;
    /// `begun_by` is the principal that requested the operation.
    pub fn may_see_operation(&self, permission: Permission, tenant: TenantId, begun_by: &str) -> Result<()> {
        let sees_all = self.scopes.iter().any(|scope| *scope != Scope::Signup && scope.allows(permission));
        match self.may_see(tenant) {
            Ok(()) if sees_all || begun_by == self.principal => Ok(()),
            _ => Err(Error::not_found("operation")),
        }
    }
}

impl Control {
    /// The row of a tenant that the caller may see.
    pub(crate) async fn tenant_row(
        &self,
        caller: &Caller,
        id_or_slug: &str,
    ) -> Result<entity::tenant::Model> {
        let store = &self.shared.store;
        let row = match id_or_slug.parse::<TenantId>() {
            Ok(id) => store.tenant(&id.to_string()).await,
            Err(_) => store.tenant_by_slug(&self.mac("slug", id_or_slug)).await,
        };
        let row = row.map_err(Error::unavailable)?.ok_or_else(|| Error::not_found("tenant"))?;
        caller.may_see(row.id.parse().map_err(Error::internal)?)?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn deny_by_default() {
        let caller =
            |scope| Caller { principal: "key".into(), scopes: BTreeSet::from([scope]), tenant: None };
        assert!(caller(Scope::Viewer).require(Permission::ReadTenants).is_ok());
        assert_eq!(
            caller(Scope::Viewer).require(Permission::CreateTenant).unwrap_err().kind(),
            ErrorKind::Forbidden
        );
        assert!(caller(Scope::Operator).require(Permission::ManageKeys).is_err());
        assert!(caller(Scope::Signup).require(Permission::ReadTenants).is_err());
        assert!(caller(Scope::Guard).require(Permission::ReadCatalogue).is_err());
    }

    #[test]
    fn a_signup_key_sees_what_it_began() {
        let caller = |scopes: &[Scope]| Caller {
            principal: "key_own".into(),
            scopes: scopes.iter().copied().collect(),
            tenant: None,
        };
        let tenant = TenantId::new();
        let sees = |scopes: &[Scope], permission, by| {
            caller(scopes).may_see_operation(permission, tenant, by).is_ok()
        };
        let (read, claim) = (Permission::ReadOperations, Permission::ClaimCredentials);
        for permission in [read, claim] {
            assert!(sees(&[Scope::Signup], permission, "key_own"));
            assert!(!sees(&[Scope::Signup], permission, "key_other"));
            assert!(!sees(&[Scope::Signup], permission, ""));
        }
        // A scope beside it gives what it gives, and no more.
        assert!(sees(&[Scope::Signup, Scope::Viewer], read, "key_other"));
        assert!(!sees(&[Scope::Signup, Scope::Viewer], claim, "key_other"));
        assert!(caller(&[Scope::Signup]).require(Permission::ListOperations).is_err());
    }

    #[test]
    fn a_tenants_key_sees_one_tenant() {
        let own = TenantId::new();
        let caller =
            Caller { principal: "key".into(), scopes: BTreeSet::from([Scope::Tenant]), tenant: Some(own) };
        assert!(caller.may_see(own).is_ok());
        assert_eq!(caller.may_see(TenantId::new()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
