//! A tenant's login roles. The first has the tenant's name and all its privileges. PostgreSQL keeps one
//! password per role, so the first rotation creates a second login, a member of the first, whose sessions act
//! as the first. Rotations alternate between the two; the other one, the former, can log in until it is
//! retired.

use tenantry_model::{Failure, Isolation};
use tenantry_postgres::Session;

use super::blockers::change_logins;
use super::credential::PasswordRequest;
use super::directory::{Owner, TenantState};
use super::fence::shuts_out;
use super::name::Name;
use super::owned::drop_owned;
use super::prepared;
use super::role::{self, Memberships, end_sessions, set_login};
use super::server::Server;
use crate::tables::{literal, quoted};

/// One row for every tenant whose password was rotated. `newest` is the login role with the newest password
/// and `made_by` the operation that hands it out; `former_stays` says whether the other login is allowed, and
/// `rotated_by` names the operation that rotated.
pub const TABLE: &str = "
CREATE TABLE IF NOT EXISTS tenantry.logins (
    name         text PRIMARY KEY,
    isolation    text NOT NULL,
    tenant_id    text NOT NULL,
    newest       text NOT NULL,
    former_stays boolean NOT NULL,
    rotated_by   text NOT NULL,
    made_by      text NOT NULL,
    UNIQUE (isolation, tenant_id),
    FOREIGN KEY (isolation, tenant_id) REFERENCES tenantry.homes ON DELETE CASCADE
)";

/// A tenant's last password rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Whether the second login has the newest password.
    pub second: bool,
    /// Whether the other login is still allowed.
    pub former_stays: bool,
    /// The operation that rotated it.
    pub by: String,
    /// The operation that hands out the newest password.
    pub made_by: String,
}

/// One of a tenant's two logins: actual and desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Role name.
    pub name: Name,
    /// Whether it may log in, apart from a fence; none if the role is missing.
    pub is: Option<bool>,
    /// Whether it should be allowed to log in, apart from a fence.
    pub may: bool,
    /// Whether it has the newest password.
    pub is_newest: bool,
}

/// Name of a resource's second login. No planned name looks like it.
pub fn second(resource: &str) -> Result<Name, Failure> {
    Name::new(&format!("tenantry_login_{}", resource.trim_start_matches("res_")))
}

impl Owner {
    /// The tenant's logins: the first, and the second if there is one or should be.
    pub fn logins(&self, state: &TenantState) -> impl Iterator<Item = Login> {
        let (first, second) = self.both(state);
        std::iter::once(first).chain(second)
    }

    /// The login with the newest password.
    pub fn newest(&self, state: &TenantState) -> Login {
        let (first, second) = self.both(state);
        second.filter(|second| second.is_newest).unwrap_or(first)
    }

    fn both(&self, state: &TenantState) -> (Login, Option<Login>) {
        let rotation = state.rotation.as_ref();
        let second_is_newest = rotation.is_some_and(|rotation| rotation.second);
        let former_stays = rotation.is_some_and(|rotation| rotation.former_stays);
        let login = |name: &Name, can: Option<bool>, is_newest: bool| {
            let may = is_newest || former_stays;
            let is = can.map(|can| can || may && shuts_out(state.fence));
            Login { name: name.clone(), is, may, is_newest }
        };
        let has_second = rotation.is_some() || state.second.is_some();
        let second = has_second.then(|| login(&self.second, state.second, second_is_newest));
        (login(&self.name, state.role, !second_is_newest), second)
    }

    /// The logins that exist.
    pub fn existing(&self, state: &TenantState) -> impl Iterator<Item = Login> {
        self.logins(state).filter(|login| login.is.is_some())
    }

    /// The role whose privileges all its logins have, if it exists.
    pub fn right_holder(&self, state: &TenantState) -> Option<&Name> {
        state.role.map(|_| &self.name)
    }

    /// The statements that create missing logins and correct existing ones; empty if they are as they should
    /// be.
    pub async fn roles(
        &self,
        server: &Server,
        state: &TenantState,
        request: &PasswordRequest,
        limit: u16,
    ) -> Result<String, Failure> {
        let mut sql = String::new();
        let memberships = server.memberships().await?;
        for login in self.logins(state) {
            let password = request.needed(self, state).filter(|_| login.is_newest);
            match (login.is, password) {
                (None, password) => {
                    sql.push_str(&role::create(&login.name, &self.tag, password, limit, memberships));
                }
                (Some(_), Some(password)) => sql.push_str(&role::renew(&login.name, password)),
                (Some(_), None) => {}
            }
            if !login.is_newest && login.is != Some(login.may) {
                sql.push_str(&set_login(&login.name, login.may));
            }
            if login.name == self.second {
                sql.push_str(&self.grant_second(memberships));
            }
            if shuts_out(state.fence) {
                sql.push_str(&set_login(&login.name, false));
            }
        }
        if state.rotation.is_some() {
            sql.push_str(&request.record_issuer(self, state));
        }
        Ok(sql)
    }

    /// The statements that give the second login the first's privileges. Objects that it creates belong to
    /// the first as well.
    pub fn grant_second(&self, memberships: Memberships) -> String {
        let (first, second) = (&self.name, &self.second);
        let name = literal(first.as_str());
        let grant = memberships.grant(first, second);
        format!("{grant}ALTER ROLE {second} SET role = {name};")
    }

    /// The statements that give the logins this search path in this database.
    pub fn search_paths(&self, state: &TenantState, database: &str, path: &str) -> String {
        let database = quoted(database);
        let find = |login: Login| format!("ALTER ROLE {} IN DATABASE {database} SET {path};", login.name);
        self.logins(state).map(find).collect()
    }

    /// Forbids all its logins, terminates their sessions, rolls back what they have prepared, and drops what they own
    /// beside the tenant's tables. Returns the number of logins.
    pub async fn shut_out(
        &self,
        server: &Server,
        connection: &mut Session,
        state: &TenantState,
    ) -> Result<usize, Failure> {
        let there: Vec<Login> = self.existing(state).collect();
        let own = (self.isolation == Isolation::Database).then_some(&self.name);
        for login in &there {
            change_logins(server, connection, &[&login.name], set_login(&login.name, false)).await?;
            end_sessions(connection, &login.name).await?;
            prepared::roll_back_of(server, connection, &login.name).await?;
            drop_owned(server, connection, &login.name, own).await?;
        }
        Ok(there.len())
    }

    /// Terminates the sessions of all its logins, and rolls back what they have prepared.
    pub async fn end_sessions(
        &self,
        server: &Server,
        connection: &mut Session,
        state: &TenantState,
    ) -> Result<(), Failure> {
        for login in self.existing(state) {
            end_sessions(connection, &login.name).await?;
            prepared::roll_back_of(server, connection, &login.name).await?;
        }
        Ok(())
    }

    /// The statements that allow the logins that should be, or forbid all.
    pub fn set_logins(&self, state: &TenantState, allowed: bool) -> String {
        self.existing(state).map(|login| set_login(&login.name, login.may && allowed)).collect()
    }

    /// The statements that drop its logins.
    pub fn drop_roles(&self, state: &TenantState) -> String {
        self.existing(state).map(|login| format!("DROP ROLE {};", login.name)).collect()
    }

    /// Differences between actual and desired logins, a sentence each.
    pub fn differences(&self, state: &TenantState) -> Vec<&'static str> {
        let mut differs = Vec::new();
        for login in self.logins(state) {
            differs.extend(match login.is {
                None if login.is_newest => Some("its login role is missing"),
                None => Some("its former login role is missing"),
                Some(false) if login.is_newest => Some("its login role may not log in"),
                Some(false) if login.may => {
                    Some("its former login role may not log in, but is not retired yet")
                }
                Some(true) if !login.may => Some("its former login role may log in, but is retired"),
                Some(_) => None,
            });
        }
        if shuts_out(state.fence) && [state.role, state.second].contains(&Some(true)) {
            differs.push("its login role may log in despite its fence");
        }
        if state.second.is_some() && !state.bound {
            differs.push("its second login role has lost the privileges of the first");
        }
        differs
    }
}
