//! Rows of the table `tenants`. A deleted tenant keeps its row without personal data.

use serde_json::Value as Json;

use crate::Stamp;
use crate::table::table;

table! {
    /// A tenant.
    Model = "tenants" ("id") {
        /// Id, `ten_…`.
        id: String,
        /// DNS label; null after erasure.
        slug: Option<String>,
        /// HMAC of the slug: unique permanently, also after erasure.
        slug_mac: String,
        /// Name; null after erasure.
        name: Option<String>,
        /// HMAC of the name without regard to case: unique among tenants that are not deleted.
        name_mac: String,
        /// Name of the plan.
        plan: String,
        /// Template of the onboarding.
        template: String,
        /// Version of that template.
        template_version: i32,
        /// `TenantStatus` as text.
        status: String,
        /// Region of its resources.
        region: String,
        /// BCP 47 language.
        locale: String,
        /// Incremented by every change; used for compare-and-set and the ETag.
        version: i64,
        /// Labels: an object whose values are strings.
        labels: Json,
        /// The request of the onboarding with the first administrator, encrypted with the tenant's key.
        admin_sealed: Option<String>,
        /// Error of the last operation, if it failed.
        last_error: Option<Json>,
        /// Time of creation.
        created_at: Stamp,
        /// Time of the first activation.
        activated_at: Option<Stamp>,
        /// Reasons and modes of the suspension, which takes effect when the tenant is active: `Suspensions`.
        suspensions: Json,
        /// Desired fence: the denied access; null for none.
        denied: Option<String>,
        /// Applied fence: the access that every resource's fence denies; null for none.
        fenced: Option<String>,
        /// Time of the suspension; null if the tenant is not suspended.
        suspended_at: Option<Stamp>,
        /// Time of the deletion.
        deprovisioned_at: Option<Stamp>,
        /// Source tenant, if this one is a clone.
        cloned_from: Option<String>,
    }
}

table! {
    /// The columns of a tenant that lists show: without encrypted, hashed and internal ones, which are most
    /// of a row.
    Listed = "tenants" ("id") {
        /// Id, `ten_…`.
        id: String,
        /// DNS label; null after erasure.
        slug: Option<String>,
        /// Name; null after erasure.
        name: Option<String>,
        /// Name of the plan.
        plan: String,
        /// `TenantStatus` as text.
        status: String,
        /// Region of its resources.
        region: String,
        /// Incremented by every change; used for compare-and-set and the ETag.
        version: i64,
        /// Labels: an object whose values are strings.
        labels: Json,
        /// Error of the last operation, if it failed.
        last_error: Option<Json>,
        /// Time of creation.
        created_at: Stamp,
        /// Time of the first activation.
        activated_at: Option<Stamp>,
        /// Reasons and modes of the suspension, which takes effect when the tenant is active: `Suspensions`.
        suspensions: Json,
        /// Time of the suspension; null if the tenant is not suspended.
        suspended_at: Option<Stamp>,
        /// Time of the deletion.
        deprovisioned_at: Option<Stamp>,
        /// Source tenant, if this one is a clone.
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
