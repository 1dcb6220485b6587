//! Operations in the API: begin, read, list, follow and signal them, and claim their secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tenantry_model::ErrorCode;

use serde_json::{Value, json};
use tenantry_engine::decide::refuse;
use tenantry_engine::{
    Changes, CommitError, Ledger as _, OperationState, Run, Signal, SignalKind, Step, StepState, Wait,
};
use tenantry_model::Write;
use tenantry_model::id::{OperationId, SignalId};
use tenantry_model::text::reason_fault;
use tenantry_provider::Sealer;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::registry::{action, operation_of};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission, Scope};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::error::ErrorView;
use crate::error::{Error, FieldError, Result};
use crate::ledger::{Act, OperationInput, StepInput, input_of, tenant_id};
use crate::operations::view::{
    ApprovalView, CredentialView, OperationView, ResourceView, ResponseView, StepView,
};
use tenantry_store::keyring::KeyringError;
use tenantry_store::record::{AuditRecord, audit};

/// Longest wait for a signal to take effect before the request is answered.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for an unavailable registry when an operation begins.
const BEGIN_PATIENCE: Duration = Duration::from_secs(5);
/// First pause before the next attempt; doubled each time.
const BEGIN_PAUSE: Duration = Duration::from_millis(50);

/// Filter of a list of operations.
#[derive(Clone, Debug, Default)]
pub struct OperationQuery {
    /// Of this tenant, by id or slug.
    pub tenant: Option<String>,
    /// In this state.
    pub state: Option<OperationState>,
}

impl Control {
    /// Begins an operation. Waits while the registry does not answer or the leader changes: the operation's id tells whether an
    /// earlier attempt has begun it. With `Unavailable` that stays unknown.
    pub(crate) async fn submit(
        &self,
        run: Run,
        effects: Vec<Write>,
    ) -> std::result::Result<Arc<Run>, CommitError> {
        let give_up = Instant::now() + BEGIN_PATIENCE;
        let (mut pause, mut in_doubt) = (BEGIN_PAUSE, false);
        loop {
            let refused = match self.shared.executor.submit(run.clone(), effects.clone()).await {
                Ok(begun) => return Ok(begun),
                Err(refused) => refused,
            };
            // Stale: it has begun already, or this process does not know yet of another leader.
            let again = matches!(refused, CommitError::Unavailable(_) | CommitError::Stale);
            if !again && !in_doubt {
                return Err(refused);
            }
            in_doubt = true;
            match self.shared.store.load(run.operation.id).await {
                Ok(Some((begun, _))) => return Ok(Arc::new(begun)),
                Ok(None) if !again => return Err(refused),
                Ok(None) | Err(_) if Instant::now() + pause >= give_up => {
                    return Err(CommitError::Unavailable(refused.to_string()));
                }
                Ok(None) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
    }

    /// An operation.
    pub async fn operation(&self, caller: &Caller, id: OperationId) -> Result<OperationView> {
        let run = self.visible_run(caller, Permission::ReadOperations, id).await?;
        self.operation_view(&run).await
    }

    /// Operations, newest first.
    pub async fn operations(
        &self,
        caller: &Caller,
        query: &OperationQuery,
        page: &PageQuery,
    ) -> Result<Page<OperationView>> {
        caller.require(Permission::ListOperations)?;
        let tenant = match (&query.tenant, caller.tenant) {
            (Some(tenant), _) => Some(self.tenant_row(caller, tenant).await?.id),
            (None, own) => own.map(|own| own.to_string()),
        };
        let store = &self.shared.store;
        let runs = store.operations(tenant.as_deref(), query.state, page.cursor(), page.probe()).await;
        let runs = runs.map_err(Error::unavailable)?;
        let readable = runs.iter().filter_map(|(_, run)| run.as_ref().ok());
        let waiting = self.credentials_waiting(readable).await?;
        let mut views = Vec::with_capacity(runs.len());
        for (id, run) in runs {
            let view = match run {
                Ok(run) => self.view_of(&run, waiting.contains(&id)).await,
                Err(why) => Err(Error::internal(why)),
            };
            views.push((id, view));
        }
        page.cut(views, |(id, _)| id.clone(), |(_, view)| view)
    }

    /// Sends a signal to an operation and returns the operation afterwards. Fails if the signal cannot be applied now.
    pub async fn signal(
        &self,
        caller: &Caller,
        id: OperationId,
        kind: SignalKind,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        let run = self.visible_run(caller, Permission::SignalOperations, id).await?;
        if let SignalKind::Skip { reason, .. } | SignalKind::Reject { reason, .. } = &kind
            && let Some(why) = reason_fault(reason)
        {
            return Err(Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("reason", why)]));
        }
        let once = key.map(|key| Once::new(caller, &key, &format!("signal {id}"), &json!(kind)));
        match self.once(once.as_ref(), self.try_signal(caller, &run, kind, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    async fn try_signal(
        &self,
        caller: &Caller,
        run: &Run,
        kind: SignalKind,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let (id, unit) = (run.operation.id, operation_of(&run.operation));
        if let SignalKind::Skip { step, .. } | SignalKind::Approve { step } | SignalKind::Reject { step, .. } =
            &kind
            && run.step(step).is_none()
        {
            let keys: Vec<_> = run.steps.iter().map(|s| s.key.as_str()).collect();
            let message = format!("there is no such step; the steps are {}", keys.join(", "));
            return Err(Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("step", message)]));
        }
        if let SignalKind::Skip { step, .. } = &kind
            && let Some(found) = run.step(step)
        {
            unit.may_skip(found).map_err(|why| {
                Error::new(ErrorCode::SignalRefused, format!("step `{step}` cannot be skipped: {why}"))
            })?;
        }
        if kind == SignalKind::Cancel {
            unit.may_cancel().map_err(|why| Error::new(ErrorCode::SignalRefused, why))?;
        }
        if let SignalKind::Approve { step } | SignalKind::Reject { step, .. } = &kind {
            may_approve(caller, run.step(step))?;
        }
        refuse(run, &kind).map_err(|why| Error::new(ErrorCode::SignalRefused, why))?;
        let mut changes = self.shared.executor.follow(id);
        let now = self.now();
        let tenant = tenant_id(&run.operation).map_err(Error::internal)?;
        let target = id.to_string();
        let mut data = json!(&kind);
        // The audit trail outlives the tenant, and a reason may name a person: it is kept with the operation only.
        data.as_object_mut().map(|data| data.remove("reason"));
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "operation.signal",
            target: &target,
            tenant: Some(tenant),
            data,
        };
        let signal = Signal { id: SignalId::new(), kind, by: caller.principal.clone(), at: now };
        let mut effects = vec![audit(audited, now)];
        effects.extend(once.map(|once| once.guard(&json!({ "operation_id": id }), Some(tenant), now)));
        let found = self.shared.executor.signal(id, signal, effects).await.map_err(Error::unavailable)?;
        if !found {
            return Err(Error::not_found("operation"));
        }
        let changed = async {
            loop {
                match changes.next().await {
                    Ok(new) if new.operation.version > run.operation.version => return Some(new),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        };
        match tokio::time::timeout(SIGNAL_PATIENCE, changed).await {
            Ok(Some(run)) => self.operation_view(&run).await,
            _ => self.operation_view(&*self.run(id).await?).await,
        }
    }

    /// The operation once it is done, or after the timeout.
    pub async fn wait(&self, caller: &Caller, id: OperationId, timeout: Duration) -> Result<OperationView> {
        let mut changes = self.shared.executor.follow(id);
        let run = self.visible_run(caller, Permission::ReadOperations, id).await?;
        let done = async {
            let mut run = run.clone();
            while !run.operation.state.is_final() {
                match changes.next().await {
                    Ok(new) if new.operation.version > run.operation.version => run = new,
                    Ok(_) => {}
                    // Changes were missed, perhaps the last one.
                    Err(broadcast::error::RecvError::Lagged(_)) => run = self.run(id).await?,
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
            Ok::<_, Error>(run)
        };
        match tokio::time::timeout(timeout, done).await {
            Ok(run) => self.operation_view(&*run?).await,
            Err(_) => self.operation_view(&*self.run(id).await?).await,
        }
    }

    /// Follows the committed changes of this operation.
    pub fn follow(&self, id: OperationId) -> Changes {
        self.shared.executor.follow(id)
    }

    /// Returns the secrets that an operation created, once.
    pub async fn claim_credentials(&self, caller: &Caller, id: OperationId) -> Result<Vec<CredentialView>> {
        let run = self.visible_run(caller, Permission::ClaimCredentials, id).await?;
        if !run.operation.state.is_final() {
            return Err(Error::new(
                ErrorCode::OperationRunning,
                "the operation is still running: claim its secrets when it has ended",
            ));
        }
        let tenant = tenant_id(&run.operation).map_err(Error::internal)?;
        let now = self.now();
        let target = id.to_string();
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "credentials.claim",
            target: &target,
            tenant: Some(tenant),
            data: Value::Null,
        };
        let gone = || {
            let message = "the operation has no unclaimed secrets: it created none, a client has claimed them already, \
                           or the tenant was erased";
            Error::new(ErrorCode::CredentialsGone, message)
        };
        // The secrets are returned once, so the key is loaded before they are marked as claimed.
        match self.shared.keyring.load(tenant).await {
            Err(KeyringError::Destroyed(_)) => return Err(gone()),
            loaded => loaded.map_err(Error::unavailable)?,
        }
        let store = &self.shared.store;
        let sealed =
            store.claim_credentials(&target, now, audit(audited, now)).await.map_err(Error::unavailable)?;
        if sealed.is_empty() {
            return Err(gone());
        }
        let open = |(name, sealed): (String, String)| {
            let value = self.shared.keyring.open(tenant, &sealed).map_err(Error::internal)?;
            Ok(CredentialView { name, value })
        };
        sealed.into_iter().map(open).collect()
    }

    /// The operation of an earlier request with the same idempotency key.
    pub(crate) async fn answered_before(&self, answer: &Value) -> Result<Answered<OperationView>> {
        let id = answer.get("operation_id").and_then(Value::as_str).unwrap_or_default();
        let run = self.run(id.parse().map_err(Error::internal)?).await?;
        Ok(Answered { value: self.operation_view(&run).await?, replayed: true })
    }

    pub(crate) async fn run(&self, id: OperationId) -> Result<Arc<Run>> {
        let run = self.shared.store.run(id).await.map_err(Error::unavailable)?;
        run.map(Arc::new).ok_or_else(|| Error::not_found("operation"))
    }

    /// The operation. Fails if the caller lacks the permission for it.
    async fn visible_run(
        &self,
        caller: &Caller,
        permission: Permission,
        id: OperationId,
    ) -> Result<Arc<Run>> {
        caller.require(permission)?;
        let run = self.run(id).await?;
        let tenant = tenant_id(&run.operation).map_err(Error::internal)?;
        let begun_by = run.operation.input.get("begun_by").and_then(Value::as_str).unwrap_or_default();
        caller.may_see_operation(permission, tenant, begun_by)?;
        Ok(run)
    }

    pub(crate) async fn operation_view(&self, run: &Run) -> Result<OperationView> {
        let waiting = self.credentials_waiting([run]).await?;
        self.view_of(run, !waiting.is_empty()).await
    }

    /// Ids of the operations, of these, that have unclaimed secrets. Runs one query.
    async fn credentials_waiting(&self, runs: impl IntoIterator<Item = &Run>) -> Result<BTreeSet<String>> {
        let succeeded = runs.into_iter().filter(|run| run.operation.state == OperationState::Succeeded);
        let ids: Vec<String> = succeeded.map(|run| run.operation.id.to_string()).collect();
        self.shared.store.credentials_waiting(&ids).await.map_err(Error::unavailable)
    }

    async fn view_of(&self, run: &Run, credentials_waiting: bool) -> Result<OperationView> {
        let operation = &run.operation;
        let start: OperationInput =
            serde_json::from_value(operation.input.clone()).map_err(Error::internal)?;
        let over = run.steps.iter().filter(|step| step.state.is_over()).count();
        let done = operation.state.is_final();
        let eta = if done { None } else { self.eta(&start, run).await? };
        let error = operation.error.as_ref().map(|e| ErrorView::of(e, operation.error_step.as_deref()));
        let tenant_id = tenant_id(operation).map_err(Error::internal)?;
        // After the end, the certificate names them.
        let clones = match operation_of(operation).ends_tenant() && !done {
            true => self.clones_of(tenant_id).await?,
            false => Vec::new(),
        };
        Ok(OperationView {
            id: operation.id,
            tenant_id,
            kind: operation.kind.clone(),
            parent_id: operation.parent,
            state: operation.state,
            done,
            progress: if run.steps.is_empty() { 1.0 } else { over as f64 / run.steps.len() as f64 },
            eta,
            template: start.template,
            template_version: start.template_version,
            version: operation.version,
            created_at: operation.created_at,
            updated_at: operation.updated_at,
            finished_at: operation.finished_at,
            stuck: operation.stuck,
            steps: run.steps.iter().map(step_view).collect(),
            clones,
            response: (operation.state == OperationState::Succeeded)
                .then(|| response(run, credentials_waiting))
                .transpose()?,
            error,
        })
    }
}

/// Fails if the step waits for an approval and the caller has none of the scopes for it.
fn may_approve(caller: &Caller, step: Option<&Step>) -> Result<()> {
    let Some(asked) = step.and_then(approval_view) else { return Ok(()) };
    if caller.scopes.iter().any(|scope| *scope == Scope::Admin || asked.from.contains(scope)) {
        return Ok(());
    }
    let from: Vec<String> = asked.from.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
    let message = format!(
        "the API key may not approve this step: use one with the scope admin or {}",
        from.join(" or ")
    );
    Err(Error::new(ErrorCode::Forbidden, message))
}

/// The approval that a step waits for.
pub(crate) fn approval_view(step: &Step) -> Option<ApprovalView> {
    (step.policy.wait == Some(Wait::Approval)).then(|| {
        let settings = step.input.get("settings").cloned().unwrap_or_default();
        serde_json::from_value(settings).unwrap_or_default()
    })
}

fn step_view(step: &Step) -> StepView {
    StepView {
        key: step.key.clone(),
        kind: step.kind.clone(),
        provider: step.provider.clone(),
        needs: step.needs.clone(),
        mode: step.policy.mode,
        state: step.state,
        attempts: step.attempts,
        failing_since: step.failing_since.filter(|_| step.waits()),
        waits_for: step.waits_for().map(str::to_owned),
        due_at: step.due_at,
        started_at: step.started_at,
        finished_at: step.finished_at,
        error: step.error.as_ref().map(|e| ErrorView::of(e, None)),
        operation_id: step.child,
        approval: approval_view(step),
    }
}

/// The result of an operation that succeeded.
fn response(run: &Run, credentials_waiting: bool) -> Result<ResponseView> {
    let mut response = ResponseView {
        tenant_id: tenant_id(&run.operation).map_err(Error::internal)?,
        status: "success".to_owned(),
        resources: BTreeMap::new(),
        archives: BTreeMap::new(),
        loaded: None,
        cloned: None,
        credentials_waiting,
    };
    for step in run.steps.iter().filter(|step| step.state == StepState::Done) {
        if let Ok(StepInput { resource: Some(_), name, act: Act::Ensure | Act::Rotate, .. }) = input_of(step)
        {
            let (kind, provider, outputs) = (step.kind.clone(), step.provider.clone(), step.output.clone());
            response.resources.insert(step.key.clone(), ResourceView { kind, provider, name, outputs });
        }
        if let Ok(action) = action(step) {
            action.respond(step, &mut response);
        }
    }
    Ok(response)
}
