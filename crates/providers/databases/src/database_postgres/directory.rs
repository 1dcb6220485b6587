//! The list of tenants in a server's main database, `tenantry.homes`: whose what is, how far it is done, and the access
//! row that policies consult. And what really stands under a name, with whose mark.

use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use tenantry_model::suspension::Grade;
use tenantry_model::{Failure, Isolation, TenantId};

use super::failure::failure;
use super::logins::{self, Rotation};
use super::name::Name;
use super::server::run;
use crate::content::Ensure;
use crate::shape::Shape;
use crate::tables::literal;

/// Our own schema, and the mark that says that it is ours.
const SCHEMA: &str = "tenantry";
const MARK: &str = "tenantry: the list of tenants";

/// `access` is where a fence is put: policies read it, and whoever opens a tenant's rows does; `access_version` is that of
/// the order it came by. `sealed` is the password until the registry has it. `completed` is the evidence that everything is there.
/// `schema` is the fingerprint of what was made or migrated; what that stands for is in `shapes`, once for all who have it.
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

/// Makes the list if it is missing. The caller has the turn for it.
pub async fn create(connection: &mut PgConnection) -> Result<(), Failure> {
    match mark_of_schema(connection, SCHEMA).await? {
        None => {
            let mark = literal(MARK);
            let sql = format!(
                "BEGIN; CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS {mark}; {TABLE}; {}; COMMIT",
                logins::TABLE
            );
            run(connection, sql).await
        }
        Some(mark) if mark == MARK => run(connection, format!("{TABLE}; {}", logins::TABLE)).await,
        Some(_) => Err(Failure::fatal(
            "name_taken",
            "the main database has a schema `tenantry` that is not ours; it was not touched: name another database in `url`",
        )),
    }
}

/// The comment of a schema that is there; empty if it has none.
pub async fn mark_of_schema(connection: &mut PgConnection, name: &str) -> Result<Option<String>, Failure> {
    sqlx::query_scalar(
        "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $1",
    )
    .bind(name)
    .fetch_optional(connection)
    .await
    .map_err(failure)
}

/// What stands under a tenant's name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something of somebody else's.
    Foreign,
    /// The tenant's own.
    Ours(State),
}

/// How far a tenant's things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether its schema or database is there.
    pub thing: bool,
    /// Whether its role is there, and may log in by now.
    pub role: Option<bool>,
    /// Whether its second login role is there, and may log in by now.
    pub second: Option<bool>,
    /// Whether the second one has the rights of the first.
    pub bound: bool,
    /// How its password was rotated last, if it ever was.
    pub rotation: Option<Rotation>,
    /// Whether it is in the list.
    pub listed: bool,
    /// The password, sealed, until the registry has it.
    pub sealed: Option<String>,
    /// The seed that it began with.
    pub seed: Option<String>,
    /// The schema as it was made, or migrated.
    pub shape: Option<Shape>,
    /// When all of it was there.
    pub completed: Option<String>,
    /// What its fence denies.
    pub fence: Option<Grade>,
}

/// Who looks, and for what.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Which list.
    pub isolation: Isolation,
    /// The tenant's id.
    pub tenant: String,
    /// The name of its role, and of its schema or database.
    pub name: Name,
    /// The name of its second login role, which is there once its password was rotated.
    pub second: Name,
    /// The owner mark.
    pub claim: String,
    /// The resource's id.
    pub resource: String,
}

impl Owner {
    /// Fails if the server would not take the name as it is.
    pub fn new(
        isolation: Isolation,
        tenant: String,
        name: &str,
        claim: &str,
        resource: String,
    ) -> Result<Self, Failure> {
        let (name, second) = (Name::new(name)?, logins::second(&resource)?);
        Ok(Self { isolation, tenant, name, second, claim: claim.to_owned(), resource })
    }

    /// Of what is to be made.
    pub fn of(isolation: Isolation, name: &str, work: &Ensure) -> Result<Self, Failure> {
        Self::new(isolation, work.tenant.clone(), name, &work.claim, work.resource.clone())
    }

    /// The word of the turn in which its things are changed.
    pub fn word(&self) -> String {
        format!("{} {}", self.isolation.as_str(), self.name.as_str())
    }

    /// What there is, without changing it.
    pub async fn look(&self, connection: &mut PgConnection) -> Result<Found, Failure> {
        let rows = sqlx::query(
            "SELECT CASE $1 WHEN 'schema' THEN (SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $3)
                            WHEN 'database' THEN (SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $3) END AS thing,
                    (SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = $3) AS role,
                    (SELECT rolcanlogin FROM pg_roles WHERE rolname = $3) AS login,
                    coalesce(shobj_description(other.oid, 'pg_authid'), '') AS second_mark, other.rolcanlogin AS second,
                    (SELECT pg_has_role(other.oid, oid, 'USAGE') FROM pg_roles WHERE rolname = $3) AS bound,
                    h.tenant_id, h.name, h.claim, h.sealed, h.seed, s.parts, h.completed, h.access,
                    l.newest = l.name AS newest, l.former_stays, l.rotated_by, l.made_by
             FROM (VALUES (1)) one LEFT JOIN tenantry.homes h ON h.isolation = $1 AND (h.tenant_id = $2 OR h.name = $3)
             LEFT JOIN tenantry.shapes s ON s.fingerprint = h.schema
             LEFT JOIN tenantry.logins l ON l.isolation = h.isolation AND l.tenant_id = h.tenant_id
             LEFT JOIN pg_roles other ON other.rolname = $4",
        )
        .bind(self.isolation.as_str())
        .bind(&self.tenant)
        .bind(self.name.as_str())
        .bind(self.second.as_str())
        .fetch_all(connection)
        .await
        .map_err(failure)?;
        let mut state = State::default();
        for row in rows {
            let second: Option<bool> = row.get("second");
            let marks: [Option<String>; 3] =
                [row.get("thing"), row.get("role"), second.map(|_| row.get("second_mark"))];
            let listed: Option<(String, String, String)> = row
                .get::<Option<String>, _>("tenant_id")
                .map(|tenant| (tenant, row.get("name"), row.get("claim")));
            let ours = (self.tenant.as_str(), self.name.as_str(), self.claim.as_str());
            if marks.iter().flatten().any(|mark| *mark != self.claim)
                || listed.as_ref().is_some_and(|(tenant, name, claim)| (&**tenant, &**name, &**claim) != ours)
            {
                return Ok(Found::Foreign);
            }
            let rotation = row.get::<Option<bool>, _>("newest").map(|second| Rotation {
                second,
                former_stays: row.get("former_stays"),
                by: row.get("rotated_by"),
                made_by: row.get("made_by"),
            });
            state = State {
                // In the pool a tenant is its line in the list, and what that leads to.
                thing: marks[0].is_some() || self.isolation == Isolation::Pool && listed.is_some(),
                role: row.get("login"),
                second,
                bound: row.get::<Option<bool>, _>("bound").unwrap_or_default(),
                rotation,
                listed: listed.is_some(),
                sealed: row.get("sealed"),
                seed: row.get("seed"),
                shape: row.get::<Option<Json<Shape>>, _>("parts").map(|parts| parts.0),
                completed: row.get("completed"),
                fence: row.get::<Option<&str>, _>("access").and_then(|access| access.parse().ok()),
            };
        }
        Ok(if state == State::default() { Found::Nothing } else { Found::Ours(state) })
    }

    /// The statement that sees to the tenant's line in the list, with this password if it got a new one. Of what is made from
    /// nothing, `anew`, there is no evidence yet, and an earlier one's counts no longer.
    pub fn enlist(&self, sealed: Option<&str>, anew: bool) -> String {
        let list = literal(self.isolation.as_str());
        let [tenant, name, claim, resource] =
            [&self.tenant, self.name.as_str(), &self.claim, &self.resource].map(literal);
        let sealed = sealed.map_or("NULL".to_owned(), literal);
        let forget = if anew { ", completed = NULL, schema = NULL, seed = NULL" } else { "" };
        format!(
            "INSERT INTO tenantry.homes (isolation, tenant_id, name, claim, resource_id, sealed)
             VALUES ({list}, {tenant}, {name}, {claim}, {resource}, {sealed})
             ON CONFLICT (isolation, tenant_id) DO UPDATE SET sealed = coalesce(excluded.sealed, homes.sealed){forget};"
        )
    }

    /// The statements that say that all of it is there, in this shape if it is another one now. `known`: the registry has the
    /// password, so that it is kept here no longer.
    pub fn complete(&self, work: &Ensure, shape: Option<&Shape>, known: bool) -> String {
        let [list, tenant, at] = [self.isolation.as_str(), &self.tenant, &work.at].map(literal);
        let seed = work.seed.as_deref().map_or("NULL".to_owned(), literal);
        let record = shape.map(record).unwrap_or_default();
        let schema = shape.map_or("schema".to_owned(), |shape| literal(&shape.fingerprint()));
        let sealed = if known { "NULL" } else { "sealed" };
        format!(
            "{record}UPDATE tenantry.homes SET schema = {schema}, sealed = {sealed},
                    seed = CASE WHEN completed IS NULL THEN {seed} ELSE seed END, completed = coalesce(completed, {at})
             WHERE isolation = {list} AND tenant_id = {tenant};"
        )
    }

    /// Strikes the tenant off the list.
    pub async fn strike(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query("DELETE FROM tenantry.homes WHERE isolation = $1 AND tenant_id = $2 AND claim = $3")
            .bind(self.isolation.as_str())
            .bind(&self.tenant)
            .bind(&self.claim)
            .execute(connection)
            .await
            .map(drop)
            .map_err(failure)
    }
}

/// Those of these tenants that are in the list and complete, each with its name.
pub async fn names_of(
    connection: &mut PgConnection,
    isolation: Isolation,
    tenants: &[String],
) -> Result<Vec<(String, Name)>, Failure> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT tenant_id, name FROM tenantry.homes
         WHERE isolation = $1 AND tenant_id = ANY ($2) AND completed IS NOT NULL ORDER BY tenant_id",
    )
    .bind(isolation.as_str())
    .bind(tenants)
    .fetch_all(connection)
    .await
    .map_err(failure)?;
    rows.into_iter().map(|(tenant, name)| Ok((tenant, Name::new(&name)?))).collect()
}

/// The name under which a tenant's rows are, if it is listed and complete and not fenced off.
pub async fn name_of(
    connection: &mut PgConnection,
    isolation: Isolation,
    tenant: TenantId,
) -> Result<Option<Name>, Failure> {
    let name: Option<String> = sqlx::query_scalar(
        "SELECT name FROM tenantry.homes
         WHERE isolation = $1 AND tenant_id = $2 AND completed IS NOT NULL AND access <> 'blocked'",
    )
    .bind(isolation.as_str())
    .bind(tenant.to_string())
    .fetch_optional(connection)
    .await
    .map_err(failure)?;
    name.as_deref().map(Name::new).transpose()
}

/// The statement that records a shape, once for all who have it.
pub fn record(shape: &Shape) -> String {
    let [fingerprint, parts] = [shape.fingerprint(), json!(shape).to_string()].map(|text| literal(&text));
    format!(
        "INSERT INTO tenantry.shapes (fingerprint, parts) VALUES ({fingerprint}, {parts}) ON CONFLICT DO NOTHING;"
    )
}

/// The shape that is recorded of a tenant's tables, if one is.
pub async fn recorded(
    connection: &mut PgConnection,
    isolation: Isolation,
    tenant: &str,
) -> Result<Option<Shape>, Failure> {
    let shape: Option<Json<Shape>> = sqlx::query_scalar(
        "SELECT parts FROM tenantry.homes JOIN tenantry.shapes ON schema = fingerprint WHERE isolation = $1 AND tenant_id = $2",
    )
    .bind(isolation.as_str())
    .bind(tenant)
    .fetch_optional(connection)
    .await
    .map_err(failure)?;
    Ok(shape.map(|shape| shape.0))
}
