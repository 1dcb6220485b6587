//! Copies the source tenant's content into the clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize as _;
use serde_json::json;
use tenantry_engine::{Attempt, Done, OperationState, Step};
use tenantry_model::{Failure, TenantId, TenantStatus, Write};
use tenantry_provider::masks::Masks;
use tenantry_provider::pipe::pipe;
use tenantry_provider::transfer::{Content, Nowhere, Source as _};
use tenantry_provider::{Context, Kind, Provider as _, Sealer as _, Transfer};

use super::{Cloned, Cloning};
use crate::ledger::{OperationKind, input_of, read, tenant_id};
use crate::operations::archive::{LeftOut, PresentResource, target_of};
use crate::operations::view::ResponseView;
use crate::operations::{Action, Compensation, ProviderSteps, no_provider};
use crate::templates::built_in::CLONE;

/// Purpose for which the mask key is derived from the clone's key.
const KEY: &str = "masks";

/// Streams rows, and files if they were requested, from the source's resources into the clone's. A further attempt replaces
/// what an earlier one copied.
pub(crate) struct CloneContent;

#[async_trait]
impl Action for CloneContent {
    fn kind(&self) -> &'static str {
        CLONE
    }

    async fn run(&self, steps: &ProviderSteps, attempt: &Attempt) -> Result<Done<Write>, Failure> {
        let input = input_of(&attempt.step)?;
        let Cloning { from, masks, files } = read(&input.settings)?;
        let sources = source_resources(steps, attempt, from).await?;
        let targets = steps.present_resources(attempt).await?;
        let context = steps.context(attempt);
        let key = steps.keyring.derive(tenant_id(&attempt.operation)?, KEY)?;
        let mut masks = Masks::new(masks, &key);
        let mut cloned = Cloned { from, resources: BTreeMap::new(), left_out: Vec::new() };
        for present in &sources {
            let provider = present.provider.as_ref().map_err(|name| no_provider(name))?;
            let kind = provider.kind();
            let to = match (kind, provider.transfer()) {
                (Kind::Bucket, _) if !files => Err("files are copied only if the request sets `files`"),
                (Kind::Database | Kind::Bucket, Some(transfer)) => {
                    target_of(&present.step, &present.kind, transfer.form(), &targets)
                        .map(|to| (transfer, to))
                }
                (Kind::Database | Kind::Bucket, None) => Err("its provider cannot export its content"),
                _ => Err("not copied: a clone has its own"),
            };
            match to {
                Ok((transfer, to)) => {
                    let masks = (kind == Kind::Database).then_some(&mut masks);
                    let calls = [provider.name(), to.1.provider.as_ref().map_or("", |it| it.name())];
                    let copying = copy_content(&context, (transfer, present), to, masks);
                    let content = steps.resources.sharing(&calls, copying).await??;
                    cloned.resources.insert(to.1.step.clone(), content);
                }
                Err(why) => cloned.left_out.push(LeftOut {
                    step: present.step.clone(),
                    provider: provider.name().to_owned(),
                    why: why.to_owned(),
                }),
            }
        }
        masks.all_met()?;
        // A source whose deletion has begun meanwhile must not be copied.
        must_stand(steps, from).await?;
        Ok(Done { output: json!(cloned), effects: Vec::new() })
    }

    async fn compensate(&self, _: &ProviderSteps, _: &Attempt) -> Result<Compensation, Failure> {
        Ok(Compensation::None("the copied content goes with the clone's resources"))
    }

    fn respond(&self, step: &Step, response: &mut ResponseView) {
        response.cloned = Cloned::deserialize(&step.output).ok().or(response.cloned.take());
    }
}

/// Resources of the source tenant.
async fn source_resources(
    steps: &ProviderSteps,
    attempt: &Attempt,
    from: TenantId,
) -> Result<Vec<PresentResource>, Failure> {
    must_stand(steps, from).await?;
    let made = steps
        .store
        .latest_run(&from.to_string(), OperationKind::Onboard.as_str(), OperationState::Succeeded)
        .await;
    let made = made.map_err(|why| Failure::retryable("registry_unavailable", why))?;
    let made = made.ok_or_else(|| Failure::fatal("bad_ledger", "a tenant without its onboarding"))?;
    let onboarding =
        Attempt { operation: Arc::new(made.operation), outputs: Arc::default(), ..attempt.clone() };
    steps.present_resources(&onboarding).await
}

/// Fails unless the source is active or suspended.
async fn must_stand(steps: &ProviderSteps, from: TenantId) -> Result<(), Failure> {
    let row = steps.rows.find("tenants", &[("id", json!(from))]).await?.pop();
    let status: Option<TenantStatus> = row.and_then(|row| row["status"].as_str()?.parse().ok());
    match status {
        Some(TenantStatus::Active | TenantStatus::Suspended) => Ok(()),
        _ => Err(Failure::invalid(
            "source_gone",
            format!("tenant {from} cannot be cloned: it is not active or suspended"),
        )),
    }
}

/// Copies the content of one resource into another and compares the two.
async fn copy_content(
    context: &Context,
    (from, source): (&dyn Transfer, &PresentResource),
    (to, target): (&dyn Transfer, &PresentResource),
    masks: Option<&mut Masks>,
) -> Result<Content, Failure> {
    let masked = masks.is_some();
    let (mut sink, mut files) = pipe();
    let export = async move {
        let exported = match masks {
            Some(masks) => from.export(context, &source.spec, &mut masks.over(&mut sink)).await?,
            None => from.export(context, &source.spec, &mut sink).await?,
        };
        sink.end().await.map(|()| exported)
    };
    let load = async move {
        let writes = to.load(context, &target.spec, &mut files).await?;
        while files.next().await?.is_some() {}
        Ok(writes)
    };
    let exported = match tokio::join!(export, load) {
        (Ok(exported), Ok(writes)) if writes.is_empty() => exported,
        (Ok(_), Ok(_)) => return Err(Failure::fatal("bad_plan", "rows of the registry are not cloned")),
        // The side that fails first cuts the other one off.
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
        (Err(export), Err(load)) => return Err(if load.code == "cut_off" { export } else { load }),
    };
    let content = to.export(context, &target.spec, &mut Nowhere).await?;
    let same = if masked { content.counts == exported.counts } else { content == exported };
    if same {
        return Ok(content);
    }
    let message = format!("the content of `{}` differs from what was copied", target.step);
    Err(Failure::retryable("content_differs", message).wrong_answer())
}
