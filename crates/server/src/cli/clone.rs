//! `tenantry tenant clone`: its options and the request they make.

use clap::Args;
use serde_json::{Value, json};
use tenantry_provider::masks::{Mask, MaskRule};

#[derive(Debug, Args)]
pub struct Clone {
    /// Tenant id or slug of the original
    pub tenant: String,
    /// E-mail address of the clone's first administrator
    #[arg(long, value_name = "EMAIL")]
    admin: String,
    /// Slug of the clone [default: derived from its name]
    #[arg(long)]
    slug: Option<String>,
    /// Name of the clone [default: the original's name with ` (clone)`]
    #[arg(long)]
    name: Option<String>,
    /// Column to mask in addition to the template's, such as `tasks.title=hash`; MASK is `nullify`,
    /// `fixed:VALUE`, `hash` or `email`; repeatable
    #[arg(long = "mask", value_name = "TABLE.COLUMN=MASK", value_parser = mask)]
    masks: Vec<MaskRule>,
    /// Copy files too; files are not masked
    #[arg(long)]
    files: bool,
    /// Wait until the clone is active and show progress
    #[arg(long)]
    pub wait: bool,
}

impl Clone {
    /// The request's body.
    pub fn document(&self) -> Value {
        let Self { admin, slug, name, masks, files, .. } = self;
        json!({
            "tenant_name": name, "slug": slug, "admin_user": { "email": admin }, "masks": masks, "files": files,
        })
    }
}

fn mask(text: &str) -> Result<MaskRule, String> {
    let split = || {
        let (column, mask) = text.split_once('=')?;
        let (table, column) = column.rsplit_once('.')?;
        Some((table, column, mask))
    };
    let (table, column, how) = split().ok_or("expected TABLE.COLUMN=MASK, such as tasks.title=hash")?;
    let (mask, value) = match how.split_once(':') {
        Some(("fixed", value)) => (Mask::Fixed, Some(value.to_owned())),
        _ if how == "nullify" => (Mask::Nullify, None),
        _ if how == "hash" => (Mask::Hash, None),
        _ if how == "email" => (Mask::Email, None),
        _ => return Err(format!("`{how}` is not a mask; masks are nullify, fixed:VALUE, hash and email")),
    };
    Ok(MaskRule { table: table.to_owned(), column: column.to_owned(), mask, value })
}
