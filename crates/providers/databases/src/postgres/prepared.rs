//! Prepared transactions (two-phase commit). They outlive the session that prepared them, keep its locks on tables that
//! tenants share, and block the drop of their database.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::failure::failure;
use super::name::Name;
use super::server::{Server, run, with_keepalive};
use crate::tables::literal;

/// A prepared transaction of the server.
struct Prepared {
    /// The identifier that its client gave it; unique on the server.
    gid: String,
    owner: Name,
    database: Name,
}

/// Rolls back what this login has prepared, in whichever database. The caller has checked the owner tag and ended the
/// login's sessions.
pub async fn roll_back_of(server: &Server, connection: &mut Session, login: &Name) -> Result<(), Failure> {
    let own = read(connection, "owner = $1", login.as_str()).await?;
    roll_back_all(server, connection, own).await
}

/// Rolls back prepared transactions, each from its database. The latest failure does not keep the others from being rolled
/// back.
async fn roll_back_all(server: &Server, connection: &mut Session, all: Vec<Prepared>) -> Result<(), Failure> {
    let mut done = Ok(());
    for Prepared { gid, owner, database } in all {
        if database.as_str() == server.database() {
            done = roll_back(connection, &owner, &gid).await.and(done);
            continue;
        }
        let elsewhere = async {
            let mut inside = server.connect_to(&database).await?;
            roll_back(&mut inside, &owner, &gid).await?;
            inside.close().await;
            Ok(())
        };
        done = with_keepalive(connection, elsewhere).await.and(done);
    }
    done
}

/// Rolls back what was prepared in the database of this session, by whichever role. The latest failure does not keep the
/// others from being rolled back.
pub async fn roll_back_in(inside: &mut Session, database: &Name) -> Result<(), Failure> {
    let mut done = Ok(());
    for Prepared { gid, owner, .. } in read(inside, "database = $1", database.as_str()).await? {
        done = roll_back(inside, &owner, &gid).await.and(done);
    }
    done
}

/// Rolls back what tenants' logins have prepared, in whichever database, and what keeps this backend waiting for a lock, or for
/// a row that it has changed: nothing else ends it.
pub async fn roll_back_blockers(
    server: &Server,
    connection: &mut Session,
    waiting: i32,
) -> Result<(), Failure> {
    let condition = "EXISTS (
        SELECT FROM pg_locks w WHERE w.pid::text = $1 AND NOT w.granted AND (w.transactionid = x.transaction OR EXISTS (
            SELECT FROM pg_locks h JOIN pg_locks own ON own.virtualtransaction = h.virtualtransaction
            WHERE (h.locktype, h.database) = (w.locktype, w.database) AND h.granted AND h.pid IS NULL
              AND (h.relation, h.classid, h.objid, h.objsubid) IS NOT DISTINCT FROM (w.relation, w.classid, w.objid, w.objsubid)
              AND own.locktype = 'transactionid' AND own.transactionid = x.transaction AND own.pid IS NULL
              -- All other modes are those of reads and writes.
              AND (w.mode IN ('AccessExclusiveLock', 'ExclusiveLock') OR h.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))))
    ) AND EXISTS (
        SELECT FROM tenantry.homes JOIN pg_roles r ON claim = shobj_description(r.oid, 'pg_authid') WHERE rolname = x.owner)";
    let blocking = read(connection, condition, &waiting.to_string()).await?;
    roll_back_all(server, connection, blocking).await
}

/// Rolls back what tenants' logins have prepared in the main database and left for more than this number of seconds.
pub async fn roll_back_old(server: &Server, connection: &mut Session, seconds: u32) -> Result<(), Failure> {
    let condition = "database = current_database() AND prepared < clock_timestamp() - make_interval(secs => $1::text::bigint) AND EXISTS (
        SELECT FROM tenantry.homes JOIN pg_roles r ON claim = shobj_description(r.oid, 'pg_authid') WHERE rolname = x.owner)";
    let old = read(connection, condition, &seconds.to_string()).await?;
    roll_back_all(server, connection, old).await
}

/// The prepared transactions `x` that meet this condition on the text `$1`.
async fn read(
    connection: &mut Session,
    condition: &'static str,
    value: &str,
) -> Result<Vec<Prepared>, Failure> {
    let sql = format!(
        "SELECT gid, owner::text, database::text FROM pg_prepared_xacts x WHERE {condition} ORDER BY prepared"
    );
    let rows = connection.rows(&sql, &[&value]).await.map_err(failure)?;
    let all = rows
        .iter()
        .map(|row| {
            let [gid, owner, database]: [String; 3] =
                ["gid", "owner", "database"].map(|column| row.get(column));
            Prepared { gid, owner: Name::existing(owner), database: Name::existing(database) }
        })
        .collect();
    Ok(all)
}

/// Only the owner or a superuser may roll back, from a session in the transaction's database.
async fn roll_back(inside: &mut Session, owner: &Name, gid: &str) -> Result<(), Failure> {
    run(inside, format!("SET ROLE {owner}")).await?;
    let done = inside.run(&format!("ROLLBACK PREPARED {}", literal(gid))).await;
    run(inside, "RESET ROLE".to_owned()).await?;
    match done {
        // Its client has ended it.
        Err(error) if error.code() == Some("42704") => Ok(()),
        done => done.map_err(failure),
    }?;
    tracing::info!(%owner, "prepared transaction rolled back");
    Ok(())
}
