//! Tenants, living and gone. A tombstone keeps its row without personal data.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::store::Stamp;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    /// Its id, `ten_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// DNS label; null after erasure.
    pub slug: Option<String>,
    /// HMAC of the slug: unique for ever, also after erasure (design §5).
    pub slug_mac: String,
    /// Name; null after erasure.
    pub name: Option<String>,
    /// HMAC of the name without regard to case: unique among living tenants (S4.48).
    pub name_mac: String,
    /// The plan's name.
    pub plan: String,
    /// The template that it was made from.
    pub template: String,
    /// Version of that template.
    pub template_version: i32,
    /// A word of `TenantStatus`.
    pub status: String,
    /// Where its resources are.
    pub region: String,
    /// BCP 47 language.
    pub locale: String,
    /// Raised by every change; compare-and-set and ETag.
    pub version: i64,
    /// Labels, an object of texts.
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Json,
    /// The first administrator, a sealed `Person`.
    pub admin_sealed: Option<String>,
    /// Why the last operation failed.
    #[sea_orm(column_type = "JsonBinary")]
    pub last_error: Option<Json>,
    /// When it signed up.
    pub created_at: Stamp,
    /// When it became active first.
    pub activated_at: Option<Stamp>,
    /// Why it is suspended, or will be once it is active: `Suspensions`.
    #[sea_orm(column_type = "JsonBinary")]
    pub suspensions: Json,
    /// The grade that fences are to deny, if any.
    pub denied: Option<String>,
    /// The grade that every fence of its resources denies.
    pub fenced: Option<String>,
    /// When it was suspended, while it is.
    pub suspended_at: Option<Stamp>,
    /// When it was gone.
    pub deprovisioned_at: Option<Stamp>,
    /// The tenant that it is a clone of.
    pub cloned_from: Option<String>,
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
