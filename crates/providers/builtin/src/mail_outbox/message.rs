//! Messages: a mail template by language, filled in strictly, made into RFC 5322 by a library that encodes what it must.
//! No value can become a header: subjects lose their control characters, addresses are parsed.

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

/// A mail template in every language it is written in.
pub struct Letter {
    /// Subject and text by language.
    texts: BTreeMap<String, (String, String)>,
}

/// What is filled in.
pub struct Facts<'a> {
    /// Whose message it is.
    pub tenant: &'a Tenant,
    /// Where an invitation leads, if there is one.
    pub link: Option<&'a str>,
    /// What the product is called.
    pub product: &'a str,
    /// What the step gives.
    pub values: &'a BTreeMap<String, String>,
}

/// A letter filled in.
pub struct Filled {
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
    /// Its language.
    pub locale: String,
}

impl Letter {
    /// Reads the template `name` in all languages: `{language}/{name}.txt`, with `Subject: …` as its first line.
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
                format!("there is no mail template `{name}`: no file en/{name}.txt"),
            ))
        }
    }

    /// The languages.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// Fills it in, in the best language for the locale.
    pub fn fill(&self, locale: &str, facts: &Facts<'_>) -> Result<Filled, Failure> {
        let found =
            languages(locale).into_iter().find_map(|language| Some((self.texts.get(&language)?, language)));
        let ((subject, text), locale) = found.ok_or_else(|| bad(locale, "no such language"))?;
        let subject: String = render(subject, facts, &locale)?
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_SUBJECT)
            .collect();
        Ok(Filled { subject, text: render(text, facts, &locale)?, locale })
    }
}

/// Fills in one text. An unknown word is a failure, not a gap.
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
    // The engine's own words could quote a value; the kind of error cannot.
    environment.render_str(source, values).map_err(|error| bad(place, error.kind()))
}

fn bad(place: &str, why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_template", format!("mail template {place}: {why}"))
}

/// The digest of the owner mark.
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

/// RFC 3834: keeps holiday notices from answering.
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

/// The message as it stands in its file. `id` makes the Message-ID: the same message has the same one.
pub fn compose(
    from: &Mailbox,
    tenant: &Tenant,
    filled: Filled,
    mark: &str,
    id: &str,
    now: Timestamp,
) -> Result<Vec<u8>, Failure> {
    let admin = &tenant.admin;
    // The parser's words quote the address, so they are not passed on.
    let address: Address =
        admin.email.trim().parse().map_err(|_| {
            Failure::invalid("bad_address", "the e-mail address is not one that mail can reach")
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
