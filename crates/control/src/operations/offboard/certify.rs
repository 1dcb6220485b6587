//! Issues the certificate of the deletion.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tenantry_engine::{Attempt, Done};
use tenantry_model::id::CertificateId;
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{Failure, TenantId, TenantStatus, Write, columns};
use tenantry_provider::Rows;

use super::certificate::{Certificate, DeletedResource, KEY, Retained, seal};
use super::plan::{CERTIFY, CERTIFY_REST, DESTROY_KEY, SCAN, SCAN_REGISTRY, SCAN_REST};
use super::scan::{Absent, Named};
use super::searched::{RegistryScan, not_searched};
use super::{Deleted, clones};
use crate::ledger::{OperationInput, read, tenant_id};
use crate::operations::{Action, Compensation, ProviderSteps, irreversible};
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};

/// Signs and chains a certificate of what the steps before found. The first one of a tenant sets it to `deprovisioned` and
/// writes `tenant.deleted`; the final one, after the archives, writes `tenant.archives_deleted`.
pub(crate) struct Certify;

#[async_trait]
impl Action for Certify {
    fn kind(&self) -> &'static str {
        CERTIFY
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let tenant = tenant_id(operation)?;
        let start: OperationInput = read(&operation.input)?;
        let said = |key: &str| attempt.outputs.get(key).cloned().unwrap_or_default();
        let is_final = attempt.step.key == CERTIFY_REST;
        let absent: Vec<Absent> = read(&said(SCAN))?;
        let (mut resources, mut files) = (Vec::with_capacity(absent.len()), Vec::new());
        for Absent { target, absent_at, purged } in absent {
            files.extend(purged);
            let Named { id, step, kind, provider, name, generation, before } = target;
            // A step that a client skipped has no output; the scan saw that the resource is gone all the same.
            let done = step.as_ref().map(|step| said(step)).filter(|said| !said.is_null());
            let deleted: Option<Deleted> = done.as_ref().map(read).transpose()?;
            let (deleted_at, receipt) =
                deleted.map_or((None, before), |deleted| (Some(deleted.deleted_at), deleted.receipt));
            resources.push(DeletedResource {
                id,
                kind,
                provider,
                name,
                generation,
                step,
                deleted_at,
                receipt,
                absent_at,
            });
        }
        let scan = RegistryScan::read(&said(if is_final { SCAN_REST } else { SCAN_REGISTRY }))?;
        files.extend(scan.files);
        let providers = resources.iter().map(|resource| resource.provider.as_str());
        let not_searched = not_searched(steps, providers, &files);
        let key = steps.keyring.signing_key(KEY).await?;
        // Without the lock, only one of several certificates that are issued at once could be committed.
        attempt.guards.keep(Arc::clone(&steps.certifying).lock_owned().await);
        let last = steps.store.last_certificate().await;
        let last = last.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let certificate = Certificate {
            id: CertificateId::new(),
            seq: last.as_ref().map_or(1, |last| last.seq + 1),
            previous: last.map(|last| last.hash),
            tenant_id: tenant,
            operation_id: operation.id,
            kind: operation.kind.clone(),
            requested_by: start.begun_by.clone(),
            reason: start.reason.unwrap_or_default(),
            requested_at: operation.created_at,
            key_destroyed_at: read(&said(DESTROY_KEY))?,
            issued_at: attempt.now,
            issued_by: concat!("tenantry ", env!("CARGO_PKG_VERSION")).to_owned(),
            resources,
            registry: scan.tables,
            files,
            not_searched,
            retained: retained(&*steps.rows, tenant).await?,
            clones: clones::living(&*steps.rows, &*steps.keyring, tenant).await?,
        };
        let sealed = seal(&certificate, &key).map_err(|why| Failure::fatal("cannot_certify", why))?;
        let id = tenant.to_string();
        let data = json!({
            "operation_id": operation.id, "certificate_id": certificate.id, "certificate_hash": sealed.hash,
            "resources": certificate.resources.len(), "clones": certificate.clones.len(),
        });
        let audited = AuditRecord {
            actor: "system",
            action: if is_final { "tenant.delete_archives" } else { "tenant.delete" },
            target: &id,
            tenant: Some(tenant),
            data: data.clone(),
        };
        let kind = if is_final { "tenant.archives_deleted" } else { "tenant.deleted" };
        let event_record = EventRecord { kind, tenant, operation: Some(operation.id), data, sealed: None };
        let mut effects = vec![
            Write::insert_unique(
                "certificates",
                columns! {
                "id": certificate.id, "seq": certificate.seq, "tenant_id": tenant, "certificate": &*sealed.text,
                "signature": &*sealed.signature, "hash": &*sealed.hash, "at": attempt.now },
            ),
            event(event_record, attempt.now),
            audit(audited, attempt.now),
        ];
        if !is_final {
            let gone = next(TenantStatus::Deprovisioning, Event::Delete)
                .map_err(|why| Failure::fatal("illegal", why))?;
            effects.push(Write::compare_and_set(
                "tenants",
                columns! { "id": tenant },
                columns! { "status": TenantStatus::Deprovisioning },
                columns! { "status": gone, "deprovisioned_at": attempt.now },
            ));
        }
        Ok(Done { output: json!({ "certificate_id": certificate.id }), effects })
    }

    async fn compensate(&self, _: &ProviderSteps, attempt: &Attempt) -> Result<Compensation, Failure> {
        Err(irreversible(&attempt.step))
    }
}

/// Data that is kept after the deletion, with the legal basis.
async fn retained(rows: &dyn Rows, tenant: TenantId) -> Result<Vec<Retained>, Failure> {
    let invoices = rows.find("invoices", &[("tenant_id", json!(tenant))]).await?;
    let kept = Retained {
        what: "invoices".to_owned(),
        count: invoices.len() as u64,
        legal_basis: "GDPR Art. 17(3)(b): invoices are kept for as long as tax law asks; they name no person"
            .to_owned(),
        until: None,
    };
    let mut all = Vec::from_iter((!invoices.is_empty()).then_some(kept));
    for row in rows.find("archives", &[("tenant_id", json!(tenant))]).await? {
        all.push(Retained {
            what: row["purpose"].as_str().unwrap_or_default().to_owned(),
            count: 1,
            legal_basis:
                "GDPR Art. 6(1)(b): the customer's own data, encrypted under their key, as the contract says; erasing the \
                 tenant ends it at once"
                    .to_owned(),
            until: Some(read(&row["expires_at"])?),
        });
    }
    all.sort_by_key(|kept| kept.until);
    Ok(all)
}
