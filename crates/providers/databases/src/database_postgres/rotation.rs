//! Rotation on PostgreSQL: the login whose turn it is gets a new password, in one transaction with the line that says so; the
//! other one is let in until it is retired. Refuses what is not complete, or somebody else's.

use sqlx::{Connection as _, PgConnection};
use tenantry_model::Failure;
use tenantry_model::id::OperationId;

use super::credential::{Handed, Handout};
use super::directory::{Found, Owner, State};
use super::failure::failure;
use super::fence::shuts_out;
use super::home::name_taken;
use super::logins::Rotation;
use super::name::Name;
use super::role::{self, end_sessions, let_in};
use super::server::{Server, make, run};
use crate::tables::literal;
use tenantry_provider::rotate::Former;

/// Where a tenant's logins find its tables, if they have to be told: in this schema of the server's main database.
pub type Tables<'a> = Option<&'a str>;

/// Gives a tenant's applications another password, once for the operation that asks.
pub async fn rotate(
    server: &Server,
    owner: &Owner,
    handout: &Handout,
    limit: u16,
    tables: Tables<'_>,
    former: Former,
) -> Result<Handed, Failure> {
    let mut turn = server.turn(&owner.word()).await?;
    let state = match owner.look(&mut turn).await? {
        Found::Foreign => return Err(name_taken()),
        Found::Ours(state) if state.completed.is_some() && owner.logins(&state).all(|it| it.is.is_some()) => {
            state
        }
        Found::Ours(_) | Found::Nothing => {
            let message = "what the login leads to is not there as a whole: repair the tenant first";
            return Err(Failure::fatal("not_complete", message));
        }
    };
    let done = state.rotation.as_ref().is_some_and(|rotation| rotation.by == handout.operation());
    let second = state.rotation.as_ref().is_some_and(|rotation| rotation.second) == done;
    let (newest, other) = if second { (&owner.second, &owner.name) } else { (&owner.name, &owner.second) };
    let handed = handout.rotated(newest.clone(), done.then_some(&state));
    if !done {
        let by = handout.operation().to_owned();
        let former_stays = former == Former::Stays;
        let rotation = Rotation { second, former_stays, by: by.clone(), made_by: by };
        let then = State { rotation: Some(rotation), ..state.clone() };
        let there = if second { state.second } else { state.role };
        let mut sql = match (handout.password(), there) {
            (Some(password), Some(_)) => role::renew(newest, password),
            (password, _) => {
                role::create(newest, &owner.claim, password, limit, server.is_superuser().await?)
            }
        };
        sql.push_str(&owner.bind());
        if let Some(schema) = tables {
            sql.push_str(&owner.finds(&then, server.database(), schema));
        }
        if shuts_out(state.fence) {
            sql.push_str(&let_in(newest, false));
        }
        if former == Former::Ends {
            sql.push_str(&role::revoke(other));
        }
        sql.push_str(&owner.note(&then, handed.made()));
        let mut transaction = turn.begin().await.map_err(failure)?;
        make(&mut transaction, sql).await?;
        transaction.commit().await.map_err(failure)?;
    }
    // Nobody has the new password before this returns, so whoever is in by this login has an older one.
    end_sessions(&mut turn, newest).await?;
    if former == Former::Ends {
        end_sessions(&mut turn, other).await?;
    }
    Ok(handed)
}

/// Ends the former password of a tenant, if this operation made it that. Answers whose it was.
pub async fn retire(server: &Server, owner: &Owner, operation: OperationId) -> Result<Option<Name>, Failure> {
    let mut turn = server.turn(&owner.word()).await?;
    let state = match owner.look(&mut turn).await? {
        Found::Foreign => return Err(name_taken()),
        Found::Nothing => return Ok(None),
        Found::Ours(state) => state,
    };
    let Some(rotation) = state.rotation.as_ref().filter(|it| it.by == operation.to_string()) else {
        return Ok(None);
    };
    let (former, there) = match rotation.second {
        true => (&owner.name, state.role),
        false => (&owner.second, state.second),
    };
    if there.is_some() {
        retire_login(&mut turn, owner, former).await?;
    }
    Ok(Some(former.clone()))
}

async fn retire_login(connection: &mut PgConnection, owner: &Owner, former: &Name) -> Result<(), Failure> {
    let retired = format!(
        "{}UPDATE tenantry.logins SET former_stays = false WHERE name = {};",
        role::revoke(former),
        literal(owner.second.as_str())
    );
    // One message is one transaction.
    run(connection, retired).await?;
    end_sessions(connection, former).await
}

impl Owner {
    /// The statements that note a rotation, with its password until the registry has that.
    fn note(&self, state: &State, sealed: Option<&str>) -> String {
        let Some(Rotation { former_stays, by, made_by, .. }) = &state.rotation else { return String::new() };
        let newest = self.newest(state).name;
        let [list, tenant, second, newest, by, made_by] =
            [self.isolation.as_str(), &self.tenant, self.second.as_str(), newest.as_str(), by, made_by]
                .map(literal);
        let sealed = sealed.map_or("NULL".to_owned(), literal);
        format!(
            "INSERT INTO tenantry.logins (name, isolation, tenant_id, newest, former_stays, rotated_by, made_by)
             VALUES ({second}, {list}, {tenant}, {newest}, {former_stays}, {by}, {made_by})
             ON CONFLICT (name) DO UPDATE SET newest = excluded.newest, former_stays = excluded.former_stays,
                                              rotated_by = excluded.rotated_by, made_by = excluded.made_by;
             UPDATE tenantry.homes SET sealed = {sealed} WHERE isolation = {list} AND tenant_id = {tenant};"
        )
    }
}
