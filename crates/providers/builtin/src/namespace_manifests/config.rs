//! Configuration of the manifests, and the provider's settings of a template's step. Pure, no I/O.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::quantity::Quantity;

/// Folder for manifests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that contains one folder per namespace. Created if it is missing.
    pub folder: PathBuf,
}

impl Config {
    /// Manifests in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }
}

/// Settings of the provider in a template's step, under `with`: the limits of all workloads of the tenant
/// together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Processors, such as `4` or `500m`.
    #[serde(default = "cpu")]
    pub cpu: Quantity,
    /// Memory, such as `8Gi`.
    #[serde(default = "memory")]
    pub memory: Quantity,
    /// Storage of all volumes, such as `100Gi`.
    #[serde(default = "storage")]
    pub storage: Quantity,
    /// Pods.
    #[serde(default = "pods")]
    #[schemars(range(min = 1, max = 100_000))]
    pub pods: u32,
}

fn cpu() -> Quantity {
    Quantity("1".to_owned())
}

fn memory() -> Quantity {
    Quantity("1Gi".to_owned())
}

fn storage() -> Quantity {
    Quantity("10Gi".to_owned())
}

fn pods() -> u32 {
    20
}
