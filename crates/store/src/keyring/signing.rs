//! Ed25519 signing keys, in the forms that signers of tokens and of the audit chain need.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cipher::{SecretBytes, encode};

/// A private key and its public half.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: SecretBytes,
}

impl SigningKey {
    /// A fresh key as PKCS #8 DER.
    pub fn generate() -> SecretBytes {
        // Fails only without a source of randomness; an empty key is then refused where it is read.
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        Zeroizing::new(document.map(|d| d.as_ref().to_vec()).unwrap_or_default())
    }

    /// Reads a PKCS #8 DER key; `None` if it is not one.
    pub fn from_pkcs8(pkcs8: SecretBytes) -> Option<Self> {
        Some(Self { pair: Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?, pkcs8 })
    }

    /// The private key as PKCS #8 DER, as `jsonwebtoken::EncodingKey::from_ed_der` takes it.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The 32 bytes of the public key.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as `x` of a JSON Web Key (RFC 8037).
    pub fn x(&self) -> String {
        encode(self.public())
    }

    /// A name for the public key: `kid`.
    pub fn id(&self) -> String {
        encode(&Sha256::digest(self.public())[..12])
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// Whether a public key's owner signed this.
pub fn verify(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}
