//! The request to create a tenant. It is checked as a whole, first by JSON Schema and then for meaning, and an error names
//! every invalid field.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use tenantry_model::ErrorCode;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_model::quota::Quotas;
use tenantry_model::text::{is_email, line_fault};
use tenantry_model::{Catalogue, Plan, Slug};
use tenantry_provider::{Person, hosts};

use crate::error::{Error, FieldError, Result};
use crate::operations::clone::Cloning;
use crate::templates::shape::{self, clip};
use crate::tenants::config::values_fault;
use crate::tenants::label_fault;

/// Request to create a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// The tenant's name, unique among living tenants without regard to case.
    #[schemars(length(min = 1, max = 200))]
    pub tenant_name: String,
    /// Name of the customer's organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub organization_name: Option<String>,
    /// The first administrator.
    pub admin_user: AdminUser,
    /// Plan, billing cycle and features.
    pub subscription: SubscriptionRequest,
    /// Configuration beyond the template; the template decides what is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationRequest>,
    /// Compliance rules for the tenant's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliance: Option<ComplianceRequest>,
    /// Quotas that differ from the plan's; the template decides which are allowed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub quotas: Quotas,
    /// DNS label; by default derived from the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub slug: Option<String>,
    /// Region of the tenant's resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub region: Option<String>,
    /// BCP 47 language of seeds and mails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 35))]
    pub locale: Option<String>,
    /// Labels of your own; no personal data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// The source of a clone. Not part of the public request: `clone` is a use case of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub cloning: Option<Cloning>,
}

/// The first administrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminUser {
    /// E-mail address.
    #[schemars(length(min = 3, max = 254))]
    pub email: String,
    /// Given name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub first_name: Option<String>,
    /// Family name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub last_name: Option<String>,
    /// `owner` (default) or `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub role: Option<String>,
}

/// Plan and billing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionRequest {
    /// The plan's name or alias.
    #[schemars(length(min = 1, max = 63))]
    pub plan: String,
    /// Billing period.
    #[serde(default)]
    pub billing_cycle: BillingCycle,
    /// Features to enable; by default the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 256))]
    pub features: Option<BTreeSet<String>>,
}

/// Billing period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BillingCycle {
    /// Every month.
    #[default]
    Monthly,
    /// Every year.
    Yearly,
}

/// Configuration. The template decides which fields a request may set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationRequest {
    /// The customer's own domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_domain: Option<String>,
    /// Colours, logo and similar settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branding: Option<Map<String, Value>>,
    /// Third-party integrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrations: Option<Vec<Value>>,
    /// Settings of the product; they win over the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Map<String, Value>>,
}

/// Compliance rules for the tenant's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComplianceRequest {
    /// Region that the data must not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub data_residency: Option<String>,
    /// Days for which data is held after the start of an offboarding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 36_500))]
    pub retention_period: Option<u32>,
    /// Encryption at rest of the tenant's files. The outputs of its database state how the database is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_level: Option<EncryptionLevel>,
}

/// How files are encrypted at rest. Both levels become unreadable when the tenant's key is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncryptionLevel {
    /// Under the master key.
    Standard,
    /// Under keys of each resource.
    Enhanced,
}

static SHAPE: LazyLock<Option<jsonschema::Validator>> =
    LazyLock::new(|| jsonschema::validator_for(schemars::schema_for!(CreateTenant).as_value()).ok());

impl CreateTenant {
    /// Checks a document and reads it. Fails with every faulty field.
    pub fn read(document: &Value) -> Result<Self> {
        let validator =
            SHAPE.as_ref().ok_or_else(|| Error::internal("the schema of CreateTenant does not compile"))?;
        let faults = shape::faults_by(validator, document);
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        }
        serde_json::from_value(document.clone())
            .map_err(|why| Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("", why)]))
    }

    /// The plan asked for and every fault of meaning that can be seen without the registry.
    pub fn check<'a>(&self, catalogue: &'a Catalogue) -> (Option<&'a Plan>, Vec<FieldError>) {
        let mut faults = Vec::new();
        let mut fault = |path: &str, message: String| faults.push(FieldError::new(path, message));
        let texts = [
            ("tenant_name", Some(&self.tenant_name)),
            ("organization_name", self.organization_name.as_ref()),
            ("admin_user.first_name", self.admin_user.first_name.as_ref()),
            ("admin_user.last_name", self.admin_user.last_name.as_ref()),
        ];
        for (path, text) in texts.into_iter().filter_map(|(path, text)| Some((path, text?))) {
            if let Some(why) = line_fault(text) {
                fault(path, why.to_owned());
            }
        }
        if !is_email(&self.admin_user.email) {
            fault("admin_user.email", "must be an e-mail address such as name@example.com".to_owned());
        }
        if let Some(role) = &self.admin_user.role
            && !["owner", "admin"].contains(&role.as_str())
        {
            fault("admin_user.role", "must be `owner` or `admin`".to_owned());
        }
        if let Some(Err(why)) = self.slug.as_deref().map(Slug::parse) {
            fault("slug", why.to_string());
        }
        if let Some(region) = &self.region
            && !is_label(region)
        {
            fault("region", "may contain only a-z, 0-9 and hyphens".to_owned());
        }
        let residency = self.compliance.as_ref().and_then(|c| c.data_residency.as_ref());
        if let (Some(region), Some(residency)) = (&self.region, residency)
            && region != residency
        {
            fault("compliance.data_residency", "must be the same as `region`".to_owned());
        }
        if let Some(residency) = residency
            && !is_label(residency)
        {
            fault("compliance.data_residency", "may contain only a-z, 0-9 and hyphens".to_owned());
        }
        if let Some(locale) = &self.locale
            && !locale.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            fault("locale", "must be a BCP 47 language tag such as en or de-AT".to_owned());
        }
        let configuration = self.configuration.as_ref();
        let values = [
            ("configuration.settings", configuration.and_then(|c| c.settings.clone()).map(Value::Object)),
            ("configuration.branding", configuration.and_then(|c| c.branding.clone()).map(Value::Object)),
            (
                "configuration.integrations",
                configuration.and_then(|c| c.integrations.clone()).map(Value::Array),
            ),
        ];
        for (path, value) in values.into_iter().filter_map(|(path, value)| Some((path, value?))) {
            if let Some(why) = values_fault(&value) {
                fault(path, why);
            }
        }
        let domain = configuration.and_then(|c| c.custom_domain.as_deref());
        if let Some(Err(why)) = domain.map(hosts::full_name) {
            fault("configuration.custom_domain", why);
        }
        let plan = catalogue.find(&self.subscription.plan);
        if plan.is_none() {
            let known: Vec<_> = catalogue.plans.iter().map(|p| p.name.as_str()).collect();
            let asked = clip(&self.subscription.plan);
            fault(
                "subscription.plan",
                format!("Invalid subscription plan: {asked}; choose one of {}", known.join(", ")),
            );
        }
        for feature in self.subscription.features.iter().flatten() {
            if let Some(plan) = plan.filter(|p| !p.features.contains(feature)) {
                let known: Vec<_> = plan.features.iter().map(String::as_str).collect();
                let message =
                    format!("`{}` is not in plan {}; it has {}", clip(feature), plan.name, known.join(", "));
                fault("subscription.features", message);
            }
        }
        faults.extend(self.labels.iter().filter_map(|(name, value)| label_fault(name, value)));
        (plan, faults)
    }

    /// Where the resources shall be, if the request says so.
    pub fn region(&self) -> Option<&str> {
        let residency = self.compliance.as_ref().and_then(|c| c.data_residency.as_deref());
        self.region.as_deref().or(residency)
    }

    /// The first administrator as a person.
    pub fn admin(&self) -> Person {
        let AdminUser { email, first_name, last_name, role } = self.admin_user.clone();
        Person { email, first_name, last_name, role: role.unwrap_or_else(|| "owner".to_owned()) }
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalogue() -> Catalogue {
        let plan =
            json!({ "name": "starter", "title": "S", "template": "starter", "features": ["projects"] });
        serde_json::from_value(json!({ "plans": [plan] })).unwrap()
    }

    fn good() -> Value {
        json!({
            "tenant_name": "Acme", "admin_user": { "email": "ada@example.com" }, "subscription": { "plan": "starter" }
        })
    }

    #[test]
    fn a_minimal_request_is_enough() {
        let request = CreateTenant::read(&good()).unwrap();
        assert_eq!(request.check(&catalogue()).1, []);
        assert_eq!(request.admin().role, "owner");
    }

    #[test]
    fn every_fault_of_shape_is_named_at_once() {
        let error = CreateTenant::read(&json!({
            "tenant_name": 7, "admin_user": { "emial": "x" }, "subscription": { "plan": "starter", "billing_cycle": "daily" },
            "compliance": { "retention_period": -1 }, "colour": "red", "labels": { "a": 1 }
        }))
        .unwrap_err();
        let paths: Vec<_> = error.errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "admin_user.email",
                "admin_user.emial",
                "colour",
                "compliance.retention_period",
                "labels.a",
                "subscription.billing_cycle",
                "tenant_name"
            ]
        );
    }

    #[test]
    fn every_fault_of_meaning_is_named_at_once() {
        let mut document = good();
        document["tenant_name"] = json!("Ac\u{202e}me");
        document["admin_user"]["email"] = json!("no address");
        document["admin_user"]["role"] = json!("god");
        document["slug"] = json!("www");
        document["subscription"]["plan"] = json!("gold");
        let (_, faults) = CreateTenant::read(&document).unwrap().check(&catalogue());
        let paths: Vec<_> = faults.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            paths,
            ["tenant_name", "admin_user.email", "admin_user.role", "slug", "subscription.plan"]
        );
        assert!(faults[4].message.starts_with("Invalid subscription plan: gold"));
    }
}
