//! What the three checks of isolation share: the tenant that is made for a check, what its login tries, and what the
//! catalogue says of roles and rights. Each provider says which of it applies to its tenants.

mod login;
mod rights;
mod roles;

use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation};

use super::Postgres;
use super::credential::Handout;
use super::directory::Owner;
use super::name::Name;
use super::server::Server;
use crate::content::Ensure;
use tenantry_provider::passwords;

pub(crate) use login::{Login, enter, large_objects};
pub(crate) use rights::{default_privileges, of_neighbours, public_grants};
pub(crate) use roles::{application, tenants};

/// The mark of what is made for a check.
const CLAIM: &str = "tenantry: the isolation check";

/// A tenant that is made for a check as every tenant is, and removed after it. One that a dead process left behind is
/// taken over: it has the same name, and gets another password.
pub(crate) struct Prober {
    /// Who it is.
    pub owner: Owner,
    /// What is made: no rows.
    pub work: Ensure,
    /// Its password, which nobody else knows.
    pub password: String,
}

impl Prober {
    /// The one of this server's main database.
    pub fn new(postgres: &Postgres, server: &Server, isolation: Isolation) -> Result<Self, Failure> {
        let digest = hex::encode(Sha256::digest(format!("{isolation:?} {}", server.database())));
        let name = format!("tenantry_prober_{}", digest.get(..16).unwrap_or_default());
        let canary = postgres.content.canary()?;
        let tenant = "tenantry_prober".to_owned();
        let work = Ensure { tenant, claim: CLAIM.to_owned(), rows: Vec::new(), ..canary };
        Ok(Self { owner: Owner::of(isolation, &name, &work)?, work, password: passwords::random() })
    }

    /// Gives its role the password.
    pub fn handout(&self) -> Handout {
        Handout::told(self.password.clone())
    }

    /// The name of its role.
    pub fn role(&self) -> &Name {
        &self.owner.name
    }
}
