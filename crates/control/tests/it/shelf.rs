//! Test provider of the kind `custom`, outside of the registry. A resource is a file that holds its owner
//! tag; its fence and its secrets are files beside it. While a file named `deaf` exists, fences and
//! retirements fail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Write, columns};
use tenantry_provider::{
    Context, Ensured, Fault, Fence, Former, Kind, Observed, Order, Provider, Removed, Retirement, Rotate,
    Rotated, Rows, Spec,
};

/// A folder of resources, one file each.
pub struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    pub fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        Self { folder }
    }

    fn file(&self, spec: &Spec) -> PathBuf {
        self.folder.join(spec.resource.to_string())
    }

    fn fence_of(&self, order: &Order) -> PathBuf {
        fence(&self.folder.join(order.resource.to_string()))
    }

    fn is_there(&self, spec: &Spec) -> bool {
        let there = std::fs::read_to_string(self.file(spec)).ok();
        assert!(there.as_ref().is_none_or(|mark| *mark == spec.claim), "an owner tag changed: {there:?}");
        there.is_some()
    }
}

/// File of a resource's fence.
fn fence(thing: &Path) -> PathBuf {
    thing.with_extension("fence")
}

#[async_trait]
impl Fence for Shelf {
    async fn fence(&self, order: &Order) -> Result<(), Failure> {
        if self.folder.join("deaf").exists() {
            return Err(Failure::retryable("deaf", "injected: the provider does not answer"));
        }
        let (thing, file) = (self.folder.join(order.resource.to_string()), self.fence_of(order));
        match order.mode {
            // A missing resource needs no fence.
            _ if !thing.exists() => Ok(()),
            Some(mode) => std::fs::write(file, mode.as_str()),
            None if file.exists() => std::fs::remove_file(file),
            None => Ok(()),
        }
        .map_err(|error| Failure::retryable("file", error))
    }

    async fn denies(&self, order: &Order) -> Result<Option<SuspensionMode>, Failure> {
        Ok(std::fs::read_to_string(self.fence_of(order)).ok().and_then(|mode| mode.parse().ok()))
    }
}

/// File of a resource's secret: the operation that created it, whether the former one stays valid, the sealed
/// secret.
fn secrets(thing: &Path) -> PathBuf {
    thing.with_extension("secrets")
}

#[async_trait]
impl Rotate for Shelf {
    async fn rotate(&self, context: &Context, spec: &Spec, former: Former) -> Result<Rotated, Failure> {
        assert!(self.is_there(spec), "the resource exists");
        let file = secrets(&self.file(spec));
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        let operation = spec.operation.to_string();
        if !before.starts_with(&operation) {
            let stays = if former == Former::Stays { "stays" } else { "ends" };
            let sealed = context.sealer.seal(spec.tenant.id, &format!("of {operation}"))?;
            std::fs::write(&file, format!("{operation} {stays} {sealed}")).expect("a file");
        }
        let said = std::fs::read_to_string(&file).expect("a file");
        let row = columns! {
            "operation_id": spec.operation, "name": format!("shelf:{}", spec.name), "tenant_id": spec.tenant.id,
            "sealed": said.rsplit(' ').next(), "created_at": context.now, "claimed_at": (),
        };
        let outputs = json!({ "secret_of": operation }).as_object().cloned().unwrap_or_default();
        Ok(Rotated { outputs, writes: vec![Write::insert_absent("credentials", row)] })
    }

    async fn retire(&self, _: &dyn Rows, retirement: &Retirement) -> Result<Vec<Write>, Failure> {
        if self.folder.join("deaf").exists() {
            return Err(Failure::retryable("deaf", "injected: the provider does not answer"));
        }
        let file = secrets(&self.folder.join(retirement.resource.to_string()));
        let said = std::fs::read_to_string(&file).unwrap_or_default();
        if said.starts_with(&retirement.rotation.to_string()) {
            std::fs::write(&file, said.replace(" stays ", " ends ")).expect("a file");
        }
        Ok(Vec::new())
    }
}

#[async_trait]
impl Provider for Shelf {
    fn name(&self) -> &str {
        "shelf"
    }
    fn kind(&self) -> Kind {
        Kind::Custom
    }
    fn in_flight(&self) -> Duration {
        Duration::from_secs(30)
    }
    fn settings_schema(&self) -> Value {
        json!({ "type": "object", "additionalProperties": false })
    }
    fn check(&self, _: &Value) -> Vec<Fault> {
        Vec::new()
    }
    async fn ensure(&self, _: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        if !self.is_there(spec) {
            std::fs::write(self.file(spec), &spec.claim).expect("a file");
        }
        Ok(Ensured { outputs: json!({}), writes: Vec::new() })
    }
    async fn observe(&self, _: &Context, spec: &Spec) -> Result<Observed, Failure> {
        Ok(match self.is_there(spec) {
            true => Observed::present(true, None, String::new()),
            false => Observed::Absent,
        })
    }
    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let there = self.is_there(spec);
        if there {
            // Fence and secrets may be missing.
            let _ = std::fs::remove_file(fence(&self.file(spec)));
            let _ = std::fs::remove_file(secrets(&self.file(spec)));
            std::fs::remove_file(self.file(spec)).expect("it was there");
        }
        Ok(Removed { receipt: json!({ "there": there }), writes: Vec::new() })
    }
    async fn probe(&self) -> Result<(), Failure> {
        Ok(())
    }
    fn fence(&self) -> Option<&dyn Fence> {
        Some(self)
    }
    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }
}
