//! Slugs: the DNS label of a tenant (RFC 1035 §2.3.1, RFC 1123 §2.1). Checks the form only; the registry
//! knows which slugs are taken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest slug in bytes: one DNS label.
pub const MAX_LENGTH: usize = 63;

/// Reserved labels: names of Tenantry, of internet services, and names that look official. Sorted for the
/// search.
const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "app",
    "apps",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "broadcasthost",
    "cdn",
    "console",
    "contact",
    "dashboard",
    "data",
    "demo",
    "dev",
    "dns",
    "docs",
    "email",
    "ftp",
    "git",
    "guard",
    "help",
    "hostmaster",
    "imap",
    "info",
    "internal",
    "isatap",
    "localdomain",
    "localhost",
    "login",
    "logout",
    "mail",
    "media",
    "metrics",
    "mx",
    "noc",
    "ns",
    "ns1",
    "ns2",
    "oauth",
    "ofrep",
    "pop",
    "portal",
    "postmaster",
    "prod",
    "production",
    "proxy",
    "public",
    "root",
    "scim",
    "security",
    "signin",
    "signup",
    "smtp",
    "ssl",
    "sso",
    "staging",
    "static",
    "stats",
    "status",
    "support",
    "system",
    "tenant",
    "tenantry",
    "tenants",
    "test",
    "tls",
    "v1",
    "vpn",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

/// A valid, lower-case DNS label that is not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// Why a text is not a slug; the message states the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Empty, or longer than a DNS label.
    #[error("must have 1 to 63 characters")]
    Length,
    /// A character outside `a-z 0-9 -`.
    #[error("may contain only lower-case letters a-z, digits and hyphens")]
    Character,
    /// A hyphen at the beginning or the end.
    #[error("must begin and end with a letter or a digit")]
    Edge,
    /// The prefix of internationalised labels, with which look-alikes are made (RFC 5890).
    #[error("must not begin with `xn--`")]
    Punycode,
    /// On the list of names that are not given away.
    #[error("is reserved; choose another")]
    Reserved,
}

impl Slug {
    /// Checks a text that a user gave.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(SlugError::Length);
        }
        if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(SlugError::Character);
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(SlugError::Edge);
        }
        if text.starts_with("xn--") {
            return Err(SlugError::Punycode);
        }
        if RESERVED.binary_search(&text).is_ok() {
            return Err(SlugError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// A slug derived from a tenant's name; none when the name has no usable character.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut label = String::with_capacity(name.len().min(MAX_LENGTH));
        for c in name.chars().flat_map(char::to_lowercase) {
            match c {
                'a'..='z' | '0'..='9' => label.push(c),
                _ => match latin(c) {
                    Some(text) => label.push_str(text),
                    None if !label.is_empty() && !label.ends_with('-') => label.push('-'),
                    None => {}
                },
            }
            if label.len() >= MAX_LENGTH {
                break;
            }
        }
        label.truncate(MAX_LENGTH);
        let label = label.trim_matches('-');
        Self::parse(label).or_else(|_| Self::parse(&format!("{}-team", clip(label, 5)))).ok()
    }

    /// This slug with a number, shortened if necessary: a suggestion when the slug is taken.
    pub fn numbered(&self, n: u32) -> Self {
        let tail = format!("-{n}");
        Self(format!("{}{tail}", clip(&self.0, tail.len()).trim_end_matches('-')))
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The label, cut so that `room` more bytes fit. Slugs are ASCII.
fn clip(label: &str, room: usize) -> &str {
    label.get(..label.len().min(MAX_LENGTH - room)).unwrap_or(label)
}

/// The ASCII form of letters of European languages.
fn latin(c: char) -> Option<&'static str> {
    Some(match c {
        // Accents that follow their letter, such as the dot that `İ` leaves in lower case.
        '\u{300}'..='\u{36f}' => "",
        'à' | 'á' | 'â' | 'ã' | 'å' | 'ā' | 'ă' | 'ą' => "a",
        'ä' | 'æ' => "ae",
        'ç' | 'ć' | 'č' | 'ĉ' | 'ċ' => "c",
        'đ' | 'ď' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' | 'ģ' | 'ġ' | 'ĝ' => "g",
        'ħ' | 'ĥ' => "h",
        'ì' | 'í' | 'î' | 'ï' | 'ī' | 'į' | 'ı' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ł' | 'ľ' | 'ĺ' | 'ļ' => "l",
        'ñ' | 'ń' | 'ň' | 'ņ' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' | 'ō' => "o",
        'ö' | 'ø' | 'œ' => "oe",
        'ŕ' | 'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' | 'ŝ' => "s",
        'ß' => "ss",
        'ť' | 'ţ' | 'ț' => "t",
        'þ' => "th",
        'ù' | 'ú' | 'û' | 'ū' | 'ů' | 'ű' | 'ų' | 'ŭ' => "u",
        'ü' => "ue",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<Slug> for String {
    fn from(slug: Slug) -> String {
        slug.0
    }
}
impl TryFrom<String> for Slug {
    type Error = SlugError;
    fn try_from(text: String) -> Result<Self, SlugError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_list_is_sorted_and_valid() {
        assert!(RESERVED.windows(2).all(|w| w[0] < w[1]), "not sorted");
        assert!(RESERVED.iter().all(|r| Slug::parse(r) == Err(SlugError::Reserved)));
    }

    #[test]
    fn checks_the_form() {
        for good in ["acme", "a", "0", "a-b", "a--b", &"a".repeat(63)] {
            assert!(Slug::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", SlugError::Length),
            (&*"a".repeat(64), SlugError::Length),
            ("Acme", SlugError::Character),
            ("a_b", SlugError::Character),
            ("a.b", SlugError::Character),
            ("a b", SlugError::Character),
            ("\u{430}cme", SlugError::Character),
            ("-a", SlugError::Edge),
            ("a-", SlugError::Edge),
            ("xn--80ak6aa92e", SlugError::Punycode),
            ("www", SlugError::Reserved),
        ] {
            assert_eq!(Slug::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn derived_from_names() {
        for (name, slug) in [
            ("Acme GmbH & Co. KG", Some("acme-gmbh-co-kg")),
            ("Müller Straße", Some("mueller-strasse")),
            ("Čevapčići d.o.o.", Some("cevapcici-d-o-o")),
            ("İstanbul", Some("istanbul")),
            ("IĞDIR Şirketi", Some("igdir-sirketi")),
            ("Łódź Żabka", Some("lodz-zabka")),
            ("Győr, Plzeň", Some("gyor-plzen")),
            ("Cafe\u{301} Bar", Some("cafe-bar")),
            ("Admin", Some("admin-team")),
            ("  --  ", None),
            ("北京", None),
            ("xn--test", Some("xn-test")),
        ] {
            assert_eq!(Slug::from_name(name).as_ref().map(Slug::as_str), slug, "{name}");
        }
        let long = Slug::from_name(&"x".repeat(500)).unwrap();
        assert_eq!(long.as_str().len(), 63);
        assert_eq!(long.numbered(12).as_str().len(), 63);
        assert!(Slug::parse(long.numbered(12).as_str()).is_ok());
    }
}
