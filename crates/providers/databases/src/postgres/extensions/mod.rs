//! Extensions that migrations name: installed once in a database, in a schema that belongs to no tenant. One that is
//! installed elsewhere stays there. Says in which schemas tenants' SQL finds them.

mod install;

use std::collections::BTreeSet;

use tenantry_model::Failure;
use tenantry_postgres::{Row, Session};

use super::failure::failure;
use super::logins::Login;
use super::server::run;
use crate::migrations::{EXTENSIONS, Extension, Members, Migration};
use crate::tables::{literal, quoted};
pub use install::{InstallIn, install, require_listed};

/// Name of the advisory lock under which the extensions of a main database change.
pub const LOCK: &str = "extensions";

/// Where the extensions are that migrations name.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// The schemas that the search path of tenants' SQL names after the tenant's.
    schemas: Vec<String>,
    /// Their objects, if a file may name them as objects of `public`.
    pub members: Members,
}

impl Extensions {
    /// Those of a database of a tenant's own.
    pub fn of_tenant(migrations: &[Migration]) -> Self {
        let any = migrations.iter().any(|migration| !migration.extensions.is_empty());
        Self::in_schemas(any.then(|| EXTENSIONS.to_owned()))
    }

    /// Those that the main database has now. Changes nothing.
    pub async fn of_main(connection: &mut Session, migrations: &[Migration]) -> Result<Self, Failure> {
        let names: Vec<&str> = wanted(migrations).iter().map(|(_, extension)| &*extension.name).collect();
        if names.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self::in_schemas(schemas(connection, &names).await?.into_iter().map(|schema| schema.name)))
    }

    fn in_schemas(schemas: impl IntoIterator<Item = String>) -> Self {
        Self { schemas: schemas.into_iter().collect(), members: Members::new() }
    }

    /// The setting with which unqualified names refer to this schema, and to extensions.
    pub fn search_path(&self, schema: &str) -> String {
        let path = [schema].into_iter().chain(self.schemas.iter().map(String::as_str)).map(quoted);
        format!("search_path = {}, pg_temp", path.collect::<Vec<_>>().join(", "))
    }

    /// Whether tenants' SQL needs a search path that names more than the tenant's schema.
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// The logins of these whose sessions in a database do not find extensions, a sentence for each.
    pub async fn not_found_by(
        &self,
        connection: &mut Session,
        database: &str,
        logins: impl Iterator<Item = Login>,
    ) -> Result<Vec<String>, Failure> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let logins: Vec<String> = logins.map(|login| login.name.as_str().to_owned()).collect();
        connection
            .all(
                "SELECT format('the search path of its login role %I does not name %s, the place of extensions', rolname, array_to_string($3::text[], ', '))
                 FROM pg_roles LEFT JOIN pg_db_role_setting ON setrole = pg_roles.oid AND setdatabase = (SELECT oid FROM pg_database WHERE datname = $2)
                 WHERE rolname::text = ANY ($1) AND NOT EXISTS (
                     SELECT FROM unnest(setconfig) setting
                     WHERE setting ^@ 'search_path=' AND string_to_array(translate(substr(setting, 13), '\" ', ''), ',') @> $3)
                 ORDER BY 1",
                &[&logins, &database, &self.schemas],
            )
            .await
            .map_err(failure)
    }
}

/// The extensions that files name, each once, with the file that names it first.
fn wanted(migrations: &[Migration]) -> Vec<(&Migration, &Extension)> {
    let all = migrations.iter().flat_map(|file| file.extensions.iter().map(move |it| (file, it)));
    let mut names = BTreeSet::new();
    all.filter(|(_, extension)| names.insert(&*extension.name)).collect()
}

/// A schema of the main database that has extensions.
struct Schema {
    name: String,
    /// One of them.
    extension: String,
    /// Whether tenants' SQL may use it.
    is_usable: bool,
    /// Whether every role may create objects in it.
    is_open: bool,
    /// Whether it belongs to a tenant or to Tenantry.
    is_taken: bool,
}

/// The schemas of these extensions and of those that they need, without those that an extension's own files name: such names
/// are always qualified.
async fn schemas(connection: &mut Session, names: &[&str]) -> Result<Vec<Schema>, Failure> {
    let found = connection
        .rows(
            "SELECT nspname::text, min(extname::text) AS extension,
                    has_schema_privilege('public', n.oid, 'USAGE') AS usable, has_schema_privilege('public', n.oid, 'CREATE') AS open,
                    nspname IN ('tenantry', 'tenantry_pool', 'tenantry_pool_partitions')
                        OR EXISTS (SELECT FROM tenantry.homes WHERE homes.name = n.nspname::text COLLATE \"default\") AS taken
             FROM pg_namespace n JOIN pg_extension e ON extnamespace = n.oid
             WHERE nspname <> 'pg_catalog'
               AND (extname = ANY ($1)
                    OR e.oid IN (SELECT refobjid FROM pg_depend JOIN pg_extension needs ON needs.oid = objid
                                 WHERE classid = 'pg_extension'::regclass AND refclassid = classid AND needs.extname = ANY ($1)))
               AND NOT EXISTS (SELECT FROM pg_available_extension_versions WHERE name = extname AND version = extversion AND schema = nspname)
             GROUP BY n.oid, nspname ORDER BY nspname <> $2, nspname",
            &[&names, &EXTENSIONS],
        )
        .await
        .map_err(failure)?;
    let schema = |row: &Row| Schema {
        name: row.get("nspname"),
        extension: row.get("extension"),
        is_usable: row.get("usable"),
        is_open: row.get("open"),
        is_taken: row.get("taken"),
    };
    Ok(found.iter().map(schema).collect())
}

/// Lets logins of shared tables find extensions: those that still have the search path that they got before there were any.
pub async fn extend_paths(
    connection: &mut Session,
    extensions: &Extensions,
    schema: &str,
) -> Result<(), Failure> {
    if extensions.is_empty() {
        return Ok(());
    }
    let path = literal(&format!(" SET {}", extensions.search_path(schema)));
    let code = format!(
        "DECLARE login text; BEGIN
             FOR login IN SELECT format('%I IN DATABASE %I', rolname, current_database())
                 FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole
                 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND {} = ANY (setconfig)
             LOOP EXECUTE 'ALTER ROLE ' || login || {path}; END LOOP;
         END",
        literal(&format!("search_path={schema}, pg_temp"))
    );
    run(connection, format!("DO {}", literal(&code))).await
}
