//! Configuration of the outbox.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// Folder and content of messages.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of outgoing messages. Created if it is missing.
    pub folder: PathBuf,
    /// Sender of messages, such as `Example <hello@example.com>`.
    #[serde(default = "sender")]
    pub from: String,
    /// Name of the product in messages.
    #[serde(default = "product")]
    pub product: String,
    /// URL of invitations, a template with the variables `token`, `tenant.slug` and `tenant.id`.
    pub link: String,
    /// Folder with mail templates by language. Default: the templates that ship with the program.
    #[serde(default)]
    #[schemars(extend("examples" = ["/etc/tenantry/mail"]))]
    pub templates: Option<PathBuf>,
}

impl Config {
    /// An outbox in this folder whose invitations lead to example.com, with everything else as shipped.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let link = "https://{{ tenant.slug }}.example.com/join#{{ token }}".to_owned();
        Self { folder: folder.into(), from: sender(), product: product(), link, templates: None }
    }
}

fn sender() -> String {
    "Tenantry <no-reply@example.com>".to_owned()
}

fn product() -> String {
    "Tenantry".to_owned()
}
