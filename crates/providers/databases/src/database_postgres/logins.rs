//! The login roles of a tenant. The first has the tenant's name and all its rights. PostgreSQL keeps one password per role, so
//! the second is there once that was rotated: a member of the first, as which its sessions act. They take turns at having the newest
//! password; the other one, the former, is let in until it is retired. Nobody else than these two is a tenant's login.

use sqlx::PgConnection;
use tenantry_model::Failure;

use super::credential::Handout;
use super::directory::{Owner, State};
use super::fence::shuts_out;
use super::migrate;
use super::name::Name;
use super::role::{self, end_sessions, let_in, shut_out};
use super::server::Server;
use crate::tables::{literal, quoted};

/// A line for every tenant whose password was ever rotated. `newest` is the login role that has the newest password, and `made_by`
/// the operation that hands that out; `former_stays` says whether the other one is let in too, and `rotated_by` which operation did it.
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

/// How a tenant's password was rotated last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Whether the second login has the newest password.
    pub second: bool,
    /// Whether the other login is let in too.
    pub former_stays: bool,
    /// The operation that rotated it.
    pub by: String,
    /// The operation that hands the newest password out.
    pub made_by: String,
}

/// One of the two, as it is and as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The role.
    pub name: Name,
    /// Whether it is there, and may log in, but for a fence.
    pub is: Option<bool>,
    /// Whether it should be let in, but for a fence.
    pub may: bool,
    /// Whether it has the newest password.
    pub is_newest: bool,
}

/// The name of the second login of a resource, which no planned name looks like.
pub fn second(resource: &str) -> Result<Name, Failure> {
    Name::new(&format!("tenantry_login_{}", resource.trim_start_matches("res_")))
}

impl Owner {
    /// Its logins: the first, and the second if there is one or should be.
    pub fn logins(&self, state: &State) -> impl Iterator<Item = Login> {
        let (first, second) = self.both(state);
        std::iter::once(first).chain(second)
    }

    /// The login with the newest password.
    pub fn newest(&self, state: &State) -> Login {
        let (first, second) = self.both(state);
        second.filter(|second| second.is_newest).unwrap_or(first)
    }

    fn both(&self, state: &State) -> (Login, Option<Login>) {
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

    fn there(&self, state: &State) -> impl Iterator<Item = Login> {
        self.logins(state).filter(|login| login.is.is_some())
    }

    /// The role whose rights all its logins have, if it is there.
    pub fn right_holder(&self, state: &State) -> Option<&Name> {
        state.role.map(|_| &self.name)
    }

    /// The statements that make its logins, or let them in again; none if they are as they should be.
    pub async fn roles(
        &self,
        server: &Server,
        state: &State,
        handout: &Handout,
        limit: u16,
    ) -> Result<String, Failure> {
        let mut sql = String::new();
        for login in self.logins(state) {
            let password = handout.needed(self, state).filter(|_| login.is_newest);
            match (login.is, password) {
                (None, password) => {
                    let superuser = server.is_superuser().await?;
                    sql.push_str(&role::create(&login.name, &self.claim, password, limit, superuser));
                }
                (Some(_), Some(password)) => sql.push_str(&role::renew(&login.name, password)),
                (Some(_), None) => {}
            }
            if !login.is_newest && login.is != Some(login.may) {
                sql.push_str(&let_in(&login.name, login.may));
            }
            if login.name == self.second {
                sql.push_str(&self.bind());
            }
            if shuts_out(state.fence) {
                sql.push_str(&let_in(&login.name, false));
            }
        }
        if state.rotation.is_some() {
            sql.push_str(&handout.noted(self, state));
        }
        Ok(sql)
    }

    /// The statements that give the second login the rights of the first. What it makes belongs to the first as well.
    pub fn bind(&self) -> String {
        let (first, second) = (&self.name, &self.second);
        let name = literal(first.as_str());
        format!("GRANT {first} TO {second}; ALTER ROLE {second} SET role = {name};")
    }

    /// Has its logins find the tables of this schema in this database.
    pub fn finds(&self, state: &State, database: &str, schema: &str) -> String {
        let (database, path) = (quoted(database), migrate::search_path(schema));
        let find = |login: Login| format!("ALTER ROLE {} IN DATABASE {database} SET {path};", login.name);
        self.logins(state).map(find).collect()
    }

    /// Ends the sessions of all its logins, and lets them begin no others. Answers how many logins there are.
    pub async fn shut_out(&self, connection: &mut PgConnection, state: &State) -> Result<usize, Failure> {
        let there: Vec<Login> = self.there(state).collect();
        for login in &there {
            shut_out(connection, &login.name).await?;
        }
        Ok(there.len())
    }

    /// Ends the sessions of all its logins.
    pub async fn end_sessions(&self, connection: &mut PgConnection, state: &State) -> Result<(), Failure> {
        for login in self.there(state) {
            end_sessions(connection, &login.name).await?;
        }
        Ok(())
    }

    /// The statements that let in who should be, or nobody.
    pub fn let_in(&self, state: &State, anybody: bool) -> String {
        self.there(state).map(|login| let_in(&login.name, login.may && anybody)).collect()
    }

    /// The statements that drop them.
    pub fn drop_roles(&self, state: &State) -> String {
        self.there(state).map(|login| format!("DROP ROLE {};", login.name)).collect()
    }

    /// How they are not as they should be, a sentence each.
    pub fn differences(&self, state: &State) -> Vec<&'static str> {
        let mut differs = Vec::new();
        for login in self.logins(state) {
            differs.extend(match login.is {
                None if login.is_newest => Some("its login role is missing"),
                None => Some("its former login role is missing"),
                Some(false) if login.is_newest => Some("its login role may not log in"),
                Some(false) if login.may => {
                    Some("its former login role may not log in, and its time is not over")
                }
                Some(true) if !login.may => Some("its former login role may log in, and its time is over"),
                Some(_) => None,
            });
        }
        if shuts_out(state.fence) && [state.role, state.second].contains(&Some(true)) {
            differs.push("its login role may log in in spite of its fence");
        }
        if state.second.is_some() && !state.bound {
            differs.push("its second login role has lost the rights of the first");
        }
        differs
    }
}
