//! The list of tenants in a server's main database, `tenantry.homes`: owner tag, progress, and the access
//! that policies read. Also reads which objects exist under a tenant's names, and with which owner tag.

use serde_json::json;
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, Isolation, TenantId};
use tenantry_postgres::{Json, Session};

use super::failure::failure;
use super::logins::{self, Rotation};
use super::name::Name;
use super::server::run;
use crate::content::Ensure;
use crate::shape::Shape;
use crate::tables::literal;
use tenantry_provider::verbs::Ownership;

/// Tenantry's schema and the comment that identifies it.
const SCHEMA: &str = "tenantry";
const OWNER_TAG: &str = "tenantry: the list of tenants";

/// `access` is the applied fence: policies and every open of a tenant's rows read it; `access_version` is the
/// version of the order that set it. `sealed` is the password until the registry has it. `completed` is set
/// once everything exists. `schema` is the fingerprint of the recorded definition, which `shapes` stores once
/// for all tenants that have it. `claim` is the owner tag.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS tenantry.homes (
    isolation   text NOT NULL,
    tenant_id   text NOT NULL,
    name        text NOT NULL,
    claim       text NOT NULL,
    resource_id text NOT NULL,
    access      text NOT NULL DEFAULT 'full' CHECK (access IN ('full', 'read_only', 'no_login', 'blocked')),
    access_version bigint NOT NULL DEFAULT 0,
    sealed      text,
    seed        text,
    schema      text,
    completed   text,
    PRIMARY KEY (isolation, tenant_id),
    UNIQUE (isolation, name)
);
CREATE TABLE IF NOT EXISTS tenantry.shapes (
    fingerprint text PRIMARY KEY,
    parts       jsonb NOT NULL
)";

/// Creates the tables if they are missing. The caller holds the lock `directory`.
pub async fn create(connection: &mut Session) -> Result<(), Failure> {
    match schema_tag(connection, SCHEMA).await? {
        None => {
            let tag = literal(OWNER_TAG);
            let sql = format!(
                "BEGIN; CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS {tag}; {TABLE}; {}; COMMIT",
                logins::TABLE
            );
            run(connection, sql).await
        }
        Some(tag) if tag == OWNER_TAG => run(connection, format!("{TABLE}; {}", logins::TABLE)).await,
        Some(_) => Err(not_own()),
    }
}

fn not_own() -> Failure {
    Failure::fatal(
        "name_taken",
        "the main database has a schema `tenantry` without Tenantry's comment; it was not touched: name another database in `url`, or, if \
         the comment was lost, for instance by a restore, run COMMENT ON SCHEMA tenantry IS 'OWNER_TAG'"
            .replace("OWNER_TAG", OWNER_TAG),
    )
}

/// Whether this main database has a list of tenants. Changes nothing. Returns an error if a schema has its name but not its
/// comment: an empty list would make every removal a success that removes nothing.
pub async fn exists(connection: &mut Session) -> Result<bool, Failure> {
    match schema_tag(connection, SCHEMA).await? {
        None => Ok(false),
        Some(tag) if tag == OWNER_TAG => Ok(true),
        Some(_) => Err(not_own()),
    }
}

/// The comment of a schema; empty if it has none, none if there is no such schema.
pub async fn schema_tag(connection: &mut Session, name: &str) -> Result<Option<String>, Failure> {
    connection
        .first(
            "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $1",
            &[&name],
        )
        .await
        .map_err(failure)
}

/// Which of a tenant's objects exist, and their recorded state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantState {
    /// Whether the schema or database exists.
    pub thing: bool,
    /// Whether the role may log in; none if it is missing.
    pub role: Option<bool>,
    /// Whether the second login role may log in; none if it is missing.
    pub second: Option<bool>,
    /// Whether the second login role has the privileges of the first and may act as it.
    pub bound: bool,
    /// The last rotation of the password.
    pub rotation: Option<Rotation>,
    /// Whether the tenant is in the list.
    pub listed: bool,
    /// The sealed password, until the registry has it.
    pub sealed: Option<String>,
    /// The seed that filled the tables.
    pub seed: Option<String>,
    /// Recorded definition of the schema.
    pub shape: Option<Shape>,
    /// Time of completion.
    pub completed: Option<String>,
    /// What the applied fence denies.
    pub fence: Option<SuspensionMode>,
}

/// A tenant's identity on a server: its names there and its owner tag.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Isolation, the first part of the list's key.
    pub isolation: Isolation,
    /// The tenant's id.
    pub tenant: String,
    /// Name of the role, and of the schema or database.
    pub name: Name,
    /// Name of the second login role, which exists once the password was rotated.
    pub second: Name,
    /// The owner tag.
    pub tag: String,
    /// The resource's id.
    pub resource: String,
}

impl Owner {
    /// Returns an error if the server would reject or truncate a name.
    pub fn new(
        isolation: Isolation,
        tenant: String,
        name: &str,
        tag: &str,
        resource: String,
    ) -> Result<Self, Failure> {
        let (name, second) = (Name::new(name)?, logins::second(&resource)?);
        Ok(Self { isolation, tenant, name, second, tag: tag.to_owned(), resource })
    }

    /// The owner of rows that are to be written.
    pub fn of(isolation: Isolation, name: &str, work: &Ensure) -> Result<Self, Failure> {
        Self::new(isolation, work.tenant.clone(), name, &work.tag, work.resource.clone())
    }

    /// The tenant's id.
    pub fn tenant_id(&self) -> Result<TenantId, Failure> {
        let id = self.tenant.parse();
        id.map_err(|why| Failure::fatal("bad_name", format!("the tenant's id `{}` {why}", self.tenant)))
    }

    /// Name of the advisory lock under which the tenant's objects change.
    pub fn lock_name(&self) -> String {
        format!("{} {}", self.isolation.as_str(), self.name.as_str())
    }

    /// Reads the owner tags of the objects under the tenant's names, and their state. Changes nothing.
    pub async fn inspect(&self, connection: &mut Session) -> Result<Ownership<TenantState>, Failure> {
        let rows = connection.rows(
            "SELECT CASE $1 WHEN 'schema' THEN (SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $3)
                            WHEN 'database' THEN (SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $3) END AS thing,
                    (SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = $3) AS role,
                    (SELECT rolcanlogin FROM pg_roles WHERE rolname = $3) AS login,
                    coalesce(shobj_description(other.oid, 'pg_authid'), '') AS second_mark, other.rolcanlogin AS second,
                    (SELECT pg_has_role(other.oid, oid, 'USAGE')
                            AND pg_has_role(other.oid, oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
                     FROM pg_roles WHERE rolname = $3) AS bound,
                    h.tenant_id, h.name, h.claim, h.sealed, h.seed, s.parts, h.completed, h.access,
                    l.newest = l.name AS newest, l.former_stays, l.rotated_by, l.made_by
             FROM (VALUES (1)) one LEFT JOIN tenantry.homes h ON h.isolation = $1 AND (h.tenant_id = $2 OR h.name = $3)
             LEFT JOIN tenantry.shapes s ON s.fingerprint = h.schema
             LEFT JOIN tenantry.logins l ON l.isolation = h.isolation AND l.tenant_id = h.tenant_id
             LEFT JOIN pg_roles other ON other.rolname = $4",
            &[&self.isolation.as_str(), &self.tenant, &self.name.as_str(), &self.second.as_str()],
        )
        .await
        .map_err(failure)?;
        let mut state = TenantState::default();
        for row in rows {
            let second: Option<bool> = row.get("second");
            let tags: [Option<String>; 3] =
                [row.get("thing"), row.get("role"), second.map(|_| row.get("second_mark"))];
            let listed: Option<(String, String, String)> = row
                .get::<_, Option<String>>("tenant_id")
                .map(|tenant| (tenant, row.get("name"), row.get("claim")));
            let own = (self.tenant.as_str(), self.name.as_str(), self.tag.as_str());
            if tags.iter().flatten().any(|tag| *tag != self.tag)
                || listed.as_ref().is_some_and(|(tenant, name, claim)| (&**tenant, &**name, &**claim) != own)
            {
                return Ok(Ownership::Foreign);
            }
            let rotation = row.get::<_, Option<bool>>("newest").map(|second| Rotation {
                second,
                former_stays: row.get("former_stays"),
                by: row.get("rotated_by"),
                made_by: row.get("made_by"),
            });
            state = TenantState {
                // In the pool a tenant consists of its row in the list and its rows in the tables.
                thing: tags[0].is_some() || self.isolation == Isolation::Pool && listed.is_some(),
                role: row.get("login"),
                second,
                bound: row.get::<_, Option<bool>>("bound").unwrap_or_default(),
                rotation,
                listed: listed.is_some(),
                sealed: row.get("sealed"),
                seed: row.get("seed"),
                shape: row.get::<_, Option<Json<Shape>>>("parts").map(|parts| parts.0),
                completed: row.get("completed"),
                fence: row.get::<_, Option<&str>>("access").and_then(|access| access.parse().ok()),
            };
        }
        Ok(if state == TenantState::default() { Ownership::Absent } else { Ownership::Own(state) })
    }

    /// The statement that inserts or updates the tenant's row in the list, with a new password if there is
    /// one. `anew` clears the evidence of completion: the schema or database is created from scratch.
    pub fn enlist(&self, sealed: Option<&str>, anew: bool) -> String {
        let list = literal(self.isolation.as_str());
        let [tenant, name, tag, resource] =
            [&self.tenant, self.name.as_str(), &self.tag, &self.resource].map(literal);
        let sealed = sealed.map_or("NULL".to_owned(), literal);
        let forget = if anew { ", completed = NULL, schema = NULL, seed = NULL" } else { "" };
        format!(
            "INSERT INTO tenantry.homes (isolation, tenant_id, name, claim, resource_id, sealed)
             VALUES ({list}, {tenant}, {name}, {tag}, {resource}, {sealed})
             ON CONFLICT (isolation, tenant_id) DO UPDATE SET sealed = coalesce(excluded.sealed, homes.sealed){forget};"
        )
    }

    /// The statements that record completion, with the definition if it has changed. `known`: the registry
    /// has the password, so the list forgets it.
    pub fn complete(&self, work: &Ensure, shape: Option<&Shape>, known: bool) -> String {
        let [list, tenant, at] = [self.isolation.as_str(), &self.tenant, &work.at].map(literal);
        let seed = work.seed.as_deref().map_or("NULL".to_owned(), literal);
        let record = shape.map(record_shape).unwrap_or_default();
        let schema = shape.map_or("schema".to_owned(), |shape| literal(&shape.fingerprint()));
        let sealed = if known { "NULL" } else { "sealed" };
        format!(
            "{record}UPDATE tenantry.homes SET schema = {schema}, sealed = {sealed},
                    seed = CASE WHEN completed IS NULL THEN {seed} ELSE seed END, completed = coalesce(completed, {at})
             WHERE isolation = {list} AND tenant_id = {tenant};"
        )
    }

    /// Deletes the tenant's row from the list.
    pub async fn unlist(&self, connection: &mut Session) -> Result<(), Failure> {
        connection
            .execute(
                "DELETE FROM tenantry.homes WHERE isolation = $1 AND tenant_id = $2 AND claim = $3",
                &[&self.isolation.as_str(), &self.tenant, &self.tag],
            )
            .await
            .map(drop)
            .map_err(failure)
    }
}

/// Names of those of these tenants that are listed and complete.
pub async fn names_of(
    connection: &mut Session,
    isolation: Isolation,
    tenants: &[String],
) -> Result<Vec<(String, Name)>, Failure> {
    let rows: Vec<(String, String)> = connection
        .pairs(
            "SELECT tenant_id, name FROM tenantry.homes
         WHERE isolation = $1 AND tenant_id = ANY ($2) AND completed IS NOT NULL ORDER BY tenant_id",
            &[&isolation.as_str(), &tenants],
        )
        .await
        .map_err(failure)?;
    rows.into_iter().map(|(tenant, name)| Ok((tenant, Name::new(&name)?))).collect()
}

/// The name of a tenant's schema or database, if the tenant is listed, complete and not blocked.
pub async fn name_of(
    connection: &mut Session,
    isolation: Isolation,
    tenant: TenantId,
) -> Result<Option<Name>, Failure> {
    let name: Option<String> = connection
        .first(
            "SELECT name FROM tenantry.homes
         WHERE isolation = $1 AND tenant_id = $2 AND completed IS NOT NULL AND access <> 'blocked'",
            &[&isolation.as_str(), &tenant.to_string()],
        )
        .await
        .map_err(failure)?;
    name.as_deref().map(Name::new).transpose()
}

/// The statement that records a definition, once for all tenants that have it.
pub fn record_shape(shape: &Shape) -> String {
    let [fingerprint, parts] = [shape.fingerprint(), json!(shape).to_string()].map(|text| literal(&text));
    format!(
        "INSERT INTO tenantry.shapes (fingerprint, parts) VALUES ({fingerprint}, {parts}) ON CONFLICT DO NOTHING;"
    )
}

/// The recorded definition of a tenant's tables.
pub async fn recorded_shape(
    connection: &mut Session,
    isolation: Isolation,
    tenant: &str,
) -> Result<Option<Shape>, Failure> {
    let shape: Option<Json<Shape>> = connection.first(
        "SELECT parts FROM tenantry.homes JOIN tenantry.shapes ON schema = fingerprint WHERE isolation = $1 AND tenant_id = $2",
        &[&isolation.as_str(), &tenant],
    )
    .await
    .map_err(failure)?;
    Ok(shape.map(|shape| shape.0))
}
