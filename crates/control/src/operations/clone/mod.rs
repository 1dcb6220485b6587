//! Clones: a new tenant with a copy of another tenant's rows, masked, for support and tests. A clone is an onboarding with one
//! step more, which streams the rows from one database to the other without storing them in between. Members, settings
//! and subscriptions are not copied, so that a clone mails and bills no one.

mod content;

use std::collections::BTreeMap;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{Policy, Step};
use tenantry_model::TenantId;
use tenantry_provider::masks::MaskRule;
use tenantry_provider::transfer::Content;
use tenantry_provider::{Kind, Sealer as _};

use super::archive::{LeftOut, TIMEOUT_MS};
use super::onboard::request::{AdminUser, CreateTenant};
use super::onboard::{Activate, Created};
use super::{Action as _, TENANTRY};
use crate::access::idempotency::{IdempotencyKey, Once};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::ledger::{StepInput, id_of};
use crate::templates::built_in::CLONE;
use crate::templates::mask_faults;

pub(super) use content::CloneContent;

/// Request to clone a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneTenant {
    /// The clone's name; without it, the tenant's with ` (clone)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub tenant_name: Option<String>,
    /// The clone's DNS label; by default derived from its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub slug: Option<String>,
    /// First administrator of the clone. Members of the source have no access to it.
    pub admin_user: AdminUser,
    /// Masks in addition to those of the template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 256))]
    pub masks: Vec<MaskRule>,
    /// Whether files are copied as well. Masks do not apply to files.
    #[serde(default)]
    pub files: bool,
}

/// The source of a clone, as the request and the step keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloning {
    /// Source tenant.
    pub from: TenantId,
    /// Masks.
    pub masks: Vec<MaskRule>,
    /// Whether files are copied.
    pub files: bool,
}

/// Result of a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cloned {
    /// Source tenant.
    pub from: TenantId,
    /// Content of the clone's resources, by the step that created them.
    pub resources: BTreeMap<String, Content>,
    /// Resources of the source that were not copied.
    pub left_out: Vec<LeftOut>,
}

impl Control {
    /// Begins the onboarding of a clone of an active or suspended tenant, on the same plan and in the same region.
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
        let faults = mask_faults(always, &masks);
        if !faults.is_empty() {
            return Err(Error::invalid(ErrorCode::RequestInvalid, faults));
        }
        let name = tenant_name.unwrap_or_else(|| format!("{} (clone)", row.name.unwrap_or_default()));
        // Only plan, quotas, region and compliance are those of the source.
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

/// Turns an onboarding's plan into that of a clone: without billing, and with the content copied right before the activation,
/// so that the smoke test runs on empty tables.
pub(super) fn join(steps: &mut Vec<Step>, cloning: &Cloning) -> Result<()> {
    let billing = Kind::Billing.as_str();
    let unbilled: Vec<String> =
        steps.iter().filter(|step| step.kind == billing).map(|step| step.key.clone()).collect();
    steps.retain(|step| step.kind != billing);
    for step in steps.iter_mut() {
        step.needs.retain(|need| !unbilled.contains(need));
    }
    let Some(at) = steps.iter().position(|step| step.kind == Activate.kind()) else {
        return Err(Error::internal("a plan without an activation"));
    };
    let input = StepInput { settings: json!(cloning), ..StepInput::default() };
    let policy = Policy { timeout_ms: TIMEOUT_MS, ..Policy::default() };
    let mut clone = Step::new(CLONE, CloneContent.kind(), TENANTRY, policy, json!(input));
    if let Some(activate) = steps.get_mut(at) {
        clone.needs = std::mem::replace(&mut activate.needs, vec![CLONE.to_owned()]);
    }
    steps.insert(at, clone);
    for (place, step) in steps.iter_mut().enumerate() {
        step.position = i32::try_from(place).unwrap_or(i32::MAX);
    }
    Ok(())
}
