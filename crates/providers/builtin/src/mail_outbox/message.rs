//! Renders mail templates and composes RFC 5322 messages. No value can inject a header: control characters
//! are removed from subjects, addresses are parsed, and the library encodes the rest.

use std::collections::BTreeMap;
use std::time::SystemTime;

use lettre::address::Address;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use minijinja::{Environment, UndefinedBehavior, context};
use tenantry_model::{Failure, Timestamp};

use super::client::OWNER;
use tenantry_provider::files::Files;
use tenantry_provider::seeds::languages;
use tenantry_provider::verbs::Tenant;

/// Longest subject, in characters.
const MAX_SUBJECT: usize = 200;

/// A mail template in all its languages.
pub struct Letter {
    /// Subject and body by language.
    texts: BTreeMap<String, (String, String)>,
}

/// Values for a template.
pub struct Facts<'a> {
    /// The tenant that the message is about.
    pub tenant: &'a Tenant,
    /// URL of the invitation, if there is one.
    pub link: Option<&'a str>,
    /// Name of the product.
    pub product: &'a str,
    /// Values from the step's settings.
    pub values: &'a BTreeMap<String, String>,
}

/// A rendered template.
pub struct Filled {
    /// Subject, one line.
    pub subject: String,
    /// Body.
    pub text: String,
    /// Language.
    pub locale: String,
}

impl Letter {
    /// Reads the template `name` in all languages from `{language}/{name}.txt`, whose first line is `Subject:
    /// …`. An error if the fallback language is missing.
    pub fn load(files: &Files, name: &str) -> Result<Self, Failure> {
        let mut texts = BTreeMap::new();
        for language in files.folders()? {
            let path = format!("{language}/{name}.txt");
            let Some(text) = files.read(&path)? else { continue };
            let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
            let subject = first
                .strip_prefix("Subject:")
                .ok_or_else(|| bad(&path, "its first line must be `Subject: …`"))?;
            texts.insert(
                language,
                (subject.trim().to_owned(), rest.trim_start_matches(['\r', '\n']).to_owned()),
            );
        }
        if texts.contains_key(tenantry_provider::seeds::FALLBACK) {
            Ok(Self { texts })
        } else {
            Err(Failure::invalid(
                "unknown_template",
                format!("the mail template `{name}` does not exist: create the file en/{name}.txt"),
            ))
        }
    }

    /// Languages of the template.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// Renders the template in the best language for the locale.
    pub fn fill(&self, locale: &str, facts: &Facts<'_>) -> Result<Filled, Failure> {
        let found =
            languages(locale).into_iter().find_map(|language| Some((self.texts.get(&language)?, language)));
        let ((subject, text), locale) =
            found.ok_or_else(|| bad(locale, "the template has no text for this language"))?;
        let subject: String = render(subject, facts, &locale)?
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_SUBJECT)
            .collect();
        Ok(Filled { subject, text: render(text, facts, &locale)?, locale })
    }
}

/// Renders one text. An undefined variable is an error.
pub fn render(source: &str, facts: &Facts<'_>, place: &str) -> Result<String, Failure> {
    let admin = &facts.tenant.admin;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = context! {
        tenant => context! {
            id => facts.tenant.id.to_string(), name => &facts.tenant.name, slug => &facts.tenant.slug, plan => &facts.tenant.plan,
        },
        admin => context! {
            first_name => admin.first_name.as_deref().unwrap_or_default(),
            last_name => admin.last_name.as_deref().unwrap_or_default(),
            email => &admin.email,
        },
        link => facts.link.unwrap_or_default(),
        product => facts.product,
        values => facts.values,
    };
    // Report only the kind of the error: the engine's message may quote a value.
    environment.render_str(source, values).map_err(|error| bad(place, error.kind()))
}

fn bad(place: &str, why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_template", format!("mail template {place}: {why}"))
}

/// Header with the digest of the owner tag.
#[derive(Clone)]
struct Owner(String);

impl Header for Owner {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str(OWNER)
    }
    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

/// Header that stops automatic replies (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Composes the message for its file. The Message-ID is derived from `id`, so that a repeated attempt has the
/// same one.
pub fn compose(
    from: &Mailbox,
    tenant: &Tenant,
    filled: Filled,
    mark: &str,
    id: &str,
    now: Timestamp,
) -> Result<Vec<u8>, Failure> {
    let admin = &tenant.admin;
    // The parser's message quotes the address, so it is not passed on.
    let address: Address = admin.email.trim().parse().map_err(|_| {
        Failure::invalid(
            "bad_address",
            "the administrator's e-mail address is not valid: correct it and retry",
        )
    })?;
    let name = [&admin.first_name, &admin.last_name]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let to = Mailbox::new(Some(name).filter(|name| !name.is_empty()), address);
    let message = Message::builder()
        .from(from.clone())
        .to(to)
        .date(SystemTime::from(now.to_chrono()))
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .header(Owner(mark.to_owned()))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN)
        .subject(filled.subject)
        .body(filled.text)
        .map_err(|_| Failure::invalid("bad_message", "the message cannot be written as RFC 5322"))?;
    Ok(message.formatted())
}
