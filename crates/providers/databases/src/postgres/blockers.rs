//! Ends what keeps the administrator or other tenants waiting. Every login may take advisory locks, lock the tables that it
//! writes, change its own role in a transaction that it leaves open, and send nothing in the middle of a COPY. A session that
//! blocks is terminated, and a prepared transaction rolled back, if they are a tenant's login's.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tenantry_model::Failure;
use tenantry_postgres::Session;
use tokio::time::{interval, timeout};

use super::failure::failure;
use super::name::Name;
use super::prepared::{roll_back_blockers, roll_back_old};
use super::server::{Server, create_objects, run};
use crate::tables::literal;

/// Time that the administrator waits before it looks up what blocks it; each time twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest time between two such looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a change of logins is repeated.
const REPETITIONS: usize = 8;
/// How often the sessions that others wait for are looked up.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Runs statements that drop a tenant's objects, and ends what tenants' logins block them with.
pub async fn drop_unblocked(server: &Server, connection: &mut Session, sql: String) -> Result<(), Failure> {
    let backend = connection.backend().await.map_err(failure)?;
    unblocked(server, backend, run(connection, sql)).await
}

/// Runs statements that change a tenant's logins, in one transaction. A login may change itself at the same moment: its
/// sessions are ended if they block the statements or make them fail.
pub async fn change_logins(
    server: &Server,
    connection: &mut Session,
    logins: &[&Name],
    sql: String,
) -> Result<(), Failure> {
    let backend = connection.backend().await.map_err(failure)?;
    let mut changed = unblocked(server, backend, create_objects(connection, sql.clone())).await;
    // In one message with the change, so that a login that connects again comes too late.
    let end = |login: &&Name| {
        let login = literal(login.as_str());
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {login};")
    };
    let alone = logins.iter().map(end).collect::<String>() + &sql;
    for _ in 0..REPETITIONS {
        match changed {
            Err(failure) if failure.code == "rolled_back" => {}
            done => return done,
        }
        changed = unblocked(server, backend, create_objects(connection, alone.clone())).await;
    }
    changed
}

/// Does `work` in the administrator's session `backend`, and ends what tenants' logins block it with.
pub async fn unblocked<T>(
    server: &Server,
    backend: i32,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    let mut pause = FIRST_PAUSE;
    let mut aside = None;
    loop {
        if let Ok(done) = timeout(pause, &mut work).await {
            return done;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
        // On the heap, because few waits need it and every wait would have its size.
        let ended = Box::pin(end_blockers_aside(server, &mut aside, backend)).await;
        // Without it the statement waits up to the lock timeout, as for any lock.
        if let Err(failure) = ended {
            aside = None;
            tracing::warn!(%failure, "what blocks the administrator cannot be looked up; it waits");
        }
    }
}

/// The same in a session beside that of the work, which is kept for the next look.
async fn end_blockers_aside(
    server: &Server,
    aside: &mut Option<Session>,
    waiting: i32,
) -> Result<(), Failure> {
    let session = match aside {
        Some(session) => session,
        None => aside.insert(server.connect().await?),
    };
    end_blockers(server, session, waiting).await
}

/// Terminates the sessions of tenants' logins that block the backend `$1`. DROP DATABASE waits, without a lock, until every
/// session of the server has noticed, and one whose client sends nothing in the middle of a COPY does not.
const END_BLOCKERS: &str = "
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
    WHERE NOT rolsuper AND EXISTS (SELECT FROM tenantry.homes WHERE claim = shobj_description(usesysid, 'pg_authid'))
      AND (pid = ANY (pg_blocking_pids($1))
           OR state = 'active' AND wait_event = 'ClientRead'
              AND EXISTS (SELECT FROM pg_stat_activity waiting WHERE waiting.pid = $1 AND waiting.wait_event = 'ProcSignalBarrier'))";

/// Ends the sessions and prepared transactions of tenants' logins that block this backend.
async fn end_blockers(server: &Server, connection: &mut Session, waiting: i32) -> Result<(), Failure> {
    connection.execute(END_BLOCKERS, &[&waiting]).await.map_err(failure)?;
    roll_back_blockers(server, connection, waiting).await
}

/// Sessions that have waited in this database for 5 seconds for what another role has: a table, or an advisory lock. A
/// tenant's login counts only while it waits to read or write a table: it could wait for other locks to have their holders
/// ended. The two logins of a tenant have the same comment and may wait for each other.
const WAITING: &str = "
    WITH sessions AS (SELECT pid, shobj_description(usesysid, 'pg_authid') AS claim FROM pg_stat_activity)
    SELECT pid FROM pg_locks JOIN sessions waiting USING (pid)
    WHERE NOT granted AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND pg_locks.waitstart < clock_timestamp() - interval '5 s'
      AND CASE WHEN EXISTS (SELECT FROM tenantry.homes WHERE homes.claim = waiting.claim)
               THEN locktype = 'relation' AND mode IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
               ELSE locktype IN ('relation', 'advisory') END
      AND EXISTS (SELECT FROM unnest(pg_blocking_pids(pid)) blocking LEFT JOIN sessions b ON b.pid = blocking
                  WHERE b.pid IS NULL OR b.claim IS DISTINCT FROM waiting.claim)";

/// Ends the sessions of tenants' logins in this database whose transaction is older than `$1` seconds, and returns their pids. Without
/// the materialised list the planner may call the function before it has compared anything.
const END_OLD: &str = "
    WITH old AS MATERIALIZED (
        SELECT pid FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
        WHERE datname = current_database() AND xact_start < clock_timestamp() - make_interval(secs => $1::bigint)
          AND NOT rolsuper AND EXISTS (SELECT FROM tenantry.homes WHERE claim = shobj_description(usesysid, 'pg_authid')))
    SELECT pid FROM old WHERE pg_terminate_backend(pid)";

/// Looks every second at the sessions of tenants' logins in the main database, until the server is dropped. Ends those that
/// keep others waiting, because a lock on a table that tenants share stops all of them, and those whose transaction is
/// older than this number of seconds.
pub async fn watch(server: Weak<Server>, transaction_limit: u32) {
    let mut every = interval(WATCH_EVERY);
    loop {
        every.tick().await;
        let Some(server) = server.upgrade() else { return };
        if let Err(failure) = end_obstructions(&server, transaction_limit).await {
            tracing::debug!(%failure, "not all that tenants' logins obstruct others with was ended");
        }
    }
}

async fn end_obstructions(server: &Arc<Server>, transaction_limit: u32) -> Result<(), Failure> {
    if !server.is_set_up().await? {
        return Ok(());
    }
    let mut connection = server.connection().await?;
    // What cannot be ended must not keep the rest from being ended.
    let waits = end_long_waits(server, &mut connection).await;
    let old = end_old(server, &mut connection, transaction_limit).await;
    let prepared = roll_back_old(server, &mut connection, transaction_limit).await;
    waits.and(old).and(prepared)
}

async fn end_old(server: &Server, connection: &mut Session, seconds: u32) -> Result<(), Failure> {
    let old: Vec<i32> = connection.all(END_OLD, &[&i64::from(seconds)]).await.map_err(failure)?;
    if !old.is_empty() {
        let sessions = old.len();
        tracing::warn!(server = server.id(), sessions, "transactions of tenants' logins were too old: ended");
    }
    Ok(())
}

async fn end_long_waits(server: &Server, connection: &mut Session) -> Result<(), Failure> {
    let waiting: Vec<i32> = connection.all(WAITING, &[]).await.map_err(failure)?;
    for backend in waiting {
        tracing::warn!(
            server = server.id(),
            "a tenant's login has kept others waiting: its session is ended"
        );
        end_blockers(server, connection, backend).await?;
    }
    Ok(())
}
