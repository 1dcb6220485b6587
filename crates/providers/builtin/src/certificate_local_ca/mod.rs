//! Certificates of a local authority, as files. This file is the provider's verbs.
//! Keys never leave their folders: they are in no output, no receipt and no message.
//!
#![doc = include_str!("docs.md")]

mod authority;
mod client;
mod config;
mod facts;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, Timestamp};

use authority::Authority;
use client::{Cabinet, Seen, Wanted};
use config::check_days;
pub use config::{Config, Settings};
use facts::Facts;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::hosts;
use tenantry_provider::kinds::certificate::CertificateSettings;
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// The step that says the names where the settings do not.
const NAMING_STEP: &str = "dns";
/// Names of one certificate: what public authorities allow.
const MAX_NAMES: usize = 100;
/// Longest name of a certificate's folder.
const MAX_FOLDER: usize = 128;

/// The type, and the name of its default instance.
const NAME: &str = "local_ca";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Certificate,
    about: "A certificate authority in a folder",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "folder": context.path("certificates") }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move {
            Ok(factory::one(CertificateLocalCa::new(factory::config(config)?)?.named(&context.name)))
        })
    },
};

/// The provider.
pub struct CertificateLocalCa {
    name: Arc<str>,
    config: Config,
    cabinet: OnceLock<Arc<Cabinet>>,
    locks: ResourceLocks,
}

impl CertificateLocalCa {
    /// Checks what is configured. Touches no file.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let bad = |why: String| Failure::invalid("bad_config", format!("local_ca: {why}"));
        check_days(config.lifetime_days).map_err(|why| bad(format!("`lifetime_days` {why}")))?;
        if config.renew_days.is_some_and(|days| days >= config.lifetime_days) {
            return Err(bad("`renew_days` must be less than `lifetime_days`".to_owned()));
        }
        Ok(Self { name: NAME.into(), config, cabinet: OnceLock::new(), locks: ResourceLocks::default() })
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// One that has started.
    pub async fn started(config: Config) -> Result<Self, Failure> {
        let ca = Self::new(config)?;
        ca.start().await?;
        Ok(ca)
    }

    /// Where the files of a resource with this external name are, once it has started.
    pub fn folder_of(&self, name: &str) -> Result<std::path::PathBuf, Failure> {
        let name = folder(name)?;
        self.cabinet().map(|cabinet| cabinet.folder_of(&name))
    }

    fn cabinet(&self) -> Result<&Arc<Cabinet>, Failure> {
        let not_yet = || Failure::retryable("not_started", "the authority has not started yet");
        self.cabinet.get().ok_or_else(not_yet)
    }

    fn wanted(&self, spec: &Spec) -> Result<Wanted, Failure> {
        let (kind, settings): (CertificateSettings, Settings) = settings::both_of(spec)?;
        let invalid =
            |(path, why): (&str, String)| Failure::invalid("bad_settings", format!("{path}: {why}"));
        check(&kind, &settings).map_err(invalid)?;
        let given = match &kind.names {
            Some(names) => names.clone(),
            None => names_of(spec, settings.from.as_deref())?,
        };
        let names = names(&given).map_err(|why| invalid(("names", why)))?;
        let days = settings.lifetime_days.unwrap_or(self.config.lifetime_days);
        Ok(Wanted { name: folder(&spec.name)?, claim: spec.claim.clone(), names, days })
    }

    /// Runs file work for a resource. It goes on to its end even if the caller gives up; what comes next for the same
    /// resource waits for it, so a late file can never appear behind a removal.
    async fn work<T: Send + 'static>(
        &self,
        resource: ResourceId,
        work: impl FnOnce(&Cabinet) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let lock = self.locks.lock(resource).await;
        let cabinet = Arc::clone(self.cabinet()?);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&cabinet);
            drop(lock);
            done
        });
        done.await.unwrap_or_else(|_| {
            Err(Failure::unknown("stopped", "the authority was shut down during the work"))
        })
    }
}

/// Checks settings. The error is the path of the faulty setting and a message.
fn check(kind: &CertificateSettings, settings: &Settings) -> Result<(), (&'static str, String)> {
    if let Some(given) = &kind.names {
        names(given).map_err(|why| ("names", why))?;
        if settings.from.is_some() {
            return Err(("from", "cannot be combined with `names`; set one of the two".to_owned()));
        }
    }
    settings.lifetime_days.map_or(Ok(()), check_days).map_err(|why| ("lifetime_days", why))
}

/// Host names from the outputs of an earlier step: the step `from`, or by default the DNS step. Without a DNS step, the
/// resource's own name.
fn names_of(spec: &Spec, from: Option<&str>) -> Result<Vec<String>, Failure> {
    let step = from.unwrap_or(NAMING_STEP);
    let Some(outputs) = spec.inputs.get(step) else {
        return match from {
            None => Ok(vec![spec.name.clone()]),
            Some(_) => Err(Failure::invalid(
                "bad_settings",
                format!("from: this step does not need the step `{step}`; add it to `needs`"),
            )),
        };
    };
    let found = match (outputs.get("names"), outputs.get("host")) {
        (Some(Value::Array(names)), _) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        (_, Some(Value::String(host))) => Some(vec![host.clone()]),
        _ => None,
    };
    found.ok_or_else(|| {
        let why = format!("the step `{step}` has no output `names` or `host`; set `names` of this step");
        Failure::invalid("bad_settings", why)
    })
}

/// The names in the form in which a certificate has them.
fn names(given: &[String]) -> Result<Vec<String>, String> {
    if given.is_empty() || given.len() > MAX_NAMES {
        return Err(format!("1 to {MAX_NAMES} names"));
    }
    let mut names: Vec<String> = Vec::with_capacity(given.len());
    for name in given {
        let shown: String = name.chars().take(MAX_FOLDER).collect();
        let fails = |why| format!("{shown:?} {why}");
        let name = match (name.parse::<IpAddr>(), name.strip_prefix("*.")) {
            (Ok(ip), _) => ip.to_string(),
            (_, Some(rest)) => format!("*.{}", hosts::full_name(rest).map_err(fails)?),
            _ => hosts::name(name).map_err(fails)?,
        };
        if name.len() > hosts::MAX_NAME {
            return Err(fails(format!("is longer than {} bytes", hosts::MAX_NAME)));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The external name as a folder's.
fn folder(name: &str) -> Result<String, Failure> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_FOLDER || name.starts_with('.') || !name.bytes().all(known) {
        let why = format!(
            "a certificate's name has 1 to {MAX_FOLDER} of a-z, 0-9, -, _ and dots, none at its beginning"
        );
        return Err(Failure::invalid("bad_name", why));
    }
    Ok(name.to_ascii_lowercase())
}

fn when(instant: time::OffsetDateTime) -> Timestamp {
    Timestamp::from_micros(instant.unix_timestamp().saturating_mul(1_000_000))
}

#[async_trait]
impl Provider for CertificateLocalCa {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Certificate
    }

    /// Opens the authority, and makes it if there is none.
    async fn start(&self) -> Result<(), Failure> {
        if self.cabinet.get().is_none() {
            let config = self.config.clone();
            let open = move || Cabinet::open(&config.folder, Authority::open(&config)?, config.renew_days);
            let opened = tokio::task::spawn_blocking(open).await;
            let stopped = |_| Err(Failure::unknown("stopped", "the authority was shut down as it started"));
            // A start at the same time opened the same folder.
            let _ = self.cabinet.set(Arc::new(opened.unwrap_or_else(stopped)?));
        }
        Ok(())
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        folder(name).map(drop).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let (kind, settings) = match settings::check_both(given) {
            Ok(both) => both,
            Err(faults) => return faults,
        };
        let fault = check(&kind, &settings).err();
        fault.map(|(path, message)| Fault { path: path.to_owned(), message }).into_iter().collect()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let (wanted, now) = (self.wanted(spec)?, context.now);
        let folder = self.cabinet()?.folder_of(&wanted.name);
        let facts = self.work(spec.resource, move |cabinet| cabinet.make(&wanted, now)).await?;
        Ok(Ensured { outputs: outputs(&facts, self.config.renew_days, &folder), writes: Vec::new() })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let (wanted, now) = (self.wanted(spec)?, context.now);
        let seen = self.work(spec.resource, move |cabinet| cabinet.observe(&wanted, now)).await?;
        Ok(match seen {
            Seen::Absent => Observed::Absent,
            Seen::Foreign => Observed::Foreign,
            Seen::Present { healthy, facts } => {
                let (version, fingerprint) =
                    facts.map(|facts| (facts.serial.clone(), facts.fingerprint.clone())).unzip();
                Observed::present(healthy, version, fingerprint.unwrap_or_default())
            }
        })
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        // A name that cannot be a folder's never became one; which names the certificate proves does not matter here.
        let removed = match folder(&spec.name) {
            Ok(name) => {
                let wanted = Wanted { name, claim: spec.claim.clone(), names: Vec::new(), days: 0 };
                self.work(spec.resource, move |cabinet| cabinet.remove(&wanted)).await?
            }
            Err(_) => None,
        };
        let serial = removed.as_ref().and_then(|facts| Some(facts.as_ref()?.serial.clone()));
        let receipt = json!({ "certificates": u8::from(removed.is_some()), "revoked_serial": serial });
        Ok(Removed { receipt, writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let cabinet = Arc::clone(self.cabinet()?);
        let probed = tokio::task::spawn_blocking(move || cabinet.probe(Timestamp::now()));
        probed.await.unwrap_or_else(|_| Err(Failure::unknown("stopped", "the authority was shut down")))
    }
}

fn outputs(facts: &Facts, renew_days: Option<u32>, folder: &Path) -> Value {
    json!({
        "names": facts.names, "serial": facts.serial, "not_after": when(facts.not_after),
        "renew_at": when(facts.renew_at(renew_days)),
        "fingerprint": facts.fingerprint, "folder": folder.display().to_string(),
        "certificate": client::CERTIFICATE, "chain": client::CHAIN,
    })
}
