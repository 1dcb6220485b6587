//! Steps of making a tenant's place that are the same wherever it is: its role, its rights, its first rows, and what is
//! seen of it.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_model::{Failure, FailureClass};

use super::credential::Handout;
use super::directory::{Owner, State};
use super::failure::failure;
use super::fence::shuts_out;
use super::migrate;
use super::name::Name;
use super::role;
use super::server::{Server, run};
use crate::content::{Content, Ensure};
use crate::tables::quoted;
use crate::verbs::Observed;

/// Somebody else has the name.
pub fn name_taken() -> Failure {
    Failure::fatal(
        "name_taken",
        "this name belongs to a schema, database, role or tenant with another owner mark; it was not touched",
    )
}

impl Owner {
    /// The statements that make the role, or let it in again; none if it is as it should be.
    pub async fn role(
        &self,
        server: &Server,
        state: &State,
        handout: &Handout,
        limit: u16,
    ) -> Result<String, Failure> {
        let mut sql = match (state.role, handout.needed(state)) {
            (None, password) => {
                role::create(&self.name, &self.claim, password, limit, server.is_superuser().await?)
            }
            (Some(_), Some(password)) => role::renew(&self.name, password),
            (Some(_), None) => return Ok(String::new()),
        };
        if shuts_out(state.fence) {
            sql.push_str(&role::let_in(&self.name, false));
        }
        Ok(sql)
    }

    /// Has the role find the tables of this schema in this database.
    pub fn finds(&self, database: &str, schema: &str) -> String {
        let (role, path) = (&self.name, migrate::search_path(schema));
        format!("ALTER ROLE {role} IN DATABASE {} SET {path};", quoted(database))
    }
}

/// Lets roles work with all rows of a schema's tables, and with nothing else in it.
pub fn grants(schema: &str, roles: &[&Name]) -> String {
    let to = roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (own, schema) = (migrate::table(schema), quoted(schema));
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO {to};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {to};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {to};
         REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA {schema} FROM PUBLIC;
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {to};
         REVOKE ALL ON {own} FROM {to};"
    )
}

/// Writes a tenant's first rows into the tables of this schema. What is there already stays.
pub async fn seed(transaction: &mut PgConnection, schema: &str, work: &Ensure) -> Result<(), Failure> {
    if work.rows.is_empty() {
        return Ok(());
    }
    run(transaction, format!("SET LOCAL {}", migrate::search_path(schema))).await?;
    for (sql, rows) in &work.rows {
        let insert = sqlx::query(AssertSqlSafe(sql.to_string())).bind(format!("[{rows}]"));
        insert.execute(&mut *transaction).await.map_err(|error| match failure(error) {
            // What the tables refuse comes from a seed that does not fit them: trying again will not help.
            wrong if matches!(wrong.class, FailureClass::Invalid | FailureClass::Fatal) => {
                Failure::invalid("bad_seed", wrong.message)
            }
            other => other,
        })?;
    }
    Ok(())
}

/// What is seen of a tenant's place, whose schema has this fingerprint now.
pub fn observed(content: &Content, state: &State, schema: &str, version: Option<String>) -> Observed {
    let healthy = state.thing
        && state.role == Some(true)
        && state.completed.is_some()
        && state.schema.as_deref() == Some(schema)
        && version.as_deref() == Some(content.last_version());
    let [seed, completed] = [&state.seed, &state.completed].map(|word| word.as_deref().unwrap_or_default());
    let role = state.role.unwrap_or_default();
    let fingerprint = hex::encode(Sha256::digest(format!("{schema} {role} {seed} {completed}")));
    Observed::Present { healthy, version, fingerprint }
}
