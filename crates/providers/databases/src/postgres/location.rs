//! Steps on a tenant's schema or database that are the same in all three isolations: migrating, observing and
//! dropping.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation};
use tenantry_postgres::Session;

use super::Postgres;
use super::blockers::drop_unblocked;
use super::catalogue::LOOKUP_POLICY;
use super::directory::{Owner, TenantState, recorded_shape};
use super::failure::failure;
use super::migrate::{self, Target};
use super::name::Name;
use super::server::Server;
use super::shape::shape;
use crate::content::Content;
use crate::migrations::Applied;
use crate::shape::{FORM, Shape};
use tenantry_provider::verbs::Observed;

/// An object of this name carries another owner tag, or none.
pub fn name_taken() -> Failure {
    Failure::fatal(
        "name_taken",
        "a schema, database, role or tenant of this name carries another owner tag and was not touched; remove it, or change `names` in the template",
    )
}

/// Applies missing migrations to an existing schema. Returns the definition to record if it changes: the
/// definition found, or, if the schema had drifted before, the one that the migrations give an unchanged
/// tenant. One that was recorded in an earlier form is recorded anew if the schema does not differ from it.
pub async fn update_schema(
    connection: &mut Session,
    target: Target<'_>,
    postgres: &Postgres,
    server: &Server,
    isolation: Isolation,
    made: Option<&Shape>,
) -> Result<Option<Shape>, Failure> {
    let drifted = match made {
        Some(made) => shape(connection, target.schema, Some(made)).await? != *made,
        None => false,
    };
    let migrated = target.migrate(connection, &postgres.content.migrations).await?;
    if let Some(made) = made
        && !migrated.applied
    {
        return Ok((made.form() < FORM && !drifted).then_some(migrated.catalogue.shape));
    }
    if !drifted {
        return Ok(Some(migrated.catalogue.shape));
    }
    let (canary, _) = postgres.canary(server, isolation)?;
    recorded_shape(&mut *server.connection().await?, isolation, &canary.tenant).await
}

/// Tables, views and sequences that one transaction drops. With its indexes and its TOAST table a table takes four locks
/// or more, and PostgreSQL has 6,400 by default for all its sessions.
const RELATIONS_AT_ONCE: i64 = 500;
/// Tables that are dropped at once when a schema has more relations than that.
const TABLES_AT_ONCE: i64 = 100;

/// Compares a login role's privileges in a schema and those beside it with those that it should have: one sentence per
/// difference, at most 20. The role must exist.
pub async fn privilege_differences(
    connection: &mut Session,
    schema: &str,
    role: &Name,
    mode: Option<SuspensionMode>,
) -> Result<Vec<String>, Failure> {
    connection.all(
        concat!("WITH own AS (SELECT oid, ", name_of!(class "pg_class"), " AS relname, relkind,
                             $1 = 'tenantry_pool' AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = $5) AS is_lookup
                      FROM pg_class
                      WHERE ", in_schemas!(class "pg_class"), " AND relkind IN ('r', 'p', 'S') AND relname <> $4
                        AND NOT EXISTS (SELECT FROM pg_policy JOIN pg_depend ON refobjid = polrelid AND refclassid = 'pg_class'::regclass
                                        WHERE $1 = 'tenantry_pool' AND polname = $5 AND classid = 'pg_class'::regclass AND objid = pg_class.oid)
                        -- Partitions of shared tables have no privileges.
                        AND NOT (relispartition AND $1 = 'tenantry_pool')
                        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'i'
                                        AND refobjid = to_regclass(format('%I.%I', $1, $4)))),
         routines AS (SELECT oid, ", name_of!(proc "pg_proc"), " AS proname, proowner, proacl FROM pg_proc
                      WHERE ", in_schemas!(proc "pg_proc"), "
                        -- Those of an extension, and those that come with a range type.
                        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype IN ('e', 'i')))
         SELECT format('its login role may not connect to the database') WHERE NOT has_database_privilege($2, current_database(), 'CONNECT')
         UNION ALL SELECT concat('its login role may not use the schema', ' `' || nullif(nspname, $1)::text || '`') FROM pg_namespace
                   WHERE oid IN (", own_schemas!(), ") AND NOT has_schema_privilege($2, oid, 'USAGE')
         UNION ALL SELECT format('its login role has lost %s on table `%s`', string_agg(word, ', ' ORDER BY word), relname)
                   FROM own, unnest(CASE WHEN $3 OR is_lookup THEN ARRAY['SELECT'] ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) word
                   WHERE relkind <> 'S' AND NOT has_table_privilege($2, own.oid, word) GROUP BY relname
         UNION ALL SELECT format('its login role has lost USAGE on sequence `%s`', relname) FROM own
                   WHERE CASE WHEN relkind = 'S' AND NOT $3 THEN NOT has_sequence_privilege($2, own.oid, 'USAGE') END
         UNION ALL SELECT format('its login role may write to table `%s`, which is marked `tenantry: lookup`', relname) FROM own
                   WHERE is_lookup AND has_table_privilege($2, own.oid, 'INSERT, UPDATE, DELETE')
         UNION ALL SELECT format('its login role may write to table `%s` despite its fence', relname) FROM own
                   WHERE relkind <> 'S' AND $3 AND has_table_privilege($2, own.oid, 'INSERT, UPDATE, DELETE')
         UNION ALL SELECT format('its login role has lost EXECUTE on the function `%s`', proname) FROM routines
                   WHERE NOT $3 AND NOT has_function_privilege($2, oid, 'EXECUTE')
         UNION ALL SELECT format('every role may execute the function `%s`', proname) FROM routines
                   WHERE EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
         LIMIT 20"),
        &[&schema, &role.as_str(), &mode.is_some(), &migrate::TABLE, &LOOKUP_POLICY],
    )
    .await
    .map_err(failure)
}

/// Drops most tables of a schema in transactions of their own if there are so many that one transaction could not hold
/// their locks: partitions first, because a partitioned table is dropped with all of them. A removal that is
/// interrupted continues with the rest.
pub async fn drop_tables_in_batches(
    server: &Server,
    connection: &mut Session,
    schema: &str,
) -> Result<(), Failure> {
    loop {
        let (count, first): (i64, Option<String>) = connection
            .pairs(
                concat!("WITH own AS (SELECT relname, relkind, relispartition FROM pg_class WHERE ", in_schemas!(class "pg_class"), "),
                 first AS (SELECT relname FROM own WHERE relkind = 'r' ORDER BY relispartition DESC, relname LIMIT $3)
                 SELECT (SELECT count(*) FROM own), (SELECT string_agg(format('%I.%I', $1, relname), ', ') FROM first)
                 WHERE (SELECT count(*) FROM own) > $2"),
                &[&schema, &RELATIONS_AT_ONCE, &TABLES_AT_ONCE],
            )
            .await
            .map_err(failure)?
            .pop()
            .unwrap_or_default();
        let Some(tables) = first else { return Ok(()) };
        tracing::debug!(schema, relations = count, "tables are dropped in batches");
        drop_unblocked(server, connection, format!("DROP TABLE {tables} CASCADE")).await?;
    }
}

/// What a removal deleted.
pub struct RemovalCounts {
    /// Rows by table.
    pub rows: Value,
    /// Number of login roles.
    pub logins: usize,
    /// Replication slots of a database's subscriptions that publishers still keep.
    pub slots_left: Vec<String>,
}

impl Default for RemovalCounts {
    fn default() -> Self {
        Self { rows: Value::Object(Map::new()), logins: 0, slots_left: Vec::new() }
    }
}

/// An existing schema of a tenant, as `observe` finds it.
#[derive(Default)]
pub struct ObservedSchema {
    /// The schema's definition.
    pub shape: Shape,
    /// The applied migrations, oldest first.
    pub applied: Vec<Applied>,
    /// Differences in the login role's privileges.
    pub rights: Vec<String>,
}

impl ObservedSchema {
    /// Reads a tenant's schema, to be compared with this state. Without a role, privileges are not compared.
    pub async fn read(
        connection: &mut Session,
        schema: &str,
        role: Option<&Name>,
        state: &TenantState,
    ) -> Result<Self, Failure> {
        let rights = match role {
            Some(role) => privilege_differences(connection, schema, role, state.fence).await?,
            None => Vec::new(),
        };
        Ok(Self {
            shape: shape(connection, schema, state.shape.as_ref()).await?,
            applied: migrate::applied(connection, schema).await?,
            rights,
        })
    }
}

/// Compares a tenant's recorded state with its schema; none if the schema or database is missing.
pub fn observed(
    content: &Content,
    owner: &Owner,
    state: &TenantState,
    seen: Option<ObservedSchema>,
) -> Observed {
    let mut differs = Vec::new();
    if !state.thing || seen.is_none() {
        differs.push("its schema or database is missing, with all its rows".to_owned());
    }
    if !state.listed {
        differs.push("it is missing in the list of tenants".to_owned());
    }
    differs.extend(owner.differences(state).into_iter().map(str::to_owned));
    if state.completed.is_none() {
        differs.push("it was never completed".to_owned());
    }
    let ObservedSchema { shape, applied, rights } = match seen {
        Some(seen) => {
            differs.extend(content.behind(seen.applied.last().map(|last| &*last.version)));
            differs.extend(content.replaced(&seen.applied));
            differs.extend(state.shape.iter().flat_map(|made| made.differences(&seen.shape)));
            seen
        }
        None => ObservedSchema::default(),
    };
    let version = applied.last().map(|last| last.version.clone());
    differs.extend(rights);
    let [seed, completed] = [&state.seed, &state.completed].map(|word| word.as_deref().unwrap_or_default());
    let (shape, role) = (shape.fingerprint(), owner.newest(state).is.unwrap_or_default());
    let fingerprint = hex::encode(Sha256::digest(format!("{shape} {role} {seed} {completed}")));
    Observed::Present { differs, version, fingerprint }
}
