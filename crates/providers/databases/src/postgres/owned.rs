//! Drops what a tenant's login owns beside its tables: large objects and default privileges that it made, in whichever
//! database it could connect to. PostgreSQL drops no role that has any of them, or privileges.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::blockers::drop_unblocked;
use super::failure::failure;
use super::name::Name;
use super::server::{Server, with_keepalive};

/// Large objects that are dropped at once, well below PostgreSQL's default of locks in a transaction.
const LARGE_OBJECTS: i64 = 1_000;

/// How often a drop is repeated that met the end of another session.
const REPETITIONS: usize = 5;

/// Drops what the login owns and revokes its privileges, in all databases except `own`, which is dropped as a whole. The
/// caller has checked the owner tag.
pub async fn drop_owned(
    server: &Server,
    connection: &mut Session,
    login: &Name,
    own: Option<&Name>,
) -> Result<(), Failure> {
    drop_in(server, connection, login).await?;
    let elsewhere: Vec<String> = connection
        .all(
            "SELECT DISTINCT datname::text FROM pg_database b JOIN pg_shdepend d ON d.dbid = b.oid
             JOIN pg_roles r ON r.oid = refobjid AND refclassid = 'pg_authid'::regclass
             WHERE rolname = $1 AND datallowconn AND datname <> current_database() AND datname IS DISTINCT FROM $2",
            &[&login.as_str(), &own.map(Name::as_str)],
        )
        .await
        .map_err(failure)?;
    for database in elsewhere {
        let dropped = async {
            let mut inside = server.connect_to(&Name::existing(database.clone())).await?;
            drop_in(server, &mut inside, login).await?;
            inside.close().await;
            Ok(())
        };
        let dropped = with_keepalive(connection, dropped).await;
        dropped.map_err(|failure| Failure {
            message: format!(
                "the login {login} has objects in the database `{database}`: {}",
                failure.message
            ),
            ..failure
        })?;
    }
    Ok(())
}

async fn drop_in(server: &Server, connection: &mut Session, login: &Name) -> Result<(), Failure> {
    loop {
        // Each large object takes a lock until the end of the statement.
        let unlinked = connection
            .execute(
                "SELECT lo_unlink(oid) FROM (SELECT l.oid FROM pg_largeobject_metadata l JOIN pg_roles r ON r.oid = lomowner
                 WHERE rolname = $1 LIMIT $2) own",
                &[&login.as_str(), &LARGE_OBJECTS],
            )
            .await
            .map_err(failure)?;
        if i64::try_from(unlinked).is_ok_and(|unlinked| unlinked < LARGE_OBJECTS) {
            break;
        }
    }
    let sql = format!("DROP OWNED BY {login}");
    for _ in 0..REPETITIONS {
        match drop_unblocked(server, connection, sql.clone()).await {
            // The end of a session that granted the login something drops its temporary objects at the same moment.
            Err(failure) if failure.code == "rolled_back" => {
                tracing::debug!(%failure, "the drop is repeated")
            }
            dropped => return dropped,
        }
    }
    drop_unblocked(server, connection, sql).await
}
