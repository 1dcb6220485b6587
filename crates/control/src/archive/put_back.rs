//! What the step `load` does: an archive's content, in the place of what the tenant's resources hold. Every file is compared
//! with the manifest before the first one is put anywhere, and every resource with it afterwards.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_engine::Done;
use tenantry_model::id::ArchiveId;
use tenantry_model::{Failure, TenantId, Write};
use tenantry_provider::portable::{Content, Nowhere, bad_archive};
use tenantry_provider::{Context, Portable};

use super::make::{Archives, Standing};
use super::{LeftOut, Manifest, Packed};

/// What a step says of the archive that it takes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// Which one; it is the tenant's own.
    pub archive: ArchiveId,
    /// Its length in bytes.
    pub size: u64,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loaded {
    /// The archive that it came from.
    pub archive: ArchiveId,
    /// What is in the tenant's resources now, by the step that made them.
    pub resources: BTreeMap<String, Content>,
    /// What was not put back.
    pub left_out: Vec<LeftOut>,
}

impl Archives {
    /// Puts all of it back that has a resource to go to. Answers what went where, and what did not.
    pub async fn load(
        &self,
        settings: &LoadSettings,
        context: &Context,
        tenant: TenantId,
        standing: &[Standing],
    ) -> Result<Done<Write>, Failure> {
        let LoadSettings { archive, size } = *settings;
        let manifest = self.unpack(archive, tenant, size).await?.verify().await?;
        let mut unpacker = self.unpack(archive, tenant, size).await?;
        let (mut effects, mut resources, mut left_out) = (Vec::new(), BTreeMap::new(), Vec::new());
        while let Some(folder) = unpacker.folder().await? {
            let mut files = unpacker.files(&folder);
            match target(&manifest, &folder, standing)? {
                Ok((packed, portable, to)) => {
                    effects.extend(portable.load(context, &to.spec, &mut files).await?);
                    let content = match effects_only(to) {
                        true => packed.content.clone(),
                        false => compared(portable, context, to, packed).await?,
                    };
                    resources.insert(to.step.clone(), content);
                }
                Err(left) => left_out.push(left),
            }
            files.pass().await?;
        }
        Ok(Done { output: json!(Loaded { archive, resources, left_out }), effects })
    }
}

/// What is only written when the step ends cannot be looked at before.
fn effects_only(to: &Standing) -> bool {
    to.provider.as_ref().is_ok_and(|provider| provider.transactional())
}

type Target<'a> = (&'a Packed, &'a dyn Portable, &'a Standing);

/// Where a folder goes.
fn target<'a>(
    manifest: &'a Manifest,
    folder: &str,
    standing: &'a [Standing],
) -> Result<Result<Target<'a>, LeftOut>, Failure> {
    let packed = manifest.resources.iter().find(|packed| packed.folder == folder);
    let packed =
        packed.ok_or_else(|| bad_archive(format!("no resource of its manifest is in `{folder}`")))?;
    let left_out = |why: &str| {
        Ok(Err(LeftOut { step: folder.to_owned(), provider: packed.provider.clone(), why: why.to_owned() }))
    };
    match taker(folder, &packed.kind, &packed.form, standing) {
        Ok((portable, to)) => Ok(Ok((packed, portable, to))),
        Err(why) => left_out(why),
    }
}

/// The resource that takes what a step's had: that of the same step or, if there is none, the only one that takes its form.
/// Otherwise, why there is none.
pub(crate) fn taker<'a>(
    step: &str,
    kind: &str,
    form: &str,
    standing: &'a [Standing],
) -> Result<(&'a dyn Portable, &'a Standing), &'static str> {
    let fits: Vec<(&dyn Portable, &Standing)> = standing
        .iter()
        .filter_map(|to| {
            let portable = to.provider.as_ref().ok()?.portable()?;
            (portable.form() == form && to.kind == kind).then_some((portable, to))
        })
        .collect();
    let same = fits.iter().find(|(_, to)| to.step == step);
    let (portable, to) = match (same, fits.as_slice()) {
        (Some(same), _) => *same,
        (None, [one]) => *one,
        _ => return Err("the tenant has no resource that takes its form"),
    };
    portable.one_way().map_or(Ok((portable, to)), Err)
}

/// Looks at what came of it. Somebody who writes meanwhile changes it, so that a difference is tried again.
pub(super) async fn compared(
    portable: &dyn Portable,
    context: &Context,
    to: &Standing,
    packed: &Packed,
) -> Result<Content, Failure> {
    let content = portable.export(context, &to.spec, &mut Nowhere).await?;
    if content.digest == packed.content.digest {
        return Ok(content);
    }
    let message = format!("what is in `{}` now is not what the archive has", to.step);
    Err(Failure::retryable("content_differs", message))
}
