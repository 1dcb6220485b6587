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
use crate::operations::archive::{LeftOut, PresentResource, taker};
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
        let theirs = of_source(steps, attempt, from).await?;
        let ours = steps.present_resources(attempt).await?;
        let context = steps.context(attempt);
        let key = steps.keyring.derive(tenant_id(&attempt.operation)?, KEY)?;
        let mut masks = Masks::new(masks, &key);
        let mut cloned = Cloned { from, resources: BTreeMap::new(), left_out: Vec::new() };
        for present in &theirs {
            let provider = present.provider.as_ref().map_err(|name| no_provider(name))?;
            let kind = provider.kind();
            let to = match (kind, provider.transfer()) {
                (Kind::Bucket, _) if !files => Err("files are copied only if the request sets `files`"),
                (Kind::Database | Kind::Bucket, Some(transfer)) => {
                    taker(&present.step, &present.kind, transfer.form(), &ours).map(|to| (transfer, to))
                }
                (Kind::Database | Kind::Bucket, None) => Err("its provider cannot export its content"),
                _ => Err("not copied: a clone has its own"),
            };
            match to {
                Ok((transfer, to)) => {
                    let masks = (kind == Kind::Database).then_some(&mut masks);
                    let calls = [provider.name(), to.1.provider.as_ref().map_or("", |it| it.name())];
                    let bringing = bring(&context, (transfer, present), to, masks);
                    let content = steps.resources.sharing(&calls, bringing).await??;
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
async fn of_source(
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
    let theirs = Attempt { operation: Arc::new(made.operation), outputs: Arc::default(), ..attempt.clone() };
    steps.present_resources(&theirs).await
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
async fn bring(
    context: &Context,
    (from, theirs): (&dyn Transfer, &PresentResource),
    (to, ours): (&dyn Transfer, &PresentResource),
    masks: Option<&mut Masks>,
) -> Result<Content, Failure> {
    let masked = masks.is_some();
    let (mut inlet, mut outlet) = pipe();
    let give = async move {
        let given = match masks {
            Some(masks) => from.export(context, &theirs.spec, &mut masks.over(&mut inlet)).await?,
            None => from.export(context, &theirs.spec, &mut inlet).await?,
        };
        inlet.end().await.map(|()| given)
    };
    let take = async move {
        let writes = to.load(context, &ours.spec, &mut outlet).await?;
        while outlet.next().await?.is_some() {}
        Ok(writes)
    };
    let given = match tokio::join!(give, take) {
        (Ok(given), Ok(writes)) if writes.is_empty() => given,
        (Ok(_), Ok(_)) => return Err(Failure::fatal("bad_plan", "rows of the registry are not cloned")),
        // The side that fails first cuts the other one off.
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
        (Err(given), Err(taken)) => return Err(if taken.code == "cut_off" { given } else { taken }),
    };
    let content = to.export(context, &ours.spec, &mut Nowhere).await?;
    let same = if masked { content.counts == given.counts } else { content == given };
    if same {
        return Ok(content);
    }
    let message = format!("the content of `{}` differs from what was copied", ours.step);
    Err(Failure::retryable("content_differs", message))
}
