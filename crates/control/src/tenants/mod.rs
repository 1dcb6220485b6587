//! Reading tenants, and changing what a client may change of them directly.

pub mod config;
pub mod drift;
mod fences;
pub mod status;
pub mod suspension;
pub mod view;

use std::collections::BTreeMap;
use tenantry_model::ErrorCode;

use serde_json::{Value, json};
use tenantry_model::text::is_readable;
use tenantry_model::{TenantId, TenantStatus, Write, columns};

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::error::ErrorView;
use crate::error::{Error, FieldError, Result};
use crate::templates::shape::{self, clip};
use crate::tenants::view::TenantView;
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::{Rejected, WriteBatch, entity};

/// Filter of a list of tenants.
#[derive(Clone, Debug, Default)]
pub struct TenantQuery {
    /// In this status.
    pub status: Option<TenantStatus>,
    /// On this plan.
    pub plan: Option<String>,
}

impl Control {
    /// A tenant by id or slug.
    pub async fn tenant(&self, caller: &Caller, id_or_slug: &str) -> Result<TenantView> {
        caller.require(Permission::ReadTenants)?;
        self.tenant_row(caller, id_or_slug).await?.try_into()
    }

    /// Tenants, newest first.
    pub async fn tenants(
        &self,
        caller: &Caller,
        query: &TenantQuery,
        page: &PageQuery,
    ) -> Result<Page<TenantView>> {
        caller.require(Permission::ReadTenants)?;
        let own = caller.tenant.map(|tenant| tenant.to_string());
        let store = &self.shared.store;
        let rows = store
            .tenants(own.as_deref(), query.status, query.plan.as_deref(), page.cursor(), page.probe())
            .await;
        let rows = rows.map_err(Error::unavailable)?;
        page.cut(rows, |row| row.id.clone(), TenantView::try_from)
    }

    /// Merges a patch (RFC 7396) of `labels` into a tenant that still has this version.
    pub async fn update_tenant(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        patch: &Value,
        expected_version: i64,
    ) -> Result<TenantView> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        if matches!(status, TenantStatus::Deprovisioning | TenantStatus::Deprovisioned) {
            let message = format!(
                "the tenant is {status}: labels of a tenant that is being or was deleted cannot be changed"
            );
            return Err(Error::new(ErrorCode::IllegalTransition, message));
        }
        let faults = shape::faults(
            &json!({
                "type": "object", "additionalProperties": false,
                "properties": { "labels": { "type": ["object", "null"], "maxProperties": 64,
                    "additionalProperties": { "type": ["string", "null"] } } }
            }),
            patch,
        );
        let given = patch.get("labels").and_then(Value::as_object).into_iter().flatten();
        let given = given.filter_map(|(name, value)| label_fault(name, value.as_str().unwrap_or_default()));
        let faults: Vec<FieldError> = faults.into_iter().chain(given).collect();
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        }
        let mut labels = row.labels.as_object().cloned().unwrap_or_default();
        match patch.get("labels") {
            None => {}
            Some(Value::Object(changes)) => {
                for (key, value) in changes {
                    match value {
                        Value::Null => labels.remove(key),
                        value => labels.insert(key.clone(), value.clone()),
                    };
                }
            }
            Some(_) => labels.clear(),
        }
        if labels.len() > 64 {
            return Err(Error::invalid(
                ErrorCode::RequestInvalid,
                vec![FieldError::new("labels", "must have at most 64 entries")],
            ));
        }
        let now = self.now();
        // The audit trail outlives the tenant, and a label may be personal data.
        let data = json!({ "labels": labels.len() });
        let tenant: TenantId = row.id.parse().map_err(Error::internal)?;
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "tenant.update",
            target: &row.id,
            tenant: Some(tenant),
            data,
        };
        let writes = vec![
            Write::compare_and_set(
                "tenants",
                columns! { "id": row.id },
                columns! { "version": expected_version },
                columns! { "labels": labels },
            ),
            audit(audited, now),
        ];
        match self.shared.store.commit(WriteBatch::new(writes)).await {
            Ok(()) => self.tenant_row(caller, &row.id).await?.try_into(),
            Err(Rejected::Stale { .. }) => Err(Error::new(
                ErrorCode::VersionMismatch,
                format!("the tenant was changed: it has version {}; read it again", row.version),
            )),
            Err(why) => Err(Error::unavailable(why)),
        }
    }
}

/// Checks a label; returns the fault, or none if name and value are valid.
pub(crate) fn label_fault(name: &str, value: &str) -> Option<FieldError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(known) {
        let message = format!("`{}`: a label's name has 1 to 63 of A-Z a-z 0-9 - _ . /", clip(name));
        Some(FieldError::new("labels", message))
    } else if value.len() > 255 || !is_readable(value) {
        let message = "must have at most 255 bytes, and no control or invisible characters";
        Some(FieldError::new(format!("labels.{name}"), message))
    } else {
        None
    }
}

impl TryFrom<entity::tenant::Model> for TenantView {
    type Error = Error;

    fn try_from(row: entity::tenant::Model) -> Result<Self> {
        entity::tenant::Listed::from(row).try_into()
    }
}

impl TryFrom<entity::tenant::Listed> for TenantView {
    type Error = Error;

    fn try_from(row: entity::tenant::Listed) -> Result<Self> {
        let labels: BTreeMap<String, String> = serde_json::from_value(row.labels).map_err(Error::internal)?;
        let last_error: Option<ErrorView> =
            row.last_error.map(serde_json::from_value).transpose().map_err(Error::internal)?;
        Ok(Self {
            id: row.id.parse().map_err(Error::internal)?,
            slug: row.slug,
            name: row.name,
            plan: row.plan,
            status: row.status.parse().map_err(Error::internal)?,
            region: row.region,
            version: row.version,
            created_at: row.created_at.into(),
            activated_at: row.activated_at.map(Into::into),
            suspensions: serde_json::from_value(row.suspensions).map_err(Error::internal)?,
            suspended_at: row.suspended_at.map(Into::into),
            deprovisioned_at: row.deprovisioned_at.map(Into::into),
            labels,
            last_error,
            cloned_from: row.cloned_from.map(|id| id.parse()).transpose().map_err(Error::internal)?,
        })
    }
}
