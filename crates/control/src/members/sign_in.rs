//! Sign-in of a tenant's members: a one-time code, an invitation or a password begins a session. A rejection has the
//! same message and takes the same work whatever is wrong with the credential.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::json;
use tenantry_model::member::{EMAIL_MAC, normal_email};
use tenantry_model::suspension::Access;
use tenantry_model::{ClientAddress, TenantId, Timestamp, Write};
use tenantry_provider::Sealer as _;

use crate::access::secret::fingerprint;
use crate::control::Control;
use crate::control::token::{SMOKE_TEST, TenantSession, TokenView};
use crate::error::{Error, Result};
use crate::members::rows;
use crate::members::sessions::SignInMethod;
use tenantry_model::ErrorCode;
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::{Rejected, WriteBatch, entity};

/// Has the length of a hash and equals none.
const NO_HASH: &str = "sha256:----------------------------------------------------------------";

impl Control {
    /// Exchanges a one-time code for tokens. A code works once. That of a smoke test begins no session. `client`: the header
    /// `User-Agent`.
    pub async fn sign_in(&self, code: &str, client: Option<&str>) -> Result<TokenView> {
        let refused = || Error::new(ErrorCode::CodeRefused, "the code is unknown, used or expired");
        let hash = fingerprint(code);
        let store = &self.shared.store;
        let row = store.sign_in_code(&hash).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        let now = self.now();
        if row.used_at.is_some() || *row.expires_at <= now {
            return Err(refused());
        }
        let member = store.member(&row.member_id).await.map_err(Error::unavailable)?.ok_or_else(refused)?;
        let used = rows::use_code(&row, now);
        if row.purpose != SMOKE_TEST {
            let begun = self.begin_session(member, SignInMethod::Code, client, vec![used]).await?;
            return begun.ok_or_else(refused);
        }
        match store.commit(WriteBatch::new(vec![used])).await {
            Ok(()) => self.smoke_test_token(member),
            Err(Rejected::Stale { .. }) => Err(refused()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    /// Accepts an invitation and begins a session of its member. An invitation works once, and only when the tenant is
    /// active; before that it stays unused. `client`: the header `User-Agent`.
    pub async fn accept_invitation(&self, token: &str, client: Option<&str>) -> Result<TokenView> {
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
        let begun = self.begin_session(member, SignInMethod::Invitation, client, writes).await?;
        begun.ok_or_else(refused)
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

    /// Begins a session for a member's password. The answer does not reveal whether the tenant, the member or the password
    /// is wrong. `from`: the client's address, by which failures are counted. `client`: the header `User-Agent`.
    pub async fn sign_in_by_password(
        &self,
        tenant: &str,
        email: &str,
        password: &str,
        from: ClientAddress,
        client: Option<&str>,
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
        let refused = || {
            let message = "the tenant, the e-mail address or the password is wrong";
            Error::new(ErrorCode::PasswordRefused, message)
        };
        let member = member.filter(|member| same && member.state == rows::ACTIVE).ok_or_else(refused)?;
        self.shared.brake.clear(&account, from);
        let begun = self.begin_session(member, SignInMethod::Password, client, Vec::new()).await?;
        begun.ok_or_else(refused)
    }

    /// Returns an error if the tenant's status denies sign-in.
    pub(super) async fn admit_into(&self, tenant: &str) -> Result<()> {
        Ok(self.access_status(tenant).await?.check(Access::SignIn, false)?)
    }

    fn smoke_test_token(&self, member: entity::member::Model) -> Result<TokenView> {
        let tenant = member.tenant_id.parse().map_err(Error::internal)?;
        let purpose = Some(SMOKE_TEST.to_owned());
        let bearer = TenantSession { tenant, member: member.id, role: member.role, session: None, purpose };
        self.shared.tokens.mint(&bearer, self.now())
    }
}
