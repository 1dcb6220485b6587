//! Steps of a tenant's place that are the same wherever it is: its rights, its first rows, what is seen of it, and its removal.

use std::pin::pin;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, FailureClass, Isolation};
use tokio::time::timeout;

use super::Postgres;
use super::catalogue::shape;
use super::directory::{Owner, State, recorded};
use super::failure::failure;
use super::migrate::{self, Target};
use super::name::Name;
use super::server::{Server, run};
use crate::content::{Content, Ensure};
use crate::shape::Shape;
use tenantry_provider::verbs::Observed;

/// How long a removal waits before it is asked what it waits for.
const HINDERED: Duration = Duration::from_secs(1);

/// Somebody else has the name.
pub fn name_taken() -> Failure {
    Failure::fatal(
        "name_taken",
        "this name belongs to a schema, database, role or tenant with another owner mark; it was not touched",
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

/// Brings a schema that is there up to date. Answers the shape to record, if it is another one from now on: what is there,
/// or, where somebody had changed that before, what the migrations make of a tenant that nobody has changed.
pub async fn bring_up(
    connection: &mut PgConnection,
    target: Target<'_>,
    postgres: &Postgres,
    server: &Server,
    isolation: Isolation,
    made: Option<&Shape>,
) -> Result<Option<Shape>, Failure> {
    let drifted = match made {
        Some(made) => shape(connection, target.schema).await? != *made,
        None => false,
    };
    let migrated = target.migrate(connection, &postgres.content.migrations).await?;
    if made.is_some() && !migrated.applied {
        return Ok(None);
    }
    if !drifted {
        return Ok(Some(migrated.catalogue.shape));
    }
    let (canary, _) = postgres.canary(server, isolation)?;
    recorded(&mut *server.connection().await?, isolation, &canary.tenant).await
}

/// What a tenant's role cannot do in a schema and should, or can and should not, a sentence each. The role is there.
pub async fn lost_rights(
    connection: &mut PgConnection,
    schema: &str,
    role: &Name,
    grade: Option<Grade>,
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar(
        concat!("WITH own AS (SELECT oid, relname, relkind FROM pg_class
                      WHERE ", in_schema!(class "pg_class"), " AND relkind IN ('r', 'p', 'S') AND relname <> $4
                        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'i'
                                        AND refobjid = to_regclass(format('%I.%I', $1, $4))))
         SELECT format('its login role may not connect to the database') WHERE NOT has_database_privilege($2, current_database(), 'CONNECT')
         UNION ALL SELECT 'its login role may not use the schema' FROM pg_namespace WHERE nspname = $1 AND NOT has_schema_privilege($2, oid, 'USAGE')
         UNION ALL SELECT format('its login role has lost %s on table `%s`', string_agg(word, ', ' ORDER BY word), relname)
                   FROM own, unnest(CASE WHEN $3 THEN ARRAY['SELECT'] ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) word
                   WHERE relkind <> 'S' AND NOT has_table_privilege($2, own.oid, word) GROUP BY relname
         UNION ALL SELECT format('its login role has lost USAGE on sequence `%s`', relname) FROM own
                   WHERE CASE WHEN relkind = 'S' AND NOT $3 THEN NOT has_sequence_privilege($2, own.oid, 'USAGE') END
         UNION ALL SELECT format('its login role may write to table `%s` in spite of its fence', relname) FROM own
                   WHERE relkind <> 'S' AND $3 AND has_table_privilege($2, own.oid, 'INSERT, UPDATE, DELETE')
         LIMIT 20"),
    )
    .bind(schema)
    .bind(role.as_str())
    .bind(grade.is_some())
    .bind(migrate::TABLE)
    .fetch_all(connection)
    .await
    .map_err(failure)
}

/// Drops what is a tenant's. Other tenants may have made something that names it, a temporary table of theirs, and use that
/// for as long as they like: it is dropped too, so whoever of them is waited for is ended.
pub async fn unhindered(server: &Server, connection: &mut PgConnection, sql: String) -> Result<(), Failure> {
    let waiting: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.map_err(failure)?;
    let mut dropped = pin!(run(connection, sql));
    loop {
        if let Ok(dropped) = timeout(HINDERED, &mut dropped).await {
            return dropped;
        }
        let ended = async { end_tenants_before(&mut *server.connection().await?, waiting).await };
        // Without it the statement waits for as long as for any lock.
        if let Err(failure) = ended.await {
            tracing::warn!(%failure, "cannot see who is in the way of a removal");
        }
    }
}

/// Ends the sessions of tenants' logins that this session waits for.
async fn end_tenants_before(connection: &mut PgConnection, waiting: i32) -> Result<(), Failure> {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
         WHERE pid = ANY (pg_blocking_pids($1)) AND NOT rolsuper AND EXISTS (
             SELECT FROM tenantry.homes WHERE claim = shobj_description(usesysid, 'pg_authid'))",
    )
    .bind(waiting)
    .execute(connection)
    .await
    .map(drop)
    .map_err(failure)
}

/// What a removal has counted.
pub struct Removal {
    /// Rows by table.
    pub rows: Value,
    /// Login roles.
    pub logins: usize,
}

impl Default for Removal {
    fn default() -> Self {
        Self { rows: Value::Object(Map::new()), logins: 0 }
    }
}

/// What is seen of a schema or database that is there.
#[derive(Default)]
pub struct Seen {
    /// What is in it.
    pub shape: Shape,
    /// The last migration.
    pub version: Option<String>,
    /// What its login role cannot do, or should not.
    pub rights: Vec<String>,
}

impl Seen {
    /// Looks into a schema that is a tenant's.
    pub async fn of(
        connection: &mut PgConnection,
        schema: &str,
        role: Option<&Name>,
        grade: Option<Grade>,
    ) -> Result<Self, Failure> {
        let rights = match role {
            Some(role) => lost_rights(connection, schema, role, grade).await?,
            None => Vec::new(),
        };
        Ok(Self {
            shape: shape(connection, schema).await?,
            version: migrate::version(connection, schema).await?,
            rights,
        })
    }
}

/// What is seen of a tenant's place; none where its schema or database is missing.
pub fn observed(content: &Content, owner: &Owner, state: &State, seen: Option<Seen>) -> Observed {
    let mut differs = Vec::new();
    if !state.thing || seen.is_none() {
        differs.push("its schema or database is missing, with all its rows".to_owned());
    }
    if !state.listed {
        differs.push("it is not in the list of tenants".to_owned());
    }
    differs.extend(owner.differences(state).into_iter().map(str::to_owned));
    if state.completed.is_none() {
        differs.push("it was never completed".to_owned());
    }
    let Seen { shape, version, rights } = match seen {
        Some(seen) => {
            differs.extend(content.behind(seen.version.as_deref()));
            differs.extend(state.shape.iter().flat_map(|made| made.differences(&seen.shape)));
            seen
        }
        None => Seen::default(),
    };
    differs.extend(rights);
    let [seed, completed] = [&state.seed, &state.completed].map(|word| word.as_deref().unwrap_or_default());
    let (shape, role) = (shape.fingerprint(), owner.newest(state).is.unwrap_or_default());
    let fingerprint = hex::encode(Sha256::digest(format!("{shape} {role} {seed} {completed}")));
    Observed::Present { differs, version, fingerprint }
}
