//! Begins sessions and refreshes them (RFC 6749 §6). Each refresh replaces the refresh token; one that was replaced and comes
//! back ends its session (RFC 9700 §4.14.2), because one of the two clients that had it has stolen it.

use std::time::Duration;

use serde_json::json;
use tenantry_model::id::SessionId;
use tenantry_model::suspension::Access;
use tenantry_model::{ErrorCode, Write, columns};
use tenantry_store::entity::{member, session};
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::table::insert_absent;
use tenantry_store::{Rejected, WriteBatch};

use super::refresh_token::RefreshToken;
use super::{MOST, SessionEnd, SignInMethod, user_agent};
use crate::control::Control;
use crate::control::token::{TenantSession, TokenView};
use crate::error::{Error, Result};
use crate::members::rows::ACTIVE;

/// Time for which a replaced token is answered with its successor once more: the response may have been lost, and two tabs of
/// a browser may refresh at once. A thief within it shares the successor, and is found out by the next refresh.
const GRACE: Duration = Duration::from_secs(10);
/// Attempts at a change that conflicts with other changes of the same row.
const TRIES: u32 = 5;

impl Control {
    /// Begins a session and returns its tokens. `spent`: the writes that use up the credential; none is returned if they are
    /// rejected, because another request has used it. `client`: the header `User-Agent`.
    pub(in crate::members) async fn begin_session(
        &self,
        member: member::Model,
        method: SignInMethod,
        client: Option<&str>,
        spent: Vec<Write>,
    ) -> Result<Option<TokenView>> {
        let store = &self.shared.store;
        let (tenant, of) = (member.tenant_id.as_str(), &member.id);
        let surplus = store.surplus_sessions(tenant, of, MOST - 1).await.map_err(Error::unavailable)?;
        for _ in 0..TRIES {
            let status = self.access_status(tenant).await?;
            status.check(Access::SignIn, false)?;
            let (now, token) = (self.now(), RefreshToken::generate());
            let row = session::Model {
                id: SessionId::new().to_string(),
                tenant_id: tenant.to_owned(),
                member_id: of.clone(),
                method: json!(method).as_str().unwrap_or_default().to_owned(),
                user_agent: user_agent::short(client.unwrap_or_default()),
                family_hash: token.family_hash(),
                token_hash: token.hash(),
                created_at: now.into(),
                last_used_at: now.into(),
                expires_at: (now + self.shared.config.sessions.lifetime).into(),
                ended_at: None,
                end_reason: None,
            };
            let audited = AuditRecord {
                actor: of,
                action: "session.begin",
                target: &row.id,
                tenant: Some(tenant.parse().map_err(Error::internal)?),
                data: json!({ "method": method }),
            };
            // A session that is written after the tenant's deletion has begun would outlive it.
            let as_read = columns! { "status": status.status };
            let mut writes = vec![
                Write::update_if("tenants", columns! { "id": tenant }, as_read, columns! {}),
                insert_absent(&row),
                audit(audited, now),
            ];
            writes.extend(surplus.iter().map(|id| Write::delete("sessions", columns! { "id": id })));
            writes.extend(spent.iter().cloned());
            match store.commit(WriteBatch::new(writes)).await {
                Ok(()) => return self.tokens(&member, &row.id, &token).map(Some),
                Err(Rejected::Stale { table: "tenants", .. }) => {}
                Err(Rejected::Stale { .. }) => return Ok(None),
                Err(why) => return Err(Error::unavailable(why)),
            }
        }
        Err(Error::new(ErrorCode::TenantBusy, "concurrent changes of this tenant; try again"))
    }

    /// Exchanges a refresh token for an access token and the next refresh token. A tenant whose suspension denies signing in
    /// uses up no token.
    pub async fn refresh(&self, token: &str) -> Result<TokenView> {
        let refused = || {
            let message = "the refresh token is unknown, used or expired, or its session has ended";
            Error::new(ErrorCode::RefreshRefused, message)
        };
        let store = &self.shared.store;
        let given = RefreshToken::parse(token).ok_or_else(refused)?;
        let next = given.successor(|purpose, text| self.mac(purpose, text));
        for _ in 0..TRIES {
            let row = store.session_of_family(&given.family_hash()).await.map_err(Error::unavailable)?;
            let row = row.filter(|row| self.end_of(row).is_none()).ok_or_else(refused)?;
            let member = store.member(&row.member_id).await.map_err(Error::unavailable)?;
            let member = member.filter(|member| member.state == ACTIVE).ok_or_else(refused)?;
            self.admit_into(&row.tenant_id).await?;
            let now = self.now();
            if row.token_hash == next.hash() && now.since(*row.last_used_at) < GRACE {
                return self.tokens(&member, &row.id, &next);
            }
            if row.token_hash != given.hash() {
                self.end_session(&row, SessionEnd::TokenReused, "system", None).await?;
                return Err(refused());
            }
            let write = Write::update_if(
                "sessions",
                columns! { "id": row.id },
                columns! { "token_hash": row.token_hash, "ended_at": () },
                columns! { "token_hash": next.hash(), "last_used_at": now },
            );
            match store.commit(WriteBatch::new(vec![write])).await {
                Ok(()) => return self.tokens(&member, &row.id, &next),
                // Another request has replaced the token, or has ended the session.
                Err(Rejected::Stale { .. }) => {}
                Err(why) => return Err(Error::unavailable(why)),
            }
        }
        Err(refused())
    }

    /// Signs out: ends the session of a refresh token (RFC 7009), also of one that was replaced. A token that is unknown or
    /// whose session has ended is no error.
    pub async fn sign_out(&self, token: &str) -> Result<()> {
        let Some(given) = RefreshToken::parse(token) else { return Ok(()) };
        let row = self.shared.store.session_of_family(&given.family_hash()).await;
        match row.map_err(Error::unavailable)? {
            Some(row) => self.end_session(&row, SessionEnd::SignedOut, &row.member_id, None).await,
            None => Ok(()),
        }
    }

    fn tokens(&self, member: &member::Model, session: &str, refresh: &RefreshToken) -> Result<TokenView> {
        let bearer = TenantSession {
            tenant: member.tenant_id.parse().map_err(Error::internal)?,
            member: member.id.clone(),
            role: member.role.clone(),
            session: Some(session.to_owned()),
            purpose: None,
        };
        let view = self.shared.tokens.mint(&bearer, self.now())?;
        let must_change_password = member.must_change_password;
        Ok(TokenView { refresh_token: Some(refresh.text()), must_change_password, ..view })
    }
}
