//! Creates tenants: checks a request and begins the onboarding. One transaction writes the tenant, the
//! operation, its steps and the first administrator; the tenant's key is committed to the keyring before it.

use std::collections::{BTreeMap, BTreeSet};
use tenantry_model::ErrorCode;

use serde_json::{Map, Value, json};
use tenantry_engine::{CommitError, Operation, Run, Step};
use tenantry_model::id::OperationId;
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{FailureClass, Plan, Slug, TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::{Provider as _, Rows as _, Sealer};

use super::customize;
use super::look_alike::comparable;
use super::plan::{Onboarding, Subject, price};
use super::request::CreateTenant;
use crate::access::idempotency::{Answered, CREATE_TENANT, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::ledger::{OperationInput, OperationKind, Personal, id_of};
use crate::operations::manage::approval_view;
use crate::operations::view::{OperationView, PlannedStepView, PlannedView};
use crate::resource::capacity::Claim;
use crate::templates::{Template, hide};
use crate::tenants::view::TenantView;
use tenantry_store::entity;
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};
use tenantry_store::table::columns_of;

/// Attempts to find a free slug for a name when other requests take slugs at the same time.
const SLUG_TRIES: u32 = 20;

/// A tenant whose onboarding has begun, now or by an earlier request with the same idempotency key.
#[derive(Clone, Debug)]
pub struct Created {
    /// The onboarding.
    pub operation: OperationView,
    /// The tenant.
    pub tenant: TenantView,
    /// Whether an earlier request with the same key created it.
    pub replayed: bool,
}

/// A valid request, with the plan, template and values that it resolves to.
struct Prepared<'a> {
    request: CreateTenant,
    plan: &'a Plan,
    template: &'a Template,
    slug: Slug,
    region: String,
    locale: String,
    inherited: Map<String, Value>,
}

impl Control {
    /// Begins an onboarding. Fails with every invalid field before anything is written.
    pub async fn create_tenant(
        &self,
        caller: &Caller,
        document: &Value,
        key: Option<IdempotencyKey>,
    ) -> Result<Created> {
        caller.require(Permission::CreateTenant)?;
        let once = key.map(|key| Once::new(caller, &key, CREATE_TENANT, document));
        if let Some(once) = &once
            && let Some(answer) = self.made_before(once).await?
        {
            return self.created_before(&answer).await;
        }
        self.create(caller, CreateTenant::read(document)?, once.as_ref()).await
    }

    /// Begins the onboarding of a request. Removes the tenant's new key again if the request is rejected or
    /// was answered before.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        request: CreateTenant,
        once: Option<&Once>,
    ) -> Result<Created> {
        let mut prepared = self.prepare(request)?;
        self.inherit(&mut prepared).await?;
        self.check_free_slots(&prepared).await?;
        let tenant = TenantId::new();
        // The key must be committed before anything that it encrypts.
        self.shared.keyring.create(tenant).await.map_err(Error::unavailable)?;
        let created = self.create_as(tenant, caller, &mut prepared, once).await;
        let unused = match &created {
            Ok(created) => created.replayed,
            // The outcome is unknown: the tenant may exist, so its key must stay.
            Err(error) => !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal),
        };
        if unused && let Err(why) = self.shared.keyring.forget(tenant).await {
            tracing::warn!(%tenant, "the key of a rejected request was not removed: {why}");
        }
        created
    }

    /// Submits the onboarding. Retries with other slots or another derived slug if concurrent requests take
    /// them first.
    async fn create_as(
        &self,
        tenant: TenantId,
        caller: &Caller,
        prepared: &mut Prepared<'_>,
        once: Option<&Once>,
    ) -> Result<Created> {
        let first = prepared.slug.clone();
        let mut tries = 0;
        while tries < SLUG_TRIES {
            let _claim = self.hold_slots(tenant, prepared).await?;
            let (run, row, effects) = self.onboarding_batch(tenant, caller, prepared, once)?;
            let table = match self.submit(run, effects).await {
                Ok(run) => {
                    let operation = self.operation_view(&run).await?;
                    return Ok(Created { operation, tenant: TenantView::try_from(row)?, replayed: false });
                }
                Err(CommitError::Conflict { table }) => table,
                Err(why @ CommitError::Refused { .. }) => return Err(Error::internal(why)),
                Err(why) => return Err(Error::unavailable(why)),
            };
            if let Some(once) = once
                && let Some(answer) = self.made_before(once).await?
            {
                return self.created_before(&answer).await;
            }
            if table == "slots" {
                // Another process took a slot. Each round leaves fewer, so this loop ends.
                continue;
            }
            tries += 1;
            if table != "tenants" {
                return Err(Error::internal(format!("a new tenant met a row of {table}")));
            }
            self.refuse_taken_name(&prepared.request.tenant_name).await?;
            if prepared.request.slug.is_some() {
                break;
            }
            prepared.slug = self.free_slugs(&first, 1).await?.pop().unwrap_or_else(|| first.clone());
        }
        Err(self.slug_taken(&first).await?)
    }

    /// Returns the plan of an onboarding without beginning it.
    pub async fn plan_tenant(&self, caller: &Caller, document: &Value) -> Result<PlannedView> {
        caller.require(Permission::CreateTenant)?;
        let mut prepared = self.prepare(CreateTenant::read(document)?)?;
        self.inherit(&mut prepared).await?;
        self.refuse_taken_name(&prepared.request.tenant_name).await?;
        if self.is_taken(&prepared.slug).await? {
            return Err(self.slug_taken(&prepared.slug).await?);
        }
        self.check_free_slots(&prepared).await?;
        let subject = Subject {
            tenant: TenantId::new(),
            slug: prepared.slug.as_str(),
            region: &prepared.region,
            generation: 1,
        };
        let steps = self.steps(&prepared, &subject)?;
        let expected = self.expected_length(prepared.template, &steps).await?;
        let steps = steps.iter().map(|step| {
            let text =
                |field: &str| step.input.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut settings = step.input.get("settings").cloned().unwrap_or_default();
            if let (false, Some(spec), Some(settings)) =
                (caller.sees_secrets(), prepared.template.steps.get(&step.key), settings.as_object_mut())
            {
                let mut with = spec.with.clone();
                hide(&mut with);
                settings.extend(with);
            }
            PlannedStepView {
                key: step.key.clone(),
                kind: step.kind.clone(),
                provider: step.provider.clone(),
                needs: step.needs.clone(),
                mode: step.policy.mode,
                name: text("name"),
                settings,
                approval: approval_view(step),
            }
        });
        Ok(PlannedView {
            plan: prepared.plan.name.clone(),
            template: prepared.template.template.clone(),
            template_version: prepared.template.version,
            slug: prepared.slug.to_string(),
            region: prepared.region.clone(),
            expected_ms: expected.and_then(|length| u64::try_from(length.as_millis()).ok()),
            price: price(prepared.plan, &prepared.request),
            reserved: if prepared.template.reserves() { prepared.template.needed() } else { BTreeMap::new() },
            steps: steps.collect(),
        })
    }

    /// Retries the onboarding of a tenant after a rollback.
    pub async fn retry_onboarding(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once = key.map(|key| Once::new(caller, &key, &format!("provision {}", row.id), &Value::Null));
        match self.once(once.as_ref(), self.try_provision(caller, row, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    async fn try_provision(
        &self,
        caller: &Caller,
        row: entity::tenant::Model,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let tenant = id_of(&row)?;
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        let provisioning =
            next(status, Event::Provision).map_err(|why| Error::new(ErrorCode::IllegalTransition, why))?;
        self.shared.keyring.load(tenant).await.map_err(Error::unavailable)?;
        let sealed = row.admin_sealed.as_deref().ok_or_else(|| Error::not_found("tenant"))?;
        let request = self.shared.keyring.open(tenant, sealed).map_err(Error::internal)?;
        let request: CreateTenant =
            serde_json::from_str(&request).map_err(|_| Error::internal("the sealed request does not fit"))?;
        let mut prepared = self.prepare(request)?;
        let slug = row.slug.clone().unwrap_or_default();
        prepared.slug = Slug::parse(&slug).map_err(Error::internal)?;
        // The region and locale of the first onboarding, even if the defaults have changed.
        (prepared.region, prepared.locale) = (row.region.clone(), row.locale.clone());
        self.inherit(&mut prepared).await?;
        let _claim = self.hold_slots(tenant, &prepared).await?;
        let generation = 1 + self.shared.store.operation_count(&row.id).await.map_err(Error::unavailable)?;
        let now = self.now();
        let run = self.onboarding(caller, tenant, &prepared, generation, now)?;
        let id = tenant.to_string();
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "tenant.provision",
            target: &id,
            tenant: Some(tenant),
            data: json!({ "operation_id": run.operation.id }),
        };
        let again = Write::compare_and_set(
            "tenants",
            columns! { "id": tenant },
            columns! { "status": status },
            columns! { "status": provisioning, "template_version": prepared.template.version },
        );
        let answer = json!({ "operation_id": run.operation.id });
        let mut effects = vec![again, audit(audited, now)];
        effects.extend(once.map(|once| once.guard(&answer, Some(tenant), now)));
        match self.submit(run, effects).await {
            Ok(run) => self.operation_view(&run).await,
            Err(CommitError::Conflict { .. } | CommitError::Stale) => Err(Error::new(
                ErrorCode::TenantBusy,
                "another operation is changing this tenant; try again when it has ended",
            )),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Checks a request against catalogue, template and configuration. Reads nothing from the registry.
    fn prepare(&self, request: CreateTenant) -> Result<Prepared<'_>> {
        let (plan, mut faults) = request.check(&self.shared.catalogue);
        let slug = match request.slug.as_deref() {
            Some(slug) => Slug::parse(slug).ok(),
            None => Slug::from_name(&request.tenant_name),
        };
        if slug.is_none() && request.slug.is_none() {
            faults.push(FieldError::new(
                "slug",
                "is required: no slug can be derived from `tenant_name`, which has no letters a-z or digits",
            ));
        }
        let (Some(plan), Some(slug), true) = (plan, slug, faults.is_empty()) else {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        };
        let template = self.shared.templates.latest(&plan.template);
        let template =
            template.ok_or_else(|| Error::internal(format!("plan {} has no template", plan.name)))?;
        let refused = customize::refused(template, &request);
        if !refused.is_empty() {
            return Err(Error::invalid(ErrorCode::CustomizationNotAllowed, refused));
        }
        let region = request.region().unwrap_or(&self.shared.config.region).to_owned();
        let field = if request.region.is_some() { "region" } else { "compliance.data_residency" };
        self.refuse_unknown_region(field, &region)?;
        self.refuse_across_borders(field, template, &region)?;
        let broken = customize::broken_rules(template, plan, &request, &region);
        if !broken.is_empty() {
            return Err(Error::invalid(ErrorCode::CustomizationRefused, broken));
        }
        let locale = request.locale.clone().unwrap_or_else(|| self.shared.config.locale.clone());
        Ok(Prepared { request, plan, template, slug, region, locale, inherited: Map::new() })
    }

    /// Copies the settings that the template inherits from its main tenant.
    async fn inherit(&self, prepared: &mut Prepared<'_>) -> Result<()> {
        let Some(inherit) = &prepared.template.inherit else { return Ok(()) };
        let store = &self.shared.store;
        let main = match inherit.tenant.parse::<TenantId>() {
            Ok(id) => Some(id.to_string()),
            Err(_) => {
                let row = store.tenant_by_slug(&self.mac("slug", &inherit.tenant)).await;
                row.map_err(Error::unavailable)?.map(|row| row.id)
            }
        };
        let Some(main) = main else { return Ok(()) };
        let rows = store.find("configs", &[("tenant_id", json!(main))]).await.map_err(Error::unavailable)?;
        let settings = rows.first().and_then(|row| row.get("settings")?.as_object().cloned());
        let taken = inherit.apply(&settings.unwrap_or_default());
        prepared.inherited = taken.map_err(|faults| Error {
            errors: faults,
            ..Error::new(
                ErrorCode::InheritanceFailed,
                "the main tenant's settings do not satisfy the template's schema",
            )
        })?;
        Ok(())
    }

    fn steps(&self, prepared: &Prepared<'_>, subject: &Subject<'_>) -> Result<Vec<Step>> {
        let Prepared { template, plan, request, inherited, .. } = prepared;
        let resources = &self.shared.resources;
        Onboarding { template, plan, request, subject, inherited, resources }.steps()
    }

    /// Returns the operation, the tenant's row and all writes of the transaction that creates the tenant.
    fn onboarding_batch(
        &self,
        tenant: TenantId,
        caller: &Caller,
        prepared: &Prepared<'_>,
        once: Option<&Once>,
    ) -> Result<(Run, entity::tenant::Model, Vec<Write>)> {
        let now = self.now();
        let run = self.onboarding(caller, tenant, prepared, 1, now)?;
        let request = serde_json::to_string(&prepared.request).map_err(Error::internal)?;
        let provisioning = next(TenantStatus::Pending, Event::Provision).map_err(Error::internal)?;
        let row = entity::tenant::Model {
            id: tenant.to_string(),
            slug: Some(prepared.slug.to_string()),
            slug_mac: self.mac("slug", prepared.slug.as_str()),
            name: Some(prepared.request.tenant_name.clone()),
            name_mac: self.mac("name", &comparable(&prepared.request.tenant_name)),
            plan: prepared.plan.name.clone(),
            template: prepared.template.template.clone(),
            template_version: i32::try_from(prepared.template.version).unwrap_or(i32::MAX),
            status: provisioning.to_string(),
            region: prepared.region.clone(),
            locale: prepared.locale.clone(),
            version: 1,
            labels: json!(prepared.request.labels),
            admin_sealed: Some(self.shared.keyring.seal(tenant, &request).map_err(Error::unavailable)?),
            last_error: None,
            created_at: now.into(),
            activated_at: None,
            denied: None,
            fenced: None,
            suspensions: json!({}),
            suspended_at: None,
            deprovisioned_at: None,
            cloned_from: prepared.request.cloning.as_ref().map(|cloning| cloning.from.to_string()),
        };
        let mut effects = vec![Write::insert_unique("tenants", columns_of(&row))];
        let operation = run.operation.id;
        effects.extend(once.map(|once| {
            once.guard(&json!({ "operation_id": operation, "tenant_id": tenant }), Some(tenant), now)
        }));
        let data = json!({ "plan": row.plan, "region": row.region, "operation_id": operation });
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "tenant.create",
            target: &row.id,
            tenant: Some(tenant),
            data,
        };
        let event_record = EventRecord {
            kind: "tenant.created",
            tenant,
            operation: Some(operation),
            data: json!({ "plan": row.plan, "region": row.region }),
            sealed: None,
        };
        effects.extend([audit(audited, now), event(event_record, now)]);
        effects.extend(prepared.request.cloning.as_ref().map(|cloning| {
            // Column names only: a mask's replacement value may be confidential.
            let masked: Vec<String> =
                cloning.masks.iter().map(|mask| format!("{}.{}", mask.table, mask.column)).collect();
            let data = json!({ "clone": tenant, "masked": masked, "files": cloning.files });
            let (target, tenant) = (&cloning.from.to_string(), Some(cloning.from));
            audit(AuditRecord { actor: &caller.principal, action: "tenant.clone", target, tenant, data }, now)
        }));
        Ok((run, row, effects))
    }

    /// Builds the operation with its steps. The caller commits it to the ledger.
    fn onboarding(
        &self,
        caller: &Caller,
        tenant: TenantId,
        prepared: &Prepared<'_>,
        generation: i64,
        now: Timestamp,
    ) -> Result<Run> {
        let personal = Personal {
            slug: prepared.slug.to_string(),
            name: prepared.request.tenant_name.clone(),
            admin: prepared.request.admin(),
        };
        let personal = serde_json::to_string(&personal).map_err(Error::internal)?;
        let input = OperationInput {
            plan: prepared.plan.name.clone(),
            template: prepared.template.template.clone(),
            template_version: prepared.template.version,
            region: prepared.region.clone(),
            locale: prepared.locale.clone(),
            generation,
            sealed: self.shared.keyring.seal(tenant, &personal).map_err(Error::unavailable)?,
            begun_by: caller.principal.clone(),
            reason: None,
        };
        let subject = Subject { tenant, slug: prepared.slug.as_str(), region: &prepared.region, generation };
        let steps = self.steps(prepared, &subject)?;
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        let operation = Operation {
            // A clone takes time in proportion to the source's content, so it never counts as stuck.
            expected_by: prepared
                .request
                .cloning
                .is_none()
                .then(|| now + prepared.template.expected.duration()),
            ..Operation::new(
                OperationId::new(),
                &tenant.to_string(),
                OperationKind::Onboard.as_str(),
                input,
                now,
            )
        };
        Ok(Run { operation, steps })
    }

    /// Returns the tenant that an earlier request created, from the stored response to its idempotency key.
    pub(crate) async fn created_before(&self, answer: &Value) -> Result<Created> {
        let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default();
        let (operation, tenant) = (text("operation_id"), text("tenant_id"));
        let run = self.run(operation.parse().map_err(Error::internal)?).await?;
        let row = self.shared.store.tenant(tenant).await.map_err(Error::unavailable)?;
        let row =
            row.ok_or_else(|| Error::internal("an idempotency key names a tenant that is not there"))?;
        Ok(Created {
            operation: self.operation_view(&run).await?,
            tenant: TenantView::try_from(row)?,
            replayed: true,
        })
    }

    /// Returns an error if the region is not configured on this server.
    fn refuse_unknown_region(&self, field: &str, region: &str) -> Result<()> {
        let config = &self.shared.config;
        let known: BTreeSet<&str> =
            config.capacity.keys().map(String::as_str).chain([config.region.as_str()]).collect();
        if known.contains(region) {
            return Ok(());
        }
        let known = Vec::from_iter(known).join(", ");
        let fault =
            FieldError::new(field, format!("is not a region of this server; its regions are {known}"));
        Err(Error::invalid(ErrorCode::RequestInvalid, vec![fault]))
    }

    /// Returns an error if a provider of the template does not serve the tenant's region.
    fn refuse_across_borders(&self, field: &str, template: &Template, region: &str) -> Result<()> {
        let resources = &self.shared.resources;
        let providers = template
            .steps
            .values()
            .filter_map(|step| resources.serving(step.kind?, step.provider.as_deref(), template.isolation));
        let refused = providers.filter_map(|provider| resources.refusal(provider.name(), region));
        let faults: Vec<FieldError> = refused.map(|why| FieldError::new(field, why)).collect();
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid(ErrorCode::RequestInvalid, faults)) }
    }

    /// Holds the slots that the first commit will reserve, if the template reserves any. Returns an error if
    /// there are too few, so that the client gets it instead of an operation that fails.
    async fn hold_slots(&self, tenant: TenantId, prepared: &Prepared<'_>) -> Result<Option<Claim<'_>>> {
        if !prepared.template.reserves() {
            return Ok(None);
        }
        let needed = prepared.template.needed();
        let claim = self.shared.slots.claim(tenant, &prepared.region, &needed, self.now()).await;
        claim.map(Some).map_err(|why| match why.class {
            FailureClass::Fatal => Error::new(ErrorCode::InsufficientResources, why.message),
            _ => Error::unavailable(why),
        })
    }

    /// Returns an early error if there are too few slots. It holds none; [`Self::hold_slots`] does.
    async fn check_free_slots(&self, prepared: &Prepared<'_>) -> Result<()> {
        if !prepared.template.reserves() {
            return Ok(());
        }
        let needed = prepared.template.needed();
        let missing = self.shared.slots.missing(&prepared.region, &needed, self.now()).await;
        match missing.map_err(Error::unavailable)?.join(", ") {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Error::new(
                ErrorCode::InsufficientResources,
                format!("Insufficient resources: {missing}"),
            )),
        }
    }

    /// Returns an error if a tenant has this name or one that looks like it.
    async fn refuse_taken_name(&self, name: &str) -> Result<()> {
        let mac = self.mac("name", &comparable(name));
        if !self.shared.store.is_name_taken(&mac).await.map_err(Error::unavailable)? {
            return Ok(());
        }
        let message = format!("Tenant name {name} already exists");
        let errors = vec![FieldError::new("tenant_name", &message)];
        Err(Error { errors, ..Error::new(ErrorCode::TenantNameTaken, message) })
    }

    async fn is_taken(&self, slug: &Slug) -> Result<bool> {
        let mac = self.mac("slug", slug.as_str());
        let taken = self.shared.store.taken_slugs(std::slice::from_ref(&mac)).await;
        Ok(!taken.map_err(Error::unavailable)?.is_empty())
    }

    /// Up to `count` free slugs like this one with a number appended: small numbers first, then large random ones.
    async fn free_slugs(&self, slug: &Slug, count: usize) -> Result<Vec<Slug>> {
        const NUMBERS: u32 = 50;
        let large = std::iter::repeat_with(|| rand::random_range(1_000..1_000_000)).take(count + 5);
        let candidates: Vec<Slug> = (2..NUMBERS).chain(large).map(|n| slug.numbered(n)).collect();
        let macs: Vec<String> = candidates.iter().map(|slug| self.mac("slug", slug.as_str())).collect();
        let taken = self.shared.store.taken_slugs(&macs).await.map_err(Error::unavailable)?;
        let free = candidates.into_iter().zip(macs).filter(|(_, mac)| !taken.contains(mac));
        Ok(free.map(|(slug, _)| slug).take(count).collect())
    }

    /// The error for a taken slug, with free alternatives.
    async fn slug_taken(&self, slug: &Slug) -> Result<Error> {
        let free: Vec<String> = self.free_slugs(slug, 3).await?.iter().map(Slug::to_string).collect();
        let free = free.join(", ");
        let errors = vec![FieldError::new("slug", format!("is taken; available: {free}"))];
        let message = format!("the slug {slug} is taken; available: {free}");
        Ok(Error { errors, ..Error::new(ErrorCode::SlugTaken, message) })
    }
}
