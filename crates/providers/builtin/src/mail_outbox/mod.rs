//! Writes messages to files in a folder. This file has the provider's verbs.
//! Sends nothing, writes no message twice, and changes no file without the spec's owner tag.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod message;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use lettre::message::Mailbox;
use minijinja::context;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, TenantId};
use uuid::Uuid;

use client::ResourceFolder;
pub use config::Config;
use message::{Facts, Letter};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::files::Files;
use tenantry_provider::kinds::identity::INVITATION_TOKEN;
use tenantry_provider::kinds::mail::MailSettings as Settings;
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::settings;
use tenantry_provider::verbs::{
    Context, Ensured, Fault, Kind, Observed, Ownership, Person, Provider, Removed, Spec, Tenant,
};

/// The type, and the name of its default instance.
const NAME: &str = "outbox";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Mail,
    about: "Mail as files in a folder, for another system to send",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| {
        // The token stands behind `#`, which browsers do not send: it is in no server's log.
        let link = format!("{}/auth/invitation#{{{{ token }}}}", context.public_url);
        json!({ "folder": context.path("outbox"), "templates": context.mail, "link": link })
    },
    check: factory::no_check,
    build: |context, config| {
        Box::pin(
            async move { Ok(factory::one(MailOutbox::new(factory::config(config)?)?.named(&context.name))) },
        )
    },
};

/// The provider.
pub struct MailOutbox {
    name: Arc<str>,
    config: Config,
    from: Mailbox,
    files: Files,
    letters: Mutex<HashMap<String, Arc<Letter>>>,
    locks: ResourceLocks,
}

impl MailOutbox {
    /// Fails if the configured sender is not an address, or the link is not a template.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let bad = |message: &str| Failure::invalid("bad_config", message);
        let from = config
            .from
            .parse()
            .map_err(|_| bad("mail: `from` is not an address like `Name <name@example.com>`"))?;
        let files = Files::mail(config.templates.as_deref());
        let outbox = Self {
            name: NAME.into(),
            config,
            from,
            files,
            letters: Mutex::default(),
            locks: ResourceLocks::default(),
        };
        outbox.link(&sample_tenant(), "token").map_err(|_| {
            bad("mail: `link` may use {{ token }}, {{ tenant.slug }} and {{ tenant.id }} only")
        })?;
        Ok(outbox)
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn letter(&self, name: &str) -> Result<Arc<Letter>, Failure> {
        if let Some(letter) = self.letters.lock().get(name) {
            return Ok(letter.clone());
        }
        let letter = Arc::new(Letter::load(&self.files, name)?);
        self.letters.lock().insert(name.to_owned(), letter.clone());
        Ok(letter)
    }

    fn link(&self, tenant: &Tenant, token: &str) -> Result<String, Failure> {
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        let tenant = context! { slug => &tenant.slug, id => tenant.id.to_string() };
        let filled = environment.render_str(&self.config.link, context! { token, tenant });
        filled.map_err(|error| {
            Failure::invalid("bad_template", format!("the link of an invitation: {}", error.kind()))
        })
    }

    /// Link of the tenant's invitation; none if its token was claimed or there is no invitation.
    async fn invitation(&self, context: &Context, spec: &Spec) -> Result<Option<String>, Failure> {
        let tenant = spec.tenant.id;
        let equal = [("tenant_id", json!(tenant)), ("name", json!(INVITATION_TOKEN))];
        let rows = context.rows.find("credentials", &equal).await?;
        let newest = rows.iter().max_by_key(|row| row.get("created_at").and_then(Value::as_str));
        match newest.and_then(|row| row.get("sealed")?.as_str()) {
            Some(sealed) => self.link(&spec.tenant, &context.sealer.open(tenant, sealed)?).map(Some),
            None => Ok(None),
        }
    }

    fn place(&self, resource: ResourceId) -> ResourceFolder {
        ResourceFolder::new(&self.config.folder, &resource.suffix())
    }
}

/// A tenant that does not exist, to try templates with.
fn sample_tenant() -> Tenant {
    Tenant {
        id: TenantId::from_uuid(Uuid::nil()),
        slug: "sample".to_owned(),
        name: "Nobody".to_owned(),
        plan: "none".to_owned(),
        region: String::new(),
        locale: String::new(),
        admin: Person::default(),
    }
}

/// Digest of the owner tag in hexadecimal, for a header of the message; the tag itself may be long or contain characters
/// that a header does not allow.
fn mark(spec: &Spec) -> String {
    hex::encode(Sha256::digest(spec.claim.as_bytes()))
}

#[async_trait]
impl Provider for MailOutbox {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Mail
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let tenant = sample_tenant();
        let tried = self.letter(&settings.template).and_then(|letter| {
            let facts = [None, Some("https://example.com")].map(|link| Facts {
                tenant: &tenant,
                link,
                product: &self.config.product,
                values: &settings.values,
            });
            letter.languages().try_for_each(|locale| {
                facts.iter().try_for_each(|facts| letter.fill(locale, facts).map(drop))
            })
        });
        tried
            .err()
            .map(|failure| Fault { path: "template".to_owned(), message: failure.message })
            .into_iter()
            .collect()
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let mut settings: Settings = settings::of(spec)?;
        if let Some(sealed) = &settings.sealed {
            let opened = context.sealer.open(spec.tenant.id, sealed)?;
            // Its error could quote what is sealed.
            let opened: BTreeMap<String, String> = serde_json::from_str(&opened)
                .map_err(|_| Failure::invalid("bad_settings", "mail: `sealed` holds no object of texts"))?;
            settings.values.extend(opened);
        }
        let letter = self.letter(&settings.template)?;
        let link = self.invitation(context, spec).await?;
        let facts = Facts {
            tenant: &spec.tenant,
            link: link.as_deref(),
            product: &self.config.product,
            values: &settings.values,
        };
        let filled = letter.fill(&spec.tenant.locale, &facts)?;
        let place = self.place(spec.resource);
        let outputs = json!({
            "file": format!("{}.eml", spec.resource.suffix()), "template": settings.template, "locale": filled.locale,
        });
        let mark = mark(spec);
        let message =
            message::compose(&self.from, &spec.tenant, filled, &mark, &spec.resource.suffix(), context.now)?;
        self.locks
            .block(spec.resource, move || {
                if place.look(&mark)? == Ownership::Absent {
                    place.put(&message)?;
                }
                match place.look(&mark)? {
                    Ownership::Own(()) => Ok(()),
                    Ownership::Foreign => Err(Failure::fatal(
                        "name_taken",
                        "the outbox holds another message under this name; it was not touched",
                    )),
                    Ownership::Absent => Err(Failure::retryable(
                        "outbox",
                        "the message was removed right after it was created",
                    )),
                }
            })
            .await?;
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let (place, mark) = (self.place(spec.resource), mark(spec));
        self.locks
            .block(spec.resource, move || {
                Ok(match place.look(&mark)? {
                    Ownership::Absent => Observed::Absent,
                    Ownership::Foreign => Observed::Foreign,
                    // A file under its own name is complete: it got the name when it was.
                    Ownership::Own(()) => {
                        let fingerprint = hex::encode(Sha256::digest(place.read()?));
                        Observed::present(true, None, fingerprint)
                    }
                })
            })
            .await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let (place, mark) = (self.place(spec.resource), mark(spec));
        let removed = self
            .locks
            .block(spec.resource, move || {
                place.sweep().map_err(|error| place.failure(&error))?;
                let is_own = place.look(&mark)? == Ownership::Own(());
                if is_own {
                    place.remove()?;
                }
                Ok(u8::from(is_own))
            })
            .await?;
        Ok(Removed { receipt: json!({ "messages": removed }), writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let place = ResourceFolder::new(&self.config.folder, ".probe");
        self.locks
            .block(ResourceId::from_uuid(Uuid::nil()), move || {
                place.remove()?;
                place.put(b"")?;
                place.remove()
            })
            .await
    }
}
