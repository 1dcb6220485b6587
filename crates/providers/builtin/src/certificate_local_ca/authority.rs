//! The certificate authority: generated once in a private folder, or configured by the operator. It signs
//! certificates and keeps no list of them. Opening it blocks.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use tenantry_model::{Failure, Timestamp};
use time::{Duration, OffsetDateTime};

use super::client::{self, CERTIFICATE, KEY};
use super::config::Config;
use super::facts::Facts;

/// Folder of a generated authority.
const FOLDER: &str = "authority";
/// Time before the signing at which validity starts, because clocks differ.
const SKEW: Duration = Duration::hours(1);
/// Lifetime of a generated authority.
const LIFETIME: Duration = Duration::days(3650);
/// Longest common name (X.520).
const MAX_COMMON_NAME: usize = 64;

/// The authority's key and certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate in PEM.
    pub pem: String,
    facts: Facts,
}

impl Authority {
    /// Opens the operator's authority, or the one in the folder, which is generated if it is missing.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        match (&config.ca_certificate, &config.ca_key) {
            (Some(certificate), Some(key)) => Self::read(certificate, key),
            (None, None) => {
                let folder = config.folder.join(FOLDER);
                if !folder.try_exists().map_err(|error| client::failure(&folder, &error))? {
                    make(&config.folder, &folder)?;
                }
                Self::read(&folder.join(CERTIFICATE), &folder.join(KEY))
            }
            _ => Err(bad("`ca_certificate` and `ca_key` belong together: set both or neither")),
        }
    }

    fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let text = |file: &Path| {
            fs::read_to_string(file).map_err(|error| {
                bad(format!("the authority's file {} cannot be read: {error}", file.display()))
            })
        };
        let (pem, shown) = (text(certificate)?, certificate.display());
        let facts = Facts::read(&pem).ok_or_else(|| bad(format!("{shown} is not a certificate in PEM")))?;
        if !facts.may_sign {
            return Err(bad(format!("{shown} is not a certificate that may sign others")));
        }
        // The library's message may quote the key, so it is not passed on.
        let key = KeyPair::from_pem(&text(key)?).map_err(|_| {
            bad(format!("{} is not a private key in PEM (PKCS 8, PKCS 1 or SEC 1)", key.display()))
        })?;
        if !facts.is_of(&key) {
            return Err(bad(format!("{shown} does not belong to the key in `ca_key`")));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|error| bad(format!("{shown} cannot be used to sign: {error}")))?;
        Ok(Self { issuer, pem, facts })
    }

    /// Signs a certificate for the names and the key, valid for `days` but no longer than the authority, and
    /// returns it in PEM.
    pub fn issue(
        &self,
        names: &[String],
        key: &KeyPair,
        now: Timestamp,
        days: u32,
    ) -> Result<String, Failure> {
        let now = clock(now)?;
        let end = now.saturating_add(Duration::days(days.into())).min(self.facts.not_after);
        if end <= now {
            let why = "the certificate authority has expired: configure another one, or delete its folder to generate one";
            return Err(Failure::fatal("ca_expired", why));
        }
        let mut params = CertificateParams::new(names).map_err(|error| cannot_sign(&error))?;
        params.serial_number = Some(serial());
        params.not_before = now.saturating_sub(SKEW);
        params.not_after = end;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.iter().find(|name| name.len() <= MAX_COMMON_NAME) {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params
            .signed_by(key, &self.issuer)
            .map(|certificate| certificate.pem())
            .map_err(|error| cannot_sign(&error))
    }

    /// Whether the certificate's issuer and issuer key are this authority's.
    pub fn signed(&self, facts: &Facts) -> bool {
        facts.issuer == self.facts.subject && facts.authority_key == self.facts.subject_key
    }

    /// An error `ca_expired` if the authority's certificate has expired.
    pub fn probe(&self, now: Timestamp) -> Result<(), Failure> {
        if self.facts.not_after > clock(now)? {
            return Ok(());
        }
        Err(Failure::fatal("ca_expired", "the certificate authority has expired: configure another one"))
    }
}

/// Generates key and certificate of an authority; both files appear in one step.
fn make(parent: &Path, folder: &Path) -> Result<(), Failure> {
    let key = KeyPair::generate().map_err(|error| cannot_sign(&error))?;
    let now = clock(Timestamp::now())?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial());
    params.not_before = now.saturating_sub(SKEW);
    params.not_after = now.saturating_add(LIFETIME);
    params.distinguished_name = DistinguishedName::new();
    // A unique name, so that clients do not confuse two authorities.
    let name = format!("Tenantry local CA {}", hex::encode(rand::random::<[u8; 4]>()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(|error| cannot_sign(&error))?.pem();
    let files = [(KEY, key.serialize_pem()), (CERTIFICATE, certificate)];
    match client::make_folder(parent, folder, &files) {
        // Another process generated the authority first; its files are used.
        Err(error) if is_there(&error) => Ok(()),
        done => done.map_err(|error| client::failure(folder, &error)),
    }
}

/// Whether a rename failed because the target exists.
pub fn is_there(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
}

/// A random serial number with 126 bits of entropy, positive and always 16 bytes long.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

/// Converts a timestamp to the certificate library's type, in whole seconds.
pub fn clock(now: Timestamp) -> Result<OffsetDateTime, Failure> {
    OffsetDateTime::from_unix_timestamp(now.micros().div_euclid(1_000_000)).map_err(|_| {
        Failure::fatal(
            "bad_clock",
            "the system clock is set to a time that a certificate cannot contain: correct it",
        )
    })
}

fn bad(why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_config", format!("local_ca: {why}"))
}

fn cannot_sign(error: &rcgen::Error) -> Failure {
    Failure::fatal("certificate", format!("the certificate cannot be created: {error}"))
}
