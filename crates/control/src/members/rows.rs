//! The rows of a tenant's members: members, invitations, sign-in codes, sessions, and the secrets that wait to be claimed. Reads them
//! and returns the rows to write; commits nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_model::id::{InvitationId, UserId};
use tenantry_model::member::{self as roles, EMAIL_MAC, normal_email};
use tenantry_model::{Failure, Timestamp, Write, columns};
use tenantry_provider::kinds::identity::{FirstAdmin, INVITATION_TOKEN, ONE_TIME_PASSWORD};
use tenantry_provider::{Context, Spec, derived, passwords};
use tenantry_store::entity::{credential, invitation, member, session, sign_in_code};
use tenantry_store::rows_of;
use tenantry_store::table::{delete, insert_absent, upsert};

use crate::access::secret::{fingerprint, generate};

const INVITED: &str = "invited";
pub(super) const ACTIVE: &str = "active";

/// Name and address of a member, sealed in its row.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SealedPerson {
    pub email: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
}

/// The tenant's members that belong to one identity resource.
pub(super) struct Members {
    pub rows: Vec<member::Model>,
    /// Whether the tenant has members of another resource.
    pub foreign: bool,
}

impl Members {
    pub async fn read(context: &Context, spec: &Spec) -> Result<Self, Failure> {
        let mut rows: Vec<member::Model> = rows_of(&*context.rows, spec.tenant.id).await?;
        let (all, resource) = (rows.len(), spec.resource.to_string());
        rows.retain(|row| row.resource_id == resource);
        Ok(Self { foreign: rows.len() < all, rows })
    }

    /// Whether this is the id of one of them.
    pub fn has(&self, id: &str) -> bool {
        self.rows.iter().any(|row| row.id == id)
    }

    /// Whether a member can sign in: one is active, or has an invitation that has not expired.
    pub async fn can_sign_in(&self, context: &Context, spec: &Spec) -> Result<bool, Failure> {
        if self.rows.is_empty() || self.rows.iter().any(|row| row.state == ACTIVE) {
            return Ok(!self.rows.is_empty());
        }
        let invitations: Vec<invitation::Model> = rows_of(&*context.rows, spec.tenant.id).await?;
        let valid = |row: &invitation::Model| row.accepted_at.is_none() && *row.expires_at > context.now;
        Ok(invitations.iter().any(|row| valid(row) && self.has(&row.member_id)))
    }

    /// Changes with the members and their roles.
    pub fn fingerprint(&self) -> String {
        let mut roles: Vec<String> = self.rows.iter().map(|row| format!("{} {}", row.id, row.role)).collect();
        roles.sort();
        fingerprint(&roles.join("\n"))
    }

    /// The writes that delete the members with everything of theirs, and the number of rows by table.
    pub async fn delete(&self, context: &Context, spec: &Spec) -> Result<(Vec<Write>, Value), Failure> {
        let (rows, tenant) = (&*context.rows, spec.tenant.id);
        let mut invitations: Vec<invitation::Model> = rows_of(rows, tenant).await?;
        invitations.retain(|row| self.has(&row.member_id));
        let mut codes: Vec<sign_in_code::Model> = rows_of(rows, tenant).await?;
        codes.retain(|row| self.has(&row.member_id));
        let mut sessions: Vec<session::Model> = rows_of(rows, tenant).await?;
        sessions.retain(|row| self.has(&row.member_id));
        let mut secrets = Vec::new();
        if !self.rows.is_empty() {
            secrets = rows_of::<credential::Model>(rows, tenant).await?;
            secrets.retain(|row| row.name == INVITATION_TOKEN || row.name == ONE_TIME_PASSWORD);
        }
        let receipt = json!({
            "invitations": invitations.len(), "sign_in_codes": codes.len(), "members": self.rows.len(),
        });
        let mut writes: Vec<Write> = invitations.iter().map(delete).collect();
        writes.extend(codes.iter().map(delete));
        writes.extend(sessions.iter().map(delete));
        writes.extend(secrets.iter().map(delete));
        writes.extend(self.rows.iter().map(delete));
        Ok((writes, receipt))
    }
}

/// Fails unless the tenant has a first administrator with an address and a role that administers.
pub(super) fn check_first_admin(spec: &Spec) -> Result<(), Failure> {
    let admin = &spec.tenant.admin;
    if normal_email(&admin.email).is_empty() {
        return Err(Failure::invalid(
            "no_admin",
            "the tenant has no e-mail address of a first administrator",
        ));
    }
    if !roles::find(&admin.role).is_some_and(|role| role.administers) {
        let known: Vec<&str> =
            roles::ROLES.iter().filter(|role| role.administers).map(|role| role.name).collect();
        let message = format!("the first administrator's role must be one of: {}", known.join(", "));
        return Err(Failure::invalid("bad_role", message));
    }
    Ok(())
}

/// Ids of a member and its invitation. They follow from the resource and `key`, so that a repeated step writes the same rows.
pub(super) struct Ids {
    pub member: UserId,
    pub invitation: InvitationId,
}

impl Ids {
    pub fn of(spec: &Spec, key: &str) -> Self {
        Self {
            member: derived::id(spec.resource, spec.generation, key),
            invitation: derived::id(spec.resource, spec.generation, key),
        }
    }
}

/// A new member and how it signs in for the first time.
pub(super) struct NewMember<'a> {
    pub ids: Ids,
    pub person: &'a SealedPerson,
    pub role: &'a str,
    pub first: FirstAdmin,
    /// Time until an invitation expires.
    pub invitation_lifetime: Duration,
    /// Name under which the secret waits to be claimed.
    pub secret_name: &'a str,
}

impl NewMember<'_> {
    /// The rows of the member, its invitation and its secret. A row that exists stays: the hash and its secret are written
    /// together or not at all. With `renew`, they replace an invitation that was lost or has expired.
    pub fn writes(&self, context: &Context, spec: &Spec, renew: bool) -> Result<Vec<Write>, Failure> {
        let tenant = spec.tenant.id;
        let invited = self.first == FirstAdmin::Invitation;
        let secret = if invited { generate("") } else { passwords::random() };
        let mut writes = vec![insert_absent(&member::Model {
            id: self.ids.member.to_string(),
            tenant_id: tenant.to_string(),
            resource_id: spec.resource.to_string(),
            email_mac: context.sealer.mac(EMAIL_MAC, &normal_email(&self.person.email)),
            sealed: context.sealer.seal(tenant, &json!(self.person).to_string())?,
            role: self.role.to_owned(),
            state: if invited { INVITED } else { ACTIVE }.to_owned(),
            password_hash: (!invited).then(|| password_hash(&secret)),
            must_change_password: !invited,
            created_at: context.now.into(),
        })];
        if invited {
            let invitation = invitation::Model {
                id: self.ids.invitation.to_string(),
                tenant_id: tenant.to_string(),
                member_id: self.ids.member.to_string(),
                token_hash: fingerprint(&secret),
                role: self.role.to_owned(),
                expires_at: (context.now + self.invitation_lifetime).into(),
                accepted_at: None,
                created_at: context.now.into(),
            };
            writes.push(if renew { upsert(&invitation) } else { insert_absent(&invitation) });
        }
        let credential = credential::Model {
            operation_id: spec.operation.to_string(),
            name: self.secret_name.to_owned(),
            tenant_id: tenant.to_string(),
            sealed: Some(context.sealer.seal(tenant, &secret)?),
            created_at: context.now.into(),
            claimed_at: None,
        };
        writes.push(if renew { upsert(&credential) } else { insert_absent(&credential) });
        Ok(writes)
    }
}

/// The stored form of a password. A fast hash suffices, because all passwords are generated and long.
pub(super) fn password_hash(password: &str) -> String {
    format!("sha256:{}", fingerprint(password))
}

/// Marks a sign-in code as used. The write is rejected if it has been used since it was read.
pub(super) fn use_code(code: &sign_in_code::Model, now: Timestamp) -> Write {
    Write::update_if(
        "sign_in_codes",
        columns! { "hash": code.hash },
        columns! { "used_at": () },
        columns! { "used_at": now },
    )
}

/// Accepts an invitation, which makes its member active. The writes are rejected if either has changed since it was read.
pub(super) fn accept(invitation: &invitation::Model, member: &member::Model, now: Timestamp) -> [Write; 2] {
    let accepted = Write::update_if(
        "invitations",
        columns! { "id": invitation.id },
        columns! { "accepted_at": () },
        columns! { "accepted_at": now },
    );
    let active = Write::update_if(
        "members",
        columns! { "id": member.id },
        columns! { "state": member.state },
        columns! { "state": ACTIVE },
    );
    [accepted, active]
}

/// Deletes the sealed copy of a secret that was used, so that it cannot be claimed any more.
pub(super) fn spend(secret: &credential::Model, now: Timestamp) -> Write {
    let key = columns! { "operation_id": secret.operation_id, "name": secret.name };
    Write::update("credentials", key, columns! { "sealed": (), "claimed_at": now })
}
