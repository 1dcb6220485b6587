//! Loads an archive: the action `load` of a restore or an import. Every file is compared with the manifest before the first one
//! is loaded, and every resource is compared with it afterwards.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::{Attempt, Done, Step};
use tenantry_model::id::ArchiveId;
use tenantry_model::{Failure, TenantId, Write};
use tenantry_provider::transfer::{Content, Nowhere, bad_archive};
use tenantry_provider::{Context, Provider as _, Transfer};

use super::archives::{Archives, PresentResource};
use super::{LeftOut, Manifest, Packed};
use crate::ledger::{input_of, read, tenant_id};
use crate::operations::view::ResponseView;
use crate::operations::{Action, Compensation, ProviderSteps};
use tenantry_store::record::{EventRecord, event};

/// Replaces the content of the tenant's resources by that of an archive.
pub(crate) struct Load;

#[async_trait]
impl Action for Load {
    fn kind(&self) -> &'static str {
        "load"
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let settings: LoadSettings = read(&input_of(&attempt.step)?.settings)?;
        let (context, tenant) = (steps.context(attempt), tenant_id(&attempt.operation)?);
        let present = steps.present_resources(attempt).await?;
        let mut done = steps.archives().load(&settings, &context, tenant, &present).await?;
        let (operation, data) = (Some(attempt.operation.id), json!({ "archive": settings.archive }));
        let event_record = EventRecord { kind: "tenant.restored", tenant, operation, data, sealed: None };
        done.effects.push(event(event_record, attempt.now));
        Ok(done)
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("the replaced content exists only in archives; restore one to get it back"))
    }

    fn respond(&self, step: &Step, response: &mut ResponseView) {
        response.loaded = Loaded::deserialize(&step.output).ok().or(response.loaded.take());
    }
}

/// Settings of the action: the archive to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// An archive of the same tenant.
    pub archive: ArchiveId,
    /// Size of the archive's file in bytes.
    pub size: u64,
}

/// Result of a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loaded {
    /// The archive.
    pub archive: ArchiveId,
    /// Content of the tenant's resources, by the step that created them.
    pub resources: BTreeMap<String, Content>,
    /// Folders of the archive that fit no resource of the tenant, and were not loaded.
    pub left_out: Vec<LeftOut>,
}

impl Archives<'_> {
    /// Loads each folder into the matching resource of the tenant. The output names the loaded folders and the others.
    pub async fn load(
        &self,
        settings: &LoadSettings,
        context: &Context,
        tenant: TenantId,
        present: &[PresentResource],
    ) -> Result<Done<Write>, Failure> {
        let LoadSettings { archive, size } = *settings;
        let manifest = self.unpack(archive, tenant, size).await?.verify().await?;
        let (mut effects, mut resources, mut left_out) = (Vec::new(), BTreeMap::new(), Vec::new());
        // Rows of the registry first: they are written at the end, so that an archive whose members or settings are
        // rejected has changed nothing.
        for first in [true, false] {
            let mut reader = self.unpack(archive, tenant, size).await?;
            while let Some(folder) = reader.folder().await? {
                let mut files = reader.files(&folder);
                match target(&manifest, &folder, present)? {
                    Ok((_, _, to)) if effects_only(to) != first => {}
                    Ok((packed, transfer, to)) => {
                        effects.extend(transfer.load(context, &to.spec, &mut files).await?);
                        let content = match first {
                            true => packed.content.clone(),
                            false => compared(transfer, context, to, packed).await?,
                        };
                        resources.insert(to.step.clone(), content);
                    }
                    Err(left) if first => left_out.push(left),
                    Err(_) => {}
                }
                files.pass().await?;
            }
        }
        Ok(Done { output: json!(Loaded { archive, resources, left_out }), effects })
    }
}

/// Whether loading only gives writes, so that the content cannot be compared before the step ends.
fn effects_only(to: &PresentResource) -> bool {
    to.provider.as_ref().is_ok_and(|provider| provider.transactional())
}

type Target<'a> = (&'a Packed, &'a dyn Transfer, &'a PresentResource);

/// The resource that a folder is loaded into.
fn target<'a>(
    manifest: &'a Manifest,
    folder: &str,
    present: &'a [PresentResource],
) -> Result<Result<Target<'a>, LeftOut>, Failure> {
    let packed = manifest.resources.iter().find(|packed| packed.folder == folder);
    let packed =
        packed.ok_or_else(|| bad_archive(format!("no resource of its manifest is in `{folder}`")))?;
    let left_out = |why: &str| {
        Ok(Err(LeftOut { step: folder.to_owned(), provider: packed.provider.clone(), why: why.to_owned() }))
    };
    match target_of(folder, &packed.kind, &packed.form, present) {
        Ok((transfer, to)) => Ok(Ok((packed, transfer, to))),
        Err(why) => left_out(why),
    }
}

/// The resource that takes the content of a step's resource: that of the same step or, if there is none, the only one of the
/// same kind and form. Otherwise, the reason why there is none.
pub(crate) fn target_of<'a>(
    step: &str,
    kind: &str,
    form: &str,
    present: &'a [PresentResource],
) -> Result<(&'a dyn Transfer, &'a PresentResource), &'static str> {
    let fits: Vec<(&dyn Transfer, &PresentResource)> = present
        .iter()
        .filter_map(|to| {
            let transfer = to.provider.as_ref().ok()?.transfer()?;
            (transfer.form() == form && to.kind == kind).then_some((transfer, to))
        })
        .collect();
    let same = fits.iter().find(|(_, to)| to.step == step);
    let (transfer, to) = match (same, fits.as_slice()) {
        (Some(same), _) => *same,
        (None, [one]) => *one,
        _ => return Err("the tenant has no resource that can import this format"),
    };
    transfer.one_way().map_or(Ok((transfer, to)), Err)
}

/// Compares the loaded content with the archive. A client that writes at the same time causes a difference, so the failure
/// can be retried.
pub(super) async fn compared(
    transfer: &dyn Transfer,
    context: &Context,
    to: &PresentResource,
    packed: &Packed,
) -> Result<Content, Failure> {
    let content = transfer.export(context, &to.spec, &mut Nowhere).await?;
    if content.digest == packed.content.digest {
        return Ok(content);
    }
    let message = format!("the content of `{}` differs from the archive's", to.step);
    Err(Failure::retryable("content_differs", message).wrong_answer())
}
