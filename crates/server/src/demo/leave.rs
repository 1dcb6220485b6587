//! The end of a tenant: what it has is deleted, and the certificate of that is checked without the server.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tenantry_control::operations::offboard::certificate::{Certificate, check};
use tenantry_control::view::OperationView;

use super::child::Child;
use super::look::{come_in, is_refused, line};
use super::{batch, tools};
use crate::cli::{Board, Entry};
use crate::client::Client;

/// The customer who comes and goes, beside all others.
const NAME: &str = "Sommerfest 2026";

/// What was issued, as text.
pub struct Proof {
    certificate: String,
    public_key: String,
}

/// Has a customer come, work, and be erased. Gives the proof of it, which is in the folder too.
pub async fn erase(server: &Child, folder: &Path) -> Result<Proof> {
    let client = server.client()?;
    let onboarding = come(&client).await?;
    let own = come_in(server, &onboarding).await?;
    let task = json!({ "project_id": "starter", "title": "Rent a stage" });
    own.post("/data/tasks", Some(&task)).await?;
    tools::store(&own, "plans/stage.txt", "Two metres by four.").await?;

    let reason = json!({ "reason": "the summer is over" });
    let path = format!("/v1/tenants/{}", onboarding.tenant_id);
    let begun = client.post(&format!("{path}/erase"), Some(&reason)).await?;
    ensure!(is_refused(own.get("/data/me").await, 403), "a tenant that is being erased came in");
    line("access", "403 in the moment of the request, with a token that is good for minutes yet");
    let id = begun.get("id").and_then(Value::as_str).context("an operation without an id")?;
    let board = Board::new(1);
    batch::follow(&client, &board, NAME, id).await?;
    board.clear();

    let certificate = client.get(&format!("{path}/certificate")).await?;
    let public_key = client.get("/v1/certificates/public-key").await?;
    let public_key = public_key.get("pem").and_then(Value::as_str).context("no public key")?.to_owned();
    let proof = Proof { certificate: serde_json::to_string_pretty(&certificate)?, public_key };
    for (name, text) in [("certificate.json", &proof.certificate), ("certificates.pem", &proof.public_key)] {
        std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(proof)
}

async fn come(client: &Client) -> Result<OperationView> {
    let document = json!({
        "tenant_name": NAME,
        "admin_user": { "email": "mira@sommerfest.example" },
        "subscription": { "plan": "enterprise" },
    });
    let made = batch::make(client, vec![Entry { place: 1, document }]).await?;
    made.into_iter().next().context("nobody came")
}

/// Checks the proof and shows what it says. Needs nothing but the two files.
pub fn verify(proof: &Proof, folder: &Path) -> Result<()> {
    let Proof { certificate, public_key } = proof;
    let issued =
        check(certificate, public_key).map_err(|why| anyhow!("the certificate is not good: {why}"))?;
    show(&issued);
    let folder = folder.display();
    line(
        "verify",
        &format!(
            "tenantry certificate verify {folder}/certificate.json --public-key {folder}/certificates.pem"
        ),
    );
    line("", "genuine");
    let forged = certificate.replace("summer", "winter");
    ensure!(check(&forged, public_key).is_err(), "a certificate that was changed is taken for genuine");
    line("", "the same with one word changed: refused");
    Ok(())
}

fn show(issued: &Certificate) {
    line("issued", &format!("{} for {} at {}", issued.id, issued.tenant_id, issued.issued_at));
    for gone in &issued.resources {
        let at = gone.deleted_at.map(|at| at.to_string()).unwrap_or_default();
        line(&gone.kind, &format!("deleted by {} at {at}, looked for and not found", gone.provider));
    }
    let rows: u64 = issued.registry.values().sum();
    line("registry", &format!("{} tables looked through: {rows} rows found", issued.registry.len()));
    if let Some(at) = issued.key_destroyed_at {
        line("key", &format!("destroyed at {at}: what it had sealed is gone from backups too"));
    }
    for kept in &issued.retained {
        line("retained", &format!("{} × {}: {}", kept.count, kept.what, kept.legal_basis));
    }
}
