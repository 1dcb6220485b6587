-- Every role may connect to a new database. An empty database that belongs to the current role becomes Tenantry's alone;
-- in one with tables of others, and in `postgres`, which comes with the server, their owner decides.
DO $$
BEGIN
    IF pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database() AND oid >= 16384), 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND oid >= 16384
                         AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace))
    THEN
        EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $$
