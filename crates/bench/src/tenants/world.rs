//! The world around a provider: a registry that has nothing, keys that encrypt nothing, and new tenants. What the control
//! plane adds to a creation is measured by the bench `onboard`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::{Failure, TenantId, Timestamp};
use tenantry_provider::{Context, Key, Notes, Person, Rows, Sealer, Spec, Tenant};
use zeroize::Zeroizing;

use super::baseline::SET;

struct Nothing;

#[async_trait]
impl Rows for Nothing {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Notes for Nothing {
    async fn note(&self, _: Value) -> Result<(), Failure> {
        Ok(())
    }
}

impl Sealer for Nothing {
    fn seal(&self, _: TenantId, clear: &str) -> Result<String, Failure> {
        Ok(clear.to_owned())
    }

    fn open(&self, _: TenantId, sealed: &str) -> Result<String, Failure> {
        Ok(sealed.to_owned())
    }

    fn derive(&self, _: TenantId, _: &str) -> Result<Key, Failure> {
        Ok(Zeroizing::new([0; 32]))
    }

    fn mac(&self, _: &str, text: &str) -> String {
        text.to_owned()
    }
}

/// What a verb may use.
pub fn context() -> Context {
    let nothing = Arc::new(Nothing);
    Context { now: Timestamp::now(), sealer: nothing.clone(), rows: nothing.clone(), notes: nothing }
}

/// The database of one more tenant.
pub fn spec() -> Spec {
    let (tenant, resource) = (TenantId::new(), ResourceId::new());
    let suffix = tenant.suffix();
    Spec {
        resource,
        operation: OperationId::new(),
        generation: 1,
        tenant: Tenant {
            id: tenant,
            slug: format!("bench-{suffix}"),
            name: "Bench".to_owned(),
            plan: "bench".to_owned(),
            region: "local".to_owned(),
            locale: "en".to_owned(),
            admin: Person::default(),
        },
        name: format!("tenant_{suffix}"),
        claim: format!("tenantry:{tenant}:{resource}"),
        settings: json!({ "migrations": SET }),
        inputs: BTreeMap::new(),
        note: None,
    }
}
