//! Keeps tenants apart in shared tables: the function that returns a session's tenant, the policies of every
//! table, and the roles with access. Rejects tables, views and functions that bypass the policies.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use crate::postgres::{LOOKUP_POLICY, Memberships, Name, failure, grants, mark, run};
use crate::tables::{Catalogue, OWNER, OwnerType, literal, quoted};

/// Schema of the shared tables.
pub const SCHEMA: &str = "tenantry_pool";
/// Owner tag of the schema and the roles.
const OWNER_TAG: &str = "tenantry: the pool";

/// Command, name of its policy, clause, and whether the command writes.
const POLICIES: [(&str, &str, &str, bool); 4] = [
    ("SELECT", "tenantry_select", "USING", false),
    ("INSERT", "tenantry_insert", "WITH CHECK", true),
    ("UPDATE", "tenantry_update", "USING", true),
    ("DELETE", "tenantry_delete", "USING", true),
];

/// Finds objects in the schema `$1` that bypass the policies.
pub const BYPASSES: &str = include_str!("bypasses.sql");

/// Closes the partitions of shared tables: a partition has row level security without a policy and without privileges,
/// so that all access goes through its table, whose policies apply.
const CLOSE_PARTITIONS: &str = "
DO $$ DECLARE part text; BEGIN
    FOR part IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'tenantry_pool'::regnamespace AND relispartition AND relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; REVOKE ALL ON TABLE %s FROM PUBLIC, ROLES', part, part);
    END LOOP;
END $$;";

/// Gives `tenant_id` the session's tenant as default in every table whose file gives it none, so that an INSERT need not
/// name the tenant. ONLY, because a child by inheritance may have a default of its own.
const SET_DEFAULTS: &str = "
DO $$ DECLARE own record; BEGIN
    FOR own IN SELECT oid::regclass AS name, atttypid FROM pg_class JOIN pg_attribute ON attrelid = oid AND attname = 'tenant_id' AND NOT attisdropped
               WHERE relnamespace = 'tenantry_pool'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                 AND NOT atthasdef AND atttypid IN ('text'::regtype, 'uuid'::regtype)
    LOOP
        EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN tenant_id SET DEFAULT tenantry.%I(true)', own.name,
                       CASE own.atttypid WHEN 'uuid'::regtype THEN 'session_tenant_uuid' ELSE 'session_tenant' END);
    END LOOP;
END $$;";

/// Body of the function that returns a session's tenant as a UUID: the 26 characters after the prefix of its id are 130
/// bits in Crockford's base 32, of which the first two are zero.
pub const SESSION_TENANT_UUID: &str = "
SELECT string_agg(lpad(to_hex(substr(bits, 3 + 32 * word, 32)::bit(32)::bigint), 8, '0'), '' ORDER BY word)::uuid
FROM generate_series(0, 3) word,
     (SELECT string_agg((strpos('0123456789abcdefghjkmnpqrstvwxyz', digit) - 1)::bit(5)::text, '' ORDER BY place)
      FROM unnest(string_to_array(right(tenantry.session_tenant(writing), 26), NULL)) WITH ORDINALITY digits (digit, place)) id (bits)";

/// The function that returns a session's tenant as a value of this type.
const fn session_tenant(owner: OwnerType) -> &'static str {
    match owner {
        OwnerType::Text => "session_tenant",
        OwnerType::Uuid => "session_tenant_uuid",
    }
}

/// The two roles with privileges on the tables: applications, which name their tenant themselves, and
/// tenants' login roles.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Role of applications.
    pub app: Name,
    /// Role that every tenant's login role is a member of.
    pub tenants: Name,
}

impl Groups {
    /// From the application role's name.
    pub fn new(app: &str) -> Result<Self, Failure> {
        Ok(Self { app: Name::new(app)?, tenants: Name::new(&format!("{app}_tenants"))? })
    }

    /// Creates missing roles and the functions. The caller holds the lock `pool`.
    pub async fn ensure(&self, connection: &mut Session, memberships: Memberships) -> Result<(), Failure> {
        for role in [&self.app, &self.tenants] {
            ensure_role(connection, role, memberships).await?;
        }
        let Self { app, tenants } = self;
        let body = self.session_tenant();
        run(
            connection,
            format!(
                "CREATE OR REPLACE FUNCTION tenantry.session_tenant(writing boolean) RETURNS text
                 LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {};
                 CREATE OR REPLACE FUNCTION tenantry.session_tenant_uuid(writing boolean) RETURNS uuid
                 LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS {};
                 REVOKE ALL ON FUNCTION tenantry.session_tenant(boolean), tenantry.session_tenant_uuid(boolean) FROM PUBLIC;
                 GRANT USAGE ON SCHEMA tenantry TO {app}, {tenants};
                 GRANT EXECUTE ON FUNCTION tenantry.session_tenant(boolean), tenantry.session_tenant_uuid(boolean) TO {app}, {tenants};",
                literal(&body),
                literal(SESSION_TENANT_UUID),
            ),
        )
        .await
    }

    /// Body of the function that returns a session's tenant.
    pub fn session_tenant(&self) -> String {
        let app = literal(self.app.as_str());
        format!(
            "SELECT tenant_id FROM tenantry.homes
             WHERE isolation = 'pool' AND (access IN ('full', 'no_login') OR access = 'read_only' AND NOT writing)
               AND tenant_id = coalesce(
                   (SELECT login.tenant_id FROM tenantry.homes login
                    WHERE login.isolation = 'pool' AND login.name = session_user::text COLLATE \"default\"),
                   (SELECT login.tenant_id FROM tenantry.logins login
                    WHERE login.isolation = 'pool' AND login.name = session_user::text COLLATE \"default\"),
                   CASE WHEN pg_has_role(session_user, {app}, 'MEMBER') THEN current_setting('app.current_tenant_id', true) END)"
        )
    }

    /// The policies of a table with a `tenant_id` of this type as the server prints them: name, command, and the two
    /// expressions.
    pub fn policies(owner: OwnerType) -> impl Iterator<Item = [String; 4]> {
        let function = session_tenant(owner);
        POLICIES.into_iter().map(move |(command, policy, clause, writing)| {
            let letter = match command {
                "SELECT" => "r",
                "INSERT" => "a",
                "UPDATE" => "w",
                _ => "d",
            };
            let is_tenant = format!("({OWNER} = ( SELECT tenantry.{function}({writing}) AS {function}))");
            let (using, with_check) = match clause {
                "USING" => (is_tenant, String::new()),
                _ => (String::new(), is_tenant),
            };
            [policy.to_owned(), letter.to_owned(), using, with_check]
        })
    }

    /// The policy of a lookup table as the server prints it.
    pub fn lookup_policy() -> [String; 4] {
        [LOOKUP_POLICY, "r", "true", ""].map(str::to_owned)
    }

    /// The statements that protect every table: policies, defaults and privileges. A table without a tenant's id, which
    /// a later file may correct, admits no role until then.
    pub fn protect(&self, catalogue: &Catalogue) -> String {
        let mut sql = CLOSE_PARTITIONS.replace("ROLES", &format!("{}, {}", self.app, self.tenants));
        sql.push_str(SET_DEFAULTS);
        for (name, table) in &catalogue.tables {
            let (is_lookup, owner) = (table.is_lookup, table.owner.map(session_tenant));
            let table = format!("{SCHEMA}.{}", quoted(name));
            sql.push_str(&format!(
                "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            ));
            if is_lookup {
                let drop = |(_, policy, ..): (&str, &str, &str, bool)| {
                    format!("DROP POLICY IF EXISTS {policy} ON {table};")
                };
                sql.extend(POLICIES.map(drop));
                sql.push_str(&format!("{};", mark(&table)));
                continue;
            }
            let Some(function) = owner else { continue };
            for (command, policy, clause, writing) in POLICIES {
                sql.push_str(&format!(
                    "DROP POLICY IF EXISTS {policy} ON {table};
                     CREATE POLICY {policy} ON {table} FOR {command} {clause} ({OWNER} = (SELECT tenantry.{function}({writing})));"
                ));
            }
        }
        let lookups = catalogue.tables.iter().filter(|(_, table)| table.is_lookup).map(|(name, _)| name);
        sql.push_str(&grants(SCHEMA, &[&self.app, &self.tenants], lookups));
        sql
    }
}

/// Creates a schema if it is missing; `tag` is its present comment. Returns an error if it carries another
/// owner tag.
pub async fn ensure_schema(
    connection: &mut Session,
    schema: &str,
    tag: Option<String>,
) -> Result<(), Failure> {
    match tag {
        None => {
            let tag = literal(OWNER_TAG);
            run(connection, format!("CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS {tag};")).await
        }
        Some(tag) if tag == OWNER_TAG => Ok(()),
        Some(_) => Err(Failure::fatal(
            "name_taken",
            format!(
                "the main database has a schema `{schema}` that Tenantry did not create; it was not touched: name another database in `url`"
            ),
        )),
    }
}

/// Whether every table has its policies and its default, and no partition admits any role.
pub async fn is_protected(connection: &mut Session) -> Result<bool, Failure> {
    connection.one(
        "SELECT coalesce(bool_and(relrowsecurity AND relforcerowsecurity AND CASE
                    WHEN relispartition
                    THEN NOT EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee <> relowner)
                    WHEN EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = $2) THEN true
                    ELSE (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid AND polname ^@ 'tenantry_') = 4
                         AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped AND atthasdef) END), true)
         FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') AND relname <> '_migrations'",
        &[&SCHEMA, &LOOKUP_POLICY],
    )
    .await
    .map_err(failure)
}

/// Creates a role that cannot log in, or checks the operator's own.
async fn ensure_role(connection: &mut Session, role: &Name, memberships: Memberships) -> Result<(), Failure> {
    let acting = if memberships.options { "SET" } else { "MEMBER" };
    let found = connection.row(
        "SELECT rolsuper OR rolbypassrls OR rolname = current_user AS unbound,
                EXISTS (SELECT 1 FROM pg_class WHERE relowner = pg_roles.oid AND relnamespace = $2::regnamespace) AS owner,
                pg_has_role(oid, $3) AS joined
         FROM pg_roles WHERE rolname = $1",
        &[&role.as_str(), &SCHEMA, &acting],
    )
    .await
    .map_err(failure)?;
    let name = role.as_str();
    match found {
        Some(row) if row.get("unbound") || row.get("owner") => {
            return Err(Failure::fatal(
                "bad_role",
                format!(
                    "policies do not bind the role {name}, because it is a superuser, has BYPASSRLS, owns the tables or is the administrator: name another one in `app_role`"
                ),
            ));
        }
        // The administrator may be a member without the right to make others members.
        Some(row) if row.get("joined") => return Ok(()),
        Some(_) => {}
        None => {
            let tag = literal(OWNER_TAG);
            // Two main databases of one server may create the role at the same time.
            let sql = format!(
                "DO $$ BEGIN CREATE ROLE {role} NOLOGIN; COMMENT ON ROLE {role} IS {tag};
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
            );
            run(connection, sql).await?;
        }
    }
    run(connection, memberships.join(role)).await
}
