//! The proof that a backup can be restored: all of it is read back and compared with its manifest, and what can be made for
//! nobody is put into a resource of a tenant that does not exist, compared, and removed.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_model::id::{ArchiveId, ResourceId};
use tenantry_model::{Failure, TenantId};
use tenantry_provider::portable::bad_archive;
use tenantry_provider::{Context, Key, Observed, Person, Provider, Sealer, Spec, Tenant, derived};

use super::Packed;
use super::make::{Archives, Standing, Written};
use super::put_back::compared;
use super::unpack::Unpacker;

/// What was proven of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// Files whose hashes were compared.
    pub files: u64,
    /// Steps whose resources were restored into throw-away ones, with the same content.
    pub restored: Vec<String>,
    /// Steps whose resources were only compared, file by file.
    pub read_only: Vec<String>,
}

impl Archives {
    pub(super) async fn rehearse(
        &self,
        context: &Context,
        written: &Written,
        standing: &[Standing],
    ) -> Result<Verified, Failure> {
        let Written { id, size, manifest, .. } = written;
        let read = self.unpack(*id, manifest.tenant, *size).await?.verify().await?;
        if read != *manifest {
            return Err(bad_archive("it does not read back as it was written"));
        }
        let files = manifest.pages.files;
        let mut verified = Verified { files, restored: Vec::new(), read_only: Vec::new() };
        let mut unpacker = self.unpack(*id, manifest.tenant, *size).await?;
        while let Some(folder) = unpacker.folder().await? {
            let from = standing.iter().find(|from| from.step == folder);
            let packed = manifest.resources.iter().find(|packed| packed.folder == folder);
            match (from, packed) {
                (Some(from), Some(packed)) if can_be_made_for_nobody(from) => {
                    restore(context, *id, from, packed, &mut unpacker).await?;
                    verified.restored.push(folder);
                }
                _ => {
                    unpacker.files(&folder).pass().await?;
                    verified.read_only.push(folder);
                }
            }
        }
        Ok(verified)
    }

    /// Removes what a proof that was cut off may have left.
    pub async fn clear(
        &self,
        context: &Context,
        id: ArchiveId,
        standing: &[Standing],
    ) -> Result<(), Failure> {
        for from in standing.iter().filter(|from| can_be_made_for_nobody(from)) {
            if let Ok(provider) = &from.provider {
                let spec = nobody(id, from).spec;
                provider.remove(context, &spec).await?;
                if matches!(provider.observe(context, &spec).await?, Observed::Present { .. }) {
                    let message = format!("the restored copy of `{}` is still there", from.step);
                    return Err(Failure::retryable("still_there", message));
                }
            }
        }
        Ok(())
    }
}

/// What is rows of the registry is only there once it is committed, and then it would be somebody's.
fn can_be_made_for_nobody(from: &Standing) -> bool {
    from.provider.as_ref().is_ok_and(|provider| {
        !provider.transactional() && provider.portable().is_some_and(|portable| portable.one_way().is_none())
    })
}

/// Puts a folder into a resource that is made for it and removed again, also after a failure. One that a crash has left has
/// the same name in the next attempt.
async fn restore(
    context: &Context,
    archive: ArchiveId,
    from: &Standing,
    packed: &Packed,
    unpacker: &mut Unpacker,
) -> Result<(), Failure> {
    let Ok(provider) = &from.provider else { return Ok(()) };
    let nobody = nobody(archive, from);
    let sealer = Arc::new(Stand { sealer: context.sealer.clone(), real: from.spec.tenant.id });
    let context = Context { sealer, ..context.clone() };
    let tried = try_restore(&context, &**provider, &nobody, packed, unpacker).await;
    let removed = provider.remove(&context, &nobody.spec).await;
    tried?;
    removed.map(drop)
}

async fn try_restore(
    context: &Context,
    provider: &dyn Provider,
    nobody: &Standing,
    packed: &Packed,
    unpacker: &mut Unpacker,
) -> Result<(), Failure> {
    let Some(portable) = provider.portable() else { return Ok(()) };
    provider.ensure(context, &nobody.spec).await?;
    let mut files = unpacker.files(&packed.folder);
    portable.load(context, &nobody.spec, &mut files).await?;
    files.pass().await?;
    compared(portable, context, nobody, packed).await.map(drop)
}

/// A resource like this one, of a tenant that is nobody.
fn nobody(archive: ArchiveId, from: &Standing) -> Standing {
    let base = ResourceId::from_uuid(archive.uuid());
    let resource: ResourceId = derived::id(base, from.spec.generation, &from.step);
    let tenant: TenantId = derived::id(base, from.spec.generation, &from.step);
    let mut settings = from.spec.settings.clone();
    // Everything that is in it comes out of the archive.
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
    Standing { step: from.step.clone(), provider: from.provider.clone(), kind: from.kind.clone(), spec }
}

/// Gives nobody the real tenant's key, so that what is restored for the proof is encrypted as the tenant's own is.
struct Stand {
    sealer: Arc<dyn Sealer>,
    real: TenantId,
}

impl Sealer for Stand {
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
