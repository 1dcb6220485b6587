//! Installs the extensions that migrations name and the database lacks, and names what prevents it.

use tenantry_model::{Failure, FailureClass};
use tenantry_postgres::{Error, Row, Session};

use super::{Extensions, Schema, schemas, wanted};
use crate::migrations::{DEFAULT_EXTENSIONS, EXTENSIONS, Extension, Migration, shared_fault};
use crate::postgres::failure::failure;
use crate::tables::{literal, quoted};

/// Objects of extensions by name or operator.
const MEMBERS: &str = include_str!("members.sql");

/// The database in which extensions are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallIn {
    /// The main database, with the rows of many tenants.
    Main,
    /// A database of one tenant, whose tables are in `public`.
    OfTenant,
}

/// Installs the extensions that migrations name and the database lacks. The caller holds a lock on the extensions of
/// this database.
pub async fn install(
    connection: &mut Session,
    migrations: &[Migration],
    target: InstallIn,
) -> Result<Extensions, Failure> {
    let wanted = wanted(migrations);
    let names: Vec<&str> = wanted.iter().map(|(_, extension)| &*extension.name).collect();
    if names.is_empty() {
        return Ok(Extensions::default());
    }
    let installed = "SELECT extname::text FROM pg_extension WHERE extname = ANY ($1)";
    let installed: Vec<String> = connection.all(installed, &[&names]).await.map_err(failure)?;
    for (migration, extension) in wanted {
        let missing = !installed.contains(&extension.name);
        let done = match shared_fault(&extension.name).filter(|_| target == InstallIn::Main) {
            Some(why) => Err(Failure::fatal("bad_migration", why)),
            None if missing => create(connection, extension, target).await,
            None => Ok(()),
        };
        done.map_err(|failure| at(migration, extension, failure))?;
    }
    let mut extensions = match target {
        InstallIn::Main => Extensions::in_schemas(require_closed(schemas(connection, &names).await?)?),
        InstallIn::OfTenant => Extensions::of_tenant(migrations),
    };
    if migrations.iter().flat_map(|it| &it.statements).any(|statement| statement.may_name_members()) {
        let members = connection.pairs(MEMBERS, &[&names]).await.map_err(failure)?;
        extensions.members = members.into_iter().collect();
    }
    Ok(extensions)
}

/// Adds the file and the line that name the extension.
fn at(migration: &Migration, extension: &Extension, failure: Failure) -> Failure {
    let message = format!("{}:{}: {}", migration.file, extension.line, failure.message);
    match failure.class {
        FailureClass::Invalid | FailureClass::Fatal => Failure { message, ..failure },
        FailureClass::Retryable | FailureClass::Unknown => failure,
    }
}

async fn create(connection: &mut Session, extension: &Extension, target: InstallIn) -> Result<(), Failure> {
    let Extension { name, version, .. } = extension;
    let available = connection
        .row(
            "SELECT schema IS NULL AS movable, trusted, current_database()::text AS database, current_user::text AS administrator,
                    (SELECT string_agg(format('`%s`', needs), ', ') FROM unnest(requires) needs WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = needs)) AS needs
             FROM pg_available_extension_versions v JOIN pg_available_extensions e USING (name)
             WHERE name = $1 AND v.version = coalesce($2, e.default_version)",
            &[&name.as_str(), &version.as_deref()],
        )
        .await
        .map_err(failure)?;
    let Some(available) = available else {
        let version =
            version.as_ref().map(|version| format!(" in the version {version}")).unwrap_or_default();
        return Err(Failure::fatal(
            "bad_migration",
            format!(
                "the server does not have the extension `{name}`{version}: install its package on the server, or remove the statement"
            ),
        ));
    };
    // CASCADE would install extensions that no list allows.
    if let Some(needs) = available.get::<_, Option<&str>>("needs") {
        let why = format!(
            "the extension `{name}` needs {needs}: create what it needs by statements before this one"
        );
        return Err(Failure::fatal("bad_migration", why));
    }
    let mut sql = format!("CREATE EXTENSION IF NOT EXISTS {}", quoted(name));
    if available.get("movable") {
        sql.push_str(&format!(" SCHEMA {EXTENSIONS}"));
    }
    if let Some(version) = version {
        sql.push_str(&format!(" VERSION {}", literal(version)));
    }
    require_own_schema(connection).await?;
    let created = match create_schema(connection).await {
        Ok(()) => connection.run(&sql).await,
        Err(error) => Err(error),
    };
    created.map_err(|error| match error.code() {
        Some("42501") => not_allowed(name, &sql, &available, target),
        _ => failure(error),
    })
}

/// Returns an error if the schema of extensions belongs to a tenant, whose login has the same comment.
async fn require_own_schema(connection: &mut Session) -> Result<(), Failure> {
    let of_tenant = "SELECT EXISTS (SELECT FROM pg_roles
        WHERE shobj_description(oid, 'pg_authid') = obj_description(to_regnamespace($1), 'pg_namespace'))";
    match connection.one(of_tenant, &[&EXTENSIONS]).await.map_err(failure)? {
        false => Ok(()),
        true => Err(Failure::fatal(
            "name_taken",
            format!(
                "extensions cannot be installed: the schema `{EXTENSIONS}` belongs to a tenant; remove that tenant, or the statement"
            ),
        )),
    }
}

/// Creates the schema of extensions if it is missing.
async fn create_schema(connection: &mut Session) -> Result<(), Error> {
    let missing = "SELECT to_regnamespace($1) IS NULL";
    if connection.one(missing, &[&EXTENSIONS]).await? {
        let sql = format!(
            "CREATE SCHEMA {EXTENSIONS}; GRANT USAGE ON SCHEMA {EXTENSIONS} TO PUBLIC;
             COMMENT ON SCHEMA {EXTENSIONS} IS 'tenantry: extensions, which all tenants of the database use'"
        );
        // One message is one transaction.
        connection.run(&sql).await?;
    }
    Ok(())
}

fn not_allowed(name: &str, sql: &str, available: &Row, target: InstallIn) -> Failure {
    let (database, administrator): (&str, &str) = (available.get("database"), available.get("administrator"));
    let how = match (available.get("trusted"), target) {
        (true, _) => format!("run GRANT CREATE ON DATABASE {} TO {}", quoted(database), quoted(administrator)),
        (false, InstallIn::Main) => format!("a superuser must run `{sql}` in the database {database}"),
        (false, InstallIn::OfTenant) => {
            "only a superuser may create it, and every tenant's database needs it: let Tenantry connect as a superuser, or \
             use another isolation"
                .to_owned()
        }
    };
    Failure::fatal("not_allowed", format!("the administrator may not create the extension `{name}`: {how}"))
}

/// The names of these schemas. Returns an error if tenants cannot use one of them, or could put objects into it that others
/// would use unknowingly, or if a tenant's removal would drop it.
fn require_closed(schemas: Vec<Schema>) -> Result<Vec<String>, Failure> {
    for Schema { name: schema, extension, is_usable, is_open, is_taken } in &schemas {
        let name = quoted(schema);
        if *is_taken {
            let why = format!(
                "the extension `{extension}` is in the schema {schema}, which is not for all tenants: create a schema `{EXTENSIONS}` and run \
                 ALTER EXTENSION {} SET SCHEMA {EXTENSIONS}",
                quoted(extension)
            );
            return Err(Failure::fatal("bad_schema", why));
        }
        if !*is_usable {
            let why = format!(
                "tenants' SQL cannot use extensions in the schema {schema}: run GRANT USAGE ON SCHEMA {name} TO PUBLIC"
            );
            return Err(Failure::fatal("not_allowed", why));
        }
        if *is_open {
            let why = format!(
                "every role may create objects beside the extensions in the schema {schema}, which other tenants would use: run \
                 REVOKE CREATE ON SCHEMA {name} FROM PUBLIC"
            );
            return Err(Failure::fatal("isolation_broken", why));
        }
    }
    Ok(schemas.into_iter().map(|schema| schema.name).collect())
}

/// Returns an error that names listed extensions which the server does not have. Those of the default list may be missing.
pub async fn require_listed(connection: &mut Session, listed: &[String]) -> Result<(), Failure> {
    let missing: Vec<String> = connection
        .all(
            "SELECT name FROM unnest($1::text[]) name WHERE name <> ALL ($2) AND name NOT IN (SELECT name::text FROM pg_available_extensions) ORDER BY 1",
            &[&listed, &DEFAULT_EXTENSIONS.as_slice()],
        )
        .await
        .map_err(failure)?;
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "`extensions` lists what the server does not have: {}; install the packages on the server, or shorten the list",
        missing.join(", ")
    );
    Err(Failure::fatal("bad_settings", why))
}
