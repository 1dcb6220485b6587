//! What a certificate says, read back from its file: nothing is believed to be in it because it was asked for.

use std::net::IpAddr;

use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The names it proves.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of it, in hexadecimal.
    pub fingerprint: String,
    /// Who it is of, as it stands there.
    pub subject: Vec<u8>,
    /// Who signed it, as it stands there.
    pub issuer: Vec<u8>,
    /// The identifier of its own key.
    pub subject_key: Option<Vec<u8>>,
    /// The identifier of the signer's key.
    pub authority_key: Option<Vec<u8>>,
    /// Whether it may sign others.
    pub may_sign: bool,
    public_key: Vec<u8>,
}

impl Facts {
    /// The first certificate of a file; none if there is none that can be understood.
    pub fn read(pem: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        Some(Self {
            names: names(&certificate)?,
            not_before: OffsetDateTime::from_unix_timestamp(validity.not_before.timestamp()).ok()?,
            not_after: OffsetDateTime::from_unix_timestamp(validity.not_after.timestamp()).ok()?,
            serial: hex::encode(certificate.raw_serial()),
            fingerprint: hex::encode(Sha256::digest(&pem.contents)),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            subject_key: identifier(&certificate, true),
            authority_key: identifier(&certificate, false),
            may_sign: certificate.is_ca()
                && certificate.key_usage().ok()?.is_none_or(|usage| usage.value.key_cert_sign()),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// Whether it belongs to the key.
    pub fn is_of(&self, key: &KeyPair) -> bool {
        self.public_key == key.der_bytes()
    }

    /// When it should be made anew: so many days before its end, or in the last third of its life.
    pub fn renew_at(&self, renew_days: Option<u32>) -> OffsetDateTime {
        let window = match renew_days {
            Some(days) => time::Duration::days(days.into()),
            None => (self.not_after - self.not_before) / 3,
        };
        self.not_after.saturating_sub(window)
    }

    /// Whether it should be made anew.
    pub fn is_due(&self, now: OffsetDateTime, renew_days: Option<u32>) -> bool {
        now < self.not_before || now >= self.renew_at(renew_days)
    }
}

fn names(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let names = names.value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            address(bytes).map_or_else(|| hex::encode(bytes), |ip| ip.to_string())
        }
        other => other.to_string(),
    });
    Some(names.collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn identifier(certificate: &X509Certificate<'_>, own: bool) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) if own => Some(id.0.to_vec()),
        ParsedExtension::AuthorityKeyIdentifier(id) if !own => Some(id.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}
