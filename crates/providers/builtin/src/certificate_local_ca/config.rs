//! Configuration of the certificate authority, and the provider's settings of a template's step. Pure, no I/O.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Longest lifetime that clients accept of a server's certificate, in days.
const MAX_DAYS: u32 = 825;

/// Folder of certificates, and the authority that signs them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that contains the authority's key (`authority`) and one folder per certificate. Created if it is
    /// missing.
    pub folder: PathBuf,
    /// PEM file with the certificate of your own authority. Without it, Tenantry creates an authority in the
    /// folder.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/ca.pem"]))]
    pub ca_certificate: Option<PathBuf>,
    /// PEM file with the key of your own authority.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/ca.key"]))]
    pub ca_key: Option<PathBuf>,
    /// Lifetime of certificates, in days.
    #[serde(default = "lifetime_days")]
    #[schemars(range(min = 1, max = 825))]
    pub lifetime_days: u32,
    /// Days before its expiry at which a certificate is renewed. Default: a third of its lifetime.
    #[serde(default)]
    #[schemars(extend("examples" = [30]))]
    pub renew_days: Option<u32>,
}

impl Config {
    /// A generated authority in this folder; all other settings have their defaults.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            ca_certificate: None,
            ca_key: None,
            lifetime_days: lifetime_days(),
            renew_days: None,
        }
    }
}

/// Settings of the provider in a template's step, under `with`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Step whose output `names` or `host` gives the certificate's names. Default: `dns`; without a step `dns`, the
    /// certificate is for the resource's name.
    #[serde(default)]
    pub from: Option<String>,
    /// Lifetime of the certificate, in days. Default: the configured lifetime.
    #[serde(default)]
    #[schemars(range(min = 1, max = 825))]
    pub lifetime_days: Option<u32>,
}

/// Returns an error unless the lifetime is 1 to 825 days.
pub fn check_days(days: u32) -> Result<(), String> {
    if (1..=MAX_DAYS).contains(&days) { Ok(()) } else { Err(format!("must be 1 to {MAX_DAYS} days")) }
}

fn lifetime_days() -> u32 {
    90
}
