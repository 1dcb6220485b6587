//! `tenantry tenant export|backup|restore|import`: a tenant's data as an archive on the server or a file. An
//! export is written to its file only once it is complete and its hash matches the server's.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_control::operations::archive::ArchiveView;
use tenantry_control::view::OperationView;
use tenantry_engine::OperationState;
use tokio::io::AsyncWriteExt;

use super::progress::Board;
use super::tenant::ended;
use super::{Exit, Session};
use crate::client::{Client, path_segment};

#[derive(Debug, Args)]
pub struct Export {
    /// Tenant id or slug
    tenant: String,
    /// Write the export to this file, readable by its owner only
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Days until the server deletes the export [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    keep_days: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Tenant id or slug
    tenant: String,
    /// Days until the server deletes the backup [default: 90]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    keep_days: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Tenant id or slug
    tenant: String,
    /// Archive id: an export, backup or import of the same tenant
    #[arg(long, value_name = "ID")]
    archive: String,
    /// Skip the confirmation
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct Import {
    /// Export file, as written by `tenantry tenant export --to`
    file: PathBuf,
    /// Tenant id or slug whose data is replaced
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["name", "plan", "admin"], required_unless_present = "name")]
    into: Option<String>,
    /// Name of a new tenant to import into
    #[arg(long, requires = "plan", requires = "admin")]
    name: Option<String>,
    /// Plan of the new tenant
    #[arg(long)]
    plan: Option<String>,
    /// E-mail address of the new tenant's first administrator
    #[arg(long, value_name = "EMAIL")]
    admin: Option<String>,
    /// Skip the confirmation that `--into` needs
    #[arg(long)]
    yes: bool,
}

/// Exports a tenant, and downloads the export if `--to` is given.
pub async fn export(command: Export, session: &Session) -> Result<()> {
    let Export { tenant, to, keep_days } = command;
    let (client, path) = (session.client()?, format!("/v1/tenants/{}/exports", path_segment(&tenant)));
    let archive = create(&client, &path, keep_days).await?;
    if let Some(file) = &to {
        let link = client.post(&format!("{path}/{}/link", archive.id), None).await?;
        fetch(&client, &link, &archive, file).await?;
    }
    session.output.one(&json!(archive))
}

/// Backs up a tenant.
pub async fn backup(command: Backup, session: &Session) -> Result<()> {
    let path = format!("/v1/tenants/{}/backups", path_segment(&command.tenant));
    session.output.one(&json!(create(&session.client()?, &path, command.keep_days).await?))
}

/// Restores an archive into its tenant.
pub async fn restore(command: Restore, session: &Session) -> Result<()> {
    let Restore { tenant, archive, yes } = command;
    session.confirm(&format!("Replace all data of {tenant} by that of {archive}?"), yes)?;
    let (client, path) = (session.client()?, format!("/v1/tenants/{}/restores", path_segment(&tenant)));
    let begun = client.post(&path, Some(&json!({ "archive": archive }))).await?;
    let view = follow(&client, &begun).await?;
    session.output.one(&json!(view.response.and_then(|response| response.loaded)))
}

/// Imports an export into an existing tenant, or a new one that is onboarded first.
pub async fn import(command: Import, session: &Session) -> Result<()> {
    let Import { file, into, name, plan, admin, yes } = command;
    if let Some(tenant) = &into {
        session.confirm(&format!("Replace all data of {tenant} by that of {}?", file.display()), yes)?;
    }
    let client = session.client()?;
    // Fail before a tenant is onboarded.
    std::fs::File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let tenant = match into {
        Some(tenant) => tenant,
        None => {
            let request = json!({
                "tenant_name": name, "subscription": { "plan": plan }, "admin_user": { "email": admin },
            });
            follow(&client, &client.post("/v1/tenants", Some(&request)).await?).await?.tenant_id.to_string()
        }
    };
    let begun = client.upload(&format!("/v1/tenants/{}/imports", path_segment(&tenant)), &file).await?;
    let view = follow(&client, &begun).await?;
    let loaded = view.response.as_ref().and_then(|response| response.loaded.as_ref());
    for left in loaded.iter().flat_map(|loaded| &loaded.left_out) {
        eprintln!("Left out: {} ({}): {}", left.step, left.provider, left.why);
    }
    session.output.one(&client.get(&format!("/v1/tenants/{}", path_segment(&tenant))).await?)
}

/// Creates an archive and waits until it is complete.
async fn create(client: &Client, path: &str, keep_days: Option<u16>) -> Result<ArchiveView> {
    let begun = client.post(path, Some(&json!({ "keep_days": keep_days }))).await?;
    let view = follow(client, &begun).await?;
    let archive = view.response.and_then(|response| response.archives.into_values().next());
    let archive = archive.ok_or_else(|| Exit::Failure.with("the operation produced no archive"))?;
    for left in &archive.left_out {
        eprintln!("Left out: {} ({}): {}", left.step, left.provider, left.why);
    }
    Ok(archive)
}

/// Waits until an operation has succeeded and shows its progress.
async fn follow(client: &Client, begun: &Value) -> Result<OperationView> {
    let id = begun.get("id").and_then(Value::as_str).unwrap_or_default();
    let board = Board::new(1);
    let mut row = board.row(id);
    let view = client.follow(&path_segment(id), |view| row.show(view)).await?;
    row.end(&format!("{id}: {}", ended(&view)));
    match view.state {
        OperationState::Succeeded => Ok(view),
        OperationState::NeedsAttention => {
            Err(Exit::Conflict
                .with(format!("operation {id} needs attention: see tenantry operation get {id}")))
        }
        state => {
            let state = state.as_str().replace('_', " ");
            Err(Exit::OperationFailed.with(format!("operation {id} was {state}")))
        }
    }
}

/// Downloads an export to a temporary file and renames it once it is complete.
async fn fetch(client: &Client, link: &Value, archive: &ArchiveView, file: &Path) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let temporary = file.with_extension(format!("{}.part", std::process::id()));
    let out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let done = download(client, link, archive, out.with_context(context)?).await;
    let done = done.and_then(|()| std::fs::rename(&temporary, file).with_context(context));
    if done.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

async fn download(client: &Client, link: &Value, archive: &ArchiveView, out: std::fs::File) -> Result<()> {
    let url = link.get("url").and_then(Value::as_str).unwrap_or_default();
    let path = url.find("/exports/").and_then(|at| url.get(at..)).unwrap_or_default();
    let mut out = tokio::fs::File::from_std(out);
    let (mut hash, mut bytes) = (Sha256::new(), client.download(path).await?.bytes_stream());
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.context("the download of the export was interrupted")?;
        hash.update(&chunk);
        out.write_all(&chunk).await.context("cannot write the export")?;
    }
    out.flush().await?;
    out.sync_all().await?;
    let sha256 = hex::encode(hash.finalize());
    if sha256 == archive.sha256 {
        return Ok(());
    }
    Err(Exit::Failure.with("the hash of the downloaded export does not match; download it again"))
}
