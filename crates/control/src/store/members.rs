//! Reads of members and their sign-in codes, for the sign-in; the identity provider reads its rows by itself.

use sea_orm::EntityTrait as _;

use super::entity::{member, sign_in_code};
use super::{ReadError, Store};

impl Store {
    /// A member.
    pub async fn member(&self, id: &str) -> Result<Option<member::Model>, ReadError> {
        Ok(member::Entity::find_by_id(id).one(self.reads()).await?)
    }

    /// The one-time sign-in code with this hash, used or not.
    pub async fn sign_in_code(&self, hash: &str) -> Result<Option<sign_in_code::Model>, ReadError> {
        Ok(sign_in_code::Entity::find_by_id(hash).one(self.reads()).await?)
    }
}
