//! The code behind the steps: from a step of the engine to a verb of a provider and back, and what the registry says
//! about it in the same transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::decide::SUPERSEDED;
use tenantry_engine::{
    Attempt, Done, Mode, OnFailure, Operation, OperationState, Policy, Run, Step, StepState, Steps, Verb,
};
use tenantry_model::lifecycle::{Event, next};
use tenantry_model::suspension::{Grade, Suspensions};
use tenantry_model::{Columns, Failure, TenantId, TenantStatus, Timestamp, Write, columns};
use tenantry_providers::{Context, Observed, Person, Provider, Registry, Rows, Sealer, Spec, Tenant};

use crate::archive::{ArchiveSettings, Archives, LoadSettings, Purpose, Standing};
use crate::capacity::{Place, Places};
use crate::clones::CLONE;
use crate::keyring::Keyring;
use crate::leaving::plan as end;
use crate::planner::{Act, StepInput};
use crate::record::{Deed, Fact, audit, event};
use crate::repair::repaired;
use crate::rotation::ROTATE_CREDENTIALS;
use crate::secret;
use crate::serving::Serving;
use crate::smoke::{self, Canary, Front, SmokeSettings};
use crate::store::Store;
use crate::suspension::denied;
use crate::view::ErrorView;

/// The kind of an operation that makes a tenant.
pub const ONBOARD: &str = "onboard";

/// The kind of an operation that makes so again what a tenant has.
pub const REPAIR: &str = "repair";

/// Where the output of a reservation has its places.
const PLACES: &str = "places";

/// Kinds of steps that nobody may leave out: a tenant that is active has passed its smoke test (S0.37).
pub const VITAL: [&str; 2] = ["smoke_test", "activate"];

/// What an operation remembers of its beginning. Its fields are API: old ledgers must load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationInput {
    /// The plan's name.
    pub plan: String,
    /// The template's name.
    pub template: String,
    /// Its version: the operation keeps it whatever is published meanwhile.
    pub template_version: u32,
    /// Where the resources are.
    pub region: String,
    /// Language of seeds and mails.
    pub locale: String,
    /// How often the tenant was provisioned, this time included.
    pub generation: i64,
    /// `Personal`, sealed under the tenant's key.
    pub sealed: String,
    /// Who began it, or the operation that it was detached from: a principal's id.
    #[serde(default)]
    pub begun_by: String,
    /// Why, in the words of whoever asked for the tenant's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What may identify people; stands in the ledger only sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// The slug.
    pub slug: String,
    /// The tenant's name.
    pub name: String,
    /// The first administrator.
    pub admin: Person,
}

/// How long the smoke test's one-time code is good for, in seconds.
const SMOKE_CODE_SECONDS: u64 = 300;

/// Carries steps to providers.
pub struct ProviderSteps {
    pub(crate) providers: Registry,
    pub(crate) serving: Arc<Serving>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) store: Store,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) places: Arc<Places>,
    pub(crate) archives: Arc<Archives>,
    /// Whose turn it is to issue a certificate: each names the one before it.
    pub(crate) certifying: Arc<tokio::sync::Mutex<()>>,
    front: OnceLock<Arc<dyn Front>>,
}

impl ProviderSteps {
    /// Steps over these providers.
    pub fn new(
        providers: Registry,
        serving: Arc<Serving>,
        keyring: Arc<Keyring>,
        store: Store,
        places: Arc<Places>,
        archives: Arc<Archives>,
    ) -> Self {
        let rows = Arc::new(store.clone());
        let (certifying, front) = (Arc::default(), OnceLock::new());
        Self { providers, serving, keyring, store, rows, places, archives, certifying, front }
    }

    /// Gives the smoke test its endpoints. Only the first call counts.
    pub fn set_front(&self, front: Arc<dyn Front>) {
        let _ = self.front.set(front);
    }

    fn provider(&self, step: &Step) -> Option<&Arc<dyn Provider>> {
        self.providers.get(&step.provider)
    }

    /// The smoke test's one-time code: known to nobody but this process, without being stored.
    fn smoke_code(&self, operation: &Operation, step: &Step) -> String {
        Sealer::mac(&*self.keyring, "smoke_test", &format!("{}:{}:{}", operation.id, step.key, step.attempts))
    }

    pub(crate) async fn spec(
        &self,
        attempt: &Attempt,
        input: &StepInput,
    ) -> Result<(Context, Spec), Failure> {
        let operation = &attempt.operation;
        let start: OperationInput = read(&operation.input)?;
        let tenant = tenant_id(operation)?;
        self.keyring.load(tenant).await?;
        let personal: Personal = read_text(&self.keyring.open(tenant, &start.sealed)?)?;
        let resource =
            input.resource.ok_or_else(|| Failure::fatal("bad_plan", "the step names no resource"))?;
        let spec = Spec {
            resource,
            operation: operation.parent.unwrap_or(operation.id),
            generation: input.generation,
            tenant: Tenant {
                id: tenant,
                slug: personal.slug,
                name: personal.name,
                plan: start.plan,
                region: start.region,
                locale: start.locale,
                admin: personal.admin,
            },
            name: input.name.clone(),
            claim: input.claim.clone(),
            settings: input.settings.clone(),
            inputs: attempt
                .step
                .needs
                .iter()
                .filter_map(|need| Some((need.clone(), attempt.outputs.get(need)?.clone())))
                .collect::<BTreeMap<_, _>>(),
            note: attempt.step.note.clone(),
        };
        Ok((self.context(attempt), spec))
    }

    pub(crate) fn context(&self, attempt: &Attempt) -> Context {
        let operation = &attempt.operation;
        Context {
            now: attempt.now,
            sealer: self.keyring.clone(),
            // An onboarding that is not yet in the ledger is for a tenant that is new: there is nothing to read.
            rows: if operation.version == 0 && operation.kind == ONBOARD {
                Arc::new(NoRows)
            } else {
                self.rows.clone()
            },
            notes: Arc::new(ProviderNotes(attempt.notes.clone())),
        }
    }

    async fn ensure(&self, attempt: &Attempt, provider: &dyn Provider) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        self.serving.check(provider.name(), &spec.tenant.region)?;
        let place = self.serving.place(provider).await;
        let ensured = match attempt.operation.kind == REPAIR && !provider.transactional() {
            true => repaired(provider, &context, &spec).await?,
            false => provider.ensure(&context, &spec).await?,
        };
        drop(place);
        let mut effects = ensured.writes;
        if attempt.operation.kind == REPAIR {
            let now = columns! { "outputs": ensured.outputs, "updated_at": attempt.now };
            effects.push(Write::update("resources", columns! { "id": spec.resource }, now));
        } else {
            let row = resource_row(
                &attempt.operation,
                &attempt.step,
                &input,
                "present",
                &ensured.outputs,
                attempt.now,
            );
            effects.extend(row.map(|row| Write::upsert("resources", row)));
        }
        Ok(Done { output: ensured.outputs, effects })
    }

    async fn remove(&self, attempt: &Attempt, provider: &dyn Provider) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.spec(attempt, &input).await?;
        let place = self.serving.place(provider).await;
        let removed = provider.remove(&context, &spec).await?;
        drop(place);
        if !provider.transactional()
            && matches!(provider.observe(&context, &spec).await?, Observed::Present { .. })
        {
            return Err(Failure::retryable("still_there", "the resource is still there after its removal"));
        }
        let mut effects = removed.writes;
        let row =
            resource_row(&attempt.operation, &attempt.step, &input, "absent", &removed.receipt, attempt.now);
        effects.extend(row.map(|row| Write::upsert("resources", row)));
        // The forward output stays: it tells what was made; the receipt stands with the resource.
        Ok(Done { output: attempt.step.output.clone(), effects })
    }

    async fn smoke_test(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let front = self
            .front
            .get()
            .ok_or_else(|| Failure::retryable("not_ready", "the server is still starting"))?;
        let input: StepInput = read(&attempt.step.input)?;
        let settings: SmokeSettings = read(&input.settings)?;
        let canary: Option<Canary> = attempt
            .outputs
            .values()
            .find_map(|output| serde_json::from_value(output.get("canary")?.clone()).ok());
        let code = self.smoke_code(&attempt.operation, &attempt.step);
        let tenant = tenant_id(&attempt.operation)?;
        let output = smoke::run(&**front, tenant, &code, &settings, canary.as_ref()).await?;
        // Used or not, the code has done its work.
        let code = columns! { "hash": secret::fingerprint(&code) };
        Ok(Done { output, effects: vec![Write::delete("sign_in_codes", code)] })
    }

    async fn reserve(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let input: StepInput = read(&attempt.step.input)?;
        let start: OperationInput = read(&operation.input)?;
        let needed = read(&input.settings)?;
        let tenant = tenant_id(operation)?;
        let (places, effects) = self.places.reserve(tenant, &start.region, &needed, attempt.now).await?;
        Ok(Done { output: json!({ PLACES: places }), effects })
    }

    async fn give_back(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let effects = self.places.give_back(tenant_id(&attempt.operation)?).await?;
        Ok(Done { output: attempt.step.output.clone(), effects })
    }

    /// What the tenant has by now, each as the step that made it was planned.
    pub(crate) async fn standing(&self, attempt: &Attempt) -> Result<Vec<Standing>, Failure> {
        let subject = &attempt.operation.subject;
        let of_tenant = [("tenant_id", json!(subject)), ("state", json!("present"))];
        let rows = self.rows.find("resources", &of_tenant).await?;
        let runs = self.store.runs_of(subject).await;
        let runs = runs.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let mut made_by = HashMap::new();
        for step in runs.iter().flat_map(|run| &run.steps) {
            let input: StepInput = read(&step.input)?;
            if let (Some(resource), Act::Ensure) = (input.resource, input.act) {
                made_by.entry(resource.to_string()).or_insert((&step.key, input));
            }
        }
        let mut standing = Vec::with_capacity(rows.len());
        for row in rows {
            let made = row["id"].as_str().and_then(|id| made_by.get(id));
            let (key, input) =
                made.ok_or_else(|| Failure::fatal("bad_ledger", "a resource without its step"))?;
            let (_, spec) = self.spec(attempt, input).await?;
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let provider = self.providers.get(&text("provider")).cloned().ok_or_else(|| text("provider"));
            standing.push(Standing { step: (*key).clone(), provider, kind: text("kind"), spec });
        }
        // The order in which they lie in an archive.
        standing.sort_by(|a, b| a.step.cmp(&b.step));
        Ok(standing)
    }

    async fn archive(&self, attempt: &Attempt, purpose: Purpose) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let settings: ArchiveSettings = settings_of(&input)?;
        let (context, tenant) = (self.context(attempt), tenant_id(&attempt.operation)?);
        let standing = self.standing(attempt).await?;
        if attempt.verb == Verb::Undo {
            return self.archives.unmake(attempt, &context, &standing).await;
        }
        let mut done = self.archives.make(attempt, purpose, &settings, &context, tenant, &standing).await?;
        let output = &done.output;
        let data =
            json!({ "archive": output["id"], "size": output["size"], "expires_at": output["expires_at"] });
        let kind = if purpose == Purpose::Backup { "tenant.backed_up" } else { "tenant.exported" };
        let operation = Some(attempt.operation.id);
        done.effects.push(event(Fact { kind, tenant, operation, data, sealed: None }, attempt.now));
        Ok(done)
    }

    async fn load(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let settings: LoadSettings = read(&input.settings)?;
        let (context, tenant) = (self.context(attempt), tenant_id(&attempt.operation)?);
        let mut done =
            self.archives.load(&settings, &context, tenant, &self.standing(attempt).await?).await?;
        let (operation, data) = (Some(attempt.operation.id), json!({ "archive": settings.archive }));
        let fact = Fact { kind: "tenant.restored", tenant, operation, data, sealed: None };
        done.effects.push(event(fact, attempt.now));
        Ok(done)
    }

    /// Activation is the point of no return: the template's check lets nothing inline come after it.
    async fn activate(&self, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let operation = &attempt.operation;
        let tenant = tenant_id(operation)?;
        let start: OperationInput = read(&operation.input)?;
        let illegal = |why| Failure::fatal("illegal", why);
        let mut status = next(TenantStatus::Provisioning, Event::Activate).map_err(illegal)?;
        // Reasons that came while it was made count from here on.
        let row = self.rows.find("tenants", &[("id", json!(tenant))]).await?.pop();
        let mut row = row.ok_or_else(|| Failure::fatal("no_tenant", "the tenant's row is missing"))?;
        let suspensions: Suspensions = read(&row["suspensions"].take())?;
        if !suspensions.0.is_empty() {
            status = next(status, Event::Suspend).map_err(illegal)?;
        }
        let fact = Fact {
            kind: "tenant.provisioned",
            tenant,
            operation: Some(operation.id),
            data: json!({ "plan": start.plan, "region": start.region }),
            sealed: Some(start.sealed),
        };
        let id = tenant.to_string();
        let deed = Deed {
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
                    "suspended_at": suspensions.since(), "denied": denied(status, &suspensions).map(Grade::as_str),
                },
            ),
            event(fact, attempt.now),
            audit(deed, attempt.now),
        ];
        for places in attempt.outputs.values().filter_map(|output| output.get(PLACES)) {
            let places: Vec<Place> = read(places)?;
            effects.extend(Places::keep(tenant, &places));
        }
        Ok(Done { output: Value::Null, effects })
    }
}

#[async_trait]
impl Steps for ProviderSteps {
    type Effect = Write;

    fn transactional(&self, step: &Step) -> bool {
        // What deletes must see what is committed, as an undo must.
        ["activate", "reserve"].contains(&step.kind.as_str())
            || !deletes(step) && self.provider(step).is_some_and(|provider| provider.transactional())
    }

    fn intend(&self, run: &Run, step: &Step, verb: Verb, now: Timestamp) -> Vec<Write> {
        let Ok(input) = read::<StepInput>(&step.input) else { return Vec::new() };
        if keeps(&run.operation) {
            // What stands is on record.
            return Vec::new();
        }
        if let (Act::Remove, Verb::Undo) = (input.act, verb) {
            return Vec::new();
        }
        if let (Act::Remove, Some(resource)) = (input.act, input.resource) {
            let removing = columns! { "state": "removing", "updated_at": now };
            return vec![Write::update("resources", columns! { "id": resource }, removing)];
        }
        if step.kind == "smoke_test" && verb == Verb::Do {
            let member = run.steps.iter().find_map(|s| s.output.get("member_id"));
            return vec![Write::upsert(
                "sign_in_codes",
                columns! {
                "hash": secret::fingerprint(&self.smoke_code(&run.operation, step)), "tenant_id": run.operation.subject,
                "member_id": member, "purpose": "smoke_test",
                "expires_at": now + std::time::Duration::from_secs(SMOKE_CODE_SECONDS), "used_at": () },
            )];
        }
        let state = if verb == Verb::Do { "creating" } else { "removing" };
        let row = resource_row(&run.operation, step, &input, state, &step.output, now);
        row.map(|row| Write::upsert("resources", row)).into_iter().collect()
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Done<Write>, Failure> {
        let nothing = Ok(Done { output: attempt.step.output.clone(), effects: Vec::new() });
        match (attempt.step.kind.as_str(), attempt.verb) {
            ("smoke_test", Verb::Do) => self.smoke_test(&attempt).await,
            ("activate", Verb::Do) => self.activate(&attempt).await,
            ("reserve", Verb::Do) => self.reserve(&attempt).await,
            ("reserve", Verb::Undo) => self.give_back(&attempt).await,
            ("export", _) => self.archive(&attempt, Purpose::Export).await,
            ("backup", _) => self.archive(&attempt, Purpose::Backup).await,
            ("load", Verb::Do) => self.load(&attempt).await,
            (CLONE, Verb::Do) => self.clone_content(&attempt).await,
            // What was there before is in no memory but an archive's: whoever wants it back loads that. A clone goes with its
            // resources.
            ("smoke_test" | "wait" | "load" | CLONE | end::STAND_DOWN, Verb::Undo) => nothing,
            (end::STAND_DOWN, Verb::Do) => self.stand_down(&attempt).await,
            (end::DISCARD, Verb::Do) => self.discard_archives(&attempt).await,
            (end::SCAN, Verb::Do) => self.scan(&attempt).await,
            (end::DESTROY_KEY, Verb::Do) => self.destroy_key(&attempt).await,
            (end::WIPE, Verb::Do) => self.wipe(&attempt).await,
            (end::SCAN_REGISTRY, Verb::Do) => self.scan_registry(&attempt).await,
            (end::CERTIFY, Verb::Do) => self.certify(&attempt).await,
            (_, Verb::Undo) if keeps(&attempt.operation) => nothing,
            _ => {
                let provider = self.provider(&attempt.step).ok_or_else(|| {
                    Failure::fatal(
                        "no_provider",
                        format!("provider `{}` is not configured here", attempt.step.provider),
                    )
                })?;
                match attempt.verb {
                    Verb::Do if deletes(&attempt.step) => self.delete(&attempt, &**provider).await,
                    Verb::Undo if deletes(&attempt.step) => self.begin_again(&attempt, &**provider).await,
                    Verb::Do if acts(&attempt.step, Act::Rotate) => self.rotate(&attempt, &**provider).await,
                    Verb::Do => self.ensure(&attempt, &**provider).await,
                    Verb::Undo => self.remove(&attempt, &**provider).await,
                }
            }
        }
    }

    fn detach(&self, operation: &Operation, step: &Step) -> Run {
        let (id, began) = (step.child.unwrap_or_default(), operation.updated_at);
        let child = Operation {
            parent: Some(operation.id),
            version: 1,
            epoch: operation.epoch,
            // As long as its parent may take, from now on.
            expected_by: operation.expected_by.map(|by| began + by.since(operation.created_at)),
            ..Operation::new(id, &operation.subject, &step.key, operation.input.clone(), began)
        };
        // A failure of its own never undoes what works: it asks for a person.
        let policy = Policy { mode: Mode::Inline, on_failure: OnFailure::Park, ..step.policy.clone() };
        let step = Step::new(&step.key, &step.kind, &step.provider, policy, step.input.clone());
        Run { operation: child, steps: vec![step] }
    }

    fn changed(&self, before: Option<&Operation>, after: &Run, now: Timestamp) -> Vec<Write> {
        let operation = &after.operation;
        let mut effects = Vec::new();
        let Ok(tenant) = tenant_id(operation) else { return effects };
        let entered = |state| operation.state == state && before.is_none_or(|b| b.state != state);
        let error = operation.error.as_ref().map(|e| ErrorView::of(e, operation.error_step.as_deref()));
        let alert = |kind, data| {
            let fact = Fact { kind, tenant, operation: Some(operation.id), data, sealed: None };
            tracing::error!(tenant = %tenant, operation = %operation.id, step = operation.error_step, "{kind}");
            event(fact, now)
        };
        // Whoever has taken over says what becomes of the tenant.
        let superseded = operation.error.as_ref().is_some_and(|error| error.code == SUPERSEDED);
        let undone =
            !superseded && (entered(OperationState::RolledBack) || entered(OperationState::Cancelled));
        if undone && operation.kind == ONBOARD && operation.parent.is_none() {
            if let Ok(status) = next(TenantStatus::Provisioning, Event::RollBack) {
                effects.push(Write::compare_and_set(
                    "tenants",
                    columns! { "id": tenant },
                    columns! { "status": TenantStatus::Provisioning },
                    columns! { "status": status, "last_error": error },
                ));
            }
            let data =
                json!({ "error": operation.error.as_ref().map(coded), "cancelled": operation.cancelled });
            effects.push(alert("tenant.provisioning_failed", data));
        }
        if entered(OperationState::Succeeded) && keeps(operation) {
            let steps: Vec<&str> = after.steps.iter().map(|step| step.key.as_str()).collect();
            let data = json!({ "steps": steps });
            let kind =
                if operation.kind == REPAIR { "tenant.repaired" } else { "tenant.credentials_rotated" };
            effects
                .push(event(Fact { kind, tenant, operation: Some(operation.id), data, sealed: None }, now));
        }
        if entered(OperationState::NeedsAttention) {
            let failed =
                after.steps.iter().filter(|s| matches!(s.state, StepState::Failed | StepState::UndoFailed));
            let failed: Vec<Value> = failed
                .filter_map(|s| Some(json!({ "step": s.key, "code": s.error.as_ref()?.code })))
                .collect();
            let error = operation.error.as_ref().map(coded);
            let data = json!({ "kind": operation.kind, "error": error, "steps": failed });
            effects.push(alert("operation.needs_attention", data));
        }
        if operation.stuck && before.is_some_and(|b| !b.stuck) {
            let running: Vec<&str> =
                after.steps.iter().filter(|s| !s.state.is_over()).map(|s| s.key.as_str()).collect();
            effects.push(alert("operation.stuck", json!({ "kind": operation.kind, "steps": running })));
        }
        effects
    }
}

/// A failure as an event tells it, which stays when its tenant is erased: the message may quote a name.
fn coded(failure: &Failure) -> Value {
    json!({ "code": failure.code })
}

/// Whether an operation works on what is the tenant's already, and makes nothing that could be undone.
fn keeps(operation: &Operation) -> bool {
    [REPAIR, ROTATE_CREDENTIALS].contains(&operation.kind.as_str())
}

/// Whether a step deletes what another one made.
fn deletes(step: &Step) -> bool {
    acts(step, Act::Remove)
}

fn acts(step: &Step, wanted: Act) -> bool {
    step.input.get("act").is_some_and(|act| Act::deserialize(act).is_ok_and(|act| act == wanted))
}

/// The tenant that an operation changes.
pub fn tenant_id(operation: &Operation) -> Result<TenantId, Failure> {
    operation
        .subject
        .parse()
        .map_err(|why| Failure::fatal("bad_ledger", format!("the operation's tenant {why}")))
}

fn resource_row(
    operation: &Operation,
    step: &Step,
    input: &StepInput,
    state: &str,
    outputs: &Value,
    now: Timestamp,
) -> Option<Columns> {
    let created_at = step.started_at.unwrap_or(now);
    let id = input.resource?;
    Some(columns! {
        "id": id, "tenant_id": operation.subject, "kind": step.kind, "provider": step.provider,
        "step_key": step.key, "name": input.name, "claim": input.claim, "generation": input.generation,
        "state": state, "outputs": outputs, "operation_id": operation.id, "created_at": created_at, "updated_at": now,
    })
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value)
        .map_err(|why| Failure::fatal("bad_ledger", format!("the ledger's record does not fit: {why}")))
}

/// What a step says, or nothing.
fn settings_of<T: serde::de::DeserializeOwned + Default>(input: &StepInput) -> Result<T, Failure> {
    if input.settings.is_null() { Ok(T::default()) } else { read(&input.settings) }
}

fn read_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    // The text holds personal data: its error may quote it, so it is not passed on.
    serde_json::from_str(text)
        .map_err(|_| Failure::fatal("bad_ledger", "the ledger's sealed record does not fit"))
}

/// The rows of a tenant that is not yet written.
struct NoRows;

#[async_trait]
impl Rows for NoRows {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

/// Passes a provider's note on to the ledger.
pub(crate) struct ProviderNotes(pub(crate) Arc<dyn tenantry_engine::run::Notes>);

#[async_trait]
impl tenantry_providers::Notes for ProviderNotes {
    async fn note(&self, note: Value) -> Result<(), Failure> {
        self.0.note(note).await
    }
}
