//! Context and specifications for calls of providers: an empty registry, keys that do not encrypt, and new
//! tenants. The bench `onboard` measures the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::id::{OperationId, ResourceId};
use tenantry_model::{Failure, TenantId, Timestamp};
use tenantry_provider::{Context, Key, Notes, Person, Rows, Sealer, Spec, Tenant};
use zeroize::Zeroizing;

use super::baseline::SET;

struct Stub;

#[async_trait]
impl Rows for Stub {
    async fn find(&self, _: &'static str, _: &[(&'static str, Value)]) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Notes for Stub {
    async fn note(&self, _: Value) -> Result<(), Failure> {
        Ok(())
    }
}

impl Sealer for Stub {
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

/// The context of a call.
pub fn context() -> Context {
    let stub = Arc::new(Stub);
    Context { now: Timestamp::now(), sealer: stub.clone(), rows: stub.clone(), notes: stub }
}

/// The database of a new tenant.
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
