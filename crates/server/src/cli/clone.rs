//! `tenantry tenant clone`: what is asked for, out of options.

use clap::Args;
use serde_json::{Value, json};
use tenantry_provider::masks::{Mask, MaskRule};

#[derive(Debug, Args)]
pub struct Clone {
    /// The id or slug of the tenant that is cloned
    pub tenant: String,
    /// E-mail address of who gets into the clone
    #[arg(long, value_name = "EMAIL")]
    admin: String,
    /// The clone's slug [default: made from its name]
    #[arg(long)]
    slug: Option<String>,
    /// The clone's name [default: the tenant's, with ` (clone)`]
    #[arg(long)]
    name: Option<String>,
    /// A column to mask besides those of the template, such as `tasks.title=hash`; MASK is `nullify`, `fixed:VALUE`, `hash`
    /// or `email`; may be given more than once
    #[arg(long = "mask", value_name = "TABLE.COLUMN=MASK", value_parser = mask)]
    masks: Vec<MaskRule>,
    /// Bring files along; no mask is laid over them
    #[arg(long)]
    files: bool,
    /// Wait until it is active, and show the progress
    #[arg(long)]
    pub wait: bool,
}

impl Clone {
    /// The request.
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
    let (table, column, how) = split().ok_or("must look like tasks.title=hash")?;
    let (mask, value) = match how.split_once(':') {
        Some(("fixed", value)) => (Mask::Fixed, Some(value.to_owned())),
        _ if how == "nullify" => (Mask::Nullify, None),
        _ if how == "hash" => (Mask::Hash, None),
        _ if how == "email" => (Mask::Email, None),
        _ => return Err(format!("`{how}` is no mask; there are nullify, fixed:VALUE, hash and email")),
    };
    Ok(MaskRule { table: table.to_owned(), column: column.to_owned(), mask, value })
}
