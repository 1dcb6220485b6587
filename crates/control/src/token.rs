//! Tokens of tenants' members: minted and verified with the keyring's signing key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tenantry_model::Timestamp;
use tenantry_providers::identity_builtin::tokens::{self, LIFETIME, Subject, TokenError};

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::session::TenantSession;
use crate::sign_in::TokenView;

/// Name of the signing key in the keyring.
const SIGNING_KEY: &str = "token_signing";
/// For whom tokens are: the product that the tenants use.
const AUDIENCE: &str = "tenants";

/// Mints and verifies.
pub(crate) struct Tokens(tokens::Tokens);

impl Tokens {
    pub async fn load(keyring: &Keyring, issuer: &str) -> Result<Self> {
        let key = keyring.signing_key(SIGNING_KEY).await.map_err(Error::unavailable)?;
        let keys = [STANDARD.encode(key.pkcs8()).into()];
        tokens::Tokens::new(issuer, AUDIENCE, &keys).map(Self).map_err(Error::internal)
    }

    pub fn mint(&self, session: &TenantSession, now: Timestamp) -> Result<TokenView> {
        let subject = Subject {
            member: session.member.clone(),
            tenant: session.tenant,
            role: session.role.clone(),
            purpose: session.purpose.clone(),
        };
        let access_token = self.0.mint(&subject, now).map_err(Error::internal)?;
        let (token_type, expires_in) = ("Bearer".to_owned(), LIFETIME.as_secs());
        Ok(TokenView { access_token, token_type, expires_in, must_change_password: false })
    }

    pub fn verify(&self, bearer: &str, now: Timestamp) -> Result<TenantSession> {
        let claims = self.0.verify(bearer, now).map_err(|why| {
            let code = if why == TokenError::Expired { "token_expired" } else { "token_invalid" };
            Error::new(ErrorKind::Unauthenticated, code, why)
        })?;
        Ok(TenantSession {
            tenant: claims.tenant_id,
            member: claims.sub,
            role: claims.role,
            purpose: claims.purpose,
        })
    }

    pub fn jwks(&self) -> Value {
        self.0.jwks().clone()
    }
}
