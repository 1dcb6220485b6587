//! Exports and imports a tenant's large objects with their privileges, in pieces of 256 KiB: all of a tenant's own
//! database, and in a shared database those that the tenant's login owns. An import keeps their numbers, which rows refer
//! to, and fails if another role's large object has one of them.

use std::pin::pin;

use futures::TryStreamExt as _;
use tenantry_model::Failure;
use tenantry_postgres::{Error, Session};
use tokio::io::AsyncBufRead;

use super::fill;
use crate::postgres::failure::failure;
use crate::postgres::name::Name;
use crate::postgres::server::run;
use crate::tables::literal;
use tenantry_provider::csv;
use tenantry_provider::transfer::{Sink, Tally, bad_archive};

/// Prefix of the files' paths. No table's encoded name has a hyphen, so the paths differ from those of tables.
const PATH: &str = "large-objects";
/// Name of their count in the description of exported content.
const SET: &str = "large objects";
/// Temporary table for the pieces of an import.
const STAGED: &str = "tenantry_large_objects";
const COLUMNS: [&str; 5] = ["id", "owner", "access", "piece", "bytes"];
/// Most numbers that a failure lists.
const LISTED: i64 = 10;

/// Whose large objects a tenant's are.
#[derive(Clone, Copy)]
pub struct Owners<'a> {
    /// The tenant's login role.
    pub role: &'a Name,
    /// Whether all large objects of the database are the tenant's.
    pub all: bool,
}

impl Owners<'_> {
    /// SQL condition that a row of `pg_largeobject_metadata` is the tenant's.
    fn own(self) -> String {
        if self.all { "true".to_owned() } else { is_tenant("lomowner", self.role) }
    }
}

/// SQL condition that the role `owner` is this login role or one that acts as it, and not the administrator.
fn is_tenant(owner: &str, role: &Name) -> String {
    let role = literal(role.as_str());
    format!(
        "EXISTS (SELECT FROM pg_roles r WHERE r.oid = {owner} AND NOT rolsuper AND rolname <> current_user
                 AND pg_has_role(r.oid, {role}, 'MEMBER'))"
    )
}

/// Whether this is the path of a file of large objects.
pub fn is_file(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.starts_with('.'))
}

/// Exports the tenant's large objects, if there are any.
pub async fn export(
    connection: &mut Session,
    owners: Owners<'_>,
    sink: &mut dyn Sink,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let own = owners.own();
    let any = format!("SELECT EXISTS (SELECT FROM pg_largeobject_metadata WHERE {own})");
    if !connection.one::<bool>(&any, &[]).await.map_err(failure)? {
        return Ok(());
    }
    let mut out = csv::Table::at(sink, tally, SET, PATH.to_owned(), COLUMNS);
    let [owner, grantee] = ["lomowner", "grantee"].map(|role| is_tenant(role, owners.role));
    // 262144 is the mode for reading (INV_READ), and the size of a piece in bytes.
    let copy = format!(
        "COPY (SELECT o.oid, CASE WHEN {owner} THEN 'tenant' ELSE 'administrator' END,
                      (SELECT coalesce(jsonb_agg(entry ORDER BY entry), '[]') FROM (SELECT DISTINCT jsonb_build_array(
                           CASE WHEN grantee = 0 THEN 'public' WHEN {grantee} THEN 'tenant'
                                WHEN pg_get_userbyid(grantee) = current_user THEN 'administrator' ELSE 'role ' || pg_get_userbyid(grantee) END,
                           privilege_type, is_grantable) AS entry FROM aclexplode(lomacl) WHERE grantee <> lomowner) entries),
                      piece, lo_get(o.oid, piece * 262144, 262144)
               FROM (SELECT * FROM pg_largeobject_metadata WHERE {own}) o, lo_open(o.oid, 262144) opened, lo_lseek64(opened, 0, 2) size,
                    generate_series(0, greatest(size - 1, 0) / 262144) piece
               ORDER BY o.oid, piece) TO STDOUT (FORMAT csv)"
    );
    let rows = connection.copy_out(&copy).await.map_err(failure)?;
    let mut rows = pin!(rows.map_err(Error::from));
    while let Some(row) = rows.try_next().await.map_err(failure)? {
        out.row(&row).await?;
    }
    out.end().await
}

/// Copies a file's pieces into a temporary table, which is created for the first file. The file must have the
/// columns of this release.
pub async fn stage(
    connection: &mut Session,
    bytes: &mut (impl AsyncBufRead + Unpin),
    is_first: bool,
) -> Result<(), Failure> {
    let columns = csv::header(bytes).await?;
    if columns != COLUMNS {
        return Err(bad_archive("its file of large objects has other columns than this release reads"));
    }
    if is_first {
        let create = format!(
            "CREATE TEMP TABLE {STAGED} (id oid NOT NULL, owner text NOT NULL, access jsonb NOT NULL, piece bigint NOT NULL, bytes bytea NOT NULL) ON COMMIT DROP"
        );
        run(connection, create).await?;
    }
    fill(connection, STAGED, &columns, bytes).await
}

/// Replaces the tenant's large objects by the staged ones, or deletes all if none are staged.
pub async fn replace(connection: &mut Session, owners: Owners<'_>, is_staged: bool) -> Result<(), Failure> {
    let own = owners.own();
    let all = format!("SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE {own}");
    if !is_staged {
        return run(connection, all).await;
    }
    let taken = format!(
        "SELECT string_agg(oid::text, ', ') FROM (SELECT oid FROM pg_largeobject_metadata
         WHERE NOT ({own}) AND oid IN (SELECT id FROM pg_temp.{STAGED}) ORDER BY oid LIMIT {LISTED}) taken"
    );
    if let Some(taken) = connection.one::<Option<String>>(&taken, &[]).await.map_err(failure)? {
        return Err(bad_archive(format!(
            "its large objects {taken} have the numbers of large objects that this database has already, and rows refer to them by \
             number: load the archive into a tenant with a database of its own, or keep the data in columns of type `bytea`"
        )));
    }
    let create = create(owners);
    run(
        connection,
        format!("{all} AND oid NOT IN (SELECT id FROM pg_temp.{STAGED}); DO {}", literal(&create)),
    )
    .await
}

/// The PL/pgSQL block that creates or overwrites the staged large objects. The archive is not trusted: what it names is
/// quoted or compared.
fn create(owners: Owners<'_>) -> String {
    let tenant = is_tenant("owner", owners.role);
    let role = literal(&owners.role.to_string());
    // In a shared database the administrator's large objects are not the tenant's.
    let is_tenants = if owners.all { "bool_or(s.owner = 'tenant')" } else { "true" };
    // 131072 is the mode for writing (INV_WRITE).
    format!(
        "DECLARE object oid; is_tenants boolean; access jsonb; owner oid; role text; privilege text; may_grant text; BEGIN
             FOR object, is_tenants, access IN SELECT id, {is_tenants}, (array_agg(s.access))[1] FROM pg_temp.{STAGED} s GROUP BY id LOOP
                 SELECT lomowner INTO owner FROM pg_largeobject_metadata WHERE oid = object;
                 IF owner IS NULL THEN
                     PERFORM lo_create(object);
                     owner := quote_ident(current_user)::regrole;
                 ELSE
                     PERFORM lo_truncate64(lo_open(object, 131072), 0);
                 END IF;
                 IF is_tenants <> {tenant} THEN
                     EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %s', object, CASE WHEN is_tenants THEN {role} ELSE 'CURRENT_USER' END);
                 END IF;
                 FOR role IN SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
                             FROM pg_largeobject_metadata m, aclexplode(lomacl) WHERE m.oid = object AND grantee <> lomowner LOOP
                     EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE', object, role);
                 END LOOP;
                 FOR role, privilege, may_grant IN
                     SELECT CASE g->>0 WHEN 'public' THEN 'PUBLIC' WHEN 'tenant' THEN {role} WHEN 'administrator' THEN 'CURRENT_USER'
                                       ELSE quote_ident(substr(g->>0, 6)) END,
                            CASE g->>1 WHEN 'SELECT' THEN 'SELECT' ELSE 'UPDATE' END,
                            CASE g->>2 WHEN 'true' THEN ' WITH GRANT OPTION' ELSE '' END
                     FROM jsonb_array_elements(access) g ORDER BY 1, 2 LOOP
                     EXECUTE format('GRANT %s ON LARGE OBJECT %s TO %s%s', privilege, object, role, may_grant);
                 END LOOP;
             END LOOP;
             PERFORM lo_put(id, piece * 262144, bytes) FROM pg_temp.{STAGED} WHERE bytes <> '';
         END"
    )
}
