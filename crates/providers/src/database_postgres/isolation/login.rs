//! A session of a tenant's login, and what it tries wherever its tenant's rows are: to become somebody else, and to read
//! what the server keeps for itself. Every try is a query of one truth in a transaction that is rolled back.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry_model::Failure;

use super::Prober;
use crate::database_postgres::failure::failure;
use crate::database_postgres::name::Name;
use crate::database_postgres::server::{Server, close};
use crate::isolation::{Findings, Who};
use crate::tables::{literal, quoted};

/// Large objects that are tried.
const LARGE_OBJECTS: i64 = 20;

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Try {
    /// It succeeded: this is a leak.
    Through,
    /// The server refused it, or showed nothing.
    Denied,
    /// Something else went wrong.
    Unclear(String),
}

/// The session.
pub struct Login {
    session: PgConnection,
}

impl Login {
    /// Logs in as the prober. `Err` is why the server does not let it in.
    pub async fn new(server: &Server, prober: &Prober, database: &str) -> Result<Self, String> {
        let session = server.log_in(prober.role(), &prober.password, database).await;
        let why = |error| format!("the login made for the check was not let in: {}", failure(error).message);
        Ok(Self { session: session.map_err(why)? })
    }

    /// Tries a query of one truth, after these statements.
    pub async fn attempt(&mut self, before: &str, sql: &str) -> Result<Try, Failure> {
        let mut transaction = self.session.begin().await.map_err(failure)?;
        let answer = async {
            if !before.is_empty() {
                sqlx::raw_sql(AssertSqlSafe(before)).execute(&mut *transaction).await?;
            }
            let query = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false);
            query.fetch_one(&mut *transaction).await
        };
        let tried = outcome(answer.await);
        transaction.rollback().await.map_err(failure)?;
        Ok(tried)
    }

    /// The same, into a cell. `target` says what was got at.
    pub async fn try_it(
        &mut self,
        findings: &mut Findings,
        what: &'static str,
        target: &str,
        before: &str,
        sql: &str,
    ) -> Result<(), Failure> {
        match self.attempt(before, sql).await? {
            Try::Through => findings.leak(Who::TenantLogin, what, target.to_owned()),
            Try::Denied => findings.denied(Who::TenantLogin, what),
            Try::Unclear(why) => findings.not_checked(Who::TenantLogin, what, &why),
        }
        Ok(())
    }

    /// Tries to become this role.
    pub async fn become_role(&mut self, findings: &mut Findings, role: &str) -> Result<(), Failure> {
        for (what, setting) in [("set_role", "role"), ("set_session_authorization", "session_authorization")]
        {
            let sql = format!("SELECT set_config('{setting}', {}, true) IS NOT NULL", literal(role));
            self.try_it(findings, what, role, "", &sql).await?;
        }
        Ok(())
    }

    /// Tries to read what the server knows of these tenants' rows and sessions, of everybody's passwords, and of large
    /// objects. `schemas`: where rows are that are not its own.
    pub async fn look_around(
        &mut self,
        findings: &mut Findings,
        tenants: &[&Name],
        schemas: &[&str],
        objects: &[i64],
    ) -> Result<(), Failure> {
        let list = |names: Vec<&str>| names.into_iter().map(literal).collect::<Vec<_>>().join(", ");
        for table in ["pg_authid", "pg_statistic", "pg_largeobject"] {
            let sql = format!("SELECT EXISTS (SELECT FROM pg_catalog.{table})");
            let what = if table == "pg_largeobject" { "large_objects" } else { "catalogue" };
            self.try_it(findings, what, table, "", &sql).await?;
        }
        if !schemas.is_empty() {
            let sql = format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stats WHERE schemaname IN ({}))",
                list(schemas.to_vec())
            );
            self.try_it(findings, "catalogue", "pg_stats", "", &sql).await?;
        }
        if !tenants.is_empty() {
            let sql = format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                                WHERE usename IN ({}) AND query NOT IN ('', '<insufficient privilege>'))",
                list(tenants.iter().map(|name| name.as_str()).collect())
            );
            self.try_it(findings, "catalogue", "pg_stat_activity", "", &sql).await?;
        }
        for object in objects {
            let sql = format!("SELECT lo_get({object}::oid, 0, 1) IS NOT NULL");
            self.try_it(findings, "large_objects", &object.to_string(), "", &sql).await?;
        }
        Ok(())
    }

    /// Tries to read tables of a schema, each by this condition, after these statements.
    pub async fn read(
        &mut self,
        findings: &mut Findings,
        what: &'static str,
        schema: &str,
        tables: &[String],
        condition: &str,
        before: &str,
    ) -> Result<(), Failure> {
        for table in tables {
            let sql =
                format!("SELECT EXISTS (SELECT FROM {}.{} WHERE {condition})", quoted(schema), quoted(table));
            self.try_it(findings, what, &format!("{schema}.{table}"), before, &sql).await?;
        }
        Ok(())
    }

    /// Ends the session.
    pub async fn close(self) -> Result<(), Failure> {
        close(self.session).await
    }
}

/// Whether the prober is let into a database that is another tenant's.
pub async fn enter(server: &Server, prober: &Prober, database: &Name) -> Result<Try, Failure> {
    match server.log_in(prober.role(), &prober.password, database.as_str()).await {
        Ok(session) => close(session).await.map(|()| Try::Through),
        Err(error) => Ok(outcome(Err(error))),
    }
}

/// Large objects of others in this database.
pub async fn large_objects(connection: &mut PgConnection) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar(
        "SELECT oid::bigint FROM pg_catalog.pg_largeobject_metadata ORDER BY oid DESC LIMIT $1",
    )
    .bind(LARGE_OBJECTS)
    .fetch_all(connection)
    .await
    .map_err(failure)
}

fn outcome(answer: sqlx::Result<bool>) -> Try {
    match answer {
        Ok(true) => Try::Through,
        Ok(false) => Try::Denied,
        Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
            Some("42501") => Try::Denied,
            _ => Try::Unclear(failure(error).message),
        },
    }
}
