//! What an enterprise tenant has, as tools see it that are not ours: its host by `dig`, its certificate by `openssl`, a
//! file by a signed address. Each command is printed, so that it can be repeated as long as the server runs.

use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tenantry_control::view::OperationView;

use super::child::Child;
use super::look::{come_in, line};
use crate::client::Client;

/// Shows all of it; fails if a tool says something else than it should.
pub async fn show(server: &Child, onboarding: &OperationView) -> Result<()> {
    let made = |kind: &str| {
        let mut resources = onboarding.response.iter().flat_map(|response| response.resources.values());
        resources
            .find(|made| made.kind == kind)
            .map(|made| &made.outputs)
            .with_context(|| format!("no {kind}"))
    };
    let text = |outputs: &Value, field: &str| {
        outputs.get(field).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {field}"))
    };
    let dns = made("dns")?;
    let (host, at) = (text(dns, "host")?, text(dns, "server")?);
    let (address, port) = at.rsplit_once(':').context("an address without a port")?;
    let answer = run("dig", &[&format!("@{address}"), "-p", port, "+short", &host, "A"])?;
    ensure!(answer.is_none_or(|answer| !answer.trim().is_empty()), "the name server does not know {host}");

    let certificate = made("certificate")?;
    let folder = text(certificate, "folder")?;
    let file = |name| text(certificate, name).map(|name| format!("{folder}/{name}"));
    run("openssl", &["verify", "-CAfile", &file("chain")?, &file("certificate")?])?;

    signed_address(&come_in(server, onboarding).await?).await
}

/// Stores and reads a file through addresses that the tenant's token has signed.
async fn signed_address(own: &Client) -> Result<()> {
    let (key, content) = ("offers/spring.txt", "Spring offers: ten per cent off all tulips.");
    store(own, key, content).await?;
    let (url, http) = (sign(own, key, "GET").await?, reqwest::Client::new());
    let read = http.get(&url).send().await?.error_for_status()?.text().await?;
    ensure!(read == content, "the file that was read is not the one that was stored");
    line("signed", &format!("curl '{url}'"));
    line("", &read);
    let changed = http.get(url.replace("spring", "summer")).send().await?.status();
    ensure!(changed == 403, "an address that was changed opened something");
    line("", "the same address with one word changed: 403");
    Ok(())
}

/// Stores a file through an address that the tenant's token has signed.
pub async fn store(own: &Client, key: &str, content: &'static str) -> Result<()> {
    let url = sign(own, key, "PUT").await?;
    reqwest::Client::new().put(url).body(content).send().await?.error_for_status()?;
    Ok(())
}

async fn sign(own: &Client, key: &str, method: &str) -> Result<String> {
    let wish = json!({ "key": key, "method": method, "expires_in": 600 });
    let signed = own.post("/objects/urls", Some(&wish)).await?;
    signed.get("url").and_then(Value::as_str).map(str::to_owned).context("no address")
}

/// Runs a tool and shows what it says; none if it is not installed here.
fn run(tool: &str, arguments: &[&str]) -> Result<Option<String>> {
    line(tool, &format!("{tool} {}", arguments.join(" ")));
    let output = match Command::new(tool).args(arguments).output() {
        Err(missing) if missing.kind() == ErrorKind::NotFound => {
            line("", &format!("({tool} is not installed here)"));
            return Ok(None);
        }
        output => output.with_context(|| format!("{tool} does not run"))?,
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} fails: {said}{complaint}");
    for said in said.lines() {
        line("", said);
    }
    Ok(Some(said))
}
