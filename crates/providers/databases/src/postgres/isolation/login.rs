//! A database session of the probe tenant, and the attempts that every isolation check makes with it: to
//! become another role, and to read what the server reserves. Each attempt runs in a transaction that is
//! rolled back.

use tenantry_model::Failure;
use tenantry_postgres::{Error, Session};

use super::ProbeTenant;
use crate::postgres::failure::failure;
use crate::postgres::name::Name;
use crate::postgres::server::Server;
use crate::tables::{OWNER, literal, quoted};
use tenantry_provider::isolation::{Findings, Who};

/// SQL condition that is true for the first row only. It reads no column, which would need a privilege of its
/// own.
const FIRST: &str = "set_config('tenantry.tried', (coalesce(nullif(current_setting('tenantry.tried', true), ''), '0')::int + 1)::text, true)::int = 1";
/// Time limits of every attempt, so that it neither hangs nor blocks other sessions.
const BOUNDS: &str = "SET LOCAL statement_timeout = 30000; SET LOCAL lock_timeout = 2000;";
/// Maximum number of large objects that are tried.
const LARGE_OBJECTS: i64 = 20;

/// The result of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The attempt succeeded: a leak.
    Succeeded,
    /// The server rejected it or returned no row.
    Denied,
    /// It failed for another reason, so it proves nothing.
    Inconclusive(String),
}

/// A table that the probe tenant tries to write to.
pub struct WrittenTable {
    /// Table name.
    pub name: String,
    /// A column that it tries to change, if there is one that can be changed.
    pub column: Option<String>,
    /// An SQL literal, if rows have an owner: another tenant, whose the row is to become.
    pub owner: Option<String>,
}

/// A session of the probe tenant's login.
pub struct ProbeSession {
    who: Who,
    session: Session,
}

impl ProbeSession {
    /// Logs in as the probe tenant, directly and through the pooler if one is configured. `Err` says why the
    /// login was rejected.
    pub async fn open_all(
        server: &Server,
        probe_tenant: &ProbeTenant,
        database: &str,
    ) -> Vec<(Who, Result<Self, String>)> {
        let mut all = Vec::new();
        for who in logins(server) {
            let session = server.log_in(who, probe_tenant.role(), &probe_tenant.password, database).await;
            let why = |error| format!("the probe tenant's login was rejected: {}", failure(error).message);
            all.push((who, session.map(|session| Self { who, session }).map_err(why)));
        }
        all
    }

    /// Runs statements and then a query that returns one boolean.
    async fn attempt(&mut self, before: &str, sql: &str) -> Result<Attempt, Failure> {
        let mut transaction = self.session.begin().await.map_err(failure)?;
        let answer = async {
            transaction.run(&format!("{BOUNDS}{before}")).await?;
            transaction.one(sql, &[]).await
        };
        let tried = classify(answer.await);
        transaction.rollback().await.map_err(failure)?;
        Ok(tried)
    }

    /// Runs statements and then one that writes; both are rolled back.
    async fn attempt_write(&mut self, before: &str, sql: &str) -> Result<Attempt, Failure> {
        let mut transaction = self.session.begin().await.map_err(failure)?;
        let answer = async {
            transaction.run(&format!("{BOUNDS}{before}")).await?;
            Ok::<_, Error>(transaction.execute(sql, &[]).await? > 0)
        };
        let tried = match answer.await {
            // The row fits no partition: it was not checked against the policies, and not inserted.
            Err(error) if fits_no_partition(&error) => Attempt::Denied,
            // Constraints are checked after privileges and policies: the statement reached the row.
            Err(error) if error.code().is_some_and(|code| code.starts_with("23")) => Attempt::Succeeded,
            answer => classify(answer),
        };
        transaction.rollback().await.map_err(failure)?;
        Ok(tried)
    }

    fn note(&self, findings: &mut Findings, what: &'static str, target: &str, tried: Attempt) {
        match tried {
            Attempt::Succeeded => findings.leak(self.who, what, target.to_owned()),
            Attempt::Denied => findings.denied(self.who, what),
            Attempt::Inconclusive(why) => findings.not_checked(self.who, what, &why),
        }
    }

    /// Runs the query and records the result under `what`. `target` names the object that was tried.
    pub async fn probe(
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
            self.probe(findings, what, role, "", &sql).await?;
        }
        Ok(())
    }

    /// Tries to read statistics and sessions of these tenants, password hashes, and large objects. `schemas`
    /// hold rows that are not the probe tenant's.
    pub async fn probe_server_catalogue(
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
            self.probe(findings, what, table, "", &sql).await?;
        }
        if !schemas.is_empty() {
            let sql = format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stats WHERE schemaname IN ({}))",
                list(schemas.to_vec())
            );
            self.probe(findings, "catalogue", "pg_stats", "", &sql).await?;
        }
        if !tenants.is_empty() {
            let sql = format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                                WHERE usename IN ({}) AND query NOT IN ('', '<insufficient privilege>'))",
                list(tenants.iter().map(|name| name.as_str()).collect())
            );
            self.probe(findings, "catalogue", "pg_stat_activity", "", &sql).await?;
        }
        for object in objects {
            let sql = format!("SELECT lo_get({object}::oid, 0, 1) IS NOT NULL");
            self.probe(findings, "large_objects", &object.to_string(), "", &sql).await?;
        }
        Ok(())
    }

    /// Tries to read a schema's tables under this condition, after these statements.
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
            self.probe(findings, what, &format!("{schema}.{table}"), before, &sql).await?;
        }
        Ok(())
    }

    /// Tries to insert a row into a schema's tables, to change a row, and to delete one, after these statements.
    pub async fn write(
        &mut self,
        findings: &mut Findings,
        schema: &str,
        tables: &[WrittenTable],
        before: &str,
    ) -> Result<(), Failure> {
        for WrittenTable { name: table, column, owner } in tables {
            let place = format!("{}.{}", quoted(schema), quoted(table));
            let insert = match owner {
                Some(owner) => format!("INSERT INTO {place} ({OWNER}) VALUES ({owner})"),
                None => format!("INSERT INTO {place} DEFAULT VALUES"),
            };
            let update = column.as_deref().map(|column| {
                let column = quoted(column);
                let value = owner.as_ref().unwrap_or(&column);
                ("update", format!("UPDATE {place} SET {column} = {value} WHERE {FIRST}"))
            });
            let delete = ("delete", format!("DELETE FROM {place} WHERE {FIRST}"));
            for (what, sql) in [("insert", insert), delete].into_iter().chain(update) {
                let tried = self.attempt_write(before, &sql).await?;
                self.note(findings, what, &format!("{schema}.{table}"), tried);
            }
        }
        Ok(())
    }

    /// The login that is used.
    pub fn who(&self) -> Who {
        self.who
    }

    /// Closes the session.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// The logins that the probe tenant can use.
pub fn logins(server: &Server) -> impl Iterator<Item = Who> {
    std::iter::once(Who::TenantLogin).chain(server.is_pooled().then_some(Who::PooledLogin))
}

/// Tries to connect the probe tenant to another tenant's database, with every login.
pub async fn probe_connect(
    server: &Server,
    probe_tenant: &ProbeTenant,
    database: &Name,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for who in logins(server) {
        match server.log_in(who, probe_tenant.role(), &probe_tenant.password, database.as_str()).await {
            Ok(session) => {
                let mut login = ProbeSession { who, session };
                // A pooler may accept a client before it connects to the server.
                login.probe(findings, "connect", database.as_str(), "", "SELECT true").await?;
                login.close().await;
            }
            Err(error) => match classify(Err(error)) {
                Attempt::Inconclusive(why) => findings.not_checked(who, "connect", &why),
                Attempt::Succeeded | Attempt::Denied => findings.denied(who, "connect"),
            },
        }
    }
    Ok(())
}

/// Large objects in this database, newest first.
pub async fn large_objects(connection: &mut Session) -> Result<Vec<i64>, Failure> {
    connection
        .all(
            "SELECT oid::bigint FROM pg_catalog.pg_largeobject_metadata ORDER BY oid DESC LIMIT $1",
            &[&LARGE_OBJECTS],
        )
        .await
        .map_err(failure)
}

fn classify(answer: Result<bool, Error>) -> Attempt {
    match answer {
        Ok(true) => Attempt::Succeeded,
        Ok(false) => Attempt::Denied,
        Err(error) => match error.code() {
            Some("42501") => Attempt::Denied,
            // A pooler wraps the server's message in an error of its own.
            Some("08P01") if database_says(&error, "permission denied for database") => Attempt::Denied,
            _ => Attempt::Inconclusive(failure(error).message),
        },
    }
}

/// Whether the server found no partition for a row, by its function: the message is translated.
fn fits_no_partition(error: &Error) -> bool {
    error.database().is_some_and(|error| error.routine() == Some("ExecFindPartition"))
}

fn database_says(error: &Error, words: &str) -> bool {
    error.database().is_some_and(|error| error.message().contains(words))
}
