//! The proof that a backup can be restored: all of it is read back and compared with its manifest, and each resource whose
//! provider allows it is restored into a temporary resource, compared, and removed.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::id::{ArchiveId, ResourceId};
use tenantry_model::{Failure, TenantId};
use tenantry_provider::transfer::bad_archive;
use tenantry_provider::{Context, Key, Observed, Person, Provider as _, Sealer, Spec, Tenant, derived};

use super::Packed;
use super::archives::{Archives, PresentResource, Written};
use super::load::compared;
use super::unpack::ArchiveReader;
use crate::resource::{ResourceHandle, staying};

/// Result of a backup's proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// Files whose hashes were compared.
    pub files: u64,
    /// Steps whose resources were restored into temporary ones with the same content.
    pub restored: Vec<String>,
    /// Steps whose resources were only compared, file by file.
    pub read_only: Vec<String>,
}

impl Archives<'_> {
    pub(super) async fn rehearse(
        &self,
        context: &Context,
        written: &Written,
        present: &[PresentResource],
    ) -> Result<Verified, Failure> {
        let Written { id, size, manifest, .. } = written;
        let read = self.unpack(*id, manifest.tenant, *size).await?.verify().await?;
        if read != *manifest {
            return Err(bad_archive("the archive differs from what was written"));
        }
        let files = manifest.pages.files;
        let mut verified = Verified { files, restored: Vec::new(), read_only: Vec::new() };
        let mut reader = self.unpack(*id, manifest.tenant, *size).await?;
        while let Some(folder) = reader.folder().await? {
            let from = present.iter().find(|from| from.step == folder);
            let packed = manifest.resources.iter().find(|packed| packed.folder == folder);
            match (from, packed) {
                (Some(from), Some(packed)) if can_be_rehearsed(from) => {
                    restore(context, *id, from, packed, &mut reader).await?;
                    verified.restored.push(folder);
                }
                _ => {
                    reader.files(&folder).pass().await?;
                    verified.read_only.push(folder);
                }
            }
        }
        Ok(verified)
    }

    /// Removes temporary resources that an interrupted proof may have left.
    pub async fn clear(
        &self,
        context: &Context,
        id: ArchiveId,
        present: &[PresentResource],
    ) -> Result<(), Failure> {
        for from in present.iter().filter(|from| can_be_rehearsed(from)) {
            if let Ok(provider) = &from.provider {
                let spec = temporary(id, from).spec;
                provider.remove(context, &spec).await?;
                if matches!(provider.observe(context, &spec).await?, Observed::Present { .. }) {
                    let message = format!("the restored copy of `{}` is still there", from.step);
                    return Err(Failure::retryable("still_there", message).wrong_answer());
                }
            }
        }
        Ok(())
    }
}

/// Whether a resource can be restored into a temporary one. Registry rows cannot: they would be committed as rows of a tenant.
fn can_be_rehearsed(from: &PresentResource) -> bool {
    from.provider.as_ref().is_ok_and(|provider| {
        !provider.transactional() && provider.transfer().is_some_and(|transfer| transfer.one_way().is_none())
    })
}

/// Restores a folder into a temporary resource and removes that again, also after a failure. After a crash, the next attempt
/// uses the same name.
async fn restore(
    context: &Context,
    archive: ArchiveId,
    from: &PresentResource,
    packed: &Packed,
    reader: &mut ArchiveReader,
) -> Result<(), Failure> {
    let Ok(provider) = &from.provider else { return Ok(()) };
    let copy = temporary(archive, from);
    let sealer = Arc::new(SealAs { sealer: context.sealer.clone(), real: from.spec.tenant.id });
    let context = Context { sealer, ..context.clone() };
    let tried = try_restore(&context, provider, &copy, packed, reader).await;
    let removed = provider.remove(&context, &copy.spec).await;
    tried?;
    removed.map(drop)
}

async fn try_restore(
    context: &Context,
    provider: &ResourceHandle,
    copy: &PresentResource,
    packed: &Packed,
    reader: &mut ArchiveReader,
) -> Result<(), Failure> {
    let Some(transfer) = provider.transfer() else { return Ok(()) };
    let mut files = reader.files(&packed.folder);
    let restored = async {
        provider.ensure(context, &copy.spec).await?;
        transfer.load(context, &copy.spec, &mut files).await
    };
    // The copy lies beside the resource, which may be in a region that its provider serves no longer.
    staying(restored).await?;
    files.pass().await?;
    compared(transfer, context, copy, packed).await.map(drop)
}

/// A resource like this one, of a tenant that does not exist.
fn temporary(archive: ArchiveId, from: &PresentResource) -> PresentResource {
    let base = ResourceId::from_uuid(archive.uuid());
    let resource: ResourceId = derived::id(base, from.spec.generation, &from.step);
    let tenant: TenantId = derived::id(base, from.spec.generation, &from.step);
    let mut settings = from.spec.settings.clone();
    // All of its content comes from the archive.
    if let Some(seed) = settings.get_mut("seed") {
        *seed = Value::Null;
    }
    let separator = if from.spec.name.contains('_') { '_' } else { '-' };
    let spec = Spec {
        resource,
        tenant: Tenant {
            id: tenant,
            slug: format!("rehearsal-{}", resource.suffix()),
            name: "rehearsal".to_owned(),
            admin: Person::default(),
            ..from.spec.tenant.clone()
        },
        name: format!("rehearsal{separator}{}", resource.suffix()),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings,
        note: None,
        ..from.spec.clone()
    };
    PresentResource {
        step: from.step.clone(),
        provider: from.provider.clone(),
        kind: from.kind.clone(),
        spec,
    }
}

/// Seals under the real tenant's key in place of the temporary tenant's, so that a temporary resource is encrypted as the
/// tenant's own.
struct SealAs {
    sealer: Arc<dyn Sealer>,
    real: TenantId,
}

impl Sealer for SealAs {
    fn seal(&self, _: TenantId, clear: &str) -> Result<String, Failure> {
        self.sealer.seal(self.real, clear)
    }
    fn open(&self, _: TenantId, sealed: &str) -> Result<String, Failure> {
        self.sealer.open(self.real, sealed)
    }
    fn derive(&self, _: TenantId, purpose: &str) -> Result<Key, Failure> {
        self.sealer.derive(self.real, purpose)
    }
    fn mac(&self, purpose: &str, text: &str) -> String {
        self.sealer.mac(purpose, text)
    }
}
