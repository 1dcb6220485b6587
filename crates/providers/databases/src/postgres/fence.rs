//! Applies fences on PostgreSQL: the access that policies read, the tenant's logins, their privileges on
//! tables of the tenant's own, and open sessions.

use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation};
use tenantry_postgres::Session;

use super::blockers::change_logins;
use super::directory::Owner;
use super::failure::failure;
use super::location::name_taken;
use super::rights::rights;
use super::server::{Server, run};
use crate::tables::literal;
use tenantry_provider::fence::Order;
use tenantry_provider::verbs::Ownership;

/// Main schema of a tenant's own database.
const PUBLIC: &str = "public";

/// Whether this mode forbids logins.
pub const fn shuts_out(mode: Option<SuspensionMode>) -> bool {
    matches!(mode, Some(SuspensionMode::NoLogin | SuspensionMode::Blocked))
}

/// Applies an order.
pub async fn fence(server: &Server, owner: &Owner, order: &Order) -> Result<(), Failure> {
    let name = &owner.name;
    let mut lock = server.lock(&owner.lock_name()).await?;
    let state = match owner.inspect(&mut lock).await? {
        Ownership::Own(state) if state.listed => state,
        Ownership::Foreign => return Err(name_taken()),
        // A tenant that is not listed yet has no clients.
        Ownership::Own(_) | Ownership::Absent => return Ok(()),
    };
    if owner.has_newer_access(&mut lock, order.version).await? {
        return Ok(());
    }
    let mut sql = owner.record_access(order.mode, order.version);
    sql.push_str(&owner.set_logins(&state, !shuts_out(order.mode)));
    if owner.isolation == Isolation::Schema && state.thing {
        sql.push_str(&rights(name.as_str(), name, order.mode));
    }
    change_logins(server, &mut lock, &[name, &owner.second], sql).await?;
    if owner.isolation == Isolation::Database && state.thing {
        let mut inside = server.connect_to(name).await?;
        run(&mut inside, rights(PUBLIC, name, order.mode)).await?;
        inside.close().await;
    }
    if shuts_out(order.mode) {
        owner.end_sessions(server, &mut lock, &state).await?;
    }
    Ok(())
}

/// The applied fence, as the list records it.
pub async fn denies(server: &Server, owner: &Owner) -> Result<Option<SuspensionMode>, Failure> {
    match owner.inspect(&mut *server.connection().await?).await? {
        Ownership::Own(state) => Ok(state.fence),
        Ownership::Foreign => Err(name_taken()),
        Ownership::Absent => Ok(None),
    }
}

impl Owner {
    /// Whether a newer order was applied before. The caller holds the lock of the tenant's objects.
    async fn has_newer_access(&self, connection: &mut Session, version: i64) -> Result<bool, Failure> {
        connection
            .one(
                "SELECT EXISTS (SELECT FROM tenantry.homes
                 WHERE isolation = $1 AND tenant_id = $2 AND claim = $3 AND access_version > $4)",
                &[&self.isolation.as_str(), &self.tenant, &self.tag, &version],
            )
            .await
            .map_err(failure)
    }

    /// The statement that records the mode in the tenant's row.
    fn record_access(&self, mode: Option<SuspensionMode>, version: i64) -> String {
        let [isolation, tenant, claim, access] =
            [self.isolation.as_str(), &self.tenant, &self.tag, mode.map_or("full", SuspensionMode::as_str)]
                .map(literal);
        format!(
            "UPDATE tenantry.homes SET access = {access}, access_version = {version}
             WHERE isolation = {isolation} AND tenant_id = {tenant} AND claim = {claim};"
        )
    }
}
