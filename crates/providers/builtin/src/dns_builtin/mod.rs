//! Names of tenants, answered by an authoritative server in this process. This file is the provider's verbs.
//! Says that a name is there, or gone, only after the server has said so over the network.
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

use client::{Folder, Found};
pub use config::{Config, Settings};
use records::{Entry, Zone};
use server::NameServer;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::dns::DnsSettings;
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};
use wire::Answer;

/// How long the server may take to say what it was told.
const PROPAGATION: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// A customer needs time to set a record.
const PROOF_PAUSE: Duration = Duration::from_secs(60);
/// What the proof's digest is for.
const PROOF: &str = "dns-custom-domain";

/// The type, and the name of its default instance.
const NAME: &str = "builtin_dns";

/// How a server makes these providers.
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

/// The provider.
pub struct DnsBuiltin {
    name: Arc<str>,
    config: Config,
    zone: Zone,
    desk: OnceCell<Arc<Desk>>,
    locks: ResourceLocks,
}

/// What the work needs, also when the attempt that began it is gone.
struct Desk {
    config: Config,
    folder: Folder,
    server: NameServer,
    /// Domains of customers' own that are proven, and the label of the host that each is for.
    domains: Mutex<BTreeMap<String, String>>,
}

impl DnsBuiltin {
    /// Reads the names that are configured. Touches neither file nor port.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let zone = Zone::new(&config)?;
        Ok(Self { name: NAME.into(), config, zone, desk: OnceCell::new(), locks: ResourceLocks::default() })
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// One that has started.
    pub async fn started(config: Config) -> Result<Self, Failure> {
        let dns = Self::new(config)?;
        dns.start().await?;
        Ok(dns)
    }

    /// Takes the port and serves what lies in the folder. A file that cannot be read concerns its own host alone.
    async fn open(&self) -> Result<Arc<Desk>, Failure> {
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
        Ok(Arc::new(Desk { config, folder, server, domains }))
    }

    fn desk(&self) -> Result<&Arc<Desk>, Failure> {
        let not_yet = || Failure::retryable("not_started", "the name server has not started yet");
        self.desk.get().ok_or_else(not_yet)
    }

    /// Where the server listens, UDP and TCP, once it has started.
    pub fn address(&self) -> Option<SocketAddr> {
        self.desk.get().map(|desk| desk.server.address())
    }

    /// Runs work on a resource. It goes on to its end even if the caller gives up; what comes next for the same resource
    /// waits for it, so a late record can never appear behind a removal.
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

impl Desk {
    fn zone(&self) -> &Zone {
        self.server.zone()
    }

    /// The entry that a spec asks for.
    fn wanted(&self, spec: &Spec) -> Result<Entry, Failure> {
        let (kind, settings): (DnsSettings, Settings) = settings::both_of(spec)?;
        let label = self.zone().label(&spec.name)?;
        let domain = kind.custom_domain.as_deref();
        let entry = self.zone().entry(label, &spec.claim, &self.config, domain, &settings);
        entry.map_err(|(path, why)| Failure::invalid("bad_settings", format!("{path}: {why}")))
    }

    async fn look(self: &Arc<Self>, label: &str, claim: &str) -> Result<Found, Failure> {
        let (desk, label, claim) = (Arc::clone(self), label.to_owned(), claim.to_owned());
        blocking(move || desk.folder.look(&label, &claim)).await
    }

    async fn make(self: Arc<Self>, wanted: Entry, proof: String) -> Result<Value, Failure> {
        let there = match self.look(&wanted.label, &wanted.claim).await? {
            Found::Foreign => return Err(taken()),
            Found::Owned(entry) => Some(entry),
            Found::Nothing => None,
        };
        if let Some(domain) = &wanted.custom_domain
            && there.as_ref().and_then(|entry| entry.custom_domain.as_ref()) != Some(domain)
        {
            self.prove(domain, &proof).await?;
        }
        self.take_domain(&wanted)?;
        let sets = wanted.record_sets(self.zone())?;
        let host = self.zone().host(&wanted.label)?;
        if there.as_ref() != Some(&wanted) {
            let (desk, entry) = (Arc::clone(&self), wanted.clone());
            let replace = there.is_some();
            if !blocking(move || desk.folder.put(&entry, replace)).await? {
                return Err(taken());
            }
        }
        self.server.publish(&host, sets.clone()).await;
        let end = Instant::now() + PROPAGATION;
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

    /// Makes the entry's domain this host's, and no other one. Fails if it is another host's, which proved it first.
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

    /// Fails unless the domain's owner has set the record that proves it.
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
        Err(Failure::retryable("domain_unproven", why).after(PROOF_PAUSE))
    }

    async fn unmake(self: Arc<Self>, label: String, claim: String) -> Result<usize, Failure> {
        let host = self.zone().host(&label)?;
        let found = self.look(&label, &claim).await?;
        if found == Found::Foreign {
            return Ok(0);
        }
        let mut removed = 0;
        if let Found::Owned(entry) = found {
            removed = entry.record_sets(self.zone())?.iter().map(RecordSet::records_count).sum();
            let desk = Arc::clone(&self);
            let label = label.clone();
            blocking(move || desk.folder.remove(&label)).await?;
        }
        self.domains.lock().retain(|_, held| *held != label);
        if self.server.withdraw(&host, &records::mark(&claim)).await? || removed > 0 {
            let end = Instant::now() + PROPAGATION;
            while !self.ask(&host, RecordType::TXT).await?.nothing() {
                self.pause(end).await?;
            }
        }
        Ok(removed)
    }

    async fn observe(self: Arc<Self>, wanted: Entry) -> Result<Observed, Failure> {
        let host = self.zone().host(&wanted.label)?;
        let (healthy, answers, stored) = match self.look(&wanted.label, &wanted.claim).await? {
            Found::Foreign => return Ok(Observed::Foreign),
            Found::Owned(entry) => {
                let sets = entry.record_sets(self.zone())?;
                let served = self.serves(&sets).await?;
                (entry == wanted && served, self.answers(&host).await?, json!(entry).to_string())
            }
            Found::Nothing => {
                let answers = self.answers(&host).await?;
                if answers.iter().all(Answer::nothing) {
                    return Ok(Observed::Absent);
                }
                // It is answered for, but a restart would forget it.
                (false, answers, String::new())
            }
        };
        let mut said: Vec<String> =
            answers.iter().flat_map(|answer| answer.data.iter().map(|data| format!("{data:?}"))).collect();
        said.sort();
        said.push(stored);
        Ok(Observed::present(healthy, None, hex::encode(Sha256::digest(said.join("\n")))))
    }

    /// What the server says of every kind of record at the host, and of its owner mark.
    async fn answers(&self, host: &Name) -> Result<Vec<Answer>, Failure> {
        let mut answers = vec![self.ask(&records::owner(host)?, RecordType::TXT).await?];
        for kind in records::KINDS {
            answers.push(self.ask(host, kind).await?);
        }
        Ok(answers)
    }

    async fn serves(&self, sets: &[RecordSet]) -> Result<bool, Failure> {
        for set in sets {
            if !self.ask(set.name(), set.record_type()).await?.is(set) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, Failure> {
        wire::ask(wire::reachable(self.server.address()), name, kind).await
    }

    /// Waits a little before the next question; fails at the end of all patience.
    async fn pause(&self, end: Instant) -> Result<(), Failure> {
        if Instant::now() > end {
            let why = format!("{} does not answer with the new record yet", self.server.address());
            return Err(Failure::retryable("dns_not_propagated", why));
        }
        sleep(PAUSE).await;
        Ok(())
    }
}

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
        self.desk.get_or_try_init(|| self.open()).await.map(drop)
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
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
        let desk = self.desk()?;
        let wanted = desk.wanted(spec)?;
        // The same for the same tenant and domain, so a customer who has set it need not set another one.
        let domain = wanted.custom_domain.as_deref().unwrap_or_default();
        let proof = context.sealer.mac(PROOF, &format!("{}\n{domain}", spec.claim));
        let outputs = self.work(spec.resource, Arc::clone(desk).make(wanted, proof)).await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let desk = self.desk()?;
        let wanted = desk.wanted(spec)?;
        self.work(spec.resource, Arc::clone(desk).observe(wanted)).await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        // A name that cannot be a host never became one.
        let removed = match self.zone.label(&spec.name) {
            Ok(label) => {
                let unmake = Arc::clone(self.desk()?).unmake(label, spec.claim.clone());
                self.work(spec.resource, unmake).await?
            }
            Err(_) => 0,
        };
        Ok(Removed { receipt: json!({ "records": removed }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let desk = self.desk()?;
        let probed = Arc::clone(desk);
        blocking(move || probed.folder.probe()).await?;
        let said = desk.ask(&self.zone.origin, RecordType::SOA).await?;
        if said.data.len() == 1 {
            return Ok(());
        }
        let why = format!("{} does not answer for {}", desk.server.address(), self.zone.text());
        Err(Failure::retryable("dns_unreachable", why))
    }
}
