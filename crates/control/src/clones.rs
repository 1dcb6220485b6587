//! Clones: a sandbox with another tenant's rows under masks, for support and tests. It is an onboarding like any other with one
//! step more: the rows pass from the one tenant's database into the other's, masked on their way, and lie nowhere in between.
//! Members, settings and subscriptions stay where they are, so that a clone mails nobody and bills nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{Attempt, Done, OperationState, Policy, Step};
use tenantry_model::{Failure, TenantId, TenantStatus, Write};
use tenantry_provider::masks::{MaskRule, Masks};
use tenantry_provider::pipe::pipe;
use tenantry_provider::portable::{Content, Nowhere, Source as _};
use tenantry_provider::{Context, Kind, Portable, Sealer as _};

use crate::access::{Caller, Permission};
use crate::archive::{LeftOut, Standing, taker};
use crate::control::Control;
use crate::error::{Error, FieldError, Result};
use crate::exports::TIMEOUT_MS;
use crate::idempotency::{IdempotencyKey, Once};
use crate::onboard::{Created, id_of};
use crate::planner::StepInput;
use crate::request::{AdminUser, CreateTenant};
use crate::steps::{ONBOARD, ProviderSteps, read, tenant_id};

/// Key and kind of the step.
pub const CLONE: &str = "clone";
/// What the clone's key is asked for.
const KEY: &str = "masks";

/// What a client sends to have a tenant cloned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneTenant {
    /// The clone's name; without it, the tenant's with ` (clone)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub tenant_name: Option<String>,
    /// The clone's DNS label; made from the name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub slug: Option<String>,
    /// Who gets into the clone: nobody of the tenant's does.
    pub admin_user: AdminUser,
    /// What is masked besides what the template says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 256))]
    pub masks: Vec<MaskRule>,
    /// Whether files come along. No mask is laid over those.
    #[serde(default)]
    pub files: bool,
}

/// What an onboarding takes over from another tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloning {
    /// That one.
    pub from: TenantId,
    /// What is masked.
    pub masks: Vec<MaskRule>,
    /// Whether files come along.
    pub files: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cloned {
    /// The tenant that it was taken over from.
    pub from: TenantId,
    /// What is in the clone's resources now, by the step that made them.
    pub resources: BTreeMap<String, Content>,
    /// What was not taken over.
    pub left_out: Vec<LeftOut>,
}

impl Control {
    /// Begins to make a clone of an active or suspended tenant, on the same plan and in the same region.
    pub async fn clone_tenant(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: CloneTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Created> {
        caller.require(Permission::CreateTenant)?;
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once = key.map(|key| Once::new(caller, &key, &format!("clone {}", row.id), &json!(what)));
        if let Some(once) = &once
            && let Some(answer) = self.made_before(once).await?
        {
            return self.created_before(&answer).await;
        }
        self.made(&row).await?;
        let from = id_of(&row)?;
        self.shared.keyring.load(from).await.map_err(Error::unavailable)?;
        let sealed = row.admin_sealed.as_deref().ok_or_else(|| Error::not_found("tenant"))?;
        let asked = self.shared.keyring.open(from, sealed).map_err(Error::internal)?;
        let asked: CreateTenant =
            serde_json::from_str(&asked).map_err(|_| Error::internal("the sealed request does not fit"))?;
        let template = self.shared.templates.latest(&row.template);
        let always = template.map(|template| template.masks.as_slice()).unwrap_or_default();
        let CloneTenant { tenant_name, slug, admin_user, masks, files } = what;
        let faults = faults_beside(always, &masks);
        if !faults.is_empty() {
            return Err(Error::invalid("request_invalid", faults));
        }
        let name = tenant_name.unwrap_or_else(|| format!("{} (clone)", row.name.unwrap_or_default()));
        // Of what its customer wished, only what says how much room there is and where.
        let mut request = CreateTenant {
            tenant_name: name,
            organization_name: None,
            admin_user,
            configuration: None,
            slug,
            region: Some(row.region),
            locale: Some(row.locale),
            labels: BTreeMap::new(),
            cloning: Some(Cloning { from, masks: [always, &masks].concat(), files }),
            ..asked
        };
        request.subscription.plan = row.plan;
        self.create(caller, request, once.as_ref()).await
    }
}

/// What is wrong with rules by themselves.
pub(crate) fn mask_faults(rules: &[MaskRule]) -> Vec<FieldError> {
    faults_beside(&[], rules)
}

fn faults_beside(always: &[MaskRule], rules: &[MaskRule]) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let mut fault = |field: &str, why: &str| {
            faults.push(FieldError::new(format!("masks[{place}].{field}"), why));
        };
        if let Some((field, why)) = rule.fault() {
            fault(field, why);
        }
        let same = |other: &MaskRule| (&other.table, &other.column) == (&rule.table, &rule.column);
        if always.iter().any(same) {
            fault("column", "is masked by the template already, and no request changes that");
        } else if rules.iter().take(place).any(same) {
            fault("column", "has a mask already; give one for each column");
        }
    }
    faults
}

/// Makes an onboarding's plan that of a clone: its content comes last, so that the test before knows nothing of it, and nobody
/// is billed.
pub(crate) fn join(steps: &mut Vec<Step>, cloning: &Cloning) -> Result<()> {
    let billing = Kind::Billing.as_str();
    let unbilled: Vec<String> =
        steps.iter().filter(|step| step.kind == billing).map(|step| step.key.clone()).collect();
    steps.retain(|step| step.kind != billing);
    for step in steps.iter_mut() {
        step.needs.retain(|need| !unbilled.contains(need));
    }
    let Some(at) = steps.iter().position(|step| step.kind == "activate") else {
        return Err(Error::internal("a plan without an activation"));
    };
    let input = StepInput { settings: json!(cloning), ..StepInput::default() };
    let policy = Policy { timeout_ms: TIMEOUT_MS, ..Policy::default() };
    let mut clone = Step::new(CLONE, CLONE, "tenantry", policy, json!(input));
    if let Some(activate) = steps.get_mut(at) {
        clone.needs = std::mem::replace(&mut activate.needs, vec![CLONE.to_owned()]);
    }
    steps.insert(at, clone);
    for (place, step) in steps.iter_mut().enumerate() {
        step.position = i32::try_from(place).unwrap_or(i32::MAX);
    }
    Ok(())
}

impl ProviderSteps {
    /// Brings the other tenant's content over. Another attempt puts it in the place of what came before.
    pub(crate) async fn clone_content(&self, attempt: &Attempt) -> std::result::Result<Done<Write>, Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let Cloning { from, masks, files } = read(&input.settings)?;
        let theirs = self.of_source(attempt, from).await?;
        let ours = self.standing(attempt).await?;
        let context = self.context(attempt);
        let key = self.keyring.derive(tenant_id(&attempt.operation)?, KEY)?;
        let mut masks = Masks::new(masks, &key);
        let mut cloned = Cloned { from, resources: BTreeMap::new(), left_out: Vec::new() };
        for standing in &theirs {
            let provider = standing.provider.as_ref().map_err(|name| {
                Failure::fatal("no_provider", format!("provider `{name}` is not configured here"))
            })?;
            let kind = provider.kind();
            let to = match (kind, provider.portable()) {
                (Kind::Bucket, _) if !files => Err("files come along only if they are asked for"),
                (Kind::Database | Kind::Bucket, Some(portable)) => {
                    taker(&standing.step, &standing.kind, portable.form(), &ours).map(|to| (portable, to))
                }
                (Kind::Database | Kind::Bucket, None) => Err("its provider cannot hand out what it holds"),
                _ => Err("a clone has its own"),
            };
            match to {
                Ok((portable, to)) => {
                    let masks = (kind == Kind::Database).then_some(&mut masks);
                    let calls = [provider.name(), to.1.provider.as_ref().map_or("", |it| it.name())];
                    let bringing = bring(&context, (portable, standing), to, masks);
                    let content = self.serving.sharing(&calls, bringing).await??;
                    cloned.resources.insert(to.1.step.clone(), content);
                }
                Err(why) => cloned.left_out.push(LeftOut {
                    step: standing.step.clone(),
                    provider: provider.name().to_owned(),
                    why: why.to_owned(),
                }),
            }
        }
        masks.all_met()?;
        // Whose end has begun meanwhile gives nothing away any more.
        self.must_stand(from).await?;
        Ok(Done { output: json!(cloned), effects: Vec::new() })
    }

    /// What the tenant has that is cloned.
    async fn of_source(
        &self,
        attempt: &Attempt,
        from: TenantId,
    ) -> std::result::Result<Vec<Standing>, Failure> {
        self.must_stand(from).await?;
        let made = self.store.latest_run(&from.to_string(), ONBOARD, OperationState::Succeeded).await;
        let made = made.map_err(|why| Failure::retryable("registry_unavailable", why))?;
        let made = made.ok_or_else(|| Failure::fatal("bad_ledger", "a tenant without its onboarding"))?;
        let theirs =
            Attempt { operation: Arc::new(made.operation), outputs: Arc::default(), ..attempt.clone() };
        self.standing(&theirs).await
    }

    async fn must_stand(&self, from: TenantId) -> std::result::Result<(), Failure> {
        let row = self.rows.find("tenants", &[("id", json!(from))]).await?.pop();
        let status: Option<TenantStatus> = row.and_then(|row| row["status"].as_str()?.parse().ok());
        match status {
            Some(TenantStatus::Active | TenantStatus::Suspended) => Ok(()),
            _ => Err(Failure::invalid("source_gone", format!("the tenant {from} is not there to be cloned"))),
        }
    }
}

/// Brings what a resource has into another one, and looks whether all of it has come.
async fn bring(
    context: &Context,
    (from, theirs): (&dyn Portable, &Standing),
    (to, ours): (&dyn Portable, &Standing),
    masks: Option<&mut Masks>,
) -> std::result::Result<Content, Failure> {
    let masked = masks.is_some();
    let (mut inlet, mut outlet) = pipe();
    let give = async move {
        let given = match masks {
            Some(masks) => from.export(context, &theirs.spec, &mut masks.over(&mut inlet)).await?,
            None => from.export(context, &theirs.spec, &mut inlet).await?,
        };
        inlet.end().await.map(|()| given)
    };
    let take = async move {
        let writes = to.load(context, &ours.spec, &mut outlet).await?;
        while outlet.next().await?.is_some() {}
        Ok(writes)
    };
    let given = match tokio::join!(give, take) {
        (Ok(given), Ok(writes)) if writes.is_empty() => given,
        (Ok(_), Ok(_)) => return Err(Failure::fatal("bad_plan", "rows of the registry are not cloned")),
        // Whoever fails first cuts the other one off.
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
        (Err(given), Err(taken)) => return Err(if taken.code == "cut_off" { given } else { taken }),
    };
    let content = to.export(context, &ours.spec, &mut Nowhere).await?;
    let same = if masked { content.counts == given.counts } else { content == given };
    if same {
        return Ok(content);
    }
    let message = format!("what is in `{}` now is not what was brought", ours.step);
    Err(Failure::retryable("content_differs", message))
}
