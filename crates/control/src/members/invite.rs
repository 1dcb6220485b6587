//! New invitations: for a member whose invitation has expired or was lost, or that has no other way to sign in. The previous
//! invitation ends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_model::id::{InvitationId, UserId};
use tenantry_model::member::{EMAIL_MAC, normal_email};
use tenantry_model::{ErrorCode, TenantId, TenantStatus, Timestamp, Write};
use tenantry_store::entity::{invitation, member};
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::table::{delete, insert_absent};
use tenantry_store::{WriteBatch, rows_of};

use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::secret::{fingerprint, generate};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::error::{Error, Result};

/// Lifetime of an invitation if the member has none whose lifetime it takes over.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// Request for a new invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InviteMember {
    /// E-mail address of a member of the tenant; by default that of its first member.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 254))]
    pub email: Option<String>,
}

/// An invitation. Its token is shown once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct InvitationView {
    /// Invitation id.
    pub id: InvitationId,
    /// The invited member.
    pub member_id: UserId,
    /// Role of the member.
    pub role: String,
    /// Time of expiry.
    pub expires_at: Timestamp,
    /// The token, for `POST /auth/token`. Missing if the request repeats an earlier one: a secret is shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Control {
    /// Invites a member of an active or suspended tenant again, and ends the member's previous invitation.
    pub async fn invite(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: &InviteMember,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<InvitationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let status: TenantStatus = row.status.parse().map_err(Error::internal)?;
        if !matches!(status, TenantStatus::Active | TenantStatus::Suspended) {
            let message = format!("the tenant is {status}; only active and suspended tenants allow this");
            return Err(Error::new(ErrorCode::IllegalTransition, message));
        }
        let tenant = row.id.parse().map_err(Error::internal)?;
        let once = key.map(|key| Once::new(caller, &key, &format!("invite {tenant}"), &json!(what)));
        match self.once(once.as_ref(), self.try_invite(caller, tenant, what, once.as_ref())).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => {
                let value = serde_json::from_value(answer).map_err(Error::internal)?;
                Ok(Answered { value, replayed: true })
            }
        }
    }

    async fn try_invite(
        &self,
        caller: &Caller,
        tenant: TenantId,
        what: &InviteMember,
        once: Option<&Once>,
    ) -> Result<InvitationView> {
        let (member, now) = (self.member_of(tenant, what.email.as_deref()).await?, self.now());
        let mut before: Vec<invitation::Model> =
            rows_of(&self.shared.store, tenant).await.map_err(Error::unavailable)?;
        before.retain(|row| row.member_id == member.id);
        let lifetime = before.iter().map(|row| row.expires_at.since(*row.created_at)).max();
        let token = generate("");
        let view = InvitationView {
            id: InvitationId::new(),
            member_id: member.id.parse().map_err(Error::internal)?,
            role: member.role.clone(),
            expires_at: now + lifetime.unwrap_or(LIFETIME),
            token: None,
        };
        let mut writes: Vec<Write> =
            once.map(|once| once.guard(&json!(view), Some(tenant), now)).into_iter().collect();
        for row in &before {
            writes.extend(self.spent(tenant, &row.token_hash, now).await?);
            writes.push(delete(row));
        }
        let audited = AuditRecord {
            actor: &caller.principal,
            action: "invitation.create",
            target: &view.id.to_string(),
            tenant: Some(tenant),
            data: json!({ "member_id": member.id, "role": member.role }),
        };
        let row = invitation::Model {
            id: view.id.to_string(),
            tenant_id: tenant.to_string(),
            member_id: member.id,
            token_hash: fingerprint(&token),
            role: member.role,
            expires_at: view.expires_at.into(),
            accepted_at: None,
            created_at: now.into(),
        };
        writes.extend([insert_absent(&row), audit(audited, now)]);
        self.shared.store.commit(WriteBatch::new(writes)).await.map_err(Error::unavailable)?;
        Ok(InvitationView { token: Some(token), ..view })
    }

    /// The tenant's member with this e-mail address, or its first one.
    async fn member_of(&self, tenant: TenantId, email: Option<&str>) -> Result<member::Model> {
        let found = match email {
            Some(email) => {
                let mac = self.mac(EMAIL_MAC, &normal_email(email));
                self.shared
                    .store
                    .member_by_email(&tenant.to_string(), &mac)
                    .await
                    .map_err(Error::unavailable)?
            }
            None => {
                let all: Vec<member::Model> =
                    rows_of(&self.shared.store, tenant).await.map_err(Error::unavailable)?;
                all.into_iter().min_by_key(|row| *row.created_at)
            }
        };
        found.ok_or_else(|| Error::not_found("member of this tenant"))
    }
}
