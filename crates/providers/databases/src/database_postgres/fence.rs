//! Fences on PostgreSQL: the access row that policies read, the tenant's login, its rights in tables of its own, and its
//! sessions.

use sqlx::{Connection as _, PgConnection};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, Isolation};

use super::directory::{Found, Owner};
use super::failure::failure;
use super::home::name_taken;
use super::rights::rights;
use super::server::{Server, close, run};
use tenantry_provider::fence::Order;

/// Where the tables are in a database of a tenant's own.
const PUBLIC: &str = "public";

/// Whether the login role is shut out.
pub const fn shuts_out(grade: Option<Grade>) -> bool {
    matches!(grade, Some(Grade::NoLogin | Grade::Blocked))
}

/// Carries an order out.
pub async fn fence(server: &Server, owner: &Owner, order: &Order) -> Result<(), Failure> {
    let name = &owner.name;
    let mut turn = server.turn(&owner.word()).await?;
    let state = match owner.look(&mut turn).await? {
        Found::Ours(state) if state.listed => state,
        Found::Foreign => return Err(name_taken()),
        // What is only begun is not handed out.
        Found::Ours(_) | Found::Nothing => return Ok(()),
    };
    let mut transaction = turn.begin().await.map_err(failure)?;
    if !owner.admit(&mut transaction, order.grade, order.version).await? {
        return Ok(());
    }
    let mut sql = owner.let_in(&state, !shuts_out(order.grade));
    if owner.isolation == Isolation::Schema && state.thing {
        sql.push_str(&rights(name.as_str(), name, order.grade));
    }
    run(&mut transaction, sql).await?;
    transaction.commit().await.map_err(failure)?;
    if owner.isolation == Isolation::Database && state.thing {
        let mut inside = server.connect_to(name).await?;
        run(&mut inside, rights(PUBLIC, name, order.grade)).await?;
        close(inside).await?;
    }
    if shuts_out(order.grade) {
        owner.end_sessions(&mut turn, &state).await?;
    }
    Ok(())
}

/// What is denied of what stands, by the access row.
pub async fn denies(server: &Server, owner: &Owner) -> Result<Option<Grade>, Failure> {
    match owner.look(&mut *server.connection().await?).await? {
        Found::Ours(state) => Ok(state.fence),
        Found::Foreign => Err(name_taken()),
        Found::Nothing => Ok(None),
    }
}

impl Owner {
    /// Puts the grade into the access row. False: a newer order has been there.
    async fn admit(
        &self,
        connection: &mut PgConnection,
        grade: Option<Grade>,
        version: i64,
    ) -> Result<bool, Failure> {
        let done = sqlx::query(
            "UPDATE tenantry.homes SET access = $4, access_version = $5
             WHERE isolation = $1 AND tenant_id = $2 AND claim = $3 AND access_version <= $5",
        )
        .bind(self.isolation.as_str())
        .bind(&self.tenant)
        .bind(&self.claim)
        .bind(grade.map_or("full", Grade::as_str))
        .bind(version)
        .execute(connection)
        .await
        .map_err(failure)?;
        Ok(done.rows_affected() > 0)
    }
}
