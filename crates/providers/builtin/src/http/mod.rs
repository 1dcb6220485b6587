//! Calls a service of the operator's for each verb, signed. This file is the provider's verbs.
//! Calls no private address and follows no redirect, unless the configuration says so.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tenantry_model::Failure;
use uuid::Uuid;

use crate::answer::{self, Asked};
use client::{Caller, Message};
pub use config::{Config, Settings};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// The type, and the name of its default instance.
const NAME: &str = "http";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Custom,
    about: "A signed HTTP call for each verb. Needs a secret, so there is none without this table",
    parts: &[""],
    always: false,
    schema: settings::schema::<Config>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move { Ok(factory::one(Http::new(factory::config(config)?)?.named(&context.name))) })
    },
};

/// The provider.
pub struct Http {
    name: Arc<str>,
    config: Config,
    caller: Caller,
}

impl Http {
    /// Fails if no HTTP client can be set up. The secret is read when it is needed.
    pub fn new(config: Config) -> Result<Self, Failure> {
        Ok(Self { name: NAME.into(), caller: Caller::new(config.clone())?, config })
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    async fn ask(&self, asked: Asked, context: &Context, spec: &Spec) -> Result<Vec<u8>, Failure> {
        let settings: Settings = settings::of(spec)?;
        let message = Message { id: message_id(asked, spec), body: answer::request(asked, spec) };
        self.caller.post(&settings.url, message, context.now).await
    }
}

/// The same for every attempt of an operation at a verb, so that the other side knows a repeat. A look is never one: its
/// answer must be fresh.
fn message_id(asked: Asked, spec: &Spec) -> String {
    let verb = asked.as_str();
    match asked {
        Asked::Observe => format!("{}.{verb}.{}", spec.resource, Uuid::now_v7().simple()),
        Asked::Ensure | Asked::Remove => {
            format!("{}.{verb}.{}.{}", spec.resource, spec.generation, spec.operation)
        }
    }
}

#[async_trait]
impl Provider for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Custom
    }

    fn in_flight(&self) -> Duration {
        Duration::from_secs(self.config.in_flight_seconds)
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let checked = client::checked(&self.config, &settings.url);
        checked.err().map(|message| Fault { path: "url".to_owned(), message }).into_iter().collect()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        answer::ensured(&self.ask(Asked::Ensure, context, spec).await?, spec)
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        answer::observed(&self.ask(Asked::Observe, context, spec).await?)
    }

    async fn remove(&self, context: &Context, spec: &Spec) -> Result<Removed, Failure> {
        answer::removed(&self.ask(Asked::Remove, context, spec).await?, spec)
    }

    /// Whether calls can be signed; where they go, only a template knows.
    async fn probe(&self) -> Result<(), Failure> {
        self.caller.signer().map(drop)
    }
}
