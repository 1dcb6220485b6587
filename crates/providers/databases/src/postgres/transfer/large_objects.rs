//! Exports and imports the large objects of a tenant's own database, in pieces of 256 KiB. An import keeps
//! their numbers, which rows refer to. In a shared database they belong to no schema, so a tenant that owns
//! some cannot be exported.

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
const COLUMNS: [&str; 4] = ["id", "owner", "piece", "bytes"];

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

/// Returns an error if the login role of a tenant's schema owns large objects.
pub async fn reject(connection: &mut Session, role: &Name) -> Result<(), Failure> {
    let any = format!("SELECT count(*) FROM pg_largeobject_metadata WHERE {}", is_tenant("lomowner", role));
    match connection.one::<i64>(&any, &[]).await.map_err(failure)? {
        0 => Ok(()),
        count => Err(Failure::fatal(
            "bad_schema",
            format!(
                "the tenant owns {count} large objects, which belong to no schema and would be missing in the export: move them into columns of type `bytea`, or delete them (`lo_unlink`)"
            ),
        )),
    }
}

/// Exports all large objects of the database, if it has any.
pub async fn export(
    connection: &mut Session,
    role: &Name,
    sink: &mut dyn Sink,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let any = "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)";
    if !connection.one::<bool>(any, &[]).await.map_err(failure)? {
        return Ok(());
    }
    let mut out = csv::Table::at(sink, tally, SET, PATH.to_owned(), COLUMNS);
    let tenant = is_tenant("lomowner", role);
    // 262144 is the mode for reading (INV_READ), and the size of a piece in bytes.
    let copy = format!(
        "COPY (SELECT o.oid, CASE WHEN {tenant} THEN 'tenant' ELSE 'administrator' END, piece, lo_get(o.oid, piece * 262144, 262144)
               FROM pg_largeobject_metadata o, lo_open(o.oid, 262144) opened, lo_lseek64(opened, 0, 2) size,
                    generate_series(0, greatest(size - 1, 0) / 262144) piece
               ORDER BY 1, 3) TO STDOUT (FORMAT csv)"
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
            "CREATE TEMP TABLE {STAGED} (id oid NOT NULL, owner text NOT NULL, piece bigint NOT NULL, bytes bytea NOT NULL) ON COMMIT DROP"
        );
        run(connection, create).await?;
    }
    fill(connection, STAGED, &columns, bytes).await
}

/// Replaces the database's large objects by the staged ones, or deletes all if none are staged. An existing
/// large object keeps its privileges.
pub async fn replace(connection: &mut Session, role: &Name, is_staged: bool) -> Result<(), Failure> {
    let all = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata";
    if !is_staged {
        return run(connection, all.to_owned()).await;
    }
    let tenant = is_tenant("owner", role);
    // 131072 is the mode for writing (INV_WRITE).
    let body = format!(
        "DECLARE object oid; is_tenants boolean; owner oid; BEGIN
             FOR object, is_tenants IN SELECT id, bool_or(s.owner = 'tenant') FROM pg_temp.{STAGED} s GROUP BY id LOOP
                 SELECT lomowner INTO owner FROM pg_largeobject_metadata WHERE oid = object;
                 IF owner IS NULL THEN
                     PERFORM lo_create(object);
                     owner := current_user::text::regrole;
                 ELSE
                     PERFORM lo_truncate64(lo_open(object, 131072), 0);
                 END IF;
                 IF is_tenants <> {tenant} THEN
                     EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %s', object, CASE WHEN is_tenants THEN {} ELSE 'CURRENT_USER' END);
                 END IF;
             END LOOP;
             PERFORM lo_put(id, piece * 262144, bytes) FROM pg_temp.{STAGED} WHERE bytes <> '';
         END",
        literal(&role.to_string())
    );
    run(
        connection,
        format!("{all} WHERE oid NOT IN (SELECT id FROM pg_temp.{STAGED}); DO {}", literal(&body)),
    )
    .await
}
