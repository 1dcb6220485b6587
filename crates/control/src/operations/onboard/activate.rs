//! Activates the tenant: the last inline action of an onboarding, and its point of no return.

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Done, Step};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{SuspensionMode, Suspensions};
use tenantry_model::{Failure, TenantStatus, Write, columns};

use super::reserve;
use crate::ledger::{OperationInput, read, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps, writes};
use crate::templates::built_in::ACTIVATE;
use crate::tenants::suspension::denied;
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};

/// Sets the tenant to `active`, or to `suspended` if reasons for that came meanwhile, and writes the event
/// `tenant.provisioned`.
pub(crate) struct Activate;

#[async_trait]
impl Action for Activate {
    fn kind(&self) -> &'static str {
        ACTIVATE
    }

    fn transactional(&self, _: &ProviderSteps, _: &Step) -> bool {
        true
    }

    fn required_because(&self) -> Option<&'static str> {
        Some("no tenant becomes active without it")
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let tenant = tenant_id(operation)?;
        let start: OperationInput = read(&operation.input)?;
        let illegal = |why| Failure::fatal("illegal", why);
        let mut status = next(TenantStatus::Provisioning, Event::Activate).map_err(illegal)?;
        let row = steps.rows.find("tenants", &[("id", json!(tenant))]).await?.pop();
        let mut row = row.ok_or_else(|| Failure::fatal("no_tenant", "the tenant's row is missing"))?;
        // Suspensions of a tenant that is being provisioned apply from its activation on.
        let suspensions: Suspensions = read(&row["suspensions"].take())?;
        if !suspensions.0.is_empty() {
            status = next(status, Event::Suspend).map_err(illegal)?;
        }
        let event_record = EventRecord {
            kind: "tenant.provisioned",
            tenant,
            operation: Some(operation.id),
            data: json!({ "plan": start.plan, "region": start.region }),
            sealed: Some(start.sealed),
        };
        let id = tenant.to_string();
        let audited = AuditRecord {
            actor: "system",
            action: "tenant.activate",
            target: &id,
            tenant: Some(tenant),
            data: json!({ "operation_id": operation.id }),
        };
        let mut effects = vec![
            Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": TenantStatus::Provisioning, "version": row["version"].as_i64() },
                columns! {
                    "status": status, "activated_at": attempt.now, "last_error": (),
                    "suspended_at": suspensions.since(), "denied": denied(status, &suspensions).map(SuspensionMode::as_str),
                },
            ),
            event(event_record, attempt.now),
            audit(audited, attempt.now),
        ];
        effects.extend(reserve::keep(tenant, attempt.outputs.values())?);
        Ok(writes(effects))
    }

    /// The template check lets no inline step come after it, so no failure leads here.
    async fn compensate(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        Err(crate::operations::irreversible(&attempt.step))
    }
}
