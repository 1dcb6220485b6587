//! Concurrency layer: at most as many calls of a provider at the same time as the operator allows, for work on resources
//! and for access control apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenantry_model::Failure;
use tokio::sync::SemaphorePermit;

use super::{Call, Layer, PermitClass, Work};
use crate::resource::resources::Limits;

tokio::task_local! {
    /// Providers of which the work around this call already has a permit.
    static PERMITTED: BTreeSet<String>;
}

/// Has each call wait for a permit of its provider. Providers that only write rows of the registry need none.
pub struct Concurrency {
    limits: Arc<Limits>,
}

impl Concurrency {
    /// With the permits of these limits.
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits }
    }
}

impl Layer for Concurrency {
    fn wrap<'a>(&'a self, call: &'a Call<'a>, work: Work<'a>) -> Work<'a> {
        let permitted = || PERMITTED.try_with(|all| all.contains(call.provider)).unwrap_or(false);
        Box::pin(async move {
            let _permit = match call.verb.permit_class().filter(|_| !call.transactional) {
                None => None,
                Some(PermitClass::Work) if permitted() => None,
                Some(class) => permit(&self.limits, call.provider, class).await?,
            };
            work.await
        })
    }
}

/// Runs work that calls these providers side by side, each call waiting for another: with one permit of each provider for
/// all of it. A permit for each call could be waited for by the very call that another one waits for.
pub async fn sharing<T>(
    limits: &Limits,
    providers: &[&str],
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    // In the order of their names, so that two pieces of work never wait for each other's permits.
    let names: BTreeSet<String> = providers.iter().map(|name| (*name).to_owned()).collect();
    let mut permits = Vec::new();
    for name in &names {
        permits.push(permit(limits, name, PermitClass::Work).await?);
    }
    let done = PERMITTED.scope(names, work).await;
    drop(permits);
    Ok(done)
}

async fn permit<'a>(
    limits: &'a Limits,
    provider: &str,
    class: PermitClass,
) -> Result<Option<SemaphorePermit<'a>>, Failure> {
    let Some(permits) = limits.concurrency.get(provider) else { return Ok(None) };
    let permits = match class {
        PermitClass::Work => &permits.work,
        PermitClass::Control => &permits.control,
    };
    let permit = permits.acquire().await;
    permit.map(Some).map_err(|closed| Failure::retryable("shutting_down", closed))
}
