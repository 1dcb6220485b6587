//! Tokens that must be accepted, and forged ones that must not.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tenantry_model::{TenantId, Timestamp};

use super::{Claims, LIFETIME, Subject, TokenError, Tokens};

/// A signing key: PKCS#8 in base64.
pub fn generate_key() -> SecretString {
    STANDARD.encode(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap()).into()
}

fn subject() -> Subject {
    let (tenant, session) = (TenantId::new(), Some("ses_x".into()));
    Subject { member: "usr_x".into(), tenant, role: "owner".into(), session, purpose: None }
}

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

#[test]
fn a_token_carries_its_subject() {
    let tokens = Tokens::new("https://us", "app", &[generate_key()]).unwrap();
    let subject = subject();
    let token = tokens.mint(&subject, NOW).unwrap();
    let claims = tokens.verify(&token, NOW).unwrap();
    assert_eq!(
        (claims.tenant_id, claims.role.as_str(), claims.sub.as_str()),
        (subject.tenant, "owner", "usr_x")
    );
    assert_eq!((claims.exp - claims.iat, claims.iat), (300, NOW.seconds()));
    assert_ne!(token, tokens.mint(&subject, NOW).unwrap(), "every token has its own id");
}

#[test]
fn validity_is_checked_with_the_callers_clock() {
    let tokens = Tokens::new("i", "a", &[generate_key()]).unwrap();
    let token = tokens.mint(&subject(), NOW).unwrap();
    let second = Duration::from_secs(1);
    assert!(tokens.verify(&token, NOW + (LIFETIME - second)).is_ok());
    assert_eq!(tokens.verify(&token, NOW + LIFETIME), Err(TokenError::Expired));
    let earlier = Timestamp::from_micros(NOW.micros() - 60_000_000);
    assert_eq!(tokens.verify(&token, earlier), Err(TokenError::Invalid), "from the future");
}

#[test]
fn tokens_of_a_rotated_key_stay_valid() {
    let (old, new) = (generate_key(), generate_key());
    let before = Tokens::new("i", "a", std::slice::from_ref(&old)).unwrap();
    let after = Tokens::new("i", "a", &[new.clone(), old]).unwrap();
    let token = before.mint(&subject(), NOW).unwrap();
    assert!(after.verify(&token, NOW).is_ok());
    assert_eq!(before.verify(&after.mint(&subject(), NOW).unwrap(), NOW), Err(TokenError::Invalid));
    let keys = after.jwks()["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["use"]),
            (&json!("OKP"), &json!("Ed25519"), &json!("sig"))
        );
        assert!(key.get("d").is_none(), "the private part stays private");
    }
    assert!(!after.jwks().to_string().contains(new.expose_secret()));
}

fn forged(header: Value, claims: &Claims, signature: &str) -> String {
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    format!("{}.{}.{signature}", part(header.to_string()), part(serde_json::to_string(claims).unwrap()))
}

#[test]
fn rejects_forged_tokens() {
    let key = generate_key();
    let tokens = Tokens::new("i", "a", std::slice::from_ref(&key)).unwrap();
    let good = tokens.mint(&subject(), NOW).unwrap();
    let claims = tokens.verify(&good, NOW).unwrap();
    let kid = jsonwebtoken::decode_header(&good).unwrap().kid.unwrap();
    let signature = good.rsplit_once('.').unwrap().1;

    let mut other = claims.clone();
    other.tenant_id = TenantId::new();
    let bad = [
        forged(json!({ "alg": "none", "kid": kid }), &claims, ""),
        forged(json!({ "alg": "EdDSA", "kid": kid }), &claims, ""),
        forged(json!({ "alg": "EdDSA", "kid": kid, "typ": "JWT" }), &other, signature),
        forged(json!({ "alg": "EdDSA" }), &claims, signature),
        String::new(),
        "a.b.c".to_owned(),
        "\u{0}".to_owned(),
    ];
    for token in &bad {
        assert_eq!(tokens.verify(token, NOW), Err(TokenError::Invalid), "{token}");
    }
    // The public key used as the secret of a symmetric algorithm.
    let public = tokens.jwks()["keys"][0]["x"].as_str().unwrap();
    for secret in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(public).unwrap()] {
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(tokens.verify(&token, NOW), Err(TokenError::Invalid));
    }
    for (issuer, audience) in [("x", "a"), ("i", "x")] {
        let elsewhere = Tokens::new(issuer, audience, std::slice::from_ref(&key)).unwrap();
        assert_eq!(tokens.verify(&elsewhere.mint(&subject(), NOW).unwrap(), NOW), Err(TokenError::Invalid));
    }
    // Correctly signed, but with a longer lifetime than this server issues.
    let private = EncodingKey::from_ed_der(&STANDARD.decode(key.expose_secret()).unwrap());
    let header = Header { kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
    let long = Claims { exp: claims.exp + 1, ..claims };
    let token = jsonwebtoken::encode(&header, &long, &private).unwrap();
    assert_eq!(tokens.verify(&token, NOW), Err(TokenError::Invalid));
}

#[test]
fn rejects_malformed_keys() {
    for key in ["", "no base64!", "AAAA"] {
        assert_eq!(Tokens::new("i", "a", &[key.to_owned().into()]).err().unwrap().code, "bad_key");
    }
    assert_eq!(Tokens::new("i", "a", &[]).err().unwrap().code, "bad_key");
}
