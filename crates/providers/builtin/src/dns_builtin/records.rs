//! The records of one host: what a step asks for, checked, and as the zone serves it. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{Name, RData, RecordSet, RecordType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;

use super::config::{Config, Settings};
use tenantry_provider::hosts::{MAX_LABEL, MAX_NAME, check_label, full_name};

/// Longest piece of a text record (RFC 1035); longer texts are cut into such pieces.
const PIECE: usize = 255;
/// Bounds of what one tenant can put into an answer: well below what a TCP message holds.
const MAX_TEXT: usize = 1024;
const MAX_VALUES: usize = 16;
const MAX_TARGETS: usize = 16;

/// Below the host: the digest of the owner mark.
pub const OWNER: &str = "_tenantry";
/// Below a custom domain: the proof of who owns it.
const CHALLENGE: &str = "_tenantry-challenge";
/// Stands for the host itself among the labels of texts.
const APEX: &str = "@";

/// The zone's own names.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The zone.
    pub origin: Name,
    /// The server's name in NS and SOA.
    pub nameserver: Name,
}

/// The records of a host as they lie on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The label under the zone. It is also the file's name: a copy under another one counts for nothing.
    pub label: String,
    /// The owner mark.
    pub claim: String,
    /// Seconds for which an answer may be remembered.
    pub ttl: u32,
    /// Where the host leads.
    pub target: Target,
    /// Texts by label under the host, the host itself as `@`.
    pub txt: BTreeMap<String, Vec<String>>,
    /// The customer's own domain, once it is proven.
    pub custom_domain: Option<String>,
}

/// Where a host leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A and AAAA.
    Addresses(Vec<IpAddr>),
    /// CNAME.
    Host(String),
}

impl Zone {
    /// Reads the names that are configured.
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

    /// The label under the zone that an external name stands for.
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

    /// The host of a label that was checked.
    pub fn host(&self, label: &str) -> Result<Name, Failure> {
        below(label, &self.origin).map_err(|why| Failure::invalid("bad_name", why))
    }

    /// The zone without the dot at its end.
    pub fn text(&self) -> String {
        text(&self.origin)
    }

    /// What stands in the settings, checked: the entry of a host, its custom domain not proven yet.
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
                return Err(("txt", format!("`{under}` stands there twice")));
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
                return Err("beside a CNAME there can be no other record; give the texts a label".to_owned());
            }
        } else {
            check_label(under)?;
            // A host of its own would be another tenant's business; the longest host must have room for it.
            if !under.starts_with('_') || under == OWNER {
                return Err(format!("a label of texts begins with `_` and is not `{OWNER}`"));
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
            return Err(format!("lies in {}, which belongs to this server", self.text()));
        }
        challenge(&domain)?;
        Ok(domain)
    }
}

impl Entry {
    /// What the zone serves for this entry.
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

    /// What stands in the zone for the owner mark.
    pub fn mark(&self) -> String {
        mark(&self.claim)
    }

    /// Where the host leads, as people write it.
    pub fn targets(&self) -> Vec<String> {
        match &self.target {
            Target::Addresses(addresses) => addresses.iter().map(IpAddr::to_string).collect(),
            Target::Host(host) => vec![host.clone()],
        }
    }
}

/// The digest of an owner mark, which anybody may see.
pub fn mark(claim: &str) -> String {
    hex::encode(Sha256::digest(claim.as_bytes()))
}

/// The owner mark's name below a host.
pub fn owner(host: &Name) -> Result<Name, Failure> {
    below(OWNER, host).map_err(|why| Failure::invalid("bad_name", why))
}

/// Where the proof of a custom domain is looked for.
pub fn challenge(domain: &str) -> Result<Name, String> {
    below(CHALLENGE, &absolute(domain)?)
}

/// A name without the dot at its end.
pub fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// The data of an address' record.
pub fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    }
}

/// The data of a text record.
pub fn text_data(value: &str) -> RData {
    RData::TXT(TXT::from_bytes(value.as_bytes().chunks(PIECE).collect()))
}

/// The kinds of records that a host can have.
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
    let mut name = Name::from_ascii(host).map_err(|_| "is not the name of a host".to_owned())?;
    name.set_fqdn(true);
    Ok(name)
}

fn below(label: &str, name: &Name) -> Result<Name, String> {
    name.prepend_label(label.as_bytes())
        .map_err(|_| format!("the whole name would be longer than {MAX_NAME} bytes"))
}
