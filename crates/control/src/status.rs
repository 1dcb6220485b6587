//! How tenants really stand: asked of their providers at that moment, never read from what is recorded, and compared with
//! what was made (S3.39-43). What does not answer in time is said not to respond; nobody waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_engine::{Attempt, AttemptGuards, Run, Verb};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, TenantId, TenantStatus, Timestamp};
use tenantry_provider::{Kind, Observed, Order, Provider};
use tokio::time::timeout;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::{StepInput, id_of, read};
use tenantry_store::entity::{resource, tenant};

/// How long a resource may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tenants whose resources are asked at the same time.
const AT_ONCE: usize = 32;

/// A tenant as its providers see it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// Its id.
    pub id: TenantId,
    /// Its DNS label; null once it is erased.
    pub slug: Option<String>,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// Whether everything that was made of it is there, responds, and is as it was made.
    pub healthy: bool,
    /// When the providers were asked.
    pub at: Timestamp,
    /// Where its rows are.
    pub database: DatabaseStatus,
    /// Who may sign in.
    pub organization: OrganizationStatus,
    /// Its settings.
    pub settings: SettingsStatus,
    /// All that it has.
    pub resources: Vec<ResourceStatus>,
}

/// Where a tenant's rows are (S3.40).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseStatus {
    /// Whether it is there.
    pub provisioned: bool,
    /// Whether it responds and is as it was made.
    pub healthy: bool,
    /// Version of the last migration in it.
    pub last_migration: Option<String>,
}

/// Who may sign in (S3.41).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationStatus {
    /// Whether it is there.
    pub created: bool,
    /// Its resource.
    pub id: Option<String>,
}

/// A tenant's settings (S3.42).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsStatus {
    /// Whether some of them were taken over from a main tenant.
    pub inherited: bool,
}

/// A resource as its provider sees it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceStatus {
    /// The step that made it.
    pub step: String,
    /// What it is.
    pub kind: String,
    /// Who serves it.
    pub provider: String,
    /// Whether it is there; null if nothing is known, because there was no answer.
    pub exists: Option<bool>,
    /// Whether there was an answer within 5 seconds.
    pub responding: bool,
    /// Whether it is there and nothing differs.
    pub healthy: bool,
    /// Version of what it holds, such as the last migration.
    pub version: Option<String>,
    /// Changes when it is changed behind our back.
    pub fingerprint: Option<String>,
    /// What its fence denies to clients with logins of their own; null: nothing, or it has no fence.
    pub fence: Option<Grade>,
    /// How it differs from what was made, or why there was no answer, a sentence each.
    pub differs: Vec<String>,
}

/// What is needed to ask for one resource.
struct Question {
    row: resource::Model,
    provider: Option<Arc<dyn Provider>>,
    attempt: Attempt,
    order: Order,
}

impl Control {
    /// How a tenant stands now.
    pub async fn tenant_status(&self, caller: &Caller, id_or_slug: &str) -> Result<StatusView> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let status = self.look_at(vec![row]).await?.pop();
        status.ok_or_else(|| Error::internal("a tenant that was looked at has no status"))
    }

    /// Asks for all that these tenants have, in their order. The registry is read as often for many as for one.
    pub(crate) async fn look_at(&self, rows: Vec<tenant::Model>) -> Result<Vec<StatusView>> {
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let present = self.shared.store.present(&ids).await.map_err(Error::unavailable)?;
        let operations = present.iter().map(|resource| resource.operation_id.clone()).collect();
        let runs = self.shared.store.runs(operations).await.map_err(Error::unavailable)?;
        let runs: HashMap<String, Run> =
            runs.into_iter().map(|run| (run.operation.id.to_string(), run)).collect();
        let keys = rows.iter().map(id_of).collect::<Result<Vec<_>>>()?;
        self.shared.keyring.load_all(&keys).await.map_err(Error::unavailable)?;
        let mut of: HashMap<String, Vec<resource::Model>> = HashMap::new();
        for resource in present {
            of.entry(resource.tenant_id.clone()).or_default().push(resource);
        }
        let asked = rows.into_iter().map(|row| {
            let resources = of.remove(&row.id).unwrap_or_default();
            self.ask_for_all(row, resources, &runs)
        });
        stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn ask_for_all(
        &self,
        row: tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<StatusView> {
        let questions = self.questions(&row, resources, runs)?;
        let inherited = self.inherits(&row, &questions);
        let organization = questions.iter().find(|question| question.row.kind == Kind::Identity.as_str());
        let organization = organization.map(|question| question.row.id.clone());
        let resources = join_all(questions.into_iter().map(|question| self.ask(question))).await;
        let of_kind = |kind: Kind| resources.iter().filter(move |resource| resource.kind == kind.as_str());
        let database = of_kind(Kind::Database).next();
        let created = of_kind(Kind::Identity).any(|identity| identity.exists == Some(true));
        Ok(StatusView {
            id: id_of(&row)?,
            status: row.status.parse().map_err(Error::internal)?,
            slug: row.slug,
            healthy: resources.iter().all(|resource| resource.healthy),
            at: self.now(),
            database: DatabaseStatus {
                provisioned: database.is_some_and(|database| database.exists == Some(true)),
                healthy: database.is_some_and(|database| database.healthy),
                last_migration: database.and_then(|database| database.version.clone()),
            },
            organization: OrganizationStatus { created, id: organization.filter(|_| created) },
            settings: SettingsStatus { inherited },
            resources,
        })
    }

    /// One for each resource but the messages: those were sent, and nobody has to keep them.
    fn questions(
        &self,
        row: &tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<Vec<Question>> {
        let (tenant, denied) = (id_of(row)?, row.denied.as_deref().map(str::parse).transpose());
        let denied = denied.map_err(Error::internal)?;
        // What the resources are by now, over what the steps said of them when they were made.
        let outputs = resources.iter().map(|resource| (resource.step_key.clone(), resource.outputs.clone()));
        let outputs: Map<String, Value> = outputs.collect();
        let asked = resources.into_iter().filter(|resource| resource.kind != Kind::Mail.as_str());
        asked
            .map(|resource| {
                let run = runs.get(&resource.operation_id);
                let step = run.and_then(|run| run.step(&resource.step_key));
                let (Some(run), Some(step)) = (run, step) else {
                    return Err(Error::internal("a resource without the step that made it"));
                };
                let made = run.steps.iter().map(|step| (step.key.clone(), step.output.clone()));
                let mut known: Map<String, Value> = made.collect();
                known.extend(outputs.clone());
                let attempt = Attempt {
                    operation: Arc::new(run.operation.clone()),
                    step: step.clone(),
                    outputs: Arc::new(known),
                    verb: Verb::Do,
                    now: self.now(),
                    notes: Arc::new(NoNotes),
                    guards: AttemptGuards::default(),
                };
                let order = Order {
                    tenant,
                    resource: resource.id.parse().map_err(Error::internal)?,
                    region: row.region.clone(),
                    name: resource.name.clone(),
                    claim: resource.claim.clone(),
                    grade: denied,
                    version: row.version,
                };
                let provider = self.shared.providers.get(&resource.provider).cloned();
                Ok(Question { row: resource, provider, attempt, order })
            })
            .collect()
    }

    async fn ask(&self, question: Question) -> ResourceStatus {
        let Question { row, provider, attempt, order } = question;
        let mut status = ResourceStatus {
            step: row.step_key,
            kind: row.kind,
            provider: row.provider,
            exists: None,
            responding: false,
            healthy: false,
            version: None,
            fingerprint: None,
            fence: None,
            differs: Vec::new(),
        };
        let Some(provider) = provider else {
            status.differs.push(format!("the provider {} is not configured here", status.provider));
            return status;
        };
        match timeout(PATIENCE, self.see(&*provider, &attempt, &order)).await {
            Err(_) => status.differs.push(format!("it gave no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(failure)) => status.differs.push(failure.message),
            Ok(Ok((seen, fence))) => {
                (status.responding, status.fence) = (true, fence);
                status.exists = Some(matches!(seen, Observed::Present { .. }));
                match seen {
                    Observed::Absent => status.differs.push("it is missing".to_owned()),
                    Observed::Foreign => {
                        status.differs.push("what has its name belongs to somebody else".to_owned());
                    }
                    Observed::Present { differs, version, fingerprint } => {
                        (status.version, status.fingerprint) = (version, Some(fingerprint));
                        status.differs.extend(differs);
                        if provider.fence().is_some() && fence != order.grade {
                            let [is, wanted] = [fence, order.grade].map(word);
                            status.differs.push(format!("its fence denies {is}, and is to deny {wanted}"));
                        }
                    }
                }
            }
        }
        status.healthy = status.differs.is_empty();
        status
    }

    async fn see(
        &self,
        provider: &dyn Provider,
        attempt: &Attempt,
        order: &Order,
    ) -> std::result::Result<(Observed, Option<Grade>), Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.shared.steps.spec(attempt, &input).await?;
        let _place = self.shared.serving.place(provider).await;
        let seen = provider.observe(&context, &spec).await?;
        let fence = match (provider.fence(), &seen) {
            (Some(fence), Observed::Present { .. }) => fence.denies(order).await?,
            _ => None,
        };
        Ok((seen, fence))
    }

    /// Whether the plan of the tenant's settings took some of them over.
    fn inherits(&self, row: &tenant::Model, questions: &[Question]) -> bool {
        let version = u32::try_from(row.template_version).unwrap_or_default();
        let template = self.shared.templates.version(&row.template, version);
        let Some(inherit) = template.and_then(|template| template.inherit.as_ref()) else { return false };
        let config = questions.iter().filter(|question| question.row.kind == Kind::Config.as_str());
        let mut settings =
            config.filter_map(|question| question.attempt.step.input.pointer("/settings/settings"));
        settings.any(|settings| inherit.settings.keys().any(|key| settings.get(key).is_some()))
    }
}

fn word(grade: Option<Grade>) -> &'static str {
    grade.map_or("nothing", Grade::as_str)
}

/// Whoever only looks leaves no notes.
struct NoNotes;

#[async_trait::async_trait]
impl tenantry_engine::run::Notes for NoNotes {
    async fn note(&self, _: Value) -> std::result::Result<(), Failure> {
        Ok(())
    }
}
