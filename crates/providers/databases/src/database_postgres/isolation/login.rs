//! A session of a tenant's login, and what it tries wherever its tenant's rows are: to become somebody else, and to read
//! what the server keeps for itself. Every try is a query of one truth in a transaction that is rolled back.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry_model::Failure;

use super::Prober;
use crate::database_postgres::failure::failure;
use crate::database_postgres::name::Name;
use crate::database_postgres::server::{Server, close};
use crate::tables::{OWNER, literal, quoted};
use tenantry_provider::isolation::{Findings, Who};

/// Picks the first row that a statement comes to, without reading any of its columns: that would take a right of its own.
const FIRST: &str = "set_config('tenantry.tried', (coalesce(nullif(current_setting('tenantry.tried', true), ''), '0')::int + 1)::text, true)::int = 1";
/// What every try begins with: it may take its time, but neither for ever nor in anybody's way.
const BOUNDS: &str = "SET LOCAL statement_timeout = 30000; SET LOCAL lock_timeout = 2000;";
/// Large objects that are tried.
const LARGE_OBJECTS: i64 = 20;

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
enum Try {
    /// It succeeded: this is a leak.
    Through,
    /// The server refused it, or showed nothing.
    Denied,
    /// Something else went wrong.
    Unclear(String),
}

/// The session.
pub struct Login {
    who: Who,
    session: PgConnection,
}

impl Login {
    /// Logs in as the prober, directly and, where one is configured, through the pooler. `Err` is why it was not let in.
    pub async fn all(server: &Server, prober: &Prober, database: &str) -> Vec<(Who, Result<Self, String>)> {
        let mut all = Vec::new();
        for who in ways(server) {
            let session = server.log_in(who, prober.role(), &prober.password, database).await;
            let why =
                |error| format!("the login made for the check was not let in: {}", failure(error).message);
            all.push((who, session.map(|session| Self { who, session }).map_err(why)));
        }
        all
    }

    /// Tries a query of one truth, after these statements.
    async fn attempt(&mut self, before: &str, sql: &str) -> Result<Try, Failure> {
        let mut transaction = self.session.begin().await.map_err(failure)?;
        let answer = async {
            sqlx::raw_sql(AssertSqlSafe(format!("{BOUNDS}{before}"))).execute(&mut *transaction).await?;
            let query = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false);
            query.fetch_one(&mut *transaction).await
        };
        let tried = outcome(answer.await);
        transaction.rollback().await.map_err(failure)?;
        Ok(tried)
    }

    /// Tries a statement that writes, after these. Whatever it writes is taken back.
    async fn attempt_write(&mut self, before: &str, sql: &str) -> Result<Try, Failure> {
        let mut transaction = self.session.begin().await.map_err(failure)?;
        let answer = async {
            sqlx::raw_sql(AssertSqlSafe(format!("{BOUNDS}{before}"))).execute(&mut *transaction).await?;
            let statement = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            statement.execute(&mut *transaction).await.map(|done| done.rows_affected() > 0)
        };
        let tried = match answer.await {
            // Constraints come after rights and policies: it got as far as the row.
            Err(error) if code(&error).is_some_and(|code| code.starts_with("23")) => Try::Through,
            answer => outcome(answer),
        };
        transaction.rollback().await.map_err(failure)?;
        Ok(tried)
    }

    fn note(&self, findings: &mut Findings, what: &'static str, target: &str, tried: Try) {
        match tried {
            Try::Through => findings.leak(self.who, what, target.to_owned()),
            Try::Denied => findings.denied(self.who, what),
            Try::Unclear(why) => findings.not_checked(self.who, what, &why),
        }
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
        let tried = self.attempt(before, sql).await?;
        self.note(findings, what, target, tried);
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

    /// Tries to add a row of this owner's to tables of a schema, to give one of their rows to it, and to delete one, after
    /// these statements. The owner is an SQL literal.
    pub async fn write(
        &mut self,
        findings: &mut Findings,
        schema: &str,
        tables: &[String],
        owner: &str,
        before: &str,
    ) -> Result<(), Failure> {
        for table in tables {
            let place = format!("{}.{}", quoted(schema), quoted(table));
            for (what, sql) in [
                ("insert", format!("INSERT INTO {place} ({OWNER}) VALUES ({owner})")),
                ("update", format!("UPDATE {place} SET {OWNER} = {owner} WHERE {FIRST}")),
                ("delete", format!("DELETE FROM {place} WHERE {FIRST}")),
            ] {
                let tried = self.attempt_write(before, &sql).await?;
                self.note(findings, what, &format!("{schema}.{table}"), tried);
            }
        }
        Ok(())
    }

    /// Who tries.
    pub fn who(&self) -> Who {
        self.who
    }

    /// Ends the session.
    pub async fn close(self) -> Result<(), Failure> {
        close(self.session).await
    }
}

/// How the prober can come in.
pub fn ways(server: &Server) -> impl Iterator<Item = Who> {
    std::iter::once(Who::TenantLogin).chain(server.is_pooled().then_some(Who::PooledLogin))
}

/// Tries to get the prober into a database that is another tenant's, in every way.
pub async fn enter(
    server: &Server,
    prober: &Prober,
    database: &Name,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for who in ways(server) {
        match server.log_in(who, prober.role(), &prober.password, database.as_str()).await {
            Ok(session) => {
                let mut login = Login { who, session };
                // A pooler may let somebody in before it asks the server.
                login.try_it(findings, "connect", database.as_str(), "", "SELECT true").await?;
                login.close().await?;
            }
            Err(error) => match outcome(Err(error)) {
                Try::Unclear(why) => findings.not_checked(who, "connect", &why),
                Try::Through | Try::Denied => findings.denied(who, "connect"),
            },
        }
    }
    Ok(())
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
        Err(error) => match code(&error).as_deref() {
            Some("42501") => Try::Denied,
            // A pooler puts the server's words into an error of its own.
            Some("08P01") if error.to_string().contains("permission denied for database") => Try::Denied,
            _ => Try::Unclear(failure(error).message),
        },
    }
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|error| error.code())
}
