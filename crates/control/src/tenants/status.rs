//! Status of tenants: asks their providers at the time of the request, not the registry, and compares the resources
//! with what was created. A provider that does not answer in time is reported as not responding.

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
use crate::ledger::{StepInput, id_of, read, set_generation};
use crate::resource::ResourceHandle;
use tenantry_store::entity::{resource, tenant};

/// Time limit for a provider's report on one resource.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of tenants that are observed at the same time.
const CONCURRENCY: usize = 32;

/// A tenant and its resources, as its providers report them now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// Tenant id.
    pub id: TenantId,
    /// DNS label of the tenant; null once it is erased.
    pub slug: Option<String>,
    /// Lifecycle status, from the registry.
    pub status: TenantStatus,
    /// Whether the tenant is active or suspended, and all its resources are healthy.
    pub healthy: bool,
    /// When the providers were asked.
    pub at: Timestamp,
    /// The tenant's database.
    pub database: DatabaseStatus,
    /// The organization of the tenant's members.
    pub organization: OrganizationStatus,
    /// The tenant's settings.
    pub settings: SettingsStatus,
    /// All resources of the tenant except mails.
    pub resources: Vec<ResourceStatus>,
}

/// Status of a tenant's first database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseStatus {
    /// Whether the database exists.
    pub provisioned: bool,
    /// Whether the database responds and does not differ from what was created.
    pub healthy: bool,
    /// Version of the last migration that was applied to the database.
    pub last_migration: Option<String>,
}

/// Status of the organization of a tenant's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationStatus {
    /// Whether the organization exists.
    pub created: bool,
    /// Id of the identity resource; null unless it exists.
    pub id: Option<String>,
}

/// Status of a tenant's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsStatus {
    /// Whether some of them were inherited from a main tenant.
    pub inherited: bool,
}

/// A resource, as its provider reports it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceStatus {
    /// Key of the step that created the resource.
    pub step: String,
    /// Resource kind.
    pub kind: String,
    /// Provider name.
    pub provider: String,
    /// Whether the resource exists; null if the provider did not answer.
    pub exists: Option<bool>,
    /// Whether the provider answered within 5 seconds.
    pub responding: bool,
    /// Whether the provider answered and `differs` is empty.
    pub healthy: bool,
    /// Version of the resource's content, such as the last migration.
    pub version: Option<String>,
    /// Hash of the resource's state; another value means that the resource has changed.
    pub fingerprint: Option<String>,
    /// Access that the resource's fence denies to direct connections; null if it denies nothing or there is no fence.
    pub fence: Option<SuspensionMode>,
    /// Differences from what was created, or the reason why the provider did not answer; a sentence each.
    pub differs: Vec<String>,
}

/// A resource that is to be observed, with the attempt and the fence order that its provider needs. The provider is
/// none if this process does not have it.
struct Observation {
    row: resource::Model,
    provider: Option<ResourceHandle>,
    attempt: Attempt,
    order: Order,
}

impl Control {
    /// Observes the resources of one tenant.
    pub async fn tenant_status(&self, caller: &Caller, id_or_slug: &str) -> Result<StatusView> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let status = self.observe_tenants(vec![row]).await?.pop();
        status.ok_or_else(|| Error::internal("an observed tenant has no status"))
    }

    /// Observes all resources of these tenants, and returns their status in the same order. A tenant whose row cannot be
    /// read is logged and left out. The number of queries to the registry does not depend on the number of tenants.
    pub(crate) async fn observe_tenants(&self, rows: Vec<tenant::Model>) -> Result<Vec<StatusView>> {
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let present = self.shared.store.present(&ids).await.map_err(Error::unavailable)?;
        let operations = present.iter().map(|resource| resource.operation_id.clone()).collect();
        let runs = self.shared.store.runs(operations).await.map_err(Error::unavailable)?;
        let keys: Vec<TenantId> = rows.iter().filter_map(|row| row.id.parse().ok()).collect();
        self.shared.keyring.load_all(&keys).await.map_err(Error::unavailable)?;
        let mut of: HashMap<String, Vec<resource::Model>> = HashMap::new();
        for resource in present {
            of.entry(resource.tenant_id.clone()).or_default().push(resource);
        }
        let observed = rows.into_iter().map(|row| {
            let resources = of.remove(&row.id).unwrap_or_default();
            self.observe_tenant(row, resources, &runs)
        });
        let observed = stream::iter(observed).buffered(CONCURRENCY).collect::<Vec<_>>().await;
        let readable = |status: Result<StatusView>| {
            status.inspect_err(|why| tracing::error!(cause = why.cause, "a tenant's row cannot be read")).ok()
        };
        Ok(observed.into_iter().filter_map(readable).collect())
    }

    async fn observe_tenant(
        &self,
        row: tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<StatusView> {
        let organization = resources.iter().find(|resource| resource.kind == Kind::Identity.as_str());
        let organization = organization.map(|resource| resource.id.clone());
        let observations = self.observations(&row, resources, runs)?;
        let inherited = self.inherits(&row, observations.iter().filter_map(|it| it.as_ref().ok()));
        let resources = observations.into_iter().map(async |observation| match observation {
            Ok(observation) => self.observe(observation).await,
            Err(status) => *status,
        });
        let resources = join_all(resources).await;
        let of_kind = |kind: Kind| resources.iter().filter(move |resource| resource.kind == kind.as_str());
        let database = of_kind(Kind::Database).next();
        let created = of_kind(Kind::Identity).any(|identity| identity.exists == Some(true));
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        let stands = matches!(status, TenantStatus::Active | TenantStatus::Suspended);
        Ok(StatusView {
            id: id_of(&row)?,
            status,
            slug: row.slug,
            healthy: stands && resources.iter().all(|resource| resource.healthy),
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

    /// Returns an observation for each resource except mails, which do not exist after they were sent. A resource whose
    /// record is damaged has its status at once.
    fn observations(
        &self,
        row: &tenant::Model,
        resources: Vec<resource::Model>,
        runs: &HashMap<String, Run>,
    ) -> Result<Vec<std::result::Result<Observation, Box<ResourceStatus>>>> {
        let (tenant, denied) = (id_of(row)?, row.denied.as_deref().map(str::parse).transpose());
        let denied = denied.map_err(Error::internal)?;
        // Outputs of a resource change after onboarding; the present ones replace those that the step recorded.
        let outputs = resources.iter().map(|resource| (resource.step_key.clone(), resource.outputs.clone()));
        let outputs: Map<String, Value> = outputs.collect();
        let observed = resources.into_iter().filter(|resource| resource.kind != Kind::Mail.as_str());
        let observation = |resource: resource::Model| {
            let run = runs.get(&resource.operation_id);
            let step = run.and_then(|run| run.step(&resource.step_key));
            let (Some(run), Some(step), Ok(id)) = (run, step, resource.id.parse()) else {
                tracing::error!(%tenant, resource = resource.id, "no step created the resource");
                let damaged = "its record in the registry is damaged: no step created it".to_owned();
                return Err(Box::new(ResourceStatus { differs: vec![damaged], ..unknown(resource) }));
            };
            let mut step = step.clone();
            set_generation(&mut step.input, resource.generation);
            let made = run.steps.iter().map(|step| (step.key.clone(), step.output.clone()));
            let mut known: Map<String, Value> = made.collect();
            known.extend(outputs.clone());
            let attempt = Attempt {
                operation: Arc::new(run.operation.clone()),
                step,
                outputs: Arc::new(known),
                direction: Direction::Run,
                now: self.now(),
                notes: Arc::new(NoNotes),
                guards: AttemptGuards::default(),
            };
            let order = Order {
                tenant,
                resource: id,
                region: row.region.clone(),
                name: resource.name.clone(),
                claim: resource.claim.clone(),
                mode: denied,
                version: row.version,
            };
            let provider = self.shared.resources.get(&resource.provider).cloned();
            Ok(Observation { row: resource, provider, attempt, order })
        };
        Ok(observed.map(observation).collect())
    }

    /// Asks the provider for one resource. Failures of the provider become part of the status.
    async fn observe(&self, observation: Observation) -> ResourceStatus {
        let Observation { row, provider, attempt, order } = observation;
        let mut status = unknown(row);
        let Some(provider) = provider else {
            let why = format!("the provider {} is not configured on this server", status.provider);
            status.differs.push(why);
            return status;
        };
        match timeout(OBSERVE_TIMEOUT, self.observe_with_fence(&provider, &attempt, &order)).await {
            Err(_) => {
                let seconds = OBSERVE_TIMEOUT.as_secs();
                status.differs.push(format!("the provider did not respond within {seconds} s"))
            }
            Ok(Err(failure)) => status.differs.push(failure.message),
            Ok(Ok((seen, fence))) => {
                (status.responding, status.fence) = (true, fence);
                status.exists = Some(matches!(seen, Observed::Present { .. }));
                match seen {
                    Observed::Absent => status.differs.push("the resource is missing".to_owned()),
                    Observed::Foreign => {
                        status.differs.push("a resource with another owner tag has this name".to_owned());
                    }
                    Observed::Present { differs, version, fingerprint } => {
                        (status.version, status.fingerprint) = (version, Some(fingerprint));
                        status.differs.extend(differs);
                        if provider.fence().is_some() && fence != order.mode {
                            let [is, wanted] = [fence, order.mode].map(denied_access);
                            status.differs.push(format!("its fence denies {is} instead of {wanted}"));
                        }
                    }
                }
            }
        }
        status.healthy = status.differs.is_empty();
        status
    }

    /// Observes the resource and, if it exists and the provider has fences, the access that its fence denies.
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

    /// Whether the tenant has settings that its template inherits from a main tenant.
    fn inherits<'a>(&self, row: &tenant::Model, observations: impl Iterator<Item = &'a Observation>) -> bool {
        let version = u32::try_from(row.template_version).unwrap_or_default();
        let template = self.shared.templates.version(&row.template, version);
        let Some(inherit) = template.and_then(|template| template.inherit.as_ref()) else { return false };
        let config = observations.filter(|observation| observation.row.kind == Kind::Config.as_str());
        let mut settings =
            config.filter_map(|observation| observation.attempt.step.input.pointer("/settings/settings"));
        settings.any(|settings| inherit.settings.keys().any(|key| settings.get(key).is_some()))
    }
}

/// The status of a resource that was not observed.
fn unknown(row: resource::Model) -> ResourceStatus {
    ResourceStatus {
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
    }
}

/// The denied access as a word for messages.
fn denied_access(mode: Option<SuspensionMode>) -> &'static str {
    mode.map_or("nothing", SuspensionMode::as_str)
}

/// Discards the notes of an attempt, because an observation is not recorded.
struct NoNotes;

#[async_trait::async_trait]
impl tenantry_engine::run::Notes for NoNotes {
    async fn note(&self, _: Value) -> std::result::Result<(), Failure> {
        Ok(())
    }
}
