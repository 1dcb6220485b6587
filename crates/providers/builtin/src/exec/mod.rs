//! Runs a command of the operator's for each verb: JSON in, JSON out. This file is the provider's verbs.
//! Runs no shell over what a template says, and lets no command outlive its attempt.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::Failure;
use tokio::sync::oneshot;

use crate::answer::{self, Asked};
use crate::redact;
use client::{Ended, Group, Mark};
pub use config::{Config, Settings};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Ensured, Fault, Kind, Observed, Provider, Removed, Spec};

/// The exit code by which a command says that it may work later (`EX_TEMPFAIL` of sysexits).
const TRY_AGAIN: i32 = 75;

/// The type, and the name of its default instance.
const NAME: &str = "exec";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Custom,
    about: "A command of the operator's for each verb",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: factory::no_defaults,
    check: factory::no_check,
    build: |context, config| {
        Box::pin(async move { Ok(factory::one(Exec::new(factory::config(config)?).named(&context.name))) })
    },
};

/// The provider.
pub struct Exec {
    name: Arc<str>,
    config: Config,
    locks: ResourceLocks,
}

impl Default for Exec {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Exec {
    /// With this configuration.
    pub fn new(config: Config) -> Self {
        Self { name: NAME.into(), config, locks: ResourceLocks::default() }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Runs the step's command for a verb; its answer if it ended well. If this future is dropped the command is killed,
    /// and the next one for the same resource begins when it has ended.
    async fn ask(&self, asked: Asked, context: &Context, spec: &Spec) -> Result<Vec<u8>, Failure> {
        let settings: Settings = settings::of(spec)?;
        let lock = self.locks.lock(spec.resource).await;
        if let Some(mark) = spec.note.clone().and_then(|note| serde_json::from_value::<Mark>(note).ok()) {
            client::kill_survivors(mark).await?;
        }
        let mut group = Group::start(&self.config, &settings.command)?;
        // Looking changes nothing, so there is nothing to find again.
        if asked != Asked::Observe {
            context.notes.note(json!(group.mark)).await?;
        }
        let request = answer::request(asked, spec);
        let (wanted, mut given_up) = oneshot::channel::<()>();
        let (send, ended) = oneshot::channel();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = group.run(&request) => Some(ended),
                _ = &mut given_up => None,
            };
            if !matches!(ended, Some(Ok(_))) {
                group.end().await;
            }
            if let Some(ended) = ended {
                let _ = send.send(ended);
            }
            drop(lock);
        });
        let ended = ended.await.unwrap_or_else(|_| {
            Err(Failure::unknown("stopped", "the command was killed: this process stops"))
        });
        drop(wanted);
        judged(ended?, spec)
    }
}

/// Converts the exit status of a command to its output or a failure, with the last line of standard error.
fn judged(ended: Ended, spec: &Spec) -> Result<Vec<u8>, Failure> {
    let said = || {
        let text = String::from_utf8_lossy(&ended.errors);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
        redact::line(last, &spec.tenant)
    };
    match ended.status.code() {
        Some(0) => Ok(ended.output),
        Some(TRY_AGAIN) => {
            Err(Failure::retryable("try_again", format!("the command asks to try again: {}", said())))
        }
        Some(126 | 127) => {
            Err(Failure::fatal("cannot_start", format!("the command cannot be started: {}", said())))
        }
        Some(code) => Err(Failure::fatal(
            "command_failed",
            format!("the command ended with exit code {code}: {}", said()),
        )),
        None => Err(Failure::unknown("killed", "the command was killed by a signal before it ended")),
    }
}

#[async_trait]
impl Provider for Exec {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Custom
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<Settings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let fault = |message: &str| vec![Fault { path: "command".to_owned(), message: message.to_owned() }];
        if settings.command.first().is_none_or(|program| program.is_empty()) {
            fault("must begin with a program")
        } else if settings.command.iter().any(|part| part.contains('\0')) {
            fault("must not contain NUL characters")
        } else {
            Vec::new()
        }
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

    /// Whether commands can be started at all; what a command itself needs, only the command knows.
    async fn probe(&self) -> Result<(), Failure> {
        let mut group = Group::start(&self.config, &["true".to_owned()])?;
        let ended = group.run("{}").await?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(Failure::retryable(
                "cannot_start",
                "no command can be started with this environment; is PATH set?",
            )),
        }
    }
}
