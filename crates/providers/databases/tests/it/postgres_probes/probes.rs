//! Attempts by a tenant's login on every object of its database and server. Each runs in a transaction that is rolled
//! back. An object was reached if an attempt succeeds, or fails for another reason than a missing privilege.

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::objects::{self, CATALOGUE, STATEMENTS};

/// What belongs to the tenant of a login.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// Schemas of its tables.
    pub schemas: &'a [String],
    /// The tenant's id if it shares these tables.
    pub shared: Option<&'a str>,
    /// Name of its role.
    pub role: &'a str,
}

/// Attempts on one object: how it would be reached, and a statement. One that returns rows must return true.
pub struct Probe {
    object: String,
    tries: Vec<(String, String)>,
}

/// What the attempts have found.
#[derive(Debug, Default)]
pub struct Reached {
    /// `object: how`.
    pub found: Vec<String>,
    /// Number of attempts.
    pub tried: usize,
}

/// The sessions of a superuser and of the tenant's login, in the same database.
pub struct Probes<'a> {
    pub superuser: &'a mut PgConnection,
    pub session: &'a mut PgConnection,
    pub own: Own<'a>,
    /// Names of other roles and databases of the server.
    pub others: &'a [String],
    /// Beginning of the objects' names.
    pub only: &'a str,
}

impl Probes<'_> {
    /// Tries everything.
    pub async fn run(mut self) -> Reached {
        sqlx::raw_sql("SET search_path = pg_catalog").execute(&mut *self.superuser).await.unwrap();
        let mut probes = self.relations().await;
        for (kind, query) in objects::NAMED {
            probes.extend(self.named(kind, query).await);
        }
        probes.extend(
            self.others
                .iter()
                .map(|name| Probe { object: format!("other {name}"), tries: objects::of_role(name) }),
        );
        for (object, statements) in [("server", STATEMENTS), ("catalogue", CATALOGUE)] {
            let tries = statements.iter().map(|(how, sql)| ((*how).to_owned(), self.placed(sql)));
            probes.push(Probe { object: object.to_owned(), tries: tries.collect() });
        }
        probes.retain(|probe| probe.object.starts_with(self.only));
        let mut reached = Reached::default();
        for Probe { object, tries } in probes {
            for (how, sql) in tries {
                reached.tried += 1;
                if self.succeeds(&sql).await {
                    reached.found.push(format!("{object}: {how}"));
                }
            }
        }
        reached
    }

    async fn succeeds(&mut self, sql: &str) -> bool {
        let sql = sql.trim();
        let bounded =
            format!("BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10s'; {sql}");
        let tried = sqlx::raw_sql(AssertSqlSafe(bounded)).fetch_all(&mut *self.session).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.session).await.unwrap();
        match tried {
            Ok(rows) if sql.starts_with("SELECT") || sql.ends_with("RETURNING true") => {
                rows.first().is_some_and(|row| row.try_get(0).unwrap_or(true))
            }
            Ok(_) => true,
            Err(error) => !is_denied(&error),
        }
    }

    fn placed(&self, sql: &str) -> String {
        let Own { schemas, shared, role } = self.own;
        let literal = |text: &str| text.replace('\'', "''");
        let schemas: Vec<String> = schemas.iter().map(|schema| format!("'{}'", literal(schema))).collect();
        let schemas = if schemas.is_empty() { "'no such schema'".to_owned() } else { schemas.join(", ") };
        sql.replace("$schemas", &schemas)
            .replace("$shared", &literal(shared.unwrap_or_default()))
            .replace("$role", &literal(role))
    }

    async fn rows(&mut self, sql: &str) -> Vec<PgRow> {
        let sql = self.placed(sql);
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *self.superuser).await.unwrap()
    }

    /// Objects of a query: name, and statements by how they reach it.
    async fn named(&mut self, kind: &str, query: &str) -> Vec<Probe> {
        let probe = |row: &PgRow| {
            let (names, statements): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
            let tries = names.into_iter().zip(statements).collect();
            Probe { object: format!("{kind} {}", row.get::<String, _>(0)), tries }
        };
        self.rows(query).await.iter().map(probe).collect()
    }

    /// Relations outside of the tenant's schema, and of shared tables the rows of other tenants.
    async fn relations(&mut self) -> Vec<Probe> {
        let mut probes = Vec::new();
        for row in self.rows(objects::RELATIONS).await {
            let (object, is_own, has_owner): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
            let mut tries: Vec<(&str, String)> = Vec::new();
            if !is_own {
                tries.extend([
                    ("read", format!("TABLE {object} LIMIT 0")),
                    ("insert", format!("INSERT INTO {object} DEFAULT VALUES")),
                    ("delete", format!("DELETE FROM {object} WHERE false")),
                    ("lock", format!("LOCK TABLE {object} IN ACCESS SHARE MODE")),
                ]);
                if let Some(column) = row.get::<Option<String>, _>(3) {
                    tries.extend([
                        ("read", format!("WITH x AS (SELECT {column} FROM {object} LIMIT 0) TABLE x")),
                        ("update", format!("UPDATE {object} SET {column} = DEFAULT WHERE false")),
                    ]);
                }
            } else if let Some(tenant) = self.own.shared.filter(|_| has_owner) {
                let others = format!("WHERE tenant_id::text <> '{tenant}'");
                tries.extend([
                    ("read", format!("SELECT EXISTS (SELECT FROM {object} {others})")),
                    ("update", format!("UPDATE {object} SET tenant_id = tenant_id {others} RETURNING true")),
                    ("delete", format!("DELETE FROM {object} {others} RETURNING true")),
                    ("insert", format!("INSERT INTO {object} (tenant_id) VALUES ('another')")),
                    ("take over", format!("UPDATE {object} SET tenant_id = 'another' RETURNING true")),
                ]);
            } else if self.own.shared.is_none() {
                continue;
            }
            let literal = object.replace('\'', "''");
            for right in ["REFERENCES", "TRIGGER", "TRUNCATE"] {
                tries.push(("rights", format!("SELECT has_table_privilege('{literal}', '{right}')")));
            }
            tries.extend([
                ("truncate", format!("TRUNCATE {object}")),
                ("change", format!("ALTER TABLE {object} RENAME TO probed")),
                ("index", format!("CREATE INDEX ON {object} ((1))")),
                ("rule", format!("CREATE RULE probed AS ON UPDATE TO {object} DO INSTEAD NOTHING")),
                ("policy", format!("CREATE POLICY probed ON {object} USING (true)")),
                ("trigger", format!("CREATE TRIGGER probed BEFORE INSERT ON {object} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()")),
            ]);
            let tries = tries.into_iter().map(|(how, sql)| (how.to_owned(), sql)).collect();
            probes.push(Probe { object: format!("relation {object}"), tries });
        }
        probes
    }
}

/// Whether the server denied the attempt, or cannot do it for any role: outside of a transaction only, to an object of
/// this kind or one that does not exist, or to a row that fits no partition.
fn is_denied(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let code = error.code().unwrap_or_default();
    ["42501", "25001", "42704", "42809", "55000", "0A000"].contains(&&*code)
        || error.message().starts_with("no partition of relation")
}
