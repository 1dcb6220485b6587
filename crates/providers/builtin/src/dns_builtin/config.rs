//! Configuration of the name server, and its own settings of a step.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Address, zone and records of the name server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that contains one file per host of a tenant. Created if it is missing.
    pub folder: PathBuf,
    /// Address and port to listen on (UDP and TCP). Port 0 selects a free port.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Zone in which every tenant gets a host name.
    #[serde(default = "zone")]
    pub zone: String,
    /// Targets of tenants' hosts: addresses, or one host name (a CNAME).
    #[serde(default = "targets")]
    pub targets: Vec<String>,
    /// Name of this server in NS and SOA records. Default: `ns` in the zone.
    #[serde(default)]
    #[schemars(extend("examples" = ["ns.tenantry.test"]))]
    pub nameserver: Option<String>,
    /// Public address of this server. Default: the address of `listen`.
    #[serde(default)]
    #[schemars(extend("examples" = ["192.0.2.53"]))]
    pub public_ip: Option<IpAddr>,
    /// Time to live of records, in seconds.
    #[serde(default = "ttl")]
    #[schemars(range(min = 1, max = 86400))]
    pub ttl: u32,
    /// Address and port of the resolver that looks up the ownership records of custom domains. Default: the system's
    /// resolver.
    #[serde(default)]
    #[schemars(extend("examples" = ["192.0.2.1:53"]))]
    pub resolver: Option<SocketAddr>,
}

impl Config {
    /// A server on a free local port with its records in this folder; all other settings have their defaults.
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

/// Settings of the provider in a template's step, under `with`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Targets of the host. Default: the configured targets.
    #[serde(default)]
    pub targets: Option<Vec<String>>,
    /// Time to live of the records, in seconds. Default: the configured value.
    #[serde(default)]
    #[schemars(range(min = 1, max = 86400))]
    pub ttl: Option<u32>,
    /// TXT records by label under the host, such as `_dmarc`; `@` is the host itself.
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
