//! Reads of members, their invitations and sign-in codes, for the sign-in; the identity provider reads its rows by itself.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use super::entity::{invitation, member, sign_in_code};
use super::{ReadError, Store};

impl Store {
    /// A member.
    pub async fn member(&self, id: &str) -> Result<Option<member::Model>, ReadError> {
        Ok(member::Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// The member of a tenant with this digest of an e-mail address.
    pub async fn member_by_email(
        &self,
        tenant: &str,
        email_mac: &str,
    ) -> Result<Option<member::Model>, ReadError> {
        Ok(member::Entity::find()
            .filter(member::Column::TenantId.eq(tenant))
            .filter(member::Column::EmailMac.eq(email_mac))
            .one(self.reads())
            .await?)
    }

    /// The invitation whose token has this hash, accepted or not.
    pub async fn invitation(&self, token_hash: &str) -> Result<Option<invitation::Model>, ReadError> {
        let query = invitation::Entity::find().filter(invitation::Column::TokenHash.eq(token_hash));
        Ok(query.one(self.reads()).await?)
    }

    /// The one-time sign-in code with this hash, used or not.
    pub async fn sign_in_code(&self, hash: &str) -> Result<Option<sign_in_code::Model>, ReadError> {
        Ok(sign_in_code::Entity::find_by_id(hash).one(self.reads()).await?)
    }
}
