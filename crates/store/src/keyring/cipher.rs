//! Sealing: AES-256-GCM with a random nonce, as text. The tenant or name that a text belongs to is authenticated with it, so that one
//! tenant's (or one name's) ciphertext does not open as another's, even under the same key.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// Secret bytes, wiped when dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// Version of the text form: `v1.` and base64url of nonce and ciphertext.
const VERSION: &str = "v1.";
const NONCE: usize = 12;

/// Seals for `whose`. None if the key has not 32 bytes, or the text has more than 64 GiB.
pub fn seal(key: &[u8], whose: &str, clear: &[u8]) -> Option<String> {
    let mut nonce = [0; NONCE];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut nonce);
    let cipher = Aes256Gcm::new_from_slice(key).ok()?;
    let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: clear, aad: whose.as_bytes() }).ok()?;
    Some(format!("{VERSION}{}", encode(&[nonce.as_slice(), &sealed].concat())))
}

/// Opens what [`seal`] made; none if it was made with another key, for another tenant or name, or changed.
pub fn open(key: &[u8], whose: &str, sealed: &str) -> Option<SecretBytes> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(VERSION)?).ok()?;
    let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE>()?;
    let cipher = Aes256Gcm::new_from_slice(key).ok()?;
    let payload = Payload { msg: ciphertext, aad: whose.as_bytes() };
    cipher.decrypt(&Nonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

/// Bytes as base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes from base64url without padding.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_whom_it_was_sealed() {
        let (key, other) = ([7; 32], [8; 32]);
        let sealed = seal(&key, "ten_a", "Zoë <z@example.com>".as_bytes()).unwrap();
        assert!(sealed.starts_with("v1."));
        assert_eq!(open(&key, "ten_a", &sealed).unwrap().as_slice(), "Zoë <z@example.com>".as_bytes());
        assert!(open(&key, "ten_b", &sealed).is_none(), "another tenant");
        assert!(open(&other, "ten_a", &sealed).is_none(), "another key");
        assert_ne!(Some(sealed), seal(&key, "ten_a", "Zoë <z@example.com>".as_bytes()), "nonces are fresh");
    }

    #[test]
    fn every_change_is_noticed() {
        let key = [7; 32];
        let sealed = seal(&key, "a", b"text").unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&sealed[3..]).unwrap();
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert!(open(&key, "a", &format!("v1.{}", encode(&changed))).is_none(), "byte {i}");
        }
        for broken in ["", "v1.", "v1.AAAA", "v2.AAAA", "v1.***", &sealed[3..], &sealed[..sealed.len() - 1]] {
            assert!(open(&key, "a", broken).is_none(), "{broken}");
        }
    }
}
