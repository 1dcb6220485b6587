//! Reads of members, their invitations and sign-in codes by what a client presents. Writes are those of the control plane.

use super::entity::{invitation, member, sign_in_code};
use super::query::Query;
use super::{ReadError, Store};

impl Store {
    /// A member.
    pub async fn member(&self, id: &str) -> Result<Option<member::Model>, ReadError> {
        self.reads().one(Query::of::<member::Model>().filter("id = ?", id)).await
    }

    /// The member of a tenant with this digest of an e-mail address.
    pub async fn member_by_email(
        &self,
        tenant: &str,
        email_mac: &str,
    ) -> Result<Option<member::Model>, ReadError> {
        let query = Query::of::<member::Model>().filter("tenant_id = ?", tenant);
        self.reads().one(query.filter("email_mac = ?", email_mac)).await
    }

    /// The invitation whose token has this hash, accepted or not.
    pub async fn invitation(&self, token_hash: &str) -> Result<Option<invitation::Model>, ReadError> {
        self.reads().one(Query::of::<invitation::Model>().filter("token_hash = ?", token_hash)).await
    }

    /// The one-time sign-in code with this hash, used or not.
    pub async fn sign_in_code(&self, hash: &str) -> Result<Option<sign_in_code::Model>, ReadError> {
        self.reads().one(Query::of::<sign_in_code::Model>().filter("hash = ?", hash)).await
    }
}
