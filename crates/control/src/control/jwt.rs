//! Access tokens: JWTs signed with Ed25519 (EdDSA) that carry the tenant and the role. Only the token's claim
//! decides the tenant of a request. No other algorithm is accepted.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::{Failure, TenantId, Timestamp};
use uuid::Uuid;

/// Lifetime of a token. Also the longest time after which a suspension takes effect in services that verify
/// tokens offline.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// Seconds by which the clock of another server may be ahead of this one.
const SKEW_SECONDS: i64 = 30;

/// Claims of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Id of the member.
    pub sub: String,
    /// Audience.
    pub aud: String,
    /// Expiry, in seconds since the Unix epoch.
    pub exp: i64,
    /// Time of issue, in seconds since the Unix epoch.
    pub iat: i64,
    /// Id of the token.
    pub jti: String,
    /// The member's tenant.
    pub tenant_id: TenantId,
    /// The member's role in the tenant.
    pub role: String,
    /// Id of the member's session, as OpenID Connect names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Limits the token to one purpose, such as `smoke_test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// Subject of a new token.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Id of the member.
    pub member: String,
    /// The member's tenant, read from the registry and never from a request.
    pub tenant: TenantId,
    /// The member's role in the tenant.
    pub role: String,
    /// Id of the member's session.
    pub session: Option<String>,
    /// Limits the token to one purpose.
    pub purpose: Option<String>,
}

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Malformed, or of another key, algorithm, issuer or audience.
    #[error("the token is not valid here")]
    Invalid,
    /// Past its expiry.
    #[error("the token has expired")]
    Expired,
}

/// Issues and verifies tokens.
pub struct Tokens {
    issuer: String,
    audience: String,
    signing: EncodingKey,
    signing_kid: String,
    /// The signing key and earlier ones, by key id.
    known: Vec<(String, DecodingKey)>,
    jwks: Value,
}

impl Tokens {
    /// Signs with the first key and accepts tokens of all of them, so that a key can be rotated while its
    /// last tokens are valid. A key is PKCS#8 in base64.
    pub fn new(issuer: &str, audience: &str, keys: &[SecretString]) -> Result<Self, Failure> {
        let bad = || {
            Failure::fatal(
                "bad_key",
                "a token signing key is not an Ed25519 key in PKCS#8 and base64; check the keyring",
            )
        };
        let mut known = Vec::with_capacity(keys.len());
        let mut public = Vec::with_capacity(keys.len());
        let mut signing = None;
        for key in keys {
            let document = STANDARD.decode(key.expose_secret()).map_err(|_| bad())?;
            let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| bad())?;
            let verifying = DecodingKey::from_ed_der(pair.public_key().as_ref());
            let mut jwk = Jwk::from_decoding_key(&verifying, Some(Algorithm::EdDSA)).map_err(|_| bad())?;
            // The key id is the key's thumbprint (RFC 7638), so it need not be stored.
            let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| bad())?;
            jwk.common.key_id = Some(kid.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
            known.push((kid.clone(), verifying));
            public.push(jwk);
            signing.get_or_insert_with(|| (kid, EncodingKey::from_ed_der(&document)));
        }
        let (signing_kid, signing) = signing.ok_or_else(bad)?;
        let jwks = serde_json::to_value(JwkSet { keys: public }).map_err(|_| bad())?;
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            signing,
            signing_kid,
            known,
            jwks,
        })
    }

    /// Issues a token that is valid from `now` for [`LIFETIME`].
    pub fn mint(&self, subject: &Subject, now: Timestamp) -> Result<String, Failure> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: subject.member.clone(),
            aud: self.audience.clone(),
            exp: (now + LIFETIME).seconds(),
            iat: now.seconds(),
            jti: Uuid::now_v7().to_string(),
            tenant_id: subject.tenant,
            role: subject.role.clone(),
            sid: subject.session.clone(),
            purpose: subject.purpose.clone(),
        };
        let header = Header { kid: Some(self.signing_kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|_| Failure::fatal("bad_key", "the token signing key cannot sign"))
    }

    /// Verifies a token at `now` and returns its claims.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let (_, key) = self.known.iter().find(|(known, _)| *known == kid).ok_or(TokenError::Invalid)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Compared below with the caller's clock.
        validation.validate_exp = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| TokenError::Invalid)?.claims;
        let now = now.seconds();
        let lifetime = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
        if claims.exp <= now {
            Err(TokenError::Expired)
        } else if claims.iat > now + SKEW_SECONDS || claims.exp.saturating_sub(claims.iat) > lifetime {
            Err(TokenError::Invalid)
        } else {
            Ok(claims)
        }
    }

    /// The public keys as a JWK set (RFC 7517), for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }
}

#[cfg(test)]
pub mod tests;
