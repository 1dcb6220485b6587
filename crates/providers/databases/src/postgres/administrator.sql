-- What the administrator's role lacks for an isolation ($1), with `app_role` ($2) and `connections` ($3): each right with
-- the statement that grants it, in the order in which they are needed.
WITH me AS (
    SELECT pg_roles.*, quote_ident(rolname) AS name, current_setting('server_version_num')::int >= 160000 AS has_options,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true), '0')::int AS connections
    FROM pg_roles WHERE rolname = current_user)
SELECT format('%s: run %s', lacks, statement) FROM (
    SELECT 1 AS place, 'CREATEROLE, to create tenants'' logins' AS lacks, format('ALTER ROLE %s CREATEROLE', name) AS statement
    FROM me WHERE NOT rolcreaterole AND NOT rolsuper
    UNION ALL SELECT 2, 'CREATEDB, to create tenants'' databases', format('ALTER ROLE %s CREATEDB', name)
    FROM me WHERE $1 = 'database' AND NOT rolcreatedb AND NOT rolsuper
    UNION ALL SELECT 3, 'BYPASSRLS, to write and delete the rows of all tenants in shared tables', format('ALTER ROLE %s BYPASSRLS', name)
    FROM me WHERE $1 = 'pool' AND NOT rolbypassrls AND NOT rolsuper
    UNION ALL SELECT 4, 'CREATE on the database, to create schemas', format('GRANT CREATE ON DATABASE %I TO %s', current_database(), name)
    FROM me WHERE NOT has_database_privilege(current_database(), 'CREATE')
    UNION ALL SELECT 5, format('the privileges of %s, which owns the schema %s', nspowner::regrole, nspname),
                     format('GRANT %s TO %s%s', nspowner::regrole, name, CASE WHEN has_options THEN ' WITH INHERIT TRUE, SET TRUE' END)
    FROM me, pg_namespace WHERE nspname IN ('tenantry', 'tenantry_pool') AND NOT pg_has_role(nspowner, 'USAGE')
    -- Before PostgreSQL 16, CREATEROLE lets a role join any other.
    UNION ALL SELECT 6, format('membership in `app_role`, which another role has created'), format('GRANT %I TO %s', app.rolname, name)
    FROM me, pg_roles app WHERE $1 = 'pool' AND has_options AND app.rolname = $2
      AND CASE WHEN has_options THEN NOT pg_has_role(app.oid, 'SET') AND NOT pg_has_role(app.oid, 'MEMBER WITH ADMIN OPTION') END
    UNION ALL SELECT 7, format('the right to grant %I, which tenants'' logins are members of', app.rolname), format('GRANT %I TO %s WITH ADMIN OPTION', app.rolname, name)
    FROM me, pg_roles app WHERE $1 = 'pool' AND has_options AND app.rolname = $2 || '_tenants' AND NOT pg_has_role(app.oid, 'MEMBER WITH ADMIN OPTION')
    UNION ALL SELECT 8, format('connections: `connections` is %s, and the server has %s', $3, connections),
                     format('ALTER SYSTEM SET max_connections = %s and restart PostgreSQL, or lower `connections`', $3 + 2 * (current_setting('max_connections')::int - connections) + 100)
    FROM me WHERE connections < $3
    UNION ALL SELECT 9, format('connections: `connections` is %s, and the role may have %s', $3, rolconnlimit), format('ALTER ROLE %s CONNECTION LIMIT %s', name, $3 * 2)
    FROM me WHERE rolconnlimit BETWEEN 0 AND $3 - 1 AND NOT rolsuper
    UNION ALL SELECT 10, format('connections: `connections` is %s, and the database may have %s', $3, datconnlimit),
                     format('ALTER DATABASE %I CONNECTION LIMIT %s', datname, $3 * 2)
    FROM me, pg_database WHERE datname = current_database() AND datconnlimit BETWEEN 0 AND $3 - 1 AND NOT rolsuper
) missing ORDER BY place
