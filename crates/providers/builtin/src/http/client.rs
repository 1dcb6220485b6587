//! One signed POST: where it may go, and what its outcome says about the world. Follows no redirect, uses no proxy, keeps
//! no connection.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tenantry_model::{Failure, Timestamp};

use super::config::Config;
use crate::answer;
use crate::ssrf::is_public;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest delay that another side can ask for.
const MAX_DELAY: Duration = Duration::from_secs(86_400);

/// What is sent.
pub struct Message {
    /// Stable: the other side knows a repeat by it.
    pub id: String,
    /// JSON.
    pub body: String,
}

/// The calls' way out.
pub struct Caller {
    config: Config,
    client: Client,
}

impl Caller {
    /// Fails if TLS cannot be set up.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let gate = Arc::new(Gate { config: config.clone() });
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(gate)
            .connect_timeout(CONNECT)
            .timeout(Duration::from_secs(config.timeout_seconds))
            // A kept connection can be cut just as it is used again: the outcome would be unknown without need.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Failure::fatal("bad_config", format!("no HTTP client can be set up: {error}"))
            })?;
        Ok(Self { config, client })
    }

    /// The signer, from the file as it is now.
    pub fn signer(&self) -> Result<Webhook, Failure> {
        let file = self.config.secret_file.display();
        let unreadable =
            |error: std::io::Error| Failure::retryable("no_secret", format!("cannot read {file}: {error}"));
        let secret = std::fs::read_to_string(&self.config.secret_file).map_err(unreadable)?;
        let bad = || {
            Failure::fatal(
                "no_secret",
                format!("{file} does not hold `whsec_` and at least 24 bytes in base64"),
            )
        };
        let secret = secret.trim();
        // base64 of 24 bytes has 32 characters.
        if secret.strip_prefix("whsec_").is_none_or(|key| key.len() < 32) {
            return Err(bad());
        }
        Webhook::new(secret).map_err(|_| bad())
    }

    /// Sends the message; the answer's body if it was taken well.
    pub async fn post(&self, url: &str, message: Message, now: Timestamp) -> Result<Vec<u8>, Failure> {
        let url = checked(&self.config, url).map_err(|why| Failure::fatal("address_refused", why))?;
        let bad = |_| Failure::fatal("bad_message", "the message cannot be signed");
        let signature =
            self.signer()?.sign(&message.id, now.seconds(), message.body.as_bytes()).map_err(bad)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(HEADER_WEBHOOK_ID, message.id)
            .header(HEADER_WEBHOOK_TIMESTAMP, now.seconds().to_string())
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(message.body);
        let response = request.send().await.map_err(|error| no_answer(&host, &error))?;
        let status = response.status();
        match status.as_u16() {
            200..=299 => body(&host, response).await,
            429 | 500..=599 => {
                let failure = Failure::retryable("try_again", format!("{host} answered {}", status.as_u16()));
                Err(match retry_after(response.headers(), now) {
                    Some(delay) => failure.after(delay),
                    None => failure,
                })
            }
            300..=399 => Err(Failure::fatal(
                "redirected",
                format!("{host} answered {}: redirects are not followed", status.as_u16()),
            )),
            other => Err(Failure::fatal("refused", format!("{host} answered {other}"))),
        }
    }
}

async fn body(host: &str, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(host, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() > answer::MAX {
            return Err(Failure::unknown(
                "bad_answer",
                format!("{host} answered with more than {} bytes", answer::MAX),
            ));
        }
    }
    Ok(body)
}

/// What it means that no whole answer came. The library's own words hold the URL, so they are not passed on.
fn no_answer(host: &str, error: &reqwest::Error) -> Failure {
    fn deeper<'a>(cause: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        // Of the error itself, not of the reference to it.
        (*cause).source()
    }
    let mut causes = std::iter::successors(error.source(), deeper);
    if causes.any(|cause| cause.is::<Refused>()) {
        Failure::fatal("address_refused", format!("{host} has no public address, and others are not allowed"))
    } else if error.is_connect() {
        Failure::retryable("unreachable", format!("{host} cannot be reached"))
    } else if error.is_builder() {
        Failure::fatal("bad_message", format!("no request can be made for {host}"))
    } else if error.is_timeout() {
        Failure::unknown("timeout", format!("{host} did not answer in time"))
    } else {
        Failure::unknown("cut", format!("the line to {host} was cut before the whole answer was there"))
    }
}

/// Seconds, or an instant (RFC 9110).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp::from(chrono::DateTime::parse_from_rfc2822(text).ok()?.to_utc()).since(now),
    };
    Some(delay.min(MAX_DELAY))
}

/// A URL that may be called, as far as can be said without resolving its name.
pub fn checked(config: &Config, url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
    let host = url.host_str().ok_or("has no host")?;
    let free = is_allowed(config, host);
    if url.scheme() != "https" && !(free && url.scheme() == "http") {
        return Err("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password: calls are signed".to_owned());
    }
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if literal.is_ok_and(|address| !is_public(address)) && !free {
        return Err(format!("{host} is not a public address"));
    }
    Ok(url)
}

fn is_allowed(config: &Config, host: &str) -> bool {
    config.allow_private || config.allow_hosts.contains(host)
}

/// Resolves names, and lets only allowed addresses through.
struct Gate {
    config: Config,
}

#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct Refused;

impl Resolve for Gate {
    fn resolve(&self, name: Name) -> Resolving {
        let free = is_allowed(&self.config, name.as_str());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let some = !found.is_empty();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| free || is_public(address.ip())).collect();
            if some && allowed.is_empty() {
                return Err(Refused.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let delay =
            |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(delay("120"), Some(Duration::from_secs(120)));
        assert_eq!(delay("Fri, 20 Nov 2026 12:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(delay("Fri, 20 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(delay("99999999999"), Some(MAX_DELAY));
        assert_eq!(delay("soon"), None);
        assert_eq!(delay("-5"), None);
    }
}
