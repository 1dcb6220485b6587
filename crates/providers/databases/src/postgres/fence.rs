//! Applies fences on PostgreSQL: the access that policies read, the tenant's logins, their privileges on
//! tables of the tenant's own, and open sessions.

use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation};
use tenantry_postgres::Session;

use super::directory::{Owner, Ownership};
use super::failure::failure;
use super::location::name_taken;
use super::rights::rights;
use super::server::{Server, run};
use tenantry_provider::fence::Order;

/// Schema of the tables in a tenant's own database.
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
    let mut transaction = lock.begin().await.map_err(failure)?;
    if !owner.record_access(&mut transaction, order.mode, order.version).await? {
        return Ok(());
    }
    let mut sql = owner.set_logins(&state, !shuts_out(order.mode));
    if owner.isolation == Isolation::Schema && state.thing {
        sql.push_str(&rights(name.as_str(), name, order.mode));
    }
    run(&mut transaction, sql).await?;
    transaction.commit().await.map_err(failure)?;
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
    /// Records the mode in the tenant's row. False: a newer order was applied before.
    async fn record_access(
        &self,
        connection: &mut Session,
        mode: Option<SuspensionMode>,
        version: i64,
    ) -> Result<bool, Failure> {
        let done = connection
            .execute(
                "UPDATE tenantry.homes SET access = $4, access_version = $5
             WHERE isolation = $1 AND tenant_id = $2 AND claim = $3 AND access_version <= $5",
                &[
                    &self.isolation.as_str(),
                    &self.tenant,
                    &self.tag,
                    &mode.map_or("full", SuspensionMode::as_str),
                    &version,
                ],
            )
            .await
            .map_err(failure)?;
        Ok(done > 0)
    }
}
