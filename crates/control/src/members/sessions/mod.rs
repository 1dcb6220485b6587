//! Sessions: a sign-in of a member, for as long as its refresh tokens work. A session ends by sign-out, by revocation, when a
//! used refresh token comes back, after a time without use, and at its greatest age. While a suspension of the tenant
//! denies signing in, its sessions give no access; they work again afterwards.

mod refresh;
mod refresh_token;
mod user_agent;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_model::id::{SessionId, UserId};
use tenantry_model::suspension::Access;
use tenantry_model::{ErrorCode, TenantId, Timestamp, Write, columns, member};
use tenantry_store::entity::session;
use tenantry_store::record::{AuditRecord, EventRecord, audit, event};
use tenantry_store::{Rejected, WriteBatch};

use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::control::token::TenantSession;
use crate::error::{Error, Result};

/// Sessions of one member that are kept; a sign-in deletes those beyond, the longest unused first.
const MOST: u32 = 100;

/// How a member signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignInMethod {
    /// By a one-time code.
    Code,
    /// By an invitation.
    Invitation,
    /// By a password.
    Password,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The member signed out.
    SignedOut,
    /// The member, an administrator of the tenant, or an operator ended it.
    Revoked,
    /// A refresh token came back after its successor was used or its grace was over, so one of them was stolen.
    TokenReused,
    /// The session was not used for too long.
    Idle,
    /// The session reached its greatest age.
    Expired,
}

/// A session, without its tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Session id; the claim `sid` of its access tokens.
    pub id: SessionId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The member.
    pub member_id: UserId,
    /// How the member signed in.
    pub method: SignInMethod,
    /// Kind of the client, such as `Firefox on Linux`; `other` if it is not known.
    pub user_agent: String,
    /// Time of the sign-in.
    pub created_at: Timestamp,
    /// Time of the last refresh, or of the sign-in.
    pub last_used_at: Timestamp,
    /// Time at which the session ends at the latest.
    pub expires_at: Timestamp,
    /// Time of the end; null while the session lasts.
    pub ended_at: Option<Timestamp>,
    /// Why it has ended; null while the session lasts.
    pub end_reason: Option<SessionEnd>,
}

impl Control {
    /// The bearer of a token that Tenantry signed, that has not expired, and whose session has not ended.
    pub async fn authenticate_member(&self, bearer: &str) -> Result<TenantSession> {
        let token = self.verify_token(bearer)?;
        let Some(id) = &token.session else { return Ok(token) };
        let row = self.shared.store.session(id).await.map_err(Error::unavailable)?;
        if row.is_some_and(|row| self.end_of(&row).is_none()) {
            return Ok(token);
        }
        // The sessions of an erased tenant are deleted; its status says more.
        self.access_status(&token.tenant.to_string()).await?.check(Access::Read, false)?;
        Err(Error::new(ErrorCode::SessionEnded, "the session has ended; sign in again"))
    }

    /// Sessions of a tenant, newest first.
    pub async fn sessions(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        page: &PageQuery,
    ) -> Result<Page<SessionView>> {
        caller.require(Permission::ReadTenants)?;
        let tenant = self.tenant_row(caller, id_or_slug).await?.id;
        self.session_page(&tenant, None, page).await
    }

    /// The bearer's own sessions, newest first; with `all`, those of all members of the tenant. `all` needs a role with
    /// `users:write`.
    pub async fn own_sessions(
        &self,
        bearer: &TenantSession,
        all: bool,
        page: &PageQuery,
    ) -> Result<Page<SessionView>> {
        self.admit(bearer, Access::Read).await?;
        if all && !manages_members(bearer) {
            let message = "the member's role lacks the permission users:write";
            return Err(Error::new(ErrorCode::Forbidden, message));
        }
        let member = (!all).then_some(bearer.member.as_str());
        self.session_page(&bearer.tenant.to_string(), member, page).await
    }

    /// Ends a session at once. Ending it again changes nothing.
    pub async fn revoke_session(
        &self,
        caller: &Caller,
        id: SessionId,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<SessionView>> {
        caller.require(Permission::WriteTenants)?;
        let target = id.to_string();
        let row = self.session_row(&target).await?;
        let tenant = row.tenant_id.parse().map_err(Error::internal)?;
        caller.may_see(tenant).map_err(|_| Error::not_found("session"))?;
        let once = key.map(|key| Once::new(caller, &key, &format!("revoke_session {target}"), &Value::Null));
        let answer = json!({ "session_id": target });
        let guard = once.as_ref().map(|once| once.guard(&answer, Some(tenant), self.now()));
        let end = self.end_session(&row, SessionEnd::Revoked, &caller.principal, guard);
        let replayed = matches!(self.once(once.as_ref(), end).await?, Outcome::Before(_));
        let value = self.session_view(self.session_row(&target).await?)?;
        Ok(Answered { value, replayed })
    }

    /// Ends a session of the bearer, or with a role that has `users:write` any of the tenant.
    pub async fn revoke_own_session(&self, bearer: &TenantSession, id: SessionId) -> Result<SessionView> {
        self.admit(bearer, Access::Read).await?;
        let row = self.session_row(&id.to_string()).await?;
        let is_own = row.member_id == bearer.member || manages_members(bearer);
        if row.tenant_id != bearer.tenant.to_string() || !is_own {
            return Err(Error::not_found("session"));
        }
        self.end_session(&row, SessionEnd::Revoked, &bearer.member, None).await?;
        self.session_view(self.session_row(&row.id).await?)
    }

    /// Ends a session with an audit record, unless it has ended. `guard` is committed in either case.
    async fn end_session(
        &self,
        row: &session::Model,
        why: SessionEnd,
        by: &str,
        guard: Option<Write>,
    ) -> Result<()> {
        let mut writes: Vec<Write> = guard.into_iter().collect();
        if self.end_of(row).is_none() {
            writes.extend(ending(row, why, by, self.now())?);
        }
        if writes.is_empty() {
            return Ok(());
        }
        match self.shared.store.commit(WriteBatch::new(writes)).await {
            // Another request has ended it.
            Ok(()) | Err(Rejected::Stale { .. }) => Ok(()),
            Err(why) => Err(Error::unavailable(why)),
        }
    }

    async fn session_page(
        &self,
        tenant: &str,
        member: Option<&str>,
        page: &PageQuery,
    ) -> Result<Page<SessionView>> {
        let rows = self.shared.store.sessions(tenant, member, page.cursor(), page.probe()).await;
        let rows = rows.map_err(Error::unavailable)?;
        page.cut(rows, |row| row.id.clone(), |row| self.session_view(row))
    }

    async fn session_row(&self, id: &str) -> Result<session::Model> {
        let row = self.shared.store.session(id).await.map_err(Error::unavailable)?;
        row.ok_or_else(|| Error::not_found("session"))
    }

    /// Time and reason of a session's end; none while it lasts.
    fn end_of(&self, row: &session::Model) -> Option<(Timestamp, SessionEnd)> {
        let (now, idle) = (self.now(), *row.last_used_at + self.shared.config.sessions.idle);
        if let Some(at) = row.ended_at {
            let why = row.end_reason.clone().map(Value::String).map(serde_json::from_value);
            return Some((*at, why.and_then(std::result::Result::ok).unwrap_or(SessionEnd::Revoked)));
        }
        let (at, why) = match idle < *row.expires_at {
            true => (idle, SessionEnd::Idle),
            false => (*row.expires_at, SessionEnd::Expired),
        };
        (at <= now).then_some((at, why))
    }

    fn session_view(&self, row: session::Model) -> Result<SessionView> {
        let (ended_at, end_reason) = self.end_of(&row).unzip();
        Ok(SessionView {
            id: row.id.parse().map_err(Error::internal)?,
            tenant_id: row.tenant_id.parse().map_err(Error::internal)?,
            member_id: row.member_id.parse().map_err(Error::internal)?,
            method: serde_json::from_value(Value::String(row.method)).map_err(Error::internal)?,
            user_agent: row.user_agent,
            created_at: row.created_at.into(),
            last_used_at: row.last_used_at.into(),
            expires_at: row.expires_at.into(),
            ended_at,
            end_reason,
        })
    }
}

/// The writes that end a session. They are rejected if it has ended since it was read. A reused token is an event too,
/// because it is the sign of a theft.
fn ending(row: &session::Model, why: SessionEnd, by: &str, now: Timestamp) -> Result<Vec<Write>> {
    let tenant = row.tenant_id.parse().map_err(Error::internal)?;
    let data = json!({ "member_id": row.member_id, "reason": why });
    let audited =
        AuditRecord { actor: by, action: "session.end", target: &row.id, tenant: Some(tenant), data };
    let ended = columns! { "ended_at": now, "end_reason": why };
    let key = columns! { "id": row.id };
    let mut writes =
        vec![Write::update_if("sessions", key, columns! { "ended_at": () }, ended), audit(audited, now)];
    if why == SessionEnd::TokenReused {
        let data = json!({ "session_id": row.id, "member_id": row.member_id });
        let kind = "session.token_reused";
        writes.push(event(EventRecord { kind, tenant, operation: None, data, sealed: None }, now));
    }
    Ok(writes)
}

/// Whether the bearer may see and end the sessions of the tenant's other members.
fn manages_members(bearer: &TenantSession) -> bool {
    member::allows(&bearer.role, "users:write")
}
