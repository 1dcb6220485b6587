//! Tenants, living and gone. A tombstone keeps its row without personal data.

use sea_orm::FromQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Stamp;

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

/// A tenant as lists show it: without what is sealed, hashed or for the engine alone, which is most of a row.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Deserialize)]
pub struct Listed {
    /// Its id, `ten_…`.
    pub id: String,
    /// DNS label; null after erasure.
    pub slug: Option<String>,
    /// Name; null after erasure.
    pub name: Option<String>,
    /// The plan's name.
    pub plan: String,
    /// A word of `TenantStatus`.
    pub status: String,
    /// Where its resources are.
    pub region: String,
    /// Raised by every change; compare-and-set and ETag.
    pub version: i64,
    /// Labels, an object of texts.
    pub labels: Json,
    /// Why the last operation failed.
    pub last_error: Option<Json>,
    /// When it signed up.
    pub created_at: Stamp,
    /// When it became active first.
    pub activated_at: Option<Stamp>,
    /// Why it is suspended, or will be once it is active: `Suspensions`.
    pub suspensions: Json,
    /// When it was suspended, while it is.
    pub suspended_at: Option<Stamp>,
    /// When it was gone.
    pub deprovisioned_at: Option<Stamp>,
    /// The tenant that it is a clone of.
    pub cloned_from: Option<String>,
}

impl Listed {
    /// What it is read from.
    pub const COLUMNS: [Column; 15] = [
        Column::Id,
        Column::Slug,
        Column::Name,
        Column::Plan,
        Column::Status,
        Column::Region,
        Column::Version,
        Column::Labels,
        Column::LastError,
        Column::CreatedAt,
        Column::ActivatedAt,
        Column::Suspensions,
        Column::SuspendedAt,
        Column::DeprovisionedAt,
        Column::ClonedFrom,
    ];
}

impl From<Model> for Listed {
    fn from(row: Model) -> Self {
        Self {
            id: row.id,
            slug: row.slug,
            name: row.name,
            plan: row.plan,
            status: row.status,
            region: row.region,
            version: row.version,
            labels: row.labels,
            last_error: row.last_error,
            created_at: row.created_at,
            activated_at: row.activated_at,
            suspensions: row.suspensions,
            suspended_at: row.suspended_at,
            deprovisioned_at: row.deprovisioned_at,
            cloned_from: row.cloned_from,
        }
    }
}

/// No relations: rows are joined by the reads that need it.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
