//! Tokens of tenants' members: minted and verified with the keyring's signing key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moka::sync::Cache;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_model::{TenantId, Timestamp};

use crate::control::jwt::{self, Claims, LIFETIME, Subject, TokenError};
use crate::error::{Error, Result};
use tenantry_model::ErrorCode;
use tenantry_store::keyring::Keyring;

/// Name of the signing key in the keyring.
const SIGNING_KEY: &str = "token_signing";
/// Audience of tokens: the product that the tenants use.
const AUDIENCE: &str = "tenants";

/// Purpose of the codes and tokens of smoke tests: accepted before the tenant is active.
pub(crate) const SMOKE_TEST: &str = "smoke_test";

/// Most verified tokens in the cache, about 300 bytes each.
const REMEMBERED: u64 = 10_000;

/// The tenant and the member that a verified token was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSession {
    /// The tenant.
    pub tenant: TenantId,
    /// The member, `usr_…`.
    pub member: String,
    /// Role of the member.
    pub role: String,
    /// The session that the token belongs to; none for a token of a special purpose.
    pub session: Option<String>,
    /// Purpose of the token, if it is a special one: `smoke_test` is accepted before the tenant is active.
    pub purpose: Option<String>,
}

impl TenantSession {
    /// Whether the token was issued for the smoke test of an onboarding.
    pub(crate) fn is_smoke_test(&self) -> bool {
        self.purpose.as_deref() == Some(SMOKE_TEST)
    }
}

/// A token.
#[derive(Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct TokenView {
    /// The bearer token, a signed JWT.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Lifetime in seconds.
    pub expires_in: u64,
    /// The refresh token. It works once, for `grant_type=refresh_token`, whose response has the next one. Missing for a token
    /// of a special purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// Whether the member signed in with a temporary password.
    pub must_change_password: bool,
}

/// Mints and verifies.
pub(crate) struct Tokens {
    keys: jwt::Tokens,
    /// Claims by the digest of a token whose signature is valid: that does not change, and verifying it is most of the work
    /// of a call. The expiry is checked every time.
    verified: Cache<[u8; 32], Arc<Claims>>,
}

impl Tokens {
    pub async fn load(keyring: &Keyring, issuer: &str) -> Result<Self> {
        let key = keyring.signing_key(SIGNING_KEY).await.map_err(Error::unavailable)?;
        let keys = [STANDARD.encode(key.pkcs8()).into()];
        let keys = jwt::Tokens::new(issuer, AUDIENCE, &keys).map_err(Error::internal)?;
        Ok(Self { keys, verified: Cache::new(REMEMBERED) })
    }

    pub fn mint(&self, session: &TenantSession, now: Timestamp) -> Result<TokenView> {
        let subject = Subject {
            member: session.member.clone(),
            tenant: session.tenant,
            role: session.role.clone(),
            session: session.session.clone(),
            purpose: session.purpose.clone(),
        };
        let access_token = self.keys.mint(&subject, now).map_err(Error::internal)?;
        let (token_type, expires_in) = ("Bearer".to_owned(), LIFETIME.as_secs());
        Ok(TokenView {
            access_token,
            token_type,
            expires_in,
            refresh_token: None,
            must_change_password: false,
        })
    }

    pub fn verify(&self, bearer: &str, now: Timestamp) -> Result<TenantSession> {
        let claims = self.claims(bearer, now).map_err(|why| {
            let code =
                if why == TokenError::Expired { ErrorCode::TokenExpired } else { ErrorCode::TokenInvalid };
            Error::new(code, why)
        })?;
        Ok(TenantSession {
            tenant: claims.tenant_id,
            member: claims.sub.clone(),
            role: claims.role.clone(),
            session: claims.sid.clone(),
            purpose: claims.purpose.clone(),
        })
    }

    fn claims(&self, bearer: &str, now: Timestamp) -> std::result::Result<Arc<Claims>, TokenError> {
        let digest = Sha256::digest(bearer).into();
        match self.verified.get(&digest) {
            Some(claims) if claims.exp <= now.seconds() => Err(TokenError::Expired),
            Some(claims) => Ok(claims),
            None => {
                let claims = Arc::new(self.keys.verify(bearer, now)?);
                self.verified.insert(digest, claims.clone());
                Ok(claims)
            }
        }
    }

    pub fn jwks(&self) -> Value {
        self.keys.jwks().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_good_expires_all_the_same() {
        let keys = [jwt::tests::generate_key()];
        let keys = jwt::Tokens::new("https://issuer.test", AUDIENCE, &keys).unwrap();
        let tokens = Tokens { keys, verified: Cache::new(REMEMBERED) };
        let tenant = tenantry_model::TenantId::new();
        let session = TenantSession {
            tenant,
            member: "usr_1".into(),
            role: "owner".into(),
            session: Some("ses_1".into()),
            purpose: None,
        };
        let now = Timestamp::now();
        let token = tokens.mint(&session, now).unwrap().access_token;
        for _ in 0..2 {
            assert_eq!(tokens.verify(&token, now).unwrap(), session);
        }
        assert_eq!(tokens.verify(&token, now + LIFETIME).unwrap_err().code.as_str(), "token_expired");
        let other = format!("{}A", &token[..token.len() - 1]);
        assert_eq!(tokens.verify(&format!("{other}A"), now).unwrap_err().code.as_str(), "token_invalid");
    }
}
