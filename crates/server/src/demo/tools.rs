//! Checks an enterprise tenant with external tools: its host by `dig`, its certificate by `openssl`, a file
//! through a signed URL. Each command is printed, so that it can be repeated while the server runs.

use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tenantry_control::view::OperationView;

use super::child::Child;
use super::inspect::{line, sign_in};
use crate::client::Client;

/// Runs and prints every check; returns an error if a tool reports an unexpected result.
pub async fn show(server: &Child, onboarding: &OperationView) -> Result<()> {
    let made = |kind: &str| {
        let mut resources = onboarding.response.iter().flat_map(|response| response.resources.values());
        resources
            .find(|made| made.kind == kind)
            .map(|made| &made.outputs)
            .with_context(|| format!("the tenant has no {kind}"))
    };
    let text = |outputs: &Value, field: &str| {
        let value = outputs.get(field).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("the outputs have no {field}"))
    };
    let dns = made("dns")?;
    let (host, at) = (text(dns, "host")?, text(dns, "server")?);
    let (address, port) = at.rsplit_once(':').context("the name server's address has no port")?;
    let answer = run("dig", &[&format!("@{address}"), "-p", port, "+short", &host, "A"])?;
    ensure!(
        answer.is_none_or(|answer| !answer.trim().is_empty()),
        "the name server has no record for {host}"
    );

    let certificate = made("certificate")?;
    let folder = text(certificate, "folder")?;
    let file = |name| text(certificate, name).map(|name| format!("{folder}/{name}"));
    run("openssl", &["verify", "-CAfile", &file("chain")?, &file("certificate")?])?;

    signed_url(&sign_in(server, onboarding).await?).await
}

/// Stores and reads a file through signed URLs, and checks that a changed URL is rejected.
async fn signed_url(own: &Client) -> Result<()> {
    let (key, content) = ("offers/spring.txt", "Spring offers: ten per cent off all tulips.");
    store(own, key, content).await?;
    let (url, http) = (sign(own, key, "GET").await?, reqwest::Client::new());
    let read = http.get(&url).send().await?.error_for_status()?.text().await?;
    ensure!(read == content, "the file that was read differs from the one that was stored");
    line("signed", &format!("curl '{url}'"));
    line("", &read);
    let changed = http.get(url.replace("spring", "summer")).send().await?.status();
    ensure!(changed == 403, "the server accepted a changed signed URL");
    line("", "the same URL with one word changed: 403");
    Ok(())
}

/// Stores a file through a signed URL.
pub async fn store(own: &Client, key: &str, content: &'static str) -> Result<()> {
    let url = sign(own, key, "PUT").await?;
    reqwest::Client::new().put(url).body(content).send().await?.error_for_status()?;
    Ok(())
}

async fn sign(own: &Client, key: &str, method: &str) -> Result<String> {
    let request = json!({ "key": key, "method": method, "expires_in": 600 });
    let signed = own.post("/objects/urls", Some(&request)).await?;
    let url = signed.get("url").and_then(Value::as_str).map(str::to_owned);
    url.context("the server returned no signed URL")
}

/// Runs a tool and prints its command and output. Returns `None` if the tool is not installed.
fn run(tool: &str, arguments: &[&str]) -> Result<Option<String>> {
    line(tool, &format!("{tool} {}", arguments.join(" ")));
    let output = match Command::new(tool).args(arguments).output() {
        Err(missing) if missing.kind() == ErrorKind::NotFound => {
            line("", &format!("({tool} is not installed here)"));
            return Ok(None);
        }
        output => output.with_context(|| format!("cannot run {tool}"))?,
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} failed: {stdout}{stderr}");
    for text in stdout.lines() {
        line("", text);
    }
    Ok(Some(stdout))
}
