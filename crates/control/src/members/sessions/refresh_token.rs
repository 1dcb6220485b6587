//! The form of refresh tokens: `tnr_FAMILY.TOKEN`. All tokens of a session have the first part, 32 random bytes; the second is
//! 32 random bytes at first, and then derived from the token before. So a used token is known as one of its session without
//! a list of used tokens, and a successor can be given again without being stored.

use crate::access::secret::{fingerprint, generate};

/// Prefix of every refresh token, by which secret scanners recognise a leaked one.
const PREFIX: &str = "tnr_";
/// Purpose of the keyed hash that derives a successor.
const SUCCESSOR: &str = "refresh_token";

/// A refresh token.
pub(super) struct RefreshToken {
    family: String,
    token: String,
}

impl RefreshToken {
    /// The first token of a session.
    pub fn generate() -> Self {
        Self { family: generate(""), token: generate("") }
    }

    /// Reads a token; none if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (family, token) = text.strip_prefix(PREFIX)?.split_once('.')?;
        Some(Self { family: family.to_owned(), token: token.to_owned() })
    }

    /// The token that replaces this one. `mac`: the keyring's keyed hash, of a purpose and a text.
    pub fn successor(&self, mac: impl Fn(&str, &str) -> String) -> Self {
        Self { family: self.family.clone(), token: mac(SUCCESSOR, &self.text()) }
    }

    /// The token as the client gets it.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}.{}", self.family, self.token)
    }

    /// The stored form of the part that all tokens of the session have.
    pub fn family_hash(&self) -> String {
        fingerprint(&self.family)
    }

    /// The stored form of the other part.
    pub fn hash(&self) -> String {
        fingerprint(&self.token)
    }
}
