//! What the steps of a tenant's end do. They work without the tenant's key and without personal data: what deletes
//! must work also when the key has been destroyed before, as it has after the registry was restored from a backup.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tenantry_engine::{Attempt, Done, OperationState, StepState};
use tenantry_model::id::{ArchiveId, CertificateId};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::{Failure, TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_provider::{Context, Observed, Person, Provider, Sealer as _, Spec, Tenant};

use super::certificate::{Certificate, DeletedResource, KEY, Retained, seal};
use super::plan::{BACKUP, CERTIFY_REST, DESTROY_KEY, SCAN, SCAN_REGISTRY, SCAN_REST, Target};
use super::{ERASE, clones, wipe};
use crate::archive::{Purpose, Standing, archive_id, forget};
use crate::planner::{Act, StepInput};
use crate::record::{Deed, Fact, audit, event};
use crate::steps::{OperationInput, ProviderNotes, ProviderSteps, read, tenant_id};
use tenantry_store::News;

/// What the HMAC of a name is for.
pub(super) const NAME: &str = "certificate_name";

/// Until the others are looked for again that must end first.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(50);

/// What stands beside a deletion.
#[derive(Debug, Serialize, Deserialize)]
struct Deleted {
    deleted_at: Timestamp,
    receipt: Value,
}

/// What a provider saw nothing of.
#[derive(Debug, Serialize, Deserialize)]
struct Absent {
    #[serde(flatten)]
    target: Named,
    absent_at: Timestamp,
}

/// A target without its name.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    id: tenantry_model::id::ResourceId,
    step: Option<String>,
    kind: String,
    provider: String,
    name: String,
    generation: i64,
    /// What was deleted before.
    before: Value,
}

impl ProviderSteps {
    /// Others of the tenant's operations have been told to end; nothing is deleted before they have. With `children`, the
    /// same holds of the operation's own, but for those that can go no further.
    pub(crate) async fn stand_down(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let input: StepInput = read(&attempt.step.input)?;
        let children = input.settings.get("children").is_some();
        let rows = self.rows.find("operations", &[("tenant_id", json!(operation.subject))]).await?;
        let ours = json!(operation.id);
        for row in rows.iter().filter(|row| row["id"] != ours) {
            let state: OperationState = read(&row["state"])?;
            let waits = match row["parent_id"] == ours {
                true => children && state != OperationState::NeedsAttention,
                false => true,
            };
            if waits && !state.is_final() {
                let [id, kind] = ["id", "kind"].map(|column| row[column].as_str().unwrap_or_default());
                let message = format!("operation {id} ({kind}) has not ended yet");
                return Err(Failure::retryable("tenant_busy", message).after(MOMENT));
            }
        }
        if !children {
            self.clear_archives(attempt).await?;
        }
        Ok(Done { output: Value::Null, effects: Vec::new() })
    }

    /// Removes what archives have left that were cut off when their operation was taken over. The proof of a backup stands in
    /// resources of nobody's, which no plan names.
    async fn clear_archives(&self, attempt: &Attempt) -> Result<(), Failure> {
        let operation = &attempt.operation;
        let runs = self.store.runs_of(&operation.subject).await;
        let runs = runs.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let (mut cut_off, mut made) = (Vec::new(), BTreeMap::new());
        for (by, step) in runs.iter().flat_map(|run| run.steps.iter().map(|step| (run.operation.id, step))) {
            let input: StepInput = read(&step.input)?;
            if let (Some(resource), Act::Ensure) = (input.resource, input.act) {
                made.entry(resource).or_insert((step, input));
            }
            let archives = Purpose::Backup.as_str() == step.kind || Purpose::Export.as_str() == step.kind;
            if archives && by != operation.id && step.started_at.is_some() && step.state != StepState::Done {
                cut_off.push(archive_id(by, &step.key));
            }
        }
        if cut_off.is_empty() {
            return Ok(());
        }
        let mut standing = Vec::with_capacity(made.len());
        for (step, input) in made.into_values() {
            let (_, spec) = self.nameless(attempt, &input)?;
            let provider = self.providers.get(&step.provider).cloned().ok_or_else(|| step.provider.clone());
            standing.push(Standing { step: step.key.clone(), provider, kind: step.kind.clone(), spec });
        }
        for id in cut_off {
            self.archives.clear(&self.context(attempt), id, &standing).await?;
            self.archives.remove(id).await?;
        }
        Ok(())
    }

    /// The customer thought better of it: what was ended before the hold begins again, as a new generation.
    pub(crate) async fn begin_again(
        &self,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> Result<Done<Write>, Failure> {
        let start: OperationInput = read(&attempt.operation.input)?;
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        let id = columns! { "id": spec.resource };
        let place = self.serving.place(provider).await;
        let effects = match provider.observe(&context, &spec).await? {
            // It was turned back before it ended anything.
            Observed::Present { .. } => {
                let as_before = columns! { "state": "present", "updated_at": attempt.now };
                vec![Write::update("resources", id, as_before)]
            }
            Observed::Absent | Observed::Foreign => {
                let spec = Spec { generation: start.generation, ..spec };
                let ensured = provider.ensure(&context, &spec).await?;
                let again = columns! {
                    "state": "present", "outputs": ensured.outputs, "generation": spec.generation,
                    "updated_at": attempt.now,
                };
                ensured.writes.into_iter().chain([Write::update("resources", id, again)]).collect()
            }
        };
        drop(place);
        Ok(Done { output: attempt.step.output.clone(), effects })
    }

    /// Deletes a resource, and looks whether it is gone.
    pub(crate) async fn delete(
        &self,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.nameless(attempt, &input)?;
        // A registry that is restored from an older backup must know that the tenant was to go. Until there is a last backup,
        // an offboarding can be taken back.
        let for_good = attempt.operation.kind == ERASE || attempt.outputs.contains_key(BACKUP);
        if for_good {
            let start: OperationInput = read(&attempt.operation.input)?;
            let reason = start.reason.unwrap_or_default();
            self.keyring.journal(spec.tenant.id, &start.begun_by, &reason).await?;
        }
        // What a provider keeps in the registry, the scan looks for.
        let removed = self.removed(provider, &context, &spec).await?;
        let receipt = self.anonymous(&removed.receipt);
        let mut effects = removed.writes;
        effects.push(Write::update(
            "resources",
            columns! { "id": spec.resource },
            columns! {
            "state": "absent", "outputs": receipt, "operation_id": attempt.operation.id, "updated_at": attempt.now },
        ));
        let output = json!(Deleted { deleted_at: attempt.now, receipt });
        Ok(Done { output, effects })
    }

    /// Asks every provider whether anything is left of what the tenant ever had.
    pub(crate) async fn scan(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let targets: Vec<Target> = read(&input.settings)?;
        let (mut absent, mut left) = (Vec::new(), Vec::new());
        for Target { step, kind, provider: name, input, ours } in targets {
            let (context, spec) = self.nameless(attempt, &input)?;
            let unknown =
                || Failure::fatal("no_provider", format!("provider `{name}` is not configured here"));
            let provider = self.providers.get(&name).ok_or_else(unknown)?;
            let place = self.serving.place(&**provider).await;
            let seen = provider.observe(&context, &spec).await?;
            drop(place);
            match seen {
                Observed::Present { .. } => left.push(format!("{} ({name})", spec.resource)),
                // What was made and has another mark now is not gone, and what is in it nobody can say.
                Observed::Foreign if ours => {
                    left.push(format!("{} ({name}, which does not know it as ours any more)", spec.resource));
                }
                Observed::Foreign | Observed::Absent => {}
            }
            if !left.is_empty() {
                continue;
            }
            let recorded = self.rows.find("resources", &[("id", json!(spec.resource))]).await?.pop();
            let before = recorded.filter(|_| step.is_none()).map(|mut row| row["outputs"].take());
            let target = Named {
                id: spec.resource,
                step,
                kind,
                provider: name,
                name: self.keyring.mac(NAME, &spec.name),
                generation: spec.generation,
                before: self.anonymous(&before.unwrap_or_default()),
            };
            absent.push(Absent { target, absent_at: attempt.now });
        }
        if left.is_empty() {
            return Ok(Done { output: json!(absent), effects: Vec::new() });
        }
        let message = format!("still there after the deletion: {}; nothing is certified", left.join(", "));
        Err(Failure::retryable("not_gone", message))
    }

    /// Deletes the tenant's archives, files first.
    pub(crate) async fn discard_archives(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        let mut effects = Vec::new();
        for row in self.rows.find("archives", &[("tenant_id", json!(tenant))]).await? {
            let id: ArchiveId = read(&row["id"])?;
            self.archives.remove(id).await?;
            effects.push(forget(id));
        }
        Ok(Done { output: json!({ "archives": effects.len() }), effects })
    }

    /// From here on nothing that was sealed for the tenant can be read.
    pub(crate) async fn destroy_key(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let start: OperationInput = read(&attempt.operation.input)?;
        let tenant = tenant_id(&attempt.operation)?;
        let reason = start.reason.unwrap_or_default();
        self.keyring.destroy(tenant, &start.begun_by, &reason).await?;
        self.store.tell(News::Erased(vec![tenant]));
        Ok(Done { output: json!(attempt.now), effects: Vec::new() })
    }

    /// Takes out of the registry what stands there in clear.
    pub(crate) async fn wipe(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        let mut effects = wipe::writes(&*self.rows, tenant, attempt.operation.id, attempt.now).await?;
        effects.extend(self.places.give_back(tenant).await?);
        Ok(Done { output: Value::Null, effects })
    }

    /// Looks through the registry's own tables, and for the key: unless archives are kept that it opens.
    pub(crate) async fn scan_registry(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let tenant = tenant_id(&attempt.operation)?;
        self.store.scrub().await.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let mut found = wipe::remains(&*self.rows, tenant).await?;
        let keeps = attempt.outputs.get(DESTROY_KEY).is_none_or(Value::is_null);
        if keeps {
            found.remove("archives");
        }
        let left: Vec<&str> = found.iter().filter(|(_, rows)| **rows > 0).map(|(table, _)| *table).collect();
        if !left.is_empty() {
            let message = format!("the registry still has rows in {}; nothing is certified", left.join(", "));
            return Err(Failure::retryable("not_gone", message));
        }
        if keeps || self.keyring.is_destroyed(tenant).await? {
            return Ok(Done { output: json!(found), effects: Vec::new() });
        }
        Err(Failure::retryable("not_gone", "the tenant's key is still there; nothing is certified"))
    }

    /// Issues the certificate, or the final one. Only what was looked for and not found is in it, so without the scans there is none.
    pub(crate) async fn certify(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let tenant = tenant_id(operation)?;
        let start: OperationInput = read(&operation.input)?;
        let said = |key: &str| attempt.outputs.get(key).cloned().unwrap_or_default();
        let is_final = attempt.step.key == CERTIFY_REST;
        let absent: Vec<Absent> = read(&said(SCAN))?;
        let mut resources = Vec::with_capacity(absent.len());
        for Absent { target, absent_at } in absent {
            let Named { id, step, kind, provider, name, generation, before } = target;
            // One that a person has left out was not deleted by us; the scan saw that it is gone all the same.
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
        let key = self.keyring.signing_key(KEY).await?;
        // Without turns, of many at once one would be committed, and all the others begin anew.
        attempt.held.keep(Arc::clone(&self.certifying).lock_owned().await);
        let last = self.store.last_certificate().await;
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
            registry: read(&said(if is_final { SCAN_REST } else { SCAN_REGISTRY }))?,
            retained: self.retained(tenant).await?,
            clones: clones::living(&*self.rows, &*self.keyring, tenant).await?,
        };
        let sealed = seal(&certificate, &key).map_err(|why| Failure::fatal("cannot_certify", why))?;
        let id = tenant.to_string();
        let data = json!({
            "operation_id": operation.id, "certificate_id": certificate.id, "certificate_hash": sealed.hash,
            "resources": certificate.resources.len(), "clones": certificate.clones.len(),
        });
        let deed = Deed {
            actor: "system",
            action: if is_final { "tenant.delete_archives" } else { "tenant.delete" },
            target: &id,
            tenant: Some(tenant),
            data: data.clone(),
        };
        let kind = if is_final { "tenant.archives_deleted" } else { "tenant.deleted" };
        let fact = Fact { kind, tenant, operation: Some(operation.id), data, sealed: None };
        let mut effects = vec![
            Write::insert_unique(
                "certificates",
                columns! {
                "id": certificate.id, "seq": certificate.seq, "tenant_id": tenant, "certificate": &*sealed.text,
                "signature": &*sealed.signature, "hash": &*sealed.hash, "at": attempt.now },
            ),
            event(fact, attempt.now),
            audit(deed, attempt.now),
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

    async fn retained(&self, tenant: TenantId) -> Result<Vec<Retained>, Failure> {
        let invoices = self.rows.find("invoices", &[("tenant_id", json!(tenant))]).await?;
        let kept = Retained {
            what: "invoices".to_owned(),
            count: invoices.len() as u64,
            legal_basis:
                "GDPR Art. 17(3)(b): invoices are kept for as long as tax law asks; they name no person"
                    .to_owned(),
            until: None,
        };
        let mut all = Vec::from_iter((!invoices.is_empty()).then_some(kept));
        for row in self.rows.find("archives", &[("tenant_id", json!(tenant))]).await? {
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

    /// What is said of a resource to a provider that is to delete it or to look for it: everything but who the tenant is.
    fn nameless(&self, attempt: &Attempt, input: &StepInput) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let resource = input.resource;
        let spec = Spec {
            resource: resource.ok_or_else(|| Failure::fatal("bad_plan", "the step names no resource"))?,
            operation: operation.id,
            generation: input.generation,
            tenant: Tenant {
                id: tenant_id(operation)?,
                slug: String::new(),
                name: String::new(),
                plan: start.plan,
                region: start.region,
                locale: start.locale,
                admin: Person::default(),
            },
            name: input.name.clone(),
            claim: input.claim.clone(),
            settings: input.settings.clone(),
            inputs: BTreeMap::new(),
            note: attempt.step.note.clone(),
        };
        let context = Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            rows: self.rows.clone(),
            notes: std::sync::Arc::new(ProviderNotes(attempt.notes.clone())),
        };
        Ok((context, spec))
    }

    /// A receipt that can be kept: whole numbers as they are, everything else as HMACs.
    fn anonymous(&self, receipt: &Value) -> Value {
        match receipt {
            Value::Null | Value::Bool(_) => receipt.clone(),
            Value::Number(number) if !number.is_f64() => receipt.clone(),
            Value::Number(number) => Value::from(self.keyring.mac(NAME, &number.to_string())),
            Value::String(text) => Value::from(self.keyring.mac(NAME, text)),
            Value::Array(values) => values.iter().map(|value| self.anonymous(value)).collect(),
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), self.anonymous(value)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}
