//! Access tokens: JWTs signed with Ed25519 (EdDSA) that carry the tenant and the role. The claim is the boundary
//! (S2.15): what a request says about its tenant anywhere else does not count. Accepts no other algorithm.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
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

/// How long a token is good: the bound within which a suspension reaches those who check tokens offline.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// How far another machine's clock may be ahead of ours.
const SKEW_SECONDS: i64 = 30;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// The member.
    pub sub: String,
    /// For whom it is.
    pub aud: String,
    /// End, in seconds since the Unix epoch.
    pub exp: i64,
    /// Beginning, likewise.
    pub iat: i64,
    /// Its own id.
    pub jti: String,
    /// The member's tenant.
    pub tenant_id: TenantId,
    /// The member's role there.
    pub role: String,
    /// What it is good for, if not for everything: `smoke_test` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// For whom a token is minted.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The member.
    pub member: String,
    /// Their tenant, from our rows and never from a request.
    pub tenant: TenantId,
    /// Their role there.
    pub role: String,
    /// What it is good for, if not for everything.
    pub purpose: Option<String>,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours: another form, key, algorithm, issuer or audience.
    #[error("the token is not valid here")]
    Invalid,
    /// It was one.
    #[error("the token has expired")]
    Expired,
}

/// Mints and verifies.
pub struct Tokens {
    issuer: String,
    audience: String,
    signing: EncodingKey,
    signing_kid: String,
    /// The signing key and those before it, by kid.
    known: Vec<(String, DecodingKey)>,
    jwks: Value,
}

/// A fresh signing key: PKCS#8 in base64. To be kept in the keyring.
pub fn generate_key() -> Result<SecretString, Failure> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| Failure::retryable("no_randomness", "the system gives no random bytes"))?;
    Ok(STANDARD.encode(document.as_ref()).into())
}

impl Tokens {
    /// Signs with the first key; tokens of all of them are good, so that a key can be replaced while its last tokens
    /// live. Keys come from [`generate_key`].
    pub fn new(issuer: &str, audience: &str, keys: &[SecretString]) -> Result<Self, Failure> {
        let bad =
            || Failure::fatal("bad_key", "a token signing key is not an Ed25519 key in PKCS#8 and base64");
        let mut known = Vec::with_capacity(keys.len());
        let mut public = Vec::with_capacity(keys.len());
        let mut signing = None;
        for key in keys {
            let document = STANDARD.decode(key.expose_secret()).map_err(|_| bad())?;
            let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| bad())?;
            let verifying = DecodingKey::from_ed_der(pair.public_key().as_ref());
            let mut jwk = Jwk::from_decoding_key(&verifying, Some(Algorithm::EdDSA)).map_err(|_| bad())?;
            // RFC 7638: the key names itself, so no state is needed to find it.
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

    /// A token that is good from `now` for [`LIFETIME`].
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
            purpose: subject.purpose.clone(),
        };
        let header = Header { kid: Some(self.signing_kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|_| Failure::fatal("bad_key", "the token signing key does not sign"))
    }

    /// What a token says, if it counts at `now`.
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
        let whole_life = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
        if claims.exp <= now {
            Err(TokenError::Expired)
        } else if claims.iat > now + SKEW_SECONDS || claims.exp.saturating_sub(claims.iat) > whole_life {
            Err(TokenError::Invalid)
        } else {
            Ok(claims)
        }
    }

    /// The public keys (RFC 7517), for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }
}
