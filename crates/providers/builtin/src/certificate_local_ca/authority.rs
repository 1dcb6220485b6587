//! The certificate authority: made once in a private folder, or given by the operator. It signs; it keeps no list of what
//! it signed. Opening it blocks.

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

/// The authority's own folder.
const FOLDER: &str = "authority";
/// Clocks differ: a certificate is valid a little before it is made.
const SKEW: Duration = Duration::hours(1);
/// Life of an authority that is made here.
const LIFETIME: Duration = Duration::days(3650);
/// Longest common name (X.520).
const MAX_COMMON_NAME: usize = 64;

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
    facts: Facts,
}

impl Authority {
    /// The operator's, or the one in the folder, which is made if it is missing.
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
            _ => Err(bad("`ca_certificate` and `ca_key` belong together; give both or none")),
        }
    }

    fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let text = |file: &Path| {
            fs::read_to_string(file).map_err(|error| {
                bad(format!("the authority's file {} cannot be read: {error}", file.display()))
            })
        };
        let (pem, shown) = (text(certificate)?, certificate.display());
        let facts = Facts::read(&pem).ok_or_else(|| bad(format!("{shown} holds no certificate in PEM")))?;
        if !facts.may_sign {
            return Err(bad(format!("{shown} is not the certificate of an authority")));
        }
        // The library's own words could quote the key.
        let key = KeyPair::from_pem(&text(key)?)
            .map_err(|_| bad(format!("{} holds no key in PEM (PKCS 8, PKCS 1 or SEC 1)", key.display())))?;
        if !facts.is_of(&key) {
            return Err(bad(format!("{shown} is not the certificate of the key that is given with it")));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|error| bad(format!("{shown} cannot be used to sign: {error}")))?;
        Ok(Self { issuer, pem, facts })
    }

    /// A certificate for the names and the key, in PEM.
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
            let why = "the certificate authority has expired; give another one, or remove its folder to have one made";
            return Err(Failure::fatal("ca_expired", why));
        }
        let mut params = CertificateParams::new(names).map_err(|error| refused(&error))?;
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
            .map_err(|error| refused(&error))
    }

    /// Whether it signed this certificate, by its name and key.
    pub fn signed(&self, facts: &Facts) -> bool {
        facts.issuer == self.facts.subject && facts.authority_key == self.facts.subject_key
    }

    /// Whether it will still be there at the end of what it signs now.
    pub fn probe(&self, now: Timestamp) -> Result<(), Failure> {
        if self.facts.not_after > clock(now)? {
            return Ok(());
        }
        Err(Failure::fatal("ca_expired", "the certificate authority has expired; give another one"))
    }
}

/// Makes key and certificate: both are there, or none is.
fn make(parent: &Path, folder: &Path) -> Result<(), Failure> {
    let key = KeyPair::generate().map_err(|error| refused(&error))?;
    let now = clock(Timestamp::now())?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial());
    params.not_before = now.saturating_sub(SKEW);
    params.not_after = now.saturating_add(LIFETIME);
    params.distinguished_name = DistinguishedName::new();
    // Two authorities never have one name: clients would mistake one for the other.
    let name = format!("Tenantry local CA {}", hex::encode(rand::random::<[u8; 4]>()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(|error| refused(&error))?.pem();
    let files = [(KEY, key.serialize_pem()), (CERTIFICATE, certificate)];
    match client::make_folder(parent, folder, &files) {
        // Another process was first: there is one authority, and it is that one.
        Err(error) if is_there(&error) => Ok(()),
        done => done.map_err(|error| client::failure(folder, &error)),
    }
}

/// How a rename says that something is there already.
pub fn is_there(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
}

/// 126 random bits below a set one: positive, and of one length.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

/// The instant as the library has it, in whole seconds.
pub fn clock(now: Timestamp) -> Result<OffsetDateTime, Failure> {
    OffsetDateTime::from_unix_timestamp(now.micros().div_euclid(1_000_000))
        .map_err(|_| Failure::fatal("bad_clock", "the clock is set to a time that no certificate can hold"))
}

fn bad(why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_config", format!("local_ca: {why}"))
}

fn refused(error: &rcgen::Error) -> Failure {
    Failure::fatal("certificate", format!("the certificate cannot be made: {error}"))
}
