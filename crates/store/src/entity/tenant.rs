//! Tenants, living and gone. A tombstone keeps its row without personal data.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A tenant.
    Model = "tenants" ("id") {
        /// Its id, `ten_…`.
        id: String,
        /// DNS label; null after erasure.
        slug: Option<String>,
        /// HMAC of the slug: unique for ever, also after erasure.
        slug_mac: String,
        /// Name; null after erasure.
        name: Option<String>,
        /// HMAC of the name without regard to case: unique among living tenants.
        name_mac: String,
        /// The plan's name.
        plan: String,
        /// The template that it was made from.
        template: String,
        /// Version of that template.
        template_version: i32,
        /// A word of `TenantStatus`.
        status: String,
        /// Region of its resources.
        region: String,
        /// BCP 47 language.
        locale: String,
        /// Raised by every change; compare-and-set and ETag.
        version: i64,
        /// Labels, an object of texts.
        labels: Json,
        /// The first administrator, a sealed `Person`.
        admin_sealed: Option<String>,
        /// Why the last operation failed.
        last_error: Option<Json>,
        /// When it signed up.
        created_at: Stamp,
        /// When it became active first.
        activated_at: Option<Stamp>,
        /// Why it is suspended, or will be once it is active: `Suspensions`.
        suspensions: Json,
        /// The mode that fences are to deny, if any.
        denied: Option<String>,
        /// The mode that every fence of its resources denies.
        fenced: Option<String>,
        /// When it was suspended, while it is.
        suspended_at: Option<Stamp>,
        /// When it was gone.
        deprovisioned_at: Option<Stamp>,
        /// The tenant that it is a clone of.
        cloned_from: Option<String>,
    }
}

table! {
    /// A tenant as lists show it: without what is sealed, hashed or for the engine alone, which is most of a row.
    Listed = "tenants" ("id") {
        /// Its id, `ten_…`.
        id: String,
        /// DNS label; null after erasure.
        slug: Option<String>,
        /// Name; null after erasure.
        name: Option<String>,
        /// The plan's name.
        plan: String,
        /// A word of `TenantStatus`.
        status: String,
        /// Region of its resources.
        region: String,
        /// Raised by every change; compare-and-set and ETag.
        version: i64,
        /// Labels, an object of texts.
        labels: Json,
        /// Why the last operation failed.
        last_error: Option<Json>,
        /// When it signed up.
        created_at: Stamp,
        /// When it became active first.
        activated_at: Option<Stamp>,
        /// Why it is suspended, or will be once it is active: `Suspensions`.
        suspensions: Json,
        /// When it was suspended, while it is.
        suspended_at: Option<Stamp>,
        /// When it was gone.
        deprovisioned_at: Option<Stamp>,
        /// The tenant that it is a clone of.
        cloned_from: Option<String>,
    }
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
