//! Status of tenants: read from their providers at that moment, never from the registry, and compared with what was
//! created. A provider that does not answer in time is reported as not responding.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_engine::{Attempt, AttemptGuards, Direction, Run};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, TenantId, TenantStatus, Timestamp};
use tenantry_provider::{Kind, Observed, Order, Provider as _};
use tokio::time::timeout;

use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::{StepInput, id_of, read};
use crate::resource::ResourceHandle;
use tenantry_store::entity::{resource, tenant};

/// Time that a provider has to report on a resource.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tenants that are observed at the same time.
const AT_ONCE: usize = 32;

/// A tenant as its providers see it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// Its id.
    pub id: TenantId,
    /// Its DNS label; null once it is erased.
    pub slug: Option<String>,
    /// Its lifecycle status.
    pub status: TenantStatus,
    /// Whether all of its resources exist, respond, and do not differ from what was created.
    pub healthy: bool,
    /// When the providers were asked.
    pub at: Timestamp,
    /// Its database.
    pub database: DatabaseStatus,
    /// Its members' organization.
    pub organization: OrganizationStatus,
    /// Its settings.
    pub settings: SettingsStatus,
    /// All of its resources.
    pub resources: Vec<ResourceStatus>,
}

/// The database of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseStatus {
    /// Whether it exists.
    pub provisioned: bool,
    /// Whether it responds and does not differ from what was created.
    pub healthy: bool,
    /// Version of the last migration in it.
    pub last_migration: Option<String>,
}

/// The organization of a tenant's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationStatus {
    /// Whether it exists.
    pub created: bool,
    /// Its resource.
    pub id: Option<String>,
}

/// The settings of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsStatus {
    /// Whether some of them were inherited from a main tenant.
    pub inherited: bool,
}

/// A resource as its provider sees it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceStatus {
    /// The step that created it.
    pub step: String,
    /// Its kind.
    pub kind: String,
    /// Its provider.
    pub provider: String,
    /// Whether it exists; null if the provider did not answer.
    pub exists: Option<bool>,
    /// Whether the provider answered within 5 seconds.
    pub responding: bool,
    /// Whether it exists and does not differ from what was created.
    pub healthy: bool,
    /// Version of what it holds, such as the last migration.
    pub version: Option<String>,
    /// Changes when the resource is changed outside Tenantry.
    pub fingerprint: Option<String>,
    /// Access that its fence denies to direct connections; null: none, or it has no fence.
    pub fence: Option<SuspensionMode>,
    /// How it differs from what was created, or why the provider did not answer, a sentence each.
    pub differs: Vec<String>,
}

/// What a provider needs to observe one resource.
struct Observation {
    row: resource::Model,
    provider: Option<ResourceHandle>,
    attempt: Attempt,
    order: Order,
}

impl Control {
    /// The status of a tenant now.
    pub async fn tenant_status(&self, caller: &Caller, id_or_slug: &str) -> Result<StatusView> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let status = self.observe_tenants(vec![row]).await?.pop();
        status.ok_or_else(|| Error::internal("an observed tenant has no status"))
    }

    /// Observes all resources of these tenants, in their order. Reads the registry as often for many as for one.
    pub(crate) async fn observe_tenants(&self, rows: Vec<tenant::Model>) -> Result<Vec<StatusView>> {
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
        let observed = rows.into_iter().map(|row| {
            let resources = of.remove(&row.id).unwrap_or_default();
            self.observe_tenant(row, resources, &runs)
        });
        stream::iter(observed).buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn observe_tenant(
        &self,
        row: tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<StatusView> {
        let observations = self.observations(&row, resources, runs)?;
        let inherited = self.inherits(&row, &observations);
        let organization =
            observations.iter().find(|observation| observation.row.kind == Kind::Identity.as_str());
        let organization = organization.map(|observation| observation.row.id.clone());
        let resources = join_all(observations.into_iter().map(|observation| self.observe(observation))).await;
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

    /// One for each resource except mails, which are sent and not kept.
    fn observations(
        &self,
        row: &tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<Vec<Observation>> {
        let (tenant, denied) = (id_of(row)?, row.denied.as_deref().map(str::parse).transpose());
        let denied = denied.map_err(Error::internal)?;
        // The present outputs of the resources, over those that their steps recorded.
        let outputs = resources.iter().map(|resource| (resource.step_key.clone(), resource.outputs.clone()));
        let outputs: Map<String, Value> = outputs.collect();
        let observed = resources.into_iter().filter(|resource| resource.kind != Kind::Mail.as_str());
        observed
            .map(|resource| {
                let run = runs.get(&resource.operation_id);
                let step = run.and_then(|run| run.step(&resource.step_key));
                let (Some(run), Some(step)) = (run, step) else {
                    return Err(Error::internal("a resource without the step that created it"));
                };
                let made = run.steps.iter().map(|step| (step.key.clone(), step.output.clone()));
                let mut known: Map<String, Value> = made.collect();
                known.extend(outputs.clone());
                let attempt = Attempt {
                    operation: Arc::new(run.operation.clone()),
                    step: step.clone(),
                    outputs: Arc::new(known),
                    direction: Direction::Run,
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
                    mode: denied,
                    version: row.version,
                };
                let provider = self.shared.resources.get(&resource.provider).cloned();
                Ok(Observation { row: resource, provider, attempt, order })
            })
            .collect()
    }

    async fn observe(&self, observation: Observation) -> ResourceStatus {
        let Observation { row, provider, attempt, order } = observation;
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
        match timeout(PATIENCE, self.observe_with_fence(&provider, &attempt, &order)).await {
            Err(_) => {
                status.differs.push(format!("the provider did not respond within {} s", PATIENCE.as_secs()))
            }
            Ok(Err(failure)) => status.differs.push(failure.message),
            Ok(Ok((seen, fence))) => {
                (status.responding, status.fence) = (true, fence);
                status.exists = Some(matches!(seen, Observed::Present { .. }));
                match seen {
                    Observed::Absent => status.differs.push("the resource is missing".to_owned()),
                    Observed::Foreign => {
                        status.differs.push("a resource with another owner tag has its name".to_owned());
                    }
                    Observed::Present { differs, version, fingerprint } => {
                        (status.version, status.fingerprint) = (version, Some(fingerprint));
                        status.differs.extend(differs);
                        if provider.fence().is_some() && fence != order.mode {
                            let [is, wanted] = [fence, order.mode].map(word);
                            status.differs.push(format!("its fence denies {is} instead of {wanted}"));
                        }
                    }
                }
            }
        }
        status.healthy = status.differs.is_empty();
        status
    }

    async fn observe_with_fence(
        &self,
        provider: &ResourceHandle,
        attempt: &Attempt,
        order: &Order,
    ) -> std::result::Result<(Observed, Option<SuspensionMode>), Failure> {
        let input: StepInput = read(&attempt.step.input)?;
        let (context, spec) = self.shared.steps.spec(attempt, &input).await?;
        let seen = provider.observe(&context, &spec).await?;
        let fence = match (provider.fence(), &seen) {
            (Some(fence), Observed::Present { .. }) => fence.denies(order).await?,
            _ => None,
        };
        Ok((seen, fence))
    }

    /// Whether the tenant inherited some of its settings.
    fn inherits(&self, row: &tenant::Model, observations: &[Observation]) -> bool {
        let version = u32::try_from(row.template_version).unwrap_or_default();
        let template = self.shared.templates.version(&row.template, version);
        let Some(inherit) = template.and_then(|template| template.inherit.as_ref()) else { return false };
        let config = observations.iter().filter(|observation| observation.row.kind == Kind::Config.as_str());
        let mut settings =
            config.filter_map(|observation| observation.attempt.step.input.pointer("/settings/settings"));
        settings.any(|settings| inherit.settings.keys().any(|key| settings.get(key).is_some()))
    }
}

fn word(mode: Option<SuspensionMode>) -> &'static str {
    mode.map_or("nothing", SuspensionMode::as_str)
}

/// An observation leaves no notes.
struct NoNotes;

#[async_trait::async_trait]
impl tenantry_engine::run::Notes for NoNotes {
    async fn note(&self, _: Value) -> std::result::Result<(), Failure> {
        Ok(())
    }
}
