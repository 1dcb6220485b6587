//! Erases a tenant and verifies its deletion certificate offline.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tenantry_control::operations::offboard::certificate::{Certificate, check};
use tenantry_control::view::OperationView;

use super::child::Child;
use super::inspect::{has_status, line, sign_in};
use super::{batch, tools};
use crate::cli::{Board, Entry};
use crate::client::Client;

/// The customer whose tenant is onboarded and then erased.
const NAME: &str = "Sommerfest 2026";

/// A deletion certificate and the key that verifies it, as text.
pub struct Proof {
    certificate: String,
    public_key: String,
}

/// Onboards a tenant, adds data, and erases it. Returns the certificate and public key, and writes them to
/// the folder.
pub async fn erase(server: &Child, folder: &Path) -> Result<Proof> {
    let client = server.client()?;
    let onboarding = onboard(&client).await?;
    let own = sign_in(server, &onboarding).await?;
    let task = json!({ "project_id": "starter", "title": "Rent a stage" });
    own.post("/data/tasks", Some(&task)).await?;
    tools::store(&own, "plans/stage.txt", "Two metres by four.").await?;

    let reason = json!({ "reason": "the summer is over" });
    let path = format!("/v1/tenants/{}", onboarding.tenant_id);
    let begun = client.post(&format!("{path}/erase"), Some(&reason)).await?;
    ensure!(has_status(own.get("/data/me").await, 403), "a tenant that is being erased still has access");
    line("access", "403 from the moment of the request, although the token has not expired");
    let id = begun.get("id").and_then(Value::as_str).context("the operation has no id")?;
    let board = Board::new(1);
    batch::follow(&client, &board, NAME, id).await?;
    board.clear();

    let certificate = client.get(&format!("{path}/certificate")).await?;
    let public_key = client.get("/v1/certificates/public-key").await?;
    let public_key = public_key
        .get("pem")
        .and_then(Value::as_str)
        .context("the server returned no public key")?
        .to_owned();
    let proof = Proof { certificate: serde_json::to_string_pretty(&certificate)?, public_key };
    for (name, text) in [("certificate.json", &proof.certificate), ("certificates.pem", &proof.public_key)] {
        std::fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(proof)
}

async fn onboard(client: &Client) -> Result<OperationView> {
    let document = json!({
        "tenant_name": NAME,
        "admin_user": { "email": "mira@sommerfest.example" },
        "subscription": { "plan": "enterprise" },
    });
    let made = batch::make(client, vec![Entry { number: 1, document }]).await?;
    made.into_iter().next().context("the tenant was not onboarded")
}

/// Verifies the certificate and prints its content. Needs only the two files.
pub fn verify(proof: &Proof, folder: &Path) -> Result<()> {
    let Proof { certificate, public_key } = proof;
    let issued =
        check(certificate, public_key).map_err(|why| anyhow!("the certificate is invalid: {why}"))?;
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
    ensure!(check(&forged, public_key).is_err(), "verification accepted a changed certificate");
    line("", "with one word changed: rejected");
    Ok(())
}

fn show(issued: &Certificate) {
    line("issued", &format!("{} for {} at {}", issued.id, issued.tenant_id, issued.issued_at));
    for resource in &issued.resources {
        let at = resource.deleted_at.map(|at| at.to_string()).unwrap_or_default();
        line(&resource.kind, &format!("deleted by {} at {at}, scanned again: not found", resource.provider));
    }
    let rows: u64 = issued.registry.values().sum();
    line("registry", &format!("{} tables scanned: {rows} rows found", issued.registry.len()));
    if let Some(at) = issued.key_destroyed_at {
        line("key", &format!("destroyed at {at}; data in backups that it encrypts is unreadable"));
    }
    for kept in &issued.retained {
        line("retained", &format!("{} × {}: {}", kept.count, kept.what, kept.legal_basis));
    }
}
