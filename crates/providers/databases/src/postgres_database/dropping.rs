//! Counts and drops a tenant's database whatever uses it: sessions, also those that reconnect in a loop, replication slots, subscriptions and
//! prepared transactions. What the administrator may not end is named, with the command that ends it.

use serde_json::{Map, Value};
use tenantry_model::{Failure, FailureClass};
use tenantry_postgres::Session;

use super::client::SCHEMA;
use crate::postgres::{Name, Server, count_all, drop_unblocked, failure, roll_back_in, run, with_keepalive};
use crate::tables::{literal, quoted};

/// Time for a publisher to drop the replication slot of a subscription, in milliseconds.
const PUBLISHER_TIMEOUT_MS: u32 = 5_000;

/// Counts what is in a tenant's database and drops it. Returns the number of rows by table and of large objects, and the
/// replication slots of its subscriptions that publishers, which did not answer, still keep. The caller has checked the
/// owner tag and holds a lock on it.
pub async fn remove_database(
    server: &Server,
    lock: &mut Session,
    name: &Name,
) -> Result<(Map<String, Value>, Vec<String>), Failure> {
    // An earlier attempt may have closed it, and a template cannot be dropped.
    run(lock, format!("ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true")).await?;
    let mut inside = with_keepalive(lock, server.connect_to(name)).await?;
    // From now on not even a superuser can connect, and so neither can a client that reconnects in a loop.
    run(lock, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
    let removed = async {
        let counted = async {
            let slots = release(&mut inside, name).await?;
            let rows = count(&mut inside).await?;
            inside.close().await;
            Ok::<_, Failure>((rows, slots))
        };
        let counted = with_keepalive(lock, counted).await?;
        drop_database(server, lock, name).await?;
        Ok::<_, Failure>(counted)
    };
    match removed.await {
        Err(failure) if failure.class != FailureClass::Unknown => {
            let obstacles = match &*failure.code {
                "busy" | "not_allowed" => obstacles(lock, name).await?,
                _ => None,
            };
            // What stands in the way can be ended from a session in the database only.
            run(lock, allow_connections(name)).await?;
            Err(obstacles.unwrap_or(failure))
        }
        removed => removed,
    }
}

/// The statement that lets sessions connect to a database again, which an interrupted removal may have closed.
pub fn allow_connections(name: &Name) -> String {
    format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")
}

/// Drops a database and terminates its sessions; absent is success. The caller has checked the owner tag.
pub async fn drop_database(server: &Server, connection: &mut Session, name: &Name) -> Result<(), Failure> {
    let drop_it = format!("DROP DATABASE IF EXISTS {name}");
    match drop_unblocked(server, connection, format!("{drop_it} WITH (FORCE)")).await {
        // Only a superuser may terminate autovacuum; without FORCE the server asks it to stop, and waits.
        Err(failure) if failure.code == "not_allowed" => drop_unblocked(server, connection, drop_it).await,
        dropped => dropped,
    }
}

/// Rows by table, and large objects.
async fn count(inside: &mut Session) -> Result<Map<String, Value>, Failure> {
    let mut rows = count_all(inside, SCHEMA).await?;
    let objects = "SELECT count(*) FROM pg_largeobject_metadata";
    let objects: i64 = inside.one(objects, &[]).await.map_err(failure)?;
    if objects > 0 {
        rows.insert("large objects".to_owned(), objects.into());
    }
    Ok(rows)
}

/// Ends what uses the database, as far as the administrator may. Returns the slots that publishers still keep.
async fn release(inside: &mut Session, name: &Name) -> Result<Vec<String>, Failure> {
    let ended = inside.execute(END_SESSIONS, &[]).await;
    attempted("end sessions", ended.map(drop).map_err(failure))?;
    let slots = drop_subscriptions(inside).await?;
    attempted("roll back prepared transactions", roll_back_in(inside, name).await)?;
    Ok(slots)
}

/// Terminates the other sessions of the database that this role may terminate, among them the readers of replication slots.
/// An idle slot is dropped with its database.
const END_SESSIONS: &str = "
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = usesysid, pg_roles own
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND own.rolname = current_user
      AND (own.rolsuper OR NOT r.rolsuper AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')))";

/// Drops the subscriptions with their slots, or without a slot whose publisher cannot be reached.
async fn drop_subscriptions(inside: &mut Session) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    let own = "SELECT subname::text, subslotname::text FROM pg_subscription
         WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let own: Vec<(String, Option<String>)> = inside.pairs(own, &[]).await.map_err(failure)?;
    for (name, slot) in own {
        let subscription = quoted(&name);
        let drop_it = format!("DROP SUBSCRIPTION {subscription}");
        let with_slot = async {
            run(inside, format!("ALTER SUBSCRIPTION {subscription} DISABLE")).await?;
            run(inside, format!("SET statement_timeout = {PUBLISHER_TIMEOUT_MS}")).await?;
            let dropped = run(inside, drop_it.clone()).await;
            run(inside, "RESET statement_timeout".to_owned()).await?;
            dropped
        };
        if with_slot.await.is_ok() {
            continue;
        }
        let without = async {
            run(inside, format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)")).await?;
            run(inside, drop_it.clone()).await
        };
        let dropped = without.await;
        if dropped.is_ok() {
            left.extend(slot);
        }
        attempted("drop a subscription", dropped)?;
    }
    if !left.is_empty() {
        tracing::warn!(slots = left.join(", "), "publishers did not answer and keep these replication slots");
    }
    Ok(left)
}

/// Logs a failed step: the drop that follows names what stands in the way.
fn attempted(step: &'static str, done: Result<(), Failure>) -> Result<(), Failure> {
    match done {
        Err(failure) if failure.class == FailureClass::Unknown => Err(failure),
        Err(failure) => {
            tracing::warn!(%failure, step, "a step towards the drop of a database failed");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What keeps the database from being dropped, each with the command that ends it; none if nothing does.
async fn obstacles(connection: &mut Session, name: &Name) -> Result<Option<Failure>, Failure> {
    let found: Vec<String> = connection.all(OBSTACLES, &[&name.as_str()]).await.map_err(failure)?;
    if found.is_empty() {
        return Ok(None);
    }
    let why = format!(
        "the database {} cannot be dropped by Tenantry's administrator: {}; then retry",
        literal(name.as_str()),
        found.join("; ")
    );
    Ok(Some(Failure::fatal("not_allowed", why)))
}

/// A sentence for each session, prepared transaction and subscription of the database `$1`, without the administrator's own
/// sessions, which end by themselves.
const OBSTACLES: &str = "
    SELECT format('session %s of %s%s uses it: %s', pid, coalesce(format('the role `%s`', usename), backend_type),
                  (SELECT format(', which reads the replication slot `%s`,', min(slot_name)) FROM pg_replication_slots WHERE active_pid = pid
                   HAVING count(*) > 0),
                  CASE WHEN rolsuper OR usesysid IS NULL THEN format('run SELECT pg_terminate_backend(%s) as a superuser', pid)
                       ELSE format('end it, or run GRANT pg_signal_backend TO %I', current_user) END)
    FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid
    WHERE datname = $1 AND usename IS DISTINCT FROM current_user
    UNION ALL
    SELECT format('the role `%s` has prepared a transaction in it: as that role or a superuser, run ROLLBACK PREPARED %L there', owner, gid)
    FROM pg_prepared_xacts WHERE database = $1
    UNION ALL
    SELECT format('it has the subscription `%s` of the role `%s`: as that role or a superuser, run ALTER SUBSCRIPTION %I DISABLE,'
                  ' ALTER SUBSCRIPTION %I SET (slot_name = NONE) and DROP SUBSCRIPTION %I there', subname, rolname, subname, subname, subname)
    FROM pg_subscription JOIN pg_roles r ON r.oid = subowner WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = $1)";
