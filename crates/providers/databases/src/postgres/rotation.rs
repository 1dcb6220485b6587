//! Rotates passwords on PostgreSQL: the login that has the older one gets a new password, in one transaction
//! with its record; the other stays allowed until it is retired. Rejects a tenant that is incomplete or
//! carries another owner tag.

use tenantry_model::Failure;
use tenantry_model::id::OperationId;
use tenantry_postgres::Session;

use super::blockers::change_logins;
use super::credential::{IssuedPassword, PasswordRequest};
use super::directory::{Owner, TenantState};
use super::fence::shuts_out;
use super::location::name_taken;
use super::logins::Rotation;
use super::name::Name;
use super::role::{self, end_sessions, set_login};
use super::server::Server;
use crate::tables::literal;
use tenantry_provider::rotate::Former;
use tenantry_provider::verbs::Ownership;

/// The logins' database and their search path in it; none if they have the server's default.
pub type Path<'a> = Option<(&'a str, &'a str)>;

/// Gives the tenant a new password, once per operation.
pub async fn rotate(
    server: &Server,
    owner: &Owner,
    request: &PasswordRequest,
    limit: u16,
    path: Path<'_>,
    former: Former,
) -> Result<IssuedPassword, Failure> {
    let mut lock = server.lock(&owner.lock_name()).await?;
    let state = match owner.inspect(&mut lock).await? {
        Ownership::Foreign => return Err(name_taken()),
        Ownership::Own(state)
            if state.completed.is_some() && owner.logins(&state).all(|it| it.is.is_some()) =>
        {
            state
        }
        Ownership::Own(_) | Ownership::Absent => {
            let message = "the tenant's database is incomplete, so its password was not rotated; repair the tenant first";
            return Err(Failure::fatal("not_complete", message));
        }
    };
    let done = state.rotation.as_ref().is_some_and(|rotation| rotation.by == request.operation());
    let second = state.rotation.as_ref().is_some_and(|rotation| rotation.second) == done;
    let (newest, other) = if second { (&owner.second, &owner.name) } else { (&owner.name, &owner.second) };
    let issued = request.rotated(newest.clone(), done.then_some(&state));
    if !done {
        let by = request.operation().to_owned();
        let former_stays = former == Former::Stays;
        let rotation = Rotation { second, former_stays, by: by.clone(), made_by: by };
        let then = TenantState { rotation: Some(rotation), ..state.clone() };
        let there = if second { state.second } else { state.role };
        let memberships = server.memberships().await?;
        let mut sql = match (request.password(), there) {
            (Some(password), Some(_)) => role::renew(newest, password),
            (password, _) => role::create(newest, &owner.tag, password, limit, memberships),
        };
        sql.push_str(&owner.grant_second(memberships));
        if let Some((database, path)) = path {
            sql.push_str(&owner.search_paths(&then, database, path));
        }
        if shuts_out(state.fence) {
            sql.push_str(&set_login(newest, false));
        }
        if former == Former::Ends {
            sql.push_str(&role::revoke(other));
        }
        sql.push_str(&owner.record_rotation(&then, issued.new_password()));
        change_logins(server, &mut lock, &[newest, other], sql).await?;
    }
    // The new password is not handed out yet, so existing sessions of this login used an older one.
    end_sessions(&mut lock, newest).await?;
    if former == Former::Ends {
        end_sessions(&mut lock, other).await?;
    }
    Ok(issued)
}

/// Revokes the tenant's former password, if this operation made it the former one. Returns its login.
pub async fn retire(server: &Server, owner: &Owner, operation: OperationId) -> Result<Option<Name>, Failure> {
    let mut lock = server.lock(&owner.lock_name()).await?;
    let state = match owner.inspect(&mut lock).await? {
        Ownership::Foreign => return Err(name_taken()),
        Ownership::Absent => return Ok(None),
        Ownership::Own(state) => state,
    };
    let Some(rotation) = state.rotation.as_ref().filter(|it| it.by == operation.to_string()) else {
        return Ok(None);
    };
    let (former, there) = match rotation.second {
        true => (&owner.name, state.role),
        false => (&owner.second, state.second),
    };
    if there.is_some() {
        retire_login(server, &mut lock, owner, former).await?;
    }
    Ok(Some(former.clone()))
}

async fn retire_login(
    server: &Server,
    connection: &mut Session,
    owner: &Owner,
    former: &Name,
) -> Result<(), Failure> {
    let retired = format!(
        "{}UPDATE tenantry.logins SET former_stays = false WHERE name = {};",
        role::revoke(former),
        literal(owner.second.as_str())
    );
    change_logins(server, connection, &[former], retired).await?;
    end_sessions(connection, former).await
}

impl Owner {
    /// The statements that record a rotation, with its sealed password until the registry has it.
    fn record_rotation(&self, state: &TenantState, sealed: Option<&str>) -> String {
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
