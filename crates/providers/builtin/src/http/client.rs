//! Sends one signed POST to an allowed address and classifies its outcome. Follows no redirect, uses no
//! proxy, keeps no connection open.

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

/// Time within which a connection must be established.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest delay that is accepted from a `Retry-After` header.
const MAX_DELAY: Duration = Duration::from_secs(86_400);

/// A message to send.
pub struct Message {
    /// Idempotency key: the receiver recognises a repeated message by it.
    pub id: String,
    /// Body, as JSON.
    pub body: String,
}

/// Sends messages.
pub struct Caller {
    config: Config,
    client: Client,
}

impl Caller {
    /// Creates the HTTP client; an error if TLS cannot be set up.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let resolver = Arc::new(AllowedResolver { config: config.clone() });
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(resolver)
            .connect_timeout(CONNECT)
            .timeout(Duration::from_secs(config.timeout_seconds))
            // A pooled connection may be closed by the server just as it is used again, which leaves the
            // outcome unknown.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Failure::fatal("bad_config", format!("the HTTP client cannot be set up: {error}"))
            })?;
        Ok(Self { config, client })
    }

    /// Reads the signing secret from its file, so that a changed secret takes effect at once.
    pub fn signer(&self) -> Result<Webhook, Failure> {
        let file = self.config.secret_file.display();
        let unreadable =
            |error: std::io::Error| Failure::retryable("no_secret", format!("cannot read {file}: {error}"));
        let secret = std::fs::read_to_string(&self.config.secret_file).map_err(unreadable)?;
        let bad = || {
            Failure::fatal(
                "no_secret",
                format!(
                    "{file} is not a signing secret: write `whsec_` and at least 24 bytes in base64 into it"
                ),
            )
        };
        let secret = secret.trim();
        // base64 of 24 bytes has 32 characters.
        if secret.strip_prefix("whsec_").is_none_or(|key| key.len() < 32) {
            return Err(bad());
        }
        Webhook::new(secret).map_err(|_| bad())
    }

    /// Sends the message and returns the body of a 2xx response.
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
            408 | 429 | 500..=599 => {
                let failure = Failure::retryable("try_again", format!("{host} answered {}", status.as_u16()));
                Err(match retry_after(response.headers(), now) {
                    Some(delay) => failure.after(delay),
                    None => failure,
                })
            }
            300..=399 => Err(Failure::fatal(
                "redirected",
                format!(
                    "{host} answered {}: redirects are not followed; configure the final URL",
                    status.as_u16()
                ),
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
            )
            .wrong_answer());
        }
    }
    Ok(body)
}

/// Classifies a call without a complete response. The library's message holds the URL, so it is not passed
/// on.
fn no_answer(host: &str, error: &reqwest::Error) -> Failure {
    fn deeper<'a>(cause: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        // The source of the error, not of the reference to it.
        (*cause).source()
    }
    let mut causes = std::iter::successors(error.source(), deeper);
    if causes.any(|cause| cause.is::<NoPublicAddress>()) {
        Failure::fatal(
            "address_refused",
            format!("{host} has no public address; add it to `allow_hosts` to call a private one"),
        )
    } else if error.is_connect() {
        Failure::retryable("unreachable", format!("{host} cannot be reached"))
    } else if error.is_builder() {
        Failure::fatal("bad_message", format!("no request can be made for {host}"))
    } else if error.is_timeout() {
        Failure::unknown("timeout", format!("{host} did not answer in time"))
    } else {
        Failure::unknown("cut", format!("the connection to {host} broke before the response was complete"))
    }
}

/// The delay of a `Retry-After` header: seconds or a date (RFC 9110), at most [`MAX_DELAY`].
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp::from(chrono::DateTime::parse_from_rfc2822(text).ok()?.to_utc()).since(now),
    };
    Some(delay.min(MAX_DELAY))
}

/// Parses a URL and checks that it may be called, without resolving its host.
pub fn checked(config: &Config, url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
    let host = url.host_str().ok_or("has no host")?;
    let exempt = is_allowed(config, host);
    if url.scheme() != "https" && !(exempt && url.scheme() == "http") {
        return Err("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or a password: calls are signed instead".to_owned());
    }
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if literal.is_ok_and(|address| !is_public(address)) && !exempt {
        return Err(format!("{host} is not a public address"));
    }
    Ok(url)
}

fn is_allowed(config: &Config, host: &str) -> bool {
    config.allow_private || config.allow_hosts.contains(host)
}

/// Resolves names to the addresses that may be called.
struct AllowedResolver {
    config: Config,
}

#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NoPublicAddress;

impl Resolve for AllowedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let exempt = is_allowed(&self.config, name.as_str());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let resolved = !found.is_empty();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| exempt || is_public(address.ip())).collect();
            if resolved && allowed.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_retry_after() {
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
