//! Sign-in of a tenant's members: a one-time code, an invitation or a password is exchanged for a token. A rejection has the
//! same message and takes the same work whatever is wrong with the credential.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::json;
use tenantry_model::member::{EMAIL_MAC, normal_email};
use tenantry_model::suspension::Access;
use tenantry_model::{TenantId, Timestamp, Write};
use tenantry_provider::Sealer as _;

use crate::access::secret::fingerprint;
use crate::control::Control;
use crate::control::token::{SMOKE_TEST, TenantSession, TokenView};
use crate::error::{Error, Result};
use crate::members::rows;
use tenantry_model::ErrorCode;
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::{Rejected, WriteBatch, entity};

/// Has the length of a hash and equals none.
const NO_HASH: &str = "sha256:----------------------------------------------------------------";

impl Control {
    /// Exchanges a one-time code for a token. A code works once.
    pub async fn sign_in(&self, code: &str) -> Result<TokenView> {
        let refused = || Error::new(ErrorCode::CodeRefused, "the code is unknown, used or expired");
        let hash = fingerprint(code);
        let store = &self.shared.store;
        let row = store.sign_in_code(&hash).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        let now = self.now();
        if row.used_at.is_some() || *row.expires_at <= now {
            return Err(refused());
        }
        if row.purpose != SMOKE_TEST {
            self.admit_into(&row.tenant_id).await?;
        }
        match store.commit(WriteBatch::new(vec![rows::use_code(&row, now)])).await {
            Ok(()) => {}
            Err(Rejected::Stale { .. }) => return Err(refused()),
            Err(why) => return Err(Error::unavailable(why)),
        }
        let member = store.member(&row.member_id).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        self.token_for(member, Some(row.purpose).filter(|purpose| purpose != "login"))
    }

    /// Accepts an invitation and returns a token for its member. An invitation works once, and only when the tenant is
    /// active; before that it stays unused.
    pub async fn accept_invitation(&self, token: &str) -> Result<TokenView> {
        let refused =
            || Error::new(ErrorCode::InvitationRefused, "the invitation is unknown, used or expired");
        let store = &self.shared.store;
        let row = store.invitation(&fingerprint(token)).await.map_err(Error::unavailable)?;
        let row = row.ok_or_else(refused)?;
        let now = self.now();
        if row.accepted_at.is_some() || *row.expires_at <= now {
            return Err(refused());
        }
        let member = store.member(&row.member_id).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        self.admit_into(&row.tenant_id).await?;
        let tenant: TenantId = row.tenant_id.parse().map_err(Error::internal)?;
        let audited = AuditRecord {
            actor: &member.id,
            action: "invitation.accept",
            target: &row.id,
            tenant: Some(tenant),
            data: json!({ "role": member.role }),
        };
        let mut writes = self.spent(tenant, &row.token_hash, now).await?;
        writes.extend(rows::accept(&row, &member, now));
        writes.push(audit(audited, now));
        match store.commit(WriteBatch::new(writes)).await {
            Ok(()) => self.token_for(member, None),
            Err(Rejected::Stale { .. }) => Err(refused()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Deletes the sealed copy of an invitation that was accepted or replaced, so that it cannot be claimed any more.
    pub(super) async fn spent(
        &self,
        tenant: TenantId,
        token_hash: &str,
        now: Timestamp,
    ) -> Result<Vec<Write>> {
        let (store, keyring) = (&self.shared.store, &self.shared.keyring);
        let waiting = store.sealed_credentials(&tenant.to_string()).await.map_err(Error::unavailable)?;
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        keyring.load(tenant).await.map_err(Error::unavailable)?;
        let is_it =
            |sealed: &str| keyring.open(tenant, sealed).is_ok_and(|token| fingerprint(&token) == token_hash);
        let used = waiting.into_iter().filter(|row| row.sealed.as_deref().is_some_and(is_it));
        Ok(used.map(|row| rows::spend(&row, now)).collect())
    }

    /// A token for a member's password. The answer does not reveal whether the tenant, the member or the password is
    /// wrong. `from`: the client's address, by which failures are counted.
    pub async fn sign_in_by_password(
        &self,
        tenant: &str,
        email: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<TokenView> {
        let found = match tenant.parse::<TenantId>() {
            Ok(id) => self.shared.store.tenant(&id.to_string()).await,
            Err(_) => self.shared.store.tenant_by_slug(&self.mac("slug", tenant)).await,
        };
        let found = found.map_err(Error::unavailable)?;
        // Without a tenant the same queries and comparisons run, so that the time does not reveal it.
        let mac = self.mac(EMAIL_MAC, &normal_email(email));
        // An account that does not exist is counted like one that does.
        let account = format!("{} {mac}", found.as_ref().map_or(tenant, |row| row.id.as_str()));
        self.shared.brake.count(&account, from, self.now())?;
        let tenant = found.as_ref().map_or("", |row| row.id.as_str());
        let member = self.shared.store.member_by_email(tenant, &mac).await.map_err(Error::unavailable)?;
        let given = rows::password_hash(password);
        let stored = member.as_ref().and_then(|member| member.password_hash.as_deref());
        let same = verify_slices_are_equal(given.as_bytes(), stored.unwrap_or(NO_HASH).as_bytes()).is_ok();
        match member {
            Some(member) if same && member.state == rows::ACTIVE => {
                self.shared.brake.clear(&account, from);
                self.admit_into(&member.tenant_id).await?;
                self.token_for(member, None)
            }
            _ => Err(Error::new(
                ErrorCode::PasswordRefused,
                "the tenant, the e-mail address or the password is wrong",
            )),
        }
    }

    /// Returns an error if the tenant's status denies sign-in.
    async fn admit_into(&self, tenant: &str) -> Result<()> {
        Ok(self.access_status(tenant).await?.check(Access::SignIn, false)?)
    }

    fn token_for(&self, member: entity::member::Model, purpose: Option<String>) -> Result<TokenView> {
        let tenant = member.tenant_id.parse().map_err(Error::internal)?;
        let session = TenantSession { tenant, member: member.id, role: member.role, purpose };
        let token = self.shared.tokens.mint(&session, self.now())?;
        Ok(TokenView { must_change_password: member.must_change_password, ..token })
    }
}
