//! The records of one host: validates the settings and converts them into record sets. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{Name, RData, RecordSet, RecordType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;

use super::config::{Config, Settings};
use tenantry_provider::hosts::{MAX_LABEL, MAX_NAME, check_label, full_name};

/// Longest string of a TXT record, in bytes (RFC 1035); longer texts are split.
const TXT_CHUNK: usize = 255;
/// Longest text of one tenant, in bytes. This and the two bounds below keep responses well below the size of
/// a TCP message.
const MAX_TEXT: usize = 1024;
const MAX_VALUES: usize = 16;
const MAX_TARGETS: usize = 16;

/// Label below the host whose TXT record holds the digest of the owner tag.
pub const OWNER: &str = "_tenantry";
/// Label below a custom domain whose TXT record proves its ownership.
const CHALLENGE: &str = "_tenantry-challenge";
/// Label in the settings that stands for the host itself.
const APEX: &str = "@";

/// Names of the zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Name of the zone.
    pub origin: Name,
    /// Name of the server in NS and SOA records.
    pub nameserver: Name,
}

/// The records of a host as stored on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Label below the zone. Must equal the file's name, so that a copied file is ignored.
    pub label: String,
    /// Owner tag.
    pub claim: String,
    /// TTL in seconds.
    pub ttl: u32,
    /// Target of the host.
    pub target: Target,
    /// Texts by label below the host; `@` is the host itself.
    pub txt: BTreeMap<String, Vec<String>>,
    /// The customer's own domain, once its ownership is proven.
    pub custom_domain: Option<String>,
}

/// Target of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Addresses, served as A and AAAA records.
    Addresses(Vec<IpAddr>),
    /// Name of another host, served as a CNAME record.
    Host(String),
}

impl Zone {
    /// Validates the configured names and default targets.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let bad = |what: &str, why: String| Failure::invalid("bad_config", format!("{what}: {why}"));
        let text = full_name(&config.zone).map_err(|why| bad("the zone of builtin_dns", why))?;
        let origin = absolute(&text).map_err(|why| bad("the zone of builtin_dns", why))?;
        let nameserver = match &config.nameserver {
            Some(name) => full_name(name).and_then(|name| absolute(&name)),
            None => below("ns", &origin),
        };
        let nameserver = nameserver.map_err(|why| bad("the nameserver of builtin_dns", why))?;
        target(&config.targets).map_err(|why| bad("the targets of builtin_dns", why))?;
        Ok(Self { origin, nameserver })
    }

    /// The label below the zone for an external name, which may be a label or a full name in the zone.
    pub fn label(&self, name: &str) -> Result<String, Failure> {
        let bad = |why: &str| {
            let shown: String = name.chars().take(MAX_LABEL).collect();
            Failure::invalid("bad_name", format!("{shown:?} cannot be a host under {}: {why}", self.text()))
        };
        let lower = name.to_ascii_lowercase();
        let label = lower.strip_suffix(&format!(".{}", self.text())).unwrap_or(&lower);
        if label.starts_with('_') {
            return Err(bad("a label that begins with `_` is not a host"));
        }
        check_label(label).map_err(|why| bad(&why))?;
        let host = below(label, &self.origin).map_err(|why| bad(&why))?;
        if host == self.nameserver {
            return Err(bad("the name server has this name"));
        }
        below(OWNER, &host).map_err(|why| bad(&why))?;
        Ok(label.to_owned())
    }

    /// The full name of a validated label.
    pub fn host(&self, label: &str) -> Result<Name, Failure> {
        below(label, &self.origin).map_err(|why| Failure::invalid("bad_name", why))
    }

    /// The zone's name without the trailing dot.
    pub fn text(&self) -> String {
        text(&self.origin)
    }

    /// Validates the settings and builds the entry of a host. The ownership of its custom domain is not
    /// checked here. The error names the setting and the reason.
    pub fn entry(
        &self,
        label: String,
        claim: &str,
        config: &Config,
        domain: Option<&str>,
        settings: &Settings,
    ) -> Result<Entry, (&'static str, String)> {
        let target =
            target(settings.targets.as_ref().unwrap_or(&config.targets)).map_err(|why| ("targets", why))?;
        let mut txt = BTreeMap::new();
        for (under, values) in &settings.txt {
            let under = under.to_ascii_lowercase();
            self.check_texts(&under, values, &target).map_err(|why| ("txt", format!("`{under}`: {why}")))?;
            if txt.insert(under.clone(), values.clone()).is_some() {
                return Err(("txt", format!("`{under}` is listed twice")));
            }
        }
        if txt.len() > MAX_VALUES {
            return Err(("txt", format!("at most {MAX_VALUES} labels")));
        }
        let custom_domain = domain.map(|domain| self.custom_domain(domain)).transpose();
        let custom_domain = custom_domain.map_err(|why| ("custom_domain", why))?;
        let ttl = settings.ttl.unwrap_or(config.ttl);
        Ok(Entry { label, claim: claim.to_owned(), ttl, target, txt, custom_domain })
    }

    fn check_texts(&self, under: &str, values: &[String], target: &Target) -> Result<(), String> {
        if under == APEX {
            if matches!(target, Target::Host(_)) {
                return Err(
                    "a CNAME excludes other records at the same name: put the texts under a label".to_owned()
                );
            }
        } else {
            check_label(under)?;
            // A label without `_` could be another tenant's host. The label must also fit below the longest
            // host.
            if !under.starts_with('_') || under == OWNER {
                return Err(format!("a label of texts must begin with `_` and must not be `{OWNER}`"));
            }
            let longest = below(&"a".repeat(MAX_LABEL), &self.origin)?;
            below(under, &longest)?;
        }
        let fits = |value: &String| {
            !value.is_empty() && value.len() <= MAX_TEXT && !value.chars().any(char::is_control)
        };
        if values.is_empty() || values.len() > MAX_VALUES || !values.iter().all(fits) {
            return Err(format!(
                "1 to {MAX_VALUES} texts of 1 to {MAX_TEXT} bytes without control characters"
            ));
        }
        Ok(())
    }

    fn custom_domain(&self, domain: &str) -> Result<String, String> {
        let domain = full_name(domain)?;
        let name = absolute(&domain)?;
        if self.origin.zone_of(&name) {
            return Err(format!(
                "is in {}, the zone of this server: use a domain outside of it",
                self.text()
            ));
        }
        challenge(&domain)?;
        Ok(domain)
    }
}

impl Entry {
    /// Record sets of this entry.
    pub fn record_sets(&self, zone: &Zone) -> Result<Vec<RecordSet>, Failure> {
        let host = zone.host(&self.label)?;
        let failed = |why: String| Failure::invalid("bad_name", why);
        let mut sets: Vec<RecordSet> = Vec::new();
        let mut add = |name: &Name, data: RData| {
            let kind = data.record_type();
            match sets.iter_mut().find(|set| set.name() == name && set.record_type() == kind) {
                Some(set) => drop(set.add_rdata(data)),
                None => {
                    let mut set = RecordSet::with_ttl(name.clone(), kind, self.ttl);
                    set.add_rdata(data);
                    sets.push(set);
                }
            }
        };
        match &self.target {
            Target::Addresses(addresses) => {
                for address in addresses {
                    add(&host, address_data(*address));
                }
            }
            Target::Host(target) => add(&host, RData::CNAME(CNAME(absolute(target).map_err(failed)?))),
        }
        for (under, values) in &self.txt {
            let name = if under == APEX { host.clone() } else { below(under, &host).map_err(failed)? };
            for value in values {
                add(&name, text_data(value));
            }
        }
        add(&below(OWNER, &host).map_err(failed)?, text_data(&self.mark()));
        Ok(sets)
    }

    /// Digest of the owner tag, as published in the zone.
    pub fn mark(&self) -> String {
        mark(&self.claim)
    }

    /// Addresses or host name of the target as text.
    pub fn targets(&self) -> Vec<String> {
        match &self.target {
            Target::Addresses(addresses) => addresses.iter().map(IpAddr::to_string).collect(),
            Target::Host(host) => vec![host.clone()],
        }
    }
}

/// Digest of an owner tag. It is public.
pub fn mark(claim: &str) -> String {
    hex::encode(Sha256::digest(claim.as_bytes()))
}

/// Name of the owner tag's record below a host.
pub fn owner(host: &Name) -> Result<Name, Failure> {
    below(OWNER, host).map_err(|why| Failure::invalid("bad_name", why))
}

/// Name of the TXT record that proves the ownership of a custom domain.
pub fn challenge(domain: &str) -> Result<Name, String> {
    below(CHALLENGE, &absolute(domain)?)
}

/// A name without the trailing dot.
pub fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// Record data of an address.
pub fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

/// Record data of a text.
pub fn text_data(value: &str) -> RData {
    RData::TXT(TXT::from_bytes(value.as_bytes().chunks(TXT_CHUNK).collect()))
}

/// Types of records that a host can have.
pub const KINDS: [RecordType; 4] = [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::TXT];

fn target(targets: &[String]) -> Result<Target, String> {
    let addresses: Vec<IpAddr> = targets.iter().filter_map(|target| target.parse().ok()).collect();
    match targets {
        [] => Err("give addresses or the name of a host".to_owned()),
        _ if addresses.len() == targets.len() && targets.len() <= MAX_TARGETS => {
            Ok(Target::Addresses(addresses))
        }
        [host] => full_name(host).map(Target::Host),
        _ => Err(format!("either up to {MAX_TARGETS} addresses, or the name of one host")),
    }
}

fn absolute(host: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(host).map_err(|_| "is not a host name".to_owned())?;
    name.set_fqdn(true);
    Ok(name)
}

fn below(label: &str, name: &Name) -> Result<Name, String> {
    name.prepend_label(label.as_bytes())
        .map_err(|_| format!("the whole name would be longer than {MAX_NAME} bytes"))
}
