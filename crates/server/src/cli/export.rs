//! `tenantry tenant export|backup|restore|import`: everything that a tenant has, as a file of one's own and back. A file is there
//! with all of its bytes, which have the hash that the server says, or not at all.

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
use crate::client::{Client, part};

#[derive(Debug, Args)]
pub struct Export {
    /// Its id or slug
    tenant: String,
    /// Write the export to this file, readable by you alone
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Days until the server deletes it [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    keep_days: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Its id or slug
    tenant: String,
    /// Days until the server deletes it [default: 90]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    keep_days: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Its id or slug
    tenant: String,
    /// The archive: an export, a backup or an import of the tenant's
    #[arg(long, value_name = "ID")]
    archive: String,
}

#[derive(Debug, Args)]
pub struct Import {
    /// The export, as `tenantry tenant export --to` wrote it
    file: PathBuf,
    /// The tenant whose content it replaces, by id or slug
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["name", "plan", "admin"], required_unless_present = "name")]
    into: Option<String>,
    /// Name of a new tenant that is made for it
    #[arg(long, requires = "plan", requires = "admin")]
    name: Option<String>,
    /// The new tenant's plan
    #[arg(long)]
    plan: Option<String>,
    /// E-mail address of the new tenant's first administrator
    #[arg(long, value_name = "EMAIL")]
    admin: Option<String>,
}

/// Makes an export, and fetches it if asked to.
pub async fn export(command: Export, session: &Session) -> Result<()> {
    let Export { tenant, to, keep_days } = command;
    let (client, path) = (session.client()?, format!("/v1/tenants/{}/exports", part(&tenant)));
    let archive = made(&client, &path, keep_days).await?;
    if let Some(file) = &to {
        let link = client.post(&format!("{path}/{}/link", archive.id), None).await?;
        fetch(&client, &link, &archive, file).await?;
    }
    session.output.one(&json!(archive))
}

/// Makes a backup.
pub async fn backup(command: Backup, session: &Session) -> Result<()> {
    let path = format!("/v1/tenants/{}/backups", part(&command.tenant));
    session.output.one(&json!(made(&session.client()?, &path, command.keep_days).await?))
}

/// Puts an archive of the tenant's back.
pub async fn restore(command: Restore, session: &Session) -> Result<()> {
    let (client, path) = (session.client()?, format!("/v1/tenants/{}/restores", part(&command.tenant)));
    let begun = client.post(&path, Some(&json!({ "archive": command.archive }))).await?;
    let view = follow(&client, &begun).await?;
    session.output.one(&json!(view.response.and_then(|response| response.loaded)))
}

/// Puts an export into a tenant, which is made for it or there already.
pub async fn import(command: Import, session: &Session) -> Result<()> {
    let client = session.client()?;
    let Import { file, into, name, plan, admin } = command;
    // What cannot be read is no reason to make a tenant.
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
    let begun = client.upload(&format!("/v1/tenants/{}/imports", part(&tenant)), &file).await?;
    let view = follow(&client, &begun).await?;
    for left in view.response.iter().filter_map(|response| response.loaded.as_ref()).flat_map(|l| &l.left_out)
    {
        eprintln!("Left out: {} ({}): {}", left.step, left.provider, left.why);
    }
    session.output.one(&client.get(&format!("/v1/tenants/{}", part(&tenant))).await?)
}

async fn made(client: &Client, path: &str, keep_days: Option<u16>) -> Result<ArchiveView> {
    let begun = client.post(path, Some(&json!({ "keep_days": keep_days }))).await?;
    let view = follow(client, &begun).await?;
    let archive = view.response.and_then(|response| response.archives.into_values().next());
    let archive = archive.ok_or_else(|| Exit::Failure.with("the operation made no archive"))?;
    for left in &archive.left_out {
        eprintln!("Left out: {} ({}): {}", left.step, left.provider, left.why);
    }
    Ok(archive)
}

/// Waits until an operation has succeeded.
async fn follow(client: &Client, begun: &Value) -> Result<OperationView> {
    let id = begun.get("id").and_then(Value::as_str).unwrap_or_default();
    let board = Board::new(1);
    let mut place = board.place(id);
    let view = client.follow(&part(id), |view| place.show(view)).await?;
    place.end(&format!("{id}: {}", ended(&view)));
    match view.state {
        OperationState::Succeeded => Ok(view),
        OperationState::NeedsAttention => {
            Err(Exit::Conflict.with(format!("it needs a person: tenantry operation get {id}")))
        }
        state => {
            let state = state.as_str().replace('_', " ");
            Err(Exit::OperationFailed.with(format!("the operation was {state}")))
        }
    }
}

async fn fetch(client: &Client, link: &Value, archive: &ArchiveView, file: &Path) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let aside = file.with_extension(format!("{}.part", std::process::id()));
    let out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
    let done = download(client, link, archive, out.with_context(context)?).await;
    let done = done.and_then(|()| std::fs::rename(&aside, file).with_context(context));
    if done.is_err() {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&aside);
    }
    done
}

async fn download(client: &Client, link: &Value, archive: &ArchiveView, out: std::fs::File) -> Result<()> {
    let url = link.get("url").and_then(Value::as_str).unwrap_or_default();
    let path = url.find("/exports/").and_then(|at| url.get(at..)).unwrap_or_default();
    let mut out = tokio::fs::File::from_std(out);
    let (mut hash, mut bytes) = (Sha256::new(), client.download(path).await?.bytes_stream());
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.context("the export broke off on its way")?;
        hash.update(&chunk);
        out.write_all(&chunk).await.context("cannot write the export")?;
    }
    out.flush().await?;
    out.sync_all().await?;
    let sha256 = hex::encode(hash.finalize());
    if sha256 == archive.sha256 {
        return Ok(());
    }
    Err(Exit::Failure.with("the export that came is not the one that was made: fetch it again"))
}
