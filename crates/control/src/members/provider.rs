//! The built-in identity provider: a tenant's members as rows of the registry. It performs no I/O: it returns rows, which are
//! written in the transaction that records its step.
//!
//! - **First administrator** by `invitation` (32 random bytes, valid for seven days) or `one_time_password` (24 random
//!   characters). The password is marked `must_change_password`; no endpoint changes it yet, and it stays valid. Random
//!   secrets are stored as SHA-256.
//! - **The secret itself** is stored in `credentials`, sealed under the tenant's key, until it is handed out once. No output
//!   contains it.
//! - **Personal data**: name and address of a member are sealed; `email_mac` finds a member by address.
//! - **Idempotent**: ids are derived from the resource, and an existing row is not overwritten, except for an invitation that has
//!   expired while no member can sign in: a repair replaces it, and its operation hands out the new token.
//! - **Archives**: the table `members` with names and addresses, unencrypted and without secrets. Loading adds missing
//!   members and invites them; their invitations are handed out with the operation's credentials.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tenantry_model::Failure;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::identity::{FirstAdmin, INVITATION_TOKEN, IdentitySettings, ONE_TIME_PASSWORD};
use tenantry_provider::settings;
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

use super::rows::{Ids, Members, NewMember, SealedPerson, check_first_admin};

const DAY: u64 = 86_400;

/// The type, and the name of its default instance.
const NAME: &str = "builtin_identity";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Identity,
    about: "Members and invitations in the registry",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(IdentityBuiltin::new(factory::config(config)?).named(&context.name)))
        })
    },
};

/// Settings of invitations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days until an invitation expires.
    #[schemars(range(min = 1, max = 365))]
    pub invitation_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { invitation_days: 7 }
    }
}

/// The provider.
#[derive(Clone, Debug)]
pub struct IdentityBuiltin {
    name: Arc<str>,
    config: Config,
}

impl IdentityBuiltin {
    /// With this configuration.
    pub fn new(config: Config) -> Self {
        Self { name: NAME.into(), config }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Time until an invitation expires.
    pub(super) fn invitation_lifetime(&self) -> Duration {
        Duration::from_secs(DAY * u64::from(self.config.invitation_days))
    }
}

impl Default for IdentityBuiltin {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

#[async_trait]
impl Provider for IdentityBuiltin {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Identity
    }

    fn transactional(&self) -> bool {
        true
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        settings::check::<IdentitySettings>(given).err().unwrap_or_default()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let IdentitySettings { first_admin: first } = settings::of(spec)?;
        check_first_admin(spec)?;
        let members = Members::read(context, spec).await?;
        if members.foreign {
            return Err(Failure::fatal(
                "name_taken",
                "the tenant has members of another resource; they were not touched",
            ));
        }
        let admin = &spec.tenant.admin;
        let ids = Ids::of(spec, "first_admin");
        let mut outputs = json!({ "member_id": ids.member, "role": admin.role, "first_admin": first });
        let secret_name = match first {
            FirstAdmin::Invitation => {
                outputs["invitation_id"] = json!(ids.invitation);
                INVITATION_TOKEN
            }
            FirstAdmin::OneTimePassword => ONE_TIME_PASSWORD,
        };
        // A first administrator whom the tenant has removed since is not created again.
        if members.can_sign_in(context, spec).await? {
            return Ok(Ensured { outputs, writes: Vec::new() });
        }
        let renew = members.has(&ids.member.to_string());
        let person = SealedPerson {
            email: admin.email.trim().to_owned(),
            first_name: admin.first_name.clone(),
            last_name: admin.last_name.clone(),
        };
        let invitation_lifetime = self.invitation_lifetime();
        let new =
            NewMember { ids, person: &person, role: &admin.role, first, invitation_lifetime, secret_name };
        Ok(Ensured { outputs, writes: new.writes(context, spec, renew)? })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let members = Members::read(context, spec).await?;
        if members.rows.is_empty() {
            return Ok(if members.foreign { Observed::Foreign } else { Observed::Absent });
        }
        let healthy = members.can_sign_in(context, spec).await?;
        Ok(Observed::present(healthy, None, members.fingerprint()))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let (writes, receipt) = Members::read(context, spec).await?.delete(context, spec).await?;
        Ok(Removed { receipt, writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
