//! Reads the fields of a certificate back from its file, so that outputs and health come from the issued
//! certificate and not from the request.

use std::net::IpAddr;

use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;

/// The fields of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Subject alternative names.
    pub names: Vec<String>,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER form, in hexadecimal.
    pub fingerprint: String,
    /// Subject, as encoded in the certificate.
    pub subject: Vec<u8>,
    /// Issuer, as encoded in the certificate.
    pub issuer: Vec<u8>,
    /// Identifier of the subject's key.
    pub subject_key: Option<Vec<u8>>,
    /// Identifier of the issuer's key.
    pub authority_key: Option<Vec<u8>>,
    /// Whether it may sign other certificates.
    pub may_sign: bool,
    public_key: Vec<u8>,
}

impl Facts {
    /// Parses the first certificate of a PEM file; none if it is not a readable certificate.
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

    /// Whether the certificate is for this key.
    pub fn is_of(&self, key: &KeyPair) -> bool {
        self.public_key == key.der_bytes()
    }

    /// Time from which the certificate is due for renewal: `renew_days` before its end, or by default the start of the
    /// last third of its lifetime.
    pub fn renew_at(&self, renew_days: Option<u32>) -> OffsetDateTime {
        let window = match renew_days {
            Some(days) => time::Duration::days(days.into()),
            None => (self.not_after - self.not_before) / 3,
        };
        self.not_after.saturating_sub(window)
    }

    /// Whether the certificate is due for renewal, or not valid yet.
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

fn identifier(certificate: &X509Certificate<'_>, subject: bool) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) if subject => Some(id.0.to_vec()),
        ParsedExtension::AuthorityKeyIdentifier(id) if !subject => {
            Some(id.key_identifier.as_ref()?.0.to_vec())
        }
        _ => None,
    })
}
