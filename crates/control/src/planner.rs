//! From a template and a request to the steps of an operation. Pure: the same input gives the same plan, so a dry run
//! shows what will be done, and what is done is what was planned.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_engine::{Mode, OnFailure, Policy, Step, Wait};
use tenantry_model::id::ResourceId;
use tenantry_model::{Plan, TenantId};
use tenantry_provider::kinds::KindSettings;
use tenantry_provider::kinds::billing::{BillingSettings, Cycle};
use tenantry_provider::kinds::bucket::{BucketSettings, Encryption};
use tenantry_provider::kinds::config::ConfigSettings;
use tenantry_provider::kinds::dns::DnsSettings;
use tenantry_provider::{Kind, Registry};

use crate::access::Scope;
use crate::clones;
use crate::error::{Error, Result};
use crate::request::{BillingCycle, CreateTenant, EncryptionLevel};
use crate::template::{RESERVE, Span, StepSpec, Template, customize};
use crate::view::PriceView;

/// Longest identifier that every server of every kind takes: PostgreSQL's limit, below DNS' and Kubernetes' (T2).
const MAX_NAME: usize = 63;

/// The quota of a tenant's files.
const STORAGE: &str = "storage_bytes";

/// What a step needs to know, frozen in the ledger. Its fields are API: old ledgers must load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepInput {
    /// The resource that it makes; none for a built-in action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceId>,
    /// Raised when a tenant is provisioned again.
    #[serde(default)]
    pub generation: i64,
    /// The external name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The owner mark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claim: String,
    /// Settings of the kind, customised, and of the provider, in one object.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
    /// What is done to the resource.
    #[serde(default, skip_serializing_if = "Act::is_ensure")]
    pub act: Act,
}

/// What a step does to its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Makes it so.
    #[default]
    Ensure,
    /// Makes it not so, for good.
    Remove,
    /// Gives whoever logs in to it another secret.
    Rotate,
}

impl Act {
    fn is_ensure(&self) -> bool {
        *self == Self::Ensure
    }
}

/// What a plan is made for.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The tenant's id.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: &'a str,
    /// Its region.
    pub region: &'a str,
    /// How often it was provisioned before, plus one.
    pub generation: i64,
}

/// Everything that the plan of an onboarding follows from.
#[derive(Clone, Copy)]
pub struct Onboarding<'a> {
    /// The process.
    pub template: &'a Template,
    /// What was bought.
    pub plan: &'a Plan,
    /// What was asked for.
    pub request: &'a CreateTenant,
    /// For whom.
    pub subject: &'a Subject<'a>,
    /// Settings that it takes over from a main tenant.
    pub inherited: &'a Map<String, Value>,
    /// By whom.
    pub providers: &'a Registry,
}

impl Onboarding<'_> {
    /// The steps. What needs an approval waits for it before anything is made.
    pub fn steps(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for (key, from, asked) in customize::approvals(self.template, self.request) {
            let step = customize::approval_step(&key);
            let spec = StepSpec { wait: Some("approval".to_owned()), ..StepSpec::default() };
            let asked = Map::from_iter([(key, asked)]);
            steps.push(self.step(0, &step, &spec, approval(from, asked))?);
        }
        let approvals: Vec<String> = steps.iter().map(|step| step.key.clone()).collect();
        for (key, spec) in &self.template.steps {
            let settings = match (spec.kind, spec.wait.as_deref()) {
                (Some(kind), _) => self.customised(kind, spec)?,
                (None, Some("approval")) => approval(&spec.from, Map::new()),
                (None, None) if key == RESERVE => json!(self.template.needed()),
                (None, _) => Value::Object(spec.settings.clone()),
            };
            let mut step = self.step(steps.len(), key, spec, settings)?;
            if step.needs.is_empty() {
                step.needs.clone_from(&approvals);
            }
            steps.push(step);
        }
        if let Some(cloning) = &self.request.cloning {
            clones::join(&mut steps, cloning)?;
        }
        Ok(steps)
    }

    fn step(&self, position: usize, key: &str, spec: &StepSpec, settings: Value) -> Result<Step> {
        let Self { template, subject, providers, .. } = *self;
        let (kind, provider, input, in_flight_ms) = match spec.kind {
            None => {
                let kind = if spec.wait.is_some() { "wait" } else { key };
                let input = StepInput { settings, ..StepInput::default() };
                (kind.to_owned(), "tenantry".to_owned(), input, 0)
            }
            Some(kind) => {
                let provider = match &spec.provider {
                    Some(name) => providers.get(name),
                    None => providers.default_for(kind, template.isolation),
                };
                let provider = provider.ok_or_else(|| {
                    Error::internal(format!("template {} was not checked", template.template))
                })?;
                let resource = resource_id(subject.tenant, subject.generation, key);
                let pattern = template.names.get(&kind).map_or("tenant_{id}_{step}", String::as_str);
                let input = StepInput {
                    resource: Some(resource),
                    generation: subject.generation,
                    name: external_name(pattern, subject, key),
                    claim: format!("tenantry:{}:{}", subject.tenant, resource),
                    settings,
                    act: Act::Ensure,
                };
                let in_flight = u64::try_from(provider.in_flight().as_millis()).unwrap_or(u64::MAX);
                (kind.as_str().to_owned(), provider.name().to_owned(), input, in_flight)
            }
        };
        let input = serde_json::to_value(input).map_err(Error::internal)?;
        let policy = policy(template, spec, in_flight_ms)?;
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        Ok(Step { position, needs: spec.needs.clone(), ..Step::new(key, &kind, &provider, policy, input) })
    }

    /// The template's settings with what plan and request say of this kind, and the provider's own.
    fn customised(&self, kind: Kind, spec: &StepSpec) -> Result<Value> {
        let Self { template, plan, request, inherited, .. } = *self;
        let configuration = request.configuration.clone().unwrap_or_default();
        let given = &spec.settings;
        let mut settings = match kind {
            Kind::Billing => filled(given, |billing: &mut BillingSettings| {
                let PriceView { amount, currency, billing_cycle } = price(plan, request);
                billing.amount = i64::try_from(amount).unwrap_or(i64::MAX);
                billing.currency = currency;
                billing.billing_cycle = match billing_cycle {
                    BillingCycle::Monthly => Cycle::Monthly,
                    BillingCycle::Yearly => Cycle::Yearly,
                };
            }),
            Kind::Config => filled(given, |config: &mut ConfigSettings| {
                let features = request.subscription.features.as_ref().unwrap_or(&plan.features);
                let flag = |name: &String| (name.clone(), Value::Bool(features.contains(name)));
                config.flags.extend(plan.features.iter().map(flag));
                config.settings.extend(inherited.clone());
                config.settings.extend(configuration.settings.unwrap_or_default());
                let branding =
                    configuration.branding.map(|branding| ("branding".to_owned(), branding.into()));
                config.settings.extend(branding);
                let integrations = configuration.integrations;
                config.settings.extend(integrations.map(|all| ("integrations".to_owned(), all.into())));
                let quotas = customize::quotas(template, plan, request);
                config.quotas = quotas.into_iter().map(|(name, quota)| (name, json!(quota))).collect();
            }),
            Kind::Bucket => filled(given, |bucket: &mut BucketSettings| {
                let level = request.compliance.as_ref().and_then(|compliance| compliance.encryption_level);
                bucket.encryption = match level {
                    None => bucket.encryption,
                    Some(EncryptionLevel::Standard) => Encryption::Standard,
                    Some(EncryptionLevel::Enhanced) => Encryption::Enhanced,
                };
                let quota = customize::quotas(template, plan, request).remove(STORAGE);
                bucket.quota_bytes = bucket.quota_bytes.or(quota);
            }),
            Kind::Dns => filled(given, |dns: &mut DnsSettings| {
                dns.custom_domain = configuration.custom_domain.or(dns.custom_domain.take());
            }),
            Kind::Database
            | Kind::Namespace
            | Kind::Certificate
            | Kind::Identity
            | Kind::Mail
            | Kind::Custom => Ok(given.clone()),
        }?;
        settings.extend(spec.with.clone());
        Ok(Value::Object(settings))
    }
}

/// The settings of a kind that a template gives, with more of them filled in.
fn filled<T: KindSettings>(
    given: &Map<String, Value>,
    fill: impl FnOnce(&mut T),
) -> Result<Map<String, Value>> {
    let mut settings: T = serde_json::from_value(Value::Object(given.clone())).map_err(Error::internal)?;
    fill(&mut settings);
    match serde_json::to_value(settings).map_err(Error::internal)? {
        Value::Object(settings) => Ok(settings),
        _ => Err(Error::internal("the settings of a kind are no object")),
    }
}

/// What the customer pays for a period.
pub(crate) fn price(plan: &Plan, request: &CreateTenant) -> PriceView {
    let billing_cycle = request.subscription.billing_cycle;
    let amount = match billing_cycle {
        BillingCycle::Monthly => plan.price_per_month,
        BillingCycle::Yearly => plan.price_per_year,
    };
    PriceView { amount, currency: plan.currency.clone(), billing_cycle }
}

/// What a step says that waits for an approval: whose, and to what. Operators', if nobody is named.
fn approval(from: &BTreeSet<Scope>, asked: Map<String, Value>) -> Value {
    let operators = BTreeSet::from([Scope::Operator]);
    json!({ "from": if from.is_empty() { &operators } else { from }, "asked": asked })
}

fn policy(template: &Template, spec: &StepSpec, in_flight_ms: u64) -> Result<Policy> {
    let default = Policy::default();
    let mode = spec.mode.unwrap_or(Mode::Inline);
    // A detached step must not undo a tenant that works: without a word to the contrary it asks for a person.
    let on_failure = spec.on_failure.unwrap_or(match mode {
        Mode::Inline => template.on_failure,
        Mode::Detached => OnFailure::Park,
    });
    let wait = match spec.wait.as_deref() {
        None => None,
        Some("approval") => Some(Wait::Approval),
        Some(text) => Some(Wait::Timer(Span::parse(text).map_err(Error::internal)?.duration().as_secs())),
    };
    Ok(Policy {
        timeout_ms: spec.timeout.map_or(default.timeout_ms, Span::millis),
        max_retries: spec.retries.unwrap_or(default.max_retries),
        backoff_ms: spec.backoff.map_or(default.backoff_ms, Span::millis),
        backoff_cap_ms: default.backoff_cap_ms,
        on_failure,
        mode,
        wait,
        in_flight_ms,
    })
}

/// The id of a step's resource: the same whenever the plan is made.
pub fn resource_id(tenant: TenantId, generation: i64, key: &str) -> ResourceId {
    let mut hash = Sha256::new();
    hash.update(tenant.uuid());
    hash.update(generation.to_be_bytes());
    hash.update(key);
    let digest: [u8; 32] = hash.finalize().into();
    let mut low = [0u8; 8];
    low.copy_from_slice(&digest[..8]);
    // The time of the tenant and 62 bits of the hash: still a UUIDv7.
    ResourceId::from_uuid(uuid::Uuid::from_u128(
        tenant.uuid().as_u128() ^ u128::from(u64::from_be_bytes(low) >> 2),
    ))
}

/// Fills in the pattern. A name that would be too long is cut and gets a hash of the whole, so that no two differ
/// only in what was cut off (T2).
fn external_name(pattern: &str, subject: &Subject<'_>, key: &str) -> String {
    let values = BTreeMap::from([
        ("{id}", subject.tenant.suffix()),
        ("{slug}", subject.slug.to_owned()),
        ("{region}", subject.region.to_owned()),
        ("{step}", key.to_owned()),
    ]);
    let full =
        values.iter().fold(pattern.to_owned(), |name, (placeholder, value)| name.replace(placeholder, value));
    if full.len() <= MAX_NAME {
        return full;
    }
    let digest = Sha256::digest(full.as_bytes());
    let hash = hex::encode(&digest[..6]);
    let cut =
        full.char_indices().map(|(i, _)| i).take_while(|i| *i < MAX_NAME - hash.len()).last().unwrap_or(0);
    let separator = if pattern.contains('_') { '_' } else { '-' };
    format!("{}{separator}{hash}", &full[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(slug: &str) -> Subject<'_> {
        Subject { tenant: TenantId::from_uuid(uuid::Uuid::nil()), slug, region: "eu-1", generation: 1 }
    }

    #[test]
    fn stored_inputs_keep_their_form() {
        let stored = json!({
            "resource": ResourceId::new(), "generation": 1, "name": "tenant-acme", "claim": "tenantry:a:b",
            "settings": { "cpu": "4", "memory": "8Gi", "custom_domain": "shop.example.com", "ttl": 60 },
        });
        let input: StepInput = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(input).unwrap(), stored);
    }

    #[test]
    fn settings_of_kind_and_provider_are_stored_in_one_object() {
        let template =
            json!({ "quota_bytes": "1GiB", "lifecycle": [{ "prefix": "tmp/", "expire_after": 7 }] });
        let filled = filled(template.as_object().unwrap(), |bucket: &mut BucketSettings| {
            bucket.encryption = Encryption::Enhanced;
        });
        let stored = json!({
            "quota_bytes": 1 << 30, "lifecycle": [{ "prefix": "tmp/", "expire_after": 7 }],
            "encryption": "enhanced",
        });
        assert_eq!(Value::Object(filled.unwrap()), stored);
    }

    #[test]
    fn long_names_never_meet() {
        let (a, b) = ("a".repeat(63), format!("{}b", "a".repeat(62)));
        let (a, b) = (
            external_name("tenant-{slug}", &subject(&a), "x"),
            external_name("tenant-{slug}", &subject(&b), "x"),
        );
        assert_eq!(a.len(), 63);
        assert_ne!(a, b, "T2");
        assert_eq!(
            external_name("tenant-{id}-{region}", &subject("x"), "s"),
            "tenant-00000000000000000000000000-eu-1"
        );
    }

    #[test]
    fn resources_differ_by_step_and_generation() {
        let tenant = subject("x").tenant;
        let one = resource_id(tenant, 1, "database");
        assert_eq!(one, resource_id(tenant, 1, "database"));
        assert_ne!(one, resource_id(tenant, 1, "config"));
        assert_ne!(one, resource_id(tenant, 2, "database"));
    }
}
