//! What the three isolation checks share: the probe tenant that a check creates, what its login attempts, and
//! queries for roles and privileges. Each provider combines what applies to it.

mod login;
mod obstruction;
mod rights;
mod roles;

use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation, TenantId};
use uuid::Uuid;

use super::Postgres;
use super::credential::PasswordRequest;
use super::directory::Owner;
use super::name::Name;
use super::server::Server;
use crate::content::Ensure;
use tenantry_provider::passwords;

pub(crate) use login::{ProbeSession, WrittenTable, large_objects, probe_connect};
pub(crate) use obstruction::{OBSTRUCTIONS, obstructions};
pub(crate) use rights::{default_privileges, other_objects, privileges_on_others, public_grants};
pub(crate) use roles::{application_roles, tenant_roles};

/// The probe tenant's id. It lies before the id of any real tenant.
const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));
/// Owner tag of the probe tenant.
const OWNER_TAG: &str = "tenantry: the isolation check";

/// A tenant that a check creates like any other and removes at its end. One that a dead process left is
/// reused: it has the same name, and gets a new password.
pub(crate) struct ProbeTenant {
    /// The probe tenant.
    pub owner: Owner,
    /// The rows to write: none.
    pub work: Ensure,
    /// Its password, known to this check only.
    pub password: String,
}

impl ProbeTenant {
    /// The probe tenant of this server's main database.
    pub fn new(postgres: &Postgres, server: &Server, isolation: Isolation) -> Result<Self, Failure> {
        let digest = hex::encode(Sha256::digest(format!("{isolation:?} {}", server.database())));
        let name = format!("tenantry_prober_{}", digest.get(..16).unwrap_or_default());
        let canary = postgres.content.canary()?;
        let work =
            Ensure { tenant: TENANT.to_string(), tag: OWNER_TAG.to_owned(), rows: Vec::new(), ..canary };
        Ok(Self { owner: Owner::of(isolation, &name, &work)?, work, password: passwords::random() })
    }

    /// Requests that the login gets this password.
    pub fn request(&self) -> PasswordRequest {
        PasswordRequest::fixed(self.password.clone())
    }

    /// The name of its role.
    pub fn role(&self) -> &Name {
        &self.owner.name
    }
}
