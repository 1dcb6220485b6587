//! Members and invitations as rows of the registry. Does no I/O; returns the rows to write.
//! Never gives a secret as an output, and overwrites no member that is there.
//!
#![doc = include_str!("docs.md")]

mod config;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::id::{InvitationId, UserId};
use tenantry_model::member::{self, EMAIL_MAC, normal_email};
use tenantry_model::{Columns, Failure, Write, columns};

pub use config::Config;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::identity::{FirstAdmin, IdentitySettings as Settings};
use tenantry_provider::transfer::Transfer;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};
use tenantry_provider::{derived, passwords, settings};

/// Name under which an invitation's token waits to be claimed.
pub const INVITATION_TOKEN: &str = "invitation_token";
/// Name under which a one-time password waits to be claimed.
pub const ONE_TIME_PASSWORD: &str = "one_time_password";

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
}

impl Default for IdentityBuiltin {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// What is stored of a random secret.
pub fn fingerprint(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// 32 random bytes, as they stand in a link.
fn token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn member_id(spec: &Spec) -> UserId {
    derived::id(spec.resource, spec.generation, "first_admin")
}

fn invitation_id(spec: &Spec) -> InvitationId {
    derived::id(spec.resource, spec.generation, "first_admin")
}

/// The tenant's members: ours, and whether there are others'.
async fn members(context: &Context, spec: &Spec) -> Result<(Vec<Value>, bool), Failure> {
    let all = context.rows.find("members", &[("tenant_id", json!(spec.tenant.id))]).await?;
    let count = all.len();
    let ours: Vec<Value> =
        all.into_iter().filter(|row| row.get("resource_id") == Some(&json!(spec.resource))).collect();
    let foreign = ours.len() < count;
    Ok((ours, foreign))
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
        settings::check::<Settings>(given).err().unwrap_or_default()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let settings: Settings = settings::of(spec)?;
        let admin = &spec.tenant.admin;
        let email = normal_email(&admin.email);
        if email.is_empty() {
            return Err(Failure::invalid(
                "no_admin",
                "the tenant has no e-mail address of a first administrator",
            ));
        }
        if !member::find(&admin.role).is_some_and(|role| role.administers) {
            let known: Vec<&str> =
                member::ROLES.iter().filter(|role| role.administers).map(|role| role.name).collect();
            let message = format!("the first administrator's role must be one of: {}", known.join(", "));
            return Err(Failure::invalid("bad_role", message));
        }
        let (members, foreign) = members(context, spec).await?;
        if foreign {
            return Err(Failure::fatal(
                "name_taken",
                "the tenant has members of another resource; they were not touched",
            ));
        }
        let (member, invitation) = (member_id(spec), invitation_id(spec));
        let invited = settings.first_admin == FirstAdmin::Invitation;
        let mut outputs =
            json!({ "member_id": member, "role": admin.role, "first_admin": settings.first_admin });
        if let (true, Some(outputs)) = (invited, outputs.as_object_mut()) {
            outputs.insert("invitation_id".to_owned(), json!(invitation));
        }
        // Whoever is in, is in: a first administrator whom the tenant has removed since is not brought back.
        if !members.is_empty() && has_way_in(context, spec, &members).await? {
            return Ok(Ensured { outputs, writes: Vec::new() });
        }
        let there = members.iter().any(|row| row.get("id") == Some(&json!(member)));

        let tenant = spec.tenant.id;
        let person = json!({ "email": admin.email.trim(), "first_name": admin.first_name, "last_name": admin.last_name });
        let (name, secret) =
            if invited { (INVITATION_TOKEN, token()) } else { (ONE_TIME_PASSWORD, passwords::random()) };
        let credential = columns! {
            "operation_id": spec.operation, "name": name, "tenant_id": tenant,
            "sealed": context.sealer.seal(tenant, &secret)?, "created_at": context.now, "claimed_at": (),
        };
        let mut writes = vec![Write::insert_absent(
            "members",
            columns! {
            "id": member, "tenant_id": tenant, "resource_id": spec.resource,
            "email_mac": context.sealer.mac(EMAIL_MAC, &email),
            "sealed": context.sealer.seal(tenant, &person.to_string())?,
            "role": admin.role,
            "state": if invited { "invited" } else { "active" },
            "password_hash": if invited { Value::Null } else { json!(format!("sha256:{}", fingerprint(&secret))) },
            "must_change_password": !invited,
            "created_at": context.now },
        )];
        if invited {
            let lifetime = Duration::from_secs(DAY * u64::from(self.config.invitation_days));
            writes.push(Write::insert_absent(
                "invitations",
                columns! {
                    "id": invitation, "tenant_id": tenant, "member_id": member, "token_hash": fingerprint(&secret),
                    "role": admin.role, "expires_at": context.now + lifetime, "accepted_at": (), "created_at": context.now },
            ));
        }
        // The hash and its secret are written together or not at all: of two attempts the first one's pair stays. Only
        // where the hash was lost does a new secret take the old one's place.
        writes.push(if there {
            Write::upsert("credentials", credential)
        } else {
            Write::insert_absent("credentials", credential)
        });
        Ok(Ensured { outputs, writes })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let (members, foreign) = members(context, spec).await?;
        if members.is_empty() {
            return Ok(if foreign { Observed::Foreign } else { Observed::Absent });
        }
        let healthy = has_way_in(context, spec, &members).await?;
        let mut roles: Vec<String> = members
            .iter()
            .map(|row| {
                [row.get("id"), row.get("role")]
                    .map(|v| v.and_then(Value::as_str).unwrap_or_default())
                    .join(" ")
            })
            .collect();
        roles.sort();
        Ok(Observed::present(healthy, None, fingerprint(&roles.join("\n"))))
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let tenant = json!(spec.tenant.id);
        let (members, _) = members(context, spec).await?;
        let ours = |row: &Value| members.iter().any(|member| member.get("id") == row.get("member_id"));
        let mut writes = Vec::new();
        let mut receipt = serde_json::Map::new();
        for (table, key) in [("invitations", "id"), ("sign_in_codes", "hash")] {
            let rows = context.rows.find(table, &[("tenant_id", tenant.clone())]).await?;
            let keys = rows.iter().filter(|row| ours(row)).filter_map(|row| row.get(key));
            let deletes: Vec<Write> =
                keys.map(|value| Write::delete(table, Columns::one(key, value))).collect();
            receipt.insert(table.to_owned(), deletes.len().into());
            writes.extend(deletes);
        }
        if !members.is_empty() {
            let rows = context.rows.find("credentials", &[("tenant_id", tenant)]).await?;
            let named = |row: &&Value| {
                row.get("name").is_some_and(|name| name == INVITATION_TOKEN || name == ONE_TIME_PASSWORD)
            };
            writes.extend(rows.iter().filter(named).map(|row| {
                Write::delete(
                    "credentials",
                    columns! { "operation_id": row.get("operation_id"), "name": row.get("name") },
                )
            }));
        }
        receipt.insert("members".to_owned(), members.len().into());
        writes.extend(members.iter().map(|row| Write::delete("members", columns! { "id": row.get("id") })));
        Ok(Removed { receipt: Value::Object(receipt), writes })
    }

    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}

/// Whether somebody who administers can get in: is in already, or has an invitation.
async fn has_way_in(context: &Context, spec: &Spec, members: &[Value]) -> Result<bool, Failure> {
    if members.iter().any(|row| row.get("state").is_some_and(|state| state == "active")) {
        return Ok(true);
    }
    let invitations = context.rows.find("invitations", &[("tenant_id", json!(spec.tenant.id))]).await?;
    Ok(invitations.iter().any(|row| members.iter().any(|member| member.get("id") == row.get("member_id"))))
}
