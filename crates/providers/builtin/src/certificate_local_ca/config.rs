//! Configuration of the certificate authority, and its own settings of a step.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Longest lifetime that clients accept of a server's certificate, in days.
const MAX_DAYS: u32 = 825;

/// Where certificates lie and who signs them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder: `authority` with the authority's own key, and a folder per certificate. It is made if it is missing.
    pub folder: PathBuf,
    /// A certificate of your own authority, in PEM. Without it, an authority is made in the folder.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/ca.pem"]))]
    pub ca_certificate: Option<PathBuf>,
    /// The key of your own authority, in PEM.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/ca.key"]))]
    pub ca_key: Option<PathBuf>,
    /// How long a certificate lives, in days.
    #[serde(default = "lifetime_days")]
    #[schemars(range(min = 1, max = 825))]
    pub lifetime_days: u32,
    /// How many days before its end it is renewed. Without it, in the last third of its life.
    #[serde(default)]
    #[schemars(extend("examples" = [30]))]
    pub renew_days: Option<u32>,
}

impl Config {
    /// An authority of its own in this folder, with everything else as shipped.
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

/// What a step says under `with`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The step whose outputs `names` or `host` say the names. Without it, `dns`; a plan without such a step gets a
    /// certificate for the resource's own name.
    #[serde(default)]
    pub from: Option<String>,
    /// How long the certificate lives, in days, instead of the configured time.
    #[serde(default)]
    #[schemars(range(min = 1, max = 825))]
    pub lifetime_days: Option<u32>,
}

/// What is wrong with a lifetime.
pub fn check_days(days: u32) -> Result<(), String> {
    if (1..=MAX_DAYS).contains(&days) { Ok(()) } else { Err(format!("must be 1 to {MAX_DAYS} days")) }
}

fn lifetime_days() -> u32 {
    90
}
