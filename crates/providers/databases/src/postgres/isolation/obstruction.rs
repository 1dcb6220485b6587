//! What tenants' logins have on a server that others wait for or could run out of: locks, old transactions, connections,
//! temporary tables, and the queue of notifications. PostgreSQL gives every login some of each; the check reports what
//! is more than the limits of the provider allow.

use tenantry_model::Failure;
use tenantry_postgres::{Session, Value};
use tenantry_provider::isolation::Findings;

use crate::postgres::config::Config;
use crate::postgres::failure::failure;

/// Time that the provider has to end what has reached a limit.
const GRACE_SECONDS: i64 = 5;
/// Kinds of obstruction, with the query that finds them. `$1` is the limit of a transaction in seconds, `$2` that of a
/// login's connections.
pub const OBSTRUCTIONS: [(&str, &str); 5] = [
    ("locks", LOCKS),
    ("old_transactions", OLD_TRANSACTIONS),
    ("connections", CONNECTIONS),
    ("temporary_tables", TEMPORARY_TABLES),
    ("notifications", NOTIFICATIONS),
];

/// Locks of tenants' sessions that a session of another role has waited for longer than [`GRACE_SECONDS`], and locks on tables that tenants share which
/// exclude everyone else's reads or writes.
const LOCKS: &str = "
    WITH tenants AS (SELECT pid, usename, shobj_description(usesysid, 'pg_authid') AS claim FROM pg_stat_activity
                     WHERE shobj_description(usesysid, 'pg_authid') IN (SELECT claim FROM tenantry.homes))
    SELECT DISTINCT format('%s keeps %s waiting', tenants.usename, waiting.usename)
    FROM pg_stat_activity waiting, unnest(pg_blocking_pids(waiting.pid)) blocking JOIN tenants ON tenants.pid = blocking
    WHERE EXISTS (SELECT FROM pg_locks w WHERE w.pid = waiting.pid AND NOT w.granted AND w.waitstart < clock_timestamp() - interval '5 s')
      AND shobj_description(waiting.usesysid, 'pg_authid') IS DISTINCT FROM claim
      AND $1::bigint IS NOT NULL AND $2::bigint IS NOT NULL
    UNION SELECT format('%s has locked %s', usename, relation::regclass)
    FROM tenants JOIN pg_locks USING (pid) JOIN pg_class ON pg_class.oid = relation AND relnamespace = to_regnamespace('tenantry_pool')
    WHERE granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    ORDER BY 1";

/// Transactions of tenants' sessions that are older than the limit, and prepared ones: no vacuum of the database removes
/// what has been deleted since.
const OLD_TRANSACTIONS: &str = "
    SELECT format('%s since %s', usename, to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
    FROM pg_stat_activity
    WHERE datname = current_database() AND shobj_description(usesysid, 'pg_authid') IN (SELECT claim FROM tenantry.homes)
      AND xact_start < clock_timestamp() - make_interval(secs => $1::bigint) AND $2::bigint IS NOT NULL
    UNION ALL SELECT format('%s, prepared, since %s', owner, to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
    FROM pg_prepared_xacts JOIN pg_roles ON rolname = owner
    WHERE database = current_database() AND shobj_description(pg_roles.oid, 'pg_authid') IN (SELECT claim FROM tenantry.homes)
      AND prepared < clock_timestamp() - make_interval(secs => $1::bigint)
    ORDER BY 1";

/// Tenants' logins that may have more connections than the limit, and a server that has fewer than a tenth left.
const CONNECTIONS: &str = "
    SELECT format('%s may have %s', rolname, CASE rolconnlimit WHEN -1 THEN 'any number' ELSE rolconnlimit::text END)
    FROM pg_roles WHERE rolcanlogin AND rolconnlimit NOT BETWEEN 0 AND $2::bigint AND $1::bigint IS NOT NULL
      AND shobj_description(oid, 'pg_authid') IN (SELECT claim FROM tenantry.homes)
    UNION ALL SELECT format('%s of %s connections of the server are taken, %s of them by tenants', total, most, tenants)
    FROM (SELECT count(*) AS total, count(*) FILTER (WHERE shobj_description(usesysid, 'pg_authid') IN (SELECT claim FROM tenantry.homes)) AS tenants
          FROM pg_stat_activity WHERE datname IS NOT NULL) taken,
         (SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true), '0')::int AS most) room
    WHERE total * 10 > most * 9 AND tenants > 0
    ORDER BY 1";

/// Logins whose temporary tables in this database have more than 64 MiB: they take the disk that all tenants share.
const TEMPORARY_TABLES: &str = "
    SELECT format('%s: %s', relowner::regrole, pg_size_pretty(sum(pg_total_relation_size(pg_class.oid))))
    FROM pg_class WHERE relpersistence = 't' AND relkind IN ('r', 'm') AND $1::bigint IS NOT NULL AND $2::bigint IS NOT NULL
      AND shobj_description(relowner, 'pg_authid') IN (SELECT claim FROM tenantry.homes)
    GROUP BY relowner HAVING sum(pg_total_relation_size(pg_class.oid)) > 64 * 1024 * 1024
    ORDER BY 1";

/// A queue of notifications that is more than a hundredth full, because a session that listens reads none: when it is full, no transaction of the server may notify.
const NOTIFICATIONS: &str = "
    SELECT format('the queue is %s %% full', round((pg_notification_queue_usage() * 100)::numeric, 1))
    WHERE pg_notification_queue_usage() > 0.01 AND $1::bigint IS NOT NULL AND $2::bigint IS NOT NULL";

/// Reads each kind of obstruction in the session's database.
pub async fn obstructions(
    connection: &mut Session,
    findings: &mut Findings,
    config: &Config,
) -> Result<(), Failure> {
    let transaction = i64::from(config.transaction_limit_seconds) + GRACE_SECONDS;
    let values: [&dyn Value; 2] = [&transaction, &i64::from(config.connection_limit)];
    for (what, sql) in OBSTRUCTIONS {
        let found = connection.all(sql, &values).await.map_err(failure)?;
        findings.obstructions(what, found);
    }
    Ok(())
}
