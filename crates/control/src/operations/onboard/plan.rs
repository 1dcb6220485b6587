//! The plan of an onboarding: from template and request to steps. Pure: the same input gives the same plan, so a dry run
//! shows exactly what will be done.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tenantry_engine::{Mode, OnFailure, Policy, Step, Wait};
use tenantry_model::{ErrorCode, Plan, TenantId};
use tenantry_provider::kinds::KindSettings;
use tenantry_provider::kinds::billing::{BillingSettings, Cycle};
use tenantry_provider::kinds::bucket::{BucketSettings, Encryption};
use tenantry_provider::kinds::config::ConfigSettings;
use tenantry_provider::kinds::dns::DnsSettings;
use tenantry_provider::{Kind, Provider as _};

use super::customize;
use super::request::{BillingCycle, CreateTenant, EncryptionLevel};
use crate::error::{Error, FieldError, Result};
use crate::ledger::{Act, StepInput, resource_id};
use crate::operations::view::PriceView;
use crate::operations::{TENANTRY, clone};
use crate::resource::Resources;
use crate::templates::built_in::RESERVE;
use crate::templates::customize::approval_step;
use crate::templates::names::{self, Named};
use crate::templates::{Span, StepSpec, Template};
use tenantry_model::Scope;

/// The quota of a tenant's files.
const STORAGE: &str = "storage_bytes";

/// The tenant of a plan.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Tenant id.
    pub tenant: TenantId,
    /// Slug of the tenant.
    pub slug: &'a str,
    /// Region of the tenant's resources.
    pub region: &'a str,
    /// Number of times that the tenant was provisioned, this one included.
    pub generation: i64,
}

/// Input of an onboarding's plan.
#[derive(Clone, Copy)]
pub struct Onboarding<'a> {
    /// Template.
    pub template: &'a Template,
    /// Plan.
    pub plan: &'a Plan,
    /// Request.
    pub request: &'a CreateTenant,
    /// Tenant.
    pub subject: &'a Subject<'a>,
    /// Settings that the tenant inherits from the template's main tenant.
    pub inherited: &'a Map<String, Value>,
    /// Providers of this process.
    pub resources: &'a Resources,
}

impl Onboarding<'_> {
    /// The steps. Approvals come first: every other step without needs waits for them.
    pub fn steps(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for (key, from, asked) in customize::approvals(self.template, self.request) {
            let step = approval_step(&key);
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
            clone::join(&mut steps, cloning)?;
        }
        Ok(steps)
    }

    fn step(&self, position: usize, key: &str, spec: &StepSpec, settings: Value) -> Result<Step> {
        let Self { template, subject, resources, .. } = *self;
        let (kind, provider, input, in_flight_ms) = match spec.kind {
            None => {
                let kind = if spec.wait.is_some() { "wait" } else { key };
                let input = StepInput { settings, ..StepInput::default() };
                (kind.to_owned(), TENANTRY.to_owned(), input, 0)
            }
            Some(kind) => {
                let provider = resources.serving(kind, spec.provider.as_deref(), template.isolation);
                let provider = provider.ok_or_else(|| {
                    Error::internal(format!("template {} was not checked", template.template))
                })?;
                let resource = resource_id(subject.tenant, subject.generation, key);
                let pattern = template.names.get(&kind).map_or(names::DEFAULT, String::as_str);
                let named =
                    Named { tenant: subject.tenant, slug: subject.slug, region: subject.region, step: key };
                let name = named.name(pattern);
                provider.check_name(&name).map_err(|why| {
                    let why =
                        format!("gives the name `{name}` for the step `{key}`, which is not possible: {why}");
                    Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("slug", why)])
                })?;
                let input = StepInput {
                    resource: Some(resource),
                    generation: subject.generation,
                    name,
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

    /// The template's settings of a step, with what plan and request add for its resource kind, and the provider's own.
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

/// Price of one billing period.
pub(crate) fn price(plan: &Plan, request: &CreateTenant) -> PriceView {
    let billing_cycle = request.subscription.billing_cycle;
    let amount = match billing_cycle {
        BillingCycle::Monthly => plan.price_per_month,
        BillingCycle::Yearly => plan.price_per_year,
    };
    PriceView { amount, currency: plan.currency.clone(), billing_cycle }
}

/// Settings of a step that waits for an approval: the scopes that may give it (operators by default), and what they approve.
fn approval(from: &BTreeSet<Scope>, asked: Map<String, Value>) -> Value {
    let operators = BTreeSet::from([Scope::Operator]);
    json!({ "from": if from.is_empty() { &operators } else { from }, "asked": asked })
}

fn policy(template: &Template, spec: &StepSpec, in_flight_ms: u64) -> Result<Policy> {
    let default = Policy::default();
    let mode = spec.mode.unwrap_or(Mode::Inline);
    // A detached step must not undo a tenant that works: by default its failure asks for an operator.
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
        retry_for_ms: spec.retry_for.map(Span::millis),
        backoff_ms: spec.backoff.map_or(default.backoff_ms, Span::millis),
        backoff_cap_ms: default.backoff_cap_ms,
        on_failure,
        mode,
        wait,
        in_flight_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_inputs_keep_their_form() {
        let stored = json!({
            "resource": tenantry_model::id::ResourceId::new(), "generation": 1, "name": "tenant-acme", "claim": "tenantry:a:b",
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
}
