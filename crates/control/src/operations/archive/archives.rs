//! Archives of one archive store: writes them from a tenant's resources, takes uploads in, reads and removes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{Attempt, Done};
use tenantry_model::id::{ArchiveId, OperationId, ResourceId};
use tenantry_model::{Failure, TenantId, Timestamp, Write, columns};
use tenantry_provider::objects::Body;
use tenantry_provider::transfer::broken;
use tenantry_provider::{Context, Kind, Provider as _, Sealer, Spec, derived};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::pack::ArchiveWriter;
use super::unpack::ArchiveReader;
use super::{ArchiveView, LeftOut, Manifest, Packed, Purpose, VERSION};
use crate::operations::{ProviderSteps, no_provider};
use crate::resource::{ArchiveStore, ResourceHandle};
use tenantry_store::keyring::Keyring;

/// Purpose for which the archive key is derived from the tenant's key.
const KEY: &str = "archives";
/// Resource kinds that hold content of the tenant.
const HOLDING: [Kind; 6] =
    [Kind::Database, Kind::Bucket, Kind::Identity, Kind::Config, Kind::Billing, Kind::Custom];

/// Settings of a new archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveSettings {
    /// Days until the archive is removed; 30 for an export and 90 for a backup by default.
    #[schemars(range(min = 1, max = 3650))]
    pub keep_days: Option<u16>,
}

/// A present resource of a tenant.
pub struct PresentResource {
    /// Key of the step that created it.
    pub step: String,
    /// Provider, or only its name if it is no longer configured on this server.
    pub provider: Result<ResourceHandle, String>,
    /// Resource kind.
    pub kind: String,
    /// Spec of the resource, as planned.
    pub spec: Spec,
}

/// The archive store with the keys of its archives.
pub struct Archives<'a> {
    pub(super) store: &'a ArchiveStore,
    pub(super) keyring: &'a Keyring,
    /// Maximum size of an import, in bytes.
    most: u64,
}

/// An archive that was written.
pub struct Written {
    /// Archive id.
    pub id: ArchiveId,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// Manifest of the archive.
    pub manifest: Manifest,
}

impl ProviderSteps {
    /// The archives of this process's archive store.
    pub(crate) fn archives(&self) -> Archives<'_> {
        Archives { store: &self.archive_store, keyring: &self.keyring, most: self.import_most }
    }
}

impl Archives<'_> {
    /// Writes an archive of these resources. The returned writes record it in the registry. A further attempt writes it
    /// again, under the same id.
    pub async fn make(
        &self,
        attempt: &Attempt,
        purpose: Purpose,
        settings: &ArchiveSettings,
        context: &Context,
        tenant: TenantId,
        present: &[PresentResource],
    ) -> Result<Done<Write>, Failure> {
        let id = archive_id(attempt.operation.id, &attempt.step.key);
        let written = self.write(id, context, tenant, present).await?;
        let verified = match purpose {
            Purpose::Backup => Some(self.rehearse(context, &written, present).await?),
            Purpose::Export | Purpose::Import => None,
        };
        let Written { id, size, sha256, manifest } = written;
        let kept = settings.keep_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
        let expires_at = attempt.now + kept.unwrap_or(purpose.kept());
        let Manifest { resources, left_out, .. } = manifest;
        let view = ArchiveView {
            id,
            tenant_id: tenant,
            purpose,
            location: id.to_string(),
            size,
            sha256,
            created_at: attempt.now,
            expires_at,
            resources,
            left_out,
            verified,
        };
        let row = remember(&view, attempt.operation.id);
        Ok(Done { output: json!(view), effects: vec![row] })
    }

    /// Removes what attempts may have written, and returns the writes that take the archive off the list.
    pub async fn unmake(
        &self,
        attempt: &Attempt,
        context: &Context,
        present: &[PresentResource],
    ) -> Result<Vec<Write>, Failure> {
        let id = archive_id(attempt.operation.id, &attempt.step.key);
        self.clear(context, id, present).await?;
        self.remove(id).await?;
        Ok(vec![forget(id)])
    }

    async fn write(
        &self,
        id: ArchiveId,
        context: &Context,
        tenant: TenantId,
        present: &[PresentResource],
    ) -> Result<Written, Failure> {
        let key = self.key(tenant).await?;
        let fill = async |into| {
            let mut archive = ArchiveWriter::new(into, context.now);
            let (mut resources, mut left_out) = (Vec::new(), Vec::new());
            for PresentResource { step, provider, kind, spec } in present {
                let provider = match provider {
                    Ok(provider) => provider,
                    Err(name) => return Err(no_provider(name)),
                };
                let Some(transfer) = provider.transfer() else {
                    if HOLDING.contains(&provider.kind()) {
                        let why = "its provider cannot export its content".to_owned();
                        let provider = provider.name().to_owned();
                        left_out.push(LeftOut { step: step.clone(), provider, why });
                    }
                    continue;
                };
                let content = transfer.export(context, spec, &mut archive.folder(step)).await?;
                resources.push(Packed {
                    folder: step.clone(),
                    kind: kind.clone(),
                    provider: provider.name().to_owned(),
                    form: transfer.form().to_owned(),
                    content,
                });
            }
            let made_at = context.now;
            let manifest = |pages| Manifest { version: VERSION, tenant, made_at, resources, left_out, pages };
            archive.finish(manifest).await
        };
        let (stored, manifest) = self.store.put(&id.to_string(), &key, fill).await?;
        Ok(Written { id, size: stored.size, sha256: stored.etag, manifest })
    }

    /// Stores an uploaded archive. Fails, and stores nothing, unless it is a complete archive.
    pub async fn take_in(&self, id: ArchiveId, tenant: TenantId, bytes: Body) -> Result<Written, Failure> {
        let key = self.key(tenant).await?;
        let mut bytes = bytes.take(self.most.saturating_add(1));
        let fill = async |mut into: DuplexStream| {
            let copied = async {
                let copied = tokio::io::copy(&mut bytes, &mut into).await?;
                into.shutdown().await.map(|()| copied)
            };
            match copied.await.map_err(|error: std::io::Error| broken(&error))? {
                copied if copied > self.most => {
                    let message = format!("the archive exceeds `import_max_bytes` ({} bytes)", self.most);
                    Err(Failure::invalid("too_large", message))
                }
                _ => Ok(()),
            }
        };
        let (stored, ()) = self.store.put(&id.to_string(), &key, fill).await?;
        let read = async { self.unpack(id, tenant, stored.size).await?.verify().await };
        match read.await {
            Ok(manifest) => Ok(Written { id, size: stored.size, sha256: stored.etag, manifest }),
            Err(failure) => {
                self.remove(id).await?;
                Err(failure)
            }
        }
    }

    /// Reads an archive from its beginning.
    pub(super) async fn unpack(
        &self,
        id: ArchiveId,
        tenant: TenantId,
        size: u64,
    ) -> Result<ArchiveReader, Failure> {
        Ok(ArchiveReader::new(self.read(id, tenant, size, (0, size)).await?))
    }

    /// Reads `part`, offset and length, of an archive of `size` bytes.
    pub async fn read(
        &self,
        id: ArchiveId,
        tenant: TenantId,
        size: u64,
        part: (u64, u64),
    ) -> Result<Body, Failure> {
        let key = self.key(tenant).await?;
        let body = self.store.open(&id.to_string(), &key, size, part).await?;
        body.ok_or_else(|| Failure::fatal("no_archive", "the archive was removed"))
    }

    async fn key(&self, tenant: TenantId) -> Result<tenantry_provider::Key, Failure> {
        self.keyring.load(tenant).await?;
        self.keyring.derive(tenant, KEY)
    }

    /// Files of the store that were not written for a day: name, and the archive's id if the name is one.
    pub async fn old(&self, now: Timestamp) -> Result<Vec<(Option<ArchiveId>, String)>, Failure> {
        let names = self.store.old(now).await?;
        Ok(names.into_iter().map(|name| (name.parse().ok(), name)).collect())
    }

    /// Removes a file that belongs to no archive.
    pub async fn discard(&self, name: &str) -> Result<(), Failure> {
        self.store.remove(name).await.map(drop)
    }

    /// Removes an archive's file.
    pub async fn remove(&self, id: ArchiveId) -> Result<bool, Failure> {
        self.store.remove(&id.to_string()).await
    }
}

/// The write that lists an archive.
pub fn remember(view: &ArchiveView, operation: OperationId) -> Write {
    let content = json!({ "resources": view.resources, "left_out": view.left_out });
    let row = columns! {
        "id": view.id, "tenant_id": view.tenant_id, "operation_id": operation, "purpose": view.purpose,
        "size": view.size, "sha256": view.sha256, "content": content, "verified": view.verified,
        "created_at": view.created_at, "expires_at": view.expires_at,
    };
    Write::upsert("archives", row)
}

/// The write that takes an archive off the list.
pub fn forget(id: ArchiveId) -> Write {
    Write::delete("archives", columns! { "id": id })
}

/// The id of a step's archive: the same in every attempt, and known before the first one.
pub fn archive_id(operation: OperationId, step: &str) -> ArchiveId {
    derived::id(ResourceId::from_uuid(operation.uuid()), 0, step)
}
