//! DNS records of tenants, served by an authoritative name server in this process. This file has the provider's verbs.
//! `ensure` and `remove` succeed only after the server has confirmed the change in its answers over the network.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod records;
mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::{Name, RecordSet, RecordType};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::Failure;
use tenantry_model::id::ResourceId;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use client::Folder;
pub use config::{Config, Settings};
use records::{Entry, Zone};
use server::NameServer;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::dns::DnsSettings;
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Spec};
use wire::Answer;

/// Time within which the server must answer with a changed record.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two queries for a changed record.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Delay before a step checks again whether the customer has set the record that proves the domain.
const PROOF_RETRY: Duration = Duration::from_secs(60);
/// Purpose of the keyed digest that proves a domain; digests for other purposes have other values.
const PROOF_PURPOSE: &str = "dns-custom-domain";

/// The provider type, and the name of its default instance.
const NAME: &str = "builtin_dns";

/// The provider type, for the server's list.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Dns,
    about: "A name server in this process",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "folder": context.path("dns") }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(
            async move { Ok(factory::one(DnsBuiltin::new(factory::config(config)?)?.named(&context.name))) },
        )
    },
};

/// The provider. Its name server runs once the provider is started.
pub struct DnsBuiltin {
    name: Arc<str>,
    config: Config,
    zone: Zone,
    service: OnceCell<Arc<Service>>,
    locks: ResourceLocks,
}

/// The running name server and its records. Shared with work that goes on after its attempt was cancelled.
struct Service {
    config: Config,
    folder: Folder,
    server: NameServer,
    /// Proven custom domains, and the label of the host that each belongs to.
    domains: Mutex<BTreeMap<String, String>>,
}

impl DnsBuiltin {
    /// Creates a provider that is not started yet; opens neither files nor ports. Returns an error if the zone of the
    /// configuration is not valid.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let zone = Zone::new(&config)?;
        let service = OnceCell::new();
        Ok(Self { name: NAME.into(), config, zone, service, locks: ResourceLocks::default() })
    }

    /// Sets the provider's name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Creates and starts a provider.
    pub async fn started(config: Config) -> Result<Self, Failure> {
        let dns = Self::new(config)?;
        dns.start().await?;
        Ok(dns)
    }

    /// Loads the entries from the folder and starts the name server with them. Entries that are damaged or do not fit
    /// into the zone are logged and not served.
    async fn open(&self) -> Result<Arc<Service>, Failure> {
        let (config, zone) = (self.config.clone(), self.zone.clone());
        let path = config.folder.clone();
        let (folder, entries, damaged) = blocking(move || {
            let folder = Folder::open(&path)?;
            let (entries, damaged) = folder.load()?;
            Ok((folder, entries, damaged))
        })
        .await?;
        for file in damaged {
            tracing::error!(
                file,
                "the file is not a DNS entry; its host is not served until the file is corrected or removed"
            );
        }
        let mut sets: Vec<RecordSet> = Vec::new();
        for entry in &entries {
            match entry.record_sets(&zone) {
                Ok(found) => sets.extend(found),
                Err(failure) => {
                    tracing::error!(%failure, "this DNS entry does not fit into the zone and is not served")
                }
            }
        }
        let domains = entries.into_iter().filter_map(|entry| Some((entry.custom_domain?, entry.label)));
        let domains = Mutex::new(domains.collect());
        let server = NameServer::start(&config, zone, sets).await?;
        Ok(Arc::new(Service { config, folder, server, domains }))
    }

    fn service(&self) -> Result<&Arc<Service>, Failure> {
        let not_yet = || Failure::retryable("not_started", "the name server has not started yet");
        self.service.get().ok_or_else(not_yet)
    }

    /// Address of the name server, UDP and TCP; none before the start.
    pub fn address(&self) -> Option<SocketAddr> {
        self.service.get().map(|service| service.server.address())
    }

    /// Runs work on a resource to its end, even if the caller drops the future. Further work on the same resource waits
    /// for it, so that a late `ensure` cannot create records after a `remove`.
    async fn work<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let lock = self.locks.lock(resource).await;
        let done = tokio::spawn(async move {
            let done = work.await;
            drop(lock);
            done
        });
        done.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Service {
    fn zone(&self) -> &Zone {
        self.server.zone()
    }

    /// The entry that a spec describes. Returns an error with the path of a setting that is not valid.
    fn wanted(&self, spec: &Spec) -> Result<Entry, Failure> {
        let (kind, settings): (DnsSettings, Settings) = settings::both_of(spec)?;
        let label = self.zone().label(&spec.name)?;
        let domain = kind.custom_domain.as_deref();
        let entry = self.zone().entry(label, &spec.claim, &self.config, domain, &settings);
        entry.map_err(|(path, why)| Failure::invalid("bad_settings", format!("{path}: {why}")))
    }

    /// Reads the stored entry under a label and compares its owner tag.
    async fn look(self: &Arc<Self>, label: &str, claim: &str) -> Result<Ownership<Entry>, Failure> {
        let (service, label, claim) = (Arc::clone(self), label.to_owned(), claim.to_owned());
        blocking(move || service.folder.look(&label, &claim)).await
    }

    /// Creates or updates an entry, and returns the resource's outputs once the server answers with its records. A new
    /// custom domain must be proven first; `proof` is the required value of its TXT record.
    async fn ensure(self: Arc<Self>, wanted: Entry, proof: String) -> Result<Value, Failure> {
        let stored = match self.look(&wanted.label, &wanted.claim).await? {
            Ownership::Foreign => return Err(taken()),
            Ownership::Own(entry) => Some(entry),
            Ownership::Absent => None,
        };
        if let Some(domain) = &wanted.custom_domain
            && stored.as_ref().and_then(|entry| entry.custom_domain.as_ref()) != Some(domain)
        {
            self.prove(domain, &proof).await?;
        }
        self.take_domain(&wanted)?;
        let sets = wanted.record_sets(self.zone())?;
        let host = self.zone().host(&wanted.label)?;
        if stored.as_ref() != Some(&wanted) {
            let (service, entry) = (Arc::clone(&self), wanted.clone());
            let replace = stored.is_some();
            if !blocking(move || service.folder.put(&entry, replace)).await? {
                return Err(taken());
            }
        }
        self.server.publish(&host, sets.clone()).await;
        let end = Instant::now() + PROPAGATION_TIMEOUT;
        while !self.serves(&sets).await? {
            self.pause(end).await?;
        }
        let host = records::text(&host);
        let names: Vec<&String> =
            [Some(&host), wanted.custom_domain.as_ref()].into_iter().flatten().collect();
        Ok(json!({
            "host": host, "names": names, "zone": self.zone().text(), "targets": wanted.targets(),
            "ttl": wanted.ttl, "server": self.server.address(),
        }))
    }

    /// Assigns the entry's custom domain to its host, and releases the host's other one. Returns an error if another
    /// host has proven the domain before.
    fn take_domain(&self, entry: &Entry) -> Result<(), Failure> {
        let mut domains = self.domains.lock();
        let holder = entry.custom_domain.as_ref().and_then(|domain| domains.get(domain));
        if holder.is_some_and(|label| *label != entry.label) {
            return Err(Failure::fatal("domain_taken", "another tenant has this domain; it was not touched"));
        }
        domains.retain(|_, label| *label != entry.label);
        domains.extend(entry.custom_domain.clone().map(|domain| (domain, entry.label.clone())));
        Ok(())
    }

    /// Checks that the domain's owner has set the TXT record that proves the domain. If not, the failure is retryable
    /// and says which record to set.
    async fn prove(&self, domain: &str, proof: &str) -> Result<(), Failure> {
        let name = records::challenge(domain).map_err(|why| Failure::invalid("bad_settings", why))?;
        let resolver = match self.config.resolver {
            Some(resolver) => resolver,
            None => wire::system_resolver().await?,
        };
        let wanted = records::text_data(proof);
        if wire::ask(resolver, &name, RecordType::TXT).await?.data.contains(&wanted) {
            return Ok(());
        }
        let why = format!(
            "{domain} is not proven yet; its owner must set this record: {} TXT \"{proof}\"",
            records::text(&name)
        );
        Err(Failure::retryable("domain_unproven", why).after(PROOF_RETRY))
    }

    /// Deletes the entry under a label, unless it has another owner tag. Returns the number of deleted records, once
    /// the server no longer answers for the host.
    async fn remove(self: Arc<Self>, label: String, claim: String) -> Result<usize, Failure> {
        let host = self.zone().host(&label)?;
        let found = self.look(&label, &claim).await?;
        if found == Ownership::Foreign {
            return Ok(0);
        }
        let mut removed = 0;
        if let Ownership::Own(entry) = found {
            removed = entry.record_sets(self.zone())?.iter().map(RecordSet::records_count).sum();
            let service = Arc::clone(&self);
            let label = label.clone();
            blocking(move || service.folder.remove(&label)).await?;
        }
        self.domains.lock().retain(|_, held| *held != label);
        if self.server.withdraw(&host, &records::mark(&claim)).await? || removed > 0 {
            let end = Instant::now() + PROPAGATION_TIMEOUT;
            while !self.ask(&host, RecordType::TXT).await?.nothing() {
                self.pause(end).await?;
            }
        }
        Ok(removed)
    }

    /// Compares the stored entry and the server's answers with the wanted entry.
    async fn observe(self: Arc<Self>, wanted: Entry) -> Result<Observed, Failure> {
        let host = self.zone().host(&wanted.label)?;
        let (healthy, answers, stored) = match self.look(&wanted.label, &wanted.claim).await? {
            Ownership::Foreign => return Ok(Observed::Foreign),
            Ownership::Own(entry) => {
                let sets = entry.record_sets(self.zone())?;
                let served = self.serves(&sets).await?;
                (entry == wanted && served, self.answers(&host).await?, json!(entry).to_string())
            }
            Ownership::Absent => {
                let answers = self.answers(&host).await?;
                if answers.iter().all(Answer::nothing) {
                    return Ok(Observed::Absent);
                }
                // The server still answers for the host, although the file is gone.
                (false, answers, String::new())
            }
        };
        let mut state: Vec<String> =
            answers.iter().flat_map(|answer| answer.data.iter().map(|data| format!("{data:?}"))).collect();
        state.sort();
        state.push(stored);
        Ok(Observed::present(healthy, None, hex::encode(Sha256::digest(state.join("\n")))))
    }

    /// The server's answers for the owner tag and for each record type at the host.
    async fn answers(&self, host: &Name) -> Result<Vec<Answer>, Failure> {
        let mut answers = vec![self.ask(&records::owner(host)?, RecordType::TXT).await?];
        for kind in records::KINDS {
            answers.push(self.ask(host, kind).await?);
        }
        Ok(answers)
    }

    /// Whether the server answers with exactly these records.
    async fn serves(&self, sets: &[RecordSet]) -> Result<bool, Failure> {
        for set in sets {
            if !self.ask(set.name(), set.record_type()).await?.is(set) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Queries this provider's name server over the network.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Failure> {
        wire::ask(wire::reachable(self.server.address()), name, kind).await
    }

    /// Waits before the next query. Returns a retryable failure after `end`.
    async fn pause(&self, end: Instant) -> Result<(), Failure> {
        if Instant::now() > end {
            let why =
                format!("the name server at {} does not answer with the change yet", self.server.address());
            return Err(Failure::retryable("dns_not_propagated", why));
        }
        sleep(POLL_INTERVAL).await;
        Ok(())
    }
}

/// Runs file operations on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> Failure {
    Failure::unknown("stopped", "the name server was shut down during the work")
}

fn taken() -> Failure {
    Failure::fatal("name_taken", "the host has another owner tag; it was not touched")
}

#[async_trait]
impl Provider for DnsBuiltin {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Dns
    }

    async fn start(&self) -> Result<(), Failure> {
        self.service.get_or_try_init(|| self.open()).await.map(drop)
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        self.zone.label(name).map(drop).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let (kind, settings): (DnsSettings, Settings) = match settings::check_both(given) {
            Ok(both) => both,
            Err(faults) => return faults,
        };
        let domain = kind.custom_domain.as_deref();
        let tried = self.zone.entry(String::new(), "", &self.config, domain, &settings);
        tried.err().map(|(path, message)| Fault { path: path.to_owned(), message }).into_iter().collect()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let service = self.service()?;
        let wanted = service.wanted(spec)?;
        // The same value at every attempt for this tenant and domain, so the customer sets the record only once.
        let domain = wanted.custom_domain.as_deref().unwrap_or_default();
        let proof = context.sealer.mac(PROOF_PURPOSE, &format!("{}\n{domain}", spec.claim));
        let outputs = self.work(spec.resource, Arc::clone(service).ensure(wanted, proof)).await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let service = self.service()?;
        let wanted = service.wanted(spec)?;
        self.work(spec.resource, Arc::clone(service).observe(wanted)).await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        // No host was created under a name that is not a valid label.
        let removed = match self.zone.label(&spec.name) {
            Ok(label) => {
                let remove = Arc::clone(self.service()?).remove(label, spec.claim.clone());
                self.work(spec.resource, remove).await?
            }
            Err(_) => 0,
        };
        Ok(Removed { receipt: json!({ "records": removed }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let service = self.service()?;
        let probed = Arc::clone(service);
        blocking(move || probed.folder.probe()).await?;
        let answer = service.ask(&self.zone.origin, RecordType::SOA).await?;
        if answer.data.len() == 1 {
            return Ok(());
        }
        let (address, zone) = (service.server.address(), self.zone.text());
        let why = format!("the name server at {address} does not answer for the zone {zone}");
        Err(Failure::retryable("dns_unreachable", why))
    }
}
