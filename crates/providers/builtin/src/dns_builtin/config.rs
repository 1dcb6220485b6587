//! Configuration of the name server, and its own settings of a step.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Where the server listens, what it answers for, and where its records lie.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder with a file per tenant's host. It is made if it is missing.
    pub folder: PathBuf,
    /// Address and port, UDP and TCP. Port 0 takes a free one.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// The zone under which every tenant gets a label.
    #[serde(default = "zone")]
    pub zone: String,
    /// Where tenants' hosts lead: addresses, or the name of one host (a CNAME).
    #[serde(default = "targets")]
    pub targets: Vec<String>,
    /// The name of this server in NS and SOA. Without it, `ns` under the zone.
    #[serde(default)]
    #[schemars(extend("examples" = ["ns.tenantry.test"]))]
    pub nameserver: Option<String>,
    /// This server's address as others reach it. Without it, the one it listens on.
    #[serde(default)]
    #[schemars(extend("examples" = ["192.0.2.53"]))]
    pub public_ip: Option<IpAddr>,
    /// Seconds for which an answer may be remembered.
    #[serde(default = "ttl")]
    #[schemars(range(min = 1, max = 86400))]
    pub ttl: u32,
    /// Address and port of the resolver that is asked for the proof of a custom domain. Without it, the system's.
    #[serde(default)]
    #[schemars(extend("examples" = ["192.0.2.1:53"]))]
    pub resolver: Option<SocketAddr>,
}

impl Config {
    /// A server on a free port of this machine with its records in this folder, everything else as shipped.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            listen: listen(),
            zone: zone(),
            targets: targets(),
            nameserver: None,
            public_ip: None,
            ttl: ttl(),
            resolver: None,
        }
    }
}

/// What a step says under `with`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the host leads, instead of the configured targets.
    #[serde(default)]
    pub targets: Option<Vec<String>>,
    /// Seconds for which an answer may be remembered, instead of the configured ones.
    #[serde(default)]
    #[schemars(range(min = 1, max = 86400))]
    pub ttl: Option<u32>,
    /// Texts by label under the host, such as `_dmarc`; `@` is the host itself.
    #[serde(default)]
    pub txt: BTreeMap<String, Vec<String>>,
}

fn listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn zone() -> String {
    "tenantry.test".to_owned()
}

fn targets() -> Vec<String> {
    vec![Ipv4Addr::LOCALHOST.to_string()]
}

fn ttl() -> u32 {
    60
}
