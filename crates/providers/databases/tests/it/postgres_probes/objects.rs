//! The objects that are tried, as queries of a superuser, and statements that reach the server itself. `$schemas` are
//! those of the tenant, `$shared` its id in shared tables or empty, `$role` its role.

/// Name, whether it is in a schema of the tenant, whether rows have a tenant, and a column.
pub const RELATIONS: &str = "
    SELECT format('%I.%I', nspname, relname), nspname IN ($schemas) AND NOT relname ^@ '_migrations',
           EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped),
           (SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND NOT nspname ^@ 'pg_temp' AND NOT nspname ^@ 'pg_toast_temp'
    ORDER BY 1";

/// Kinds of objects: each row has a name, words for the ways to reach it, and their statements.
pub const NAMED: [(&str, &str); 6] = [
    ("sequence", SEQUENCES),
    ("function", FUNCTIONS),
    ("type", TYPES),
    ("large object", LARGE_OBJECTS),
    ("schema", SCHEMAS),
    ("session", SESSIONS),
];

/// Numbers of shared tables come from shared sequences, of which a tenant may take the next.
const SEQUENCES: &str = "
    SELECT name, ARRAY['set', 'read', 'change'] || CASE WHEN own THEN '{}'::text[] ELSE '{next}' END,
           ARRAY[format('SELECT setval(%L, 1) > 0', name), format('SELECT last_value IS NOT NULL FROM %s', name), format('ALTER SEQUENCE %s RESTART', name)]
           || CASE WHEN own THEN '{}'::text[] ELSE ARRAY[format('SELECT nextval(%L) > 0', name)] END
    FROM (SELECT format('%I.%I', nspname, relname) AS name, nspname IN ($schemas) AND NOT relname ^@ '_migrations' AS own
          FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'S' AND NOT nspname ^@ 'pg_temp') s
    WHERE NOT own OR '$shared' <> '' ORDER BY 1";

/// Functions of the tenant's schema and of extensions it may call, but not change.
const FUNCTIONS: &str = "
    SELECT name, ARRAY['change'] || CASE WHEN own THEN '{}'::text[] ELSE '{call}' END,
           ARRAY[format('ALTER ROUTINE %s RENAME TO probed', name)]
           || CASE WHEN own THEN '{}'::text[] ELSE ARRAY[format('%s %s(%s)', CASE kind WHEN 'p' THEN 'CALL' ELSE 'WITH x AS (SELECT' END, called, arguments)
                                                          || CASE kind WHEN 'p' THEN '' ELSE ') TABLE x' END] END
    FROM (SELECT p.oid::regprocedure::text AS name, format('%I.%I', nspname, proname) AS called, prokind AS kind,
                 nspname IN ($schemas, 'extensions') OR nspname = 'tenantry' AND proname ^@ 'session_tenant' AND '$shared' <> '' AS own,
                 (SELECT string_agg(format('NULL::%s', format_type(argument, NULL)), ', ' ORDER BY place)
                  FROM unnest(proargtypes) WITH ORDINALITY a (argument, place)) AS arguments
          FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
          WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND NOT nspname ^@ 'pg_temp') f ORDER BY 1";

/// Schemas other than `public` and that of extensions have no use for a tenant, and so have their types.
const TYPES: &str = "
    SELECT format_type(t.oid, NULL), ARRAY['change'] || CASE nspname WHEN 'extensions' THEN '{}'::text[] ELSE '{use}' END,
           ARRAY[format('DROP TYPE %s', format_type(t.oid, NULL))]
           || CASE nspname WHEN 'extensions' THEN '{}'::text[] ELSE ARRAY[format('WITH x AS (SELECT NULL::%s) TABLE x', format_type(t.oid, NULL))] END
    FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'public', 'tenantry', $schemas) AND NOT nspname ^@ 'pg_temp' ORDER BY 1";

const LARGE_OBJECTS: &str = "
    SELECT oid::text, ARRAY['read', 'write', 'write', 'delete', 'change'],
           ARRAY[format('SELECT lo_get(%s) IS NOT NULL', oid), format('WITH x AS (SELECT lo_put(%s, 0, ''x'')) TABLE x', oid),
                 format('SELECT lo_truncate(lo_open(%s, x''20000''::int), 0) = 0', oid), format('SELECT lo_unlink(%s) = 1', oid),
                 format('COMMENT ON LARGE OBJECT %s IS ''x''', oid)]
    FROM pg_largeobject_metadata WHERE lomowner <> (SELECT oid FROM pg_roles WHERE rolname = '$role') ORDER BY oid LIMIT 50";

/// `public`, `extensions` and, for shared tables, `tenantry` may be used: they hold nothing that a tenant can read.
const SCHEMAS: &str = "
    SELECT nspname::text, ARRAY['create', 'change'] || CASE WHEN used THEN '{}'::text[] ELSE '{use}' END,
           ARRAY[format('CREATE TABLE %I.probed (a int)', nspname), format('ALTER SCHEMA %I RENAME TO probed', nspname)]
           || CASE WHEN used THEN '{}'::text[] ELSE ARRAY[format('SELECT has_schema_privilege(%L, ''USAGE'')', nspname)] END
    FROM (SELECT nspname, nspname IN ($schemas, 'public', 'extensions') OR nspname = 'tenantry' AND '$shared' <> '' AS used FROM pg_namespace
          WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND NOT nspname ^@ 'pg_') s ORDER BY 1";

const SESSIONS: &str = "
    SELECT pid::text, ARRAY['cancel', 'terminate'], ARRAY[format('SELECT pg_cancel_backend(%s)', pid), format('SELECT pg_terminate_backend(%s)', pid)]
    FROM pg_stat_activity WHERE datname = current_database() AND usename <> '$role' AND backend_type = 'client backend'";

/// Attempts on another role or tenant's database of this name.
pub fn of_role(name: &str) -> Vec<(String, String)> {
    let [quoted, literal] = [name.replace('"', "\"\""), name.replace('\'', "''")];
    let tries = [
        ("become", format!("SET ROLE \"{quoted}\"")),
        ("become", format!("SET SESSION AUTHORIZATION \"{quoted}\"")),
        ("change", format!("ALTER ROLE \"{quoted}\" PASSWORD 'probed'")),
        ("change", format!("ALTER ROLE \"{quoted}\" SET work_mem = '8MB'")),
        ("join", format!("GRANT \"{quoted}\" TO CURRENT_USER")),
        ("drop", format!("DROP ROLE \"{quoted}\"")),
        (
            "connect",
            format!(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{literal}' AND datname <> 'postgres' AND has_database_privilege(oid, 'CONNECT, TEMPORARY, CREATE'))"
            ),
        ),
    ];
    tries.into_iter().map(|(how, sql)| (how.to_owned(), sql)).collect()
}

/// Statements that create objects of the database or the server, or reach its files and processes.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("create a schema", "CREATE SCHEMA probed"),
    ("create a role", "CREATE ROLE probed"),
    ("create an extension", "CREATE EXTENSION tsm_system_rows"),
    (
        "create an event trigger",
        "CREATE EVENT TRIGGER probed ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    ("create a wrapper", "CREATE FOREIGN DATA WRAPPER probed"),
    ("create a publication", "CREATE PUBLICATION probed"),
    ("create a cast", "CREATE CAST (boolean AS interval) WITH INOUT"),
    ("create a language", "CREATE LANGUAGE probed HANDLER plpgsql_call_handler"),
    ("use a language", "CREATE FUNCTION pg_temp.probed() RETURNS int LANGUAGE c AS 'x'"),
    ("use a language", "CREATE FUNCTION pg_temp.probed() RETURNS int LANGUAGE internal AS 'x'"),
    ("bypass", "ALTER ROLE CURRENT_USER SUPERUSER"),
    ("bypass", "ALTER ROLE CURRENT_USER BYPASSRLS"),
    ("bypass", "ALTER ROLE CURRENT_USER CREATEROLE"),
    ("bypass", "ALTER ROLE CURRENT_USER CONNECTION LIMIT 1000"),
    ("bypass", "SET session_replication_role = replica"),
    ("become", "SET ROLE pg_read_all_data"),
    ("become", "SET ROLE pg_write_all_data"),
    ("become", "SET ROLE pg_monitor"),
    ("become", "SET ROLE pg_execute_server_program"),
    ("files", "COPY (SELECT 1) TO '/tmp/probed'"),
    ("files", "COPY (SELECT 1) TO PROGRAM 'true'"),
    ("files", "SELECT pg_read_file('PG_VERSION') IS NOT NULL"),
    ("files", "SELECT pg_read_binary_file('PG_VERSION') IS NOT NULL"),
    ("files", "SELECT count(*) > 0 FROM pg_ls_dir('.')"),
    ("files", "SELECT count(*) > 0 FROM pg_ls_waldir()"),
    ("files", "SELECT lo_import('/etc/hostname') > 0"),
    ("files", "SELECT lo_export(1, '/tmp/probed') = 1"),
    ("server", "SELECT pg_reload_conf()"),
    ("server", "SELECT pg_rotate_logfile()"),
    ("server", "SELECT pg_switch_wal() IS NOT NULL"),
    ("server", "SELECT pg_create_restore_point('probed') IS NOT NULL"),
    ("server", "WITH x AS (SELECT pg_create_physical_replication_slot('probed')) TABLE x"),
    ("server", "WITH x AS (SELECT pg_stat_reset()) TABLE x"),
    ("server", "SELECT pg_promote(false)"),
];

/// What the server's catalogue tells about others, and privileges on objects of the whole database.
pub const CATALOGUE: &[(&str, &str)] = &[
    ("passwords", "TABLE pg_catalog.pg_authid LIMIT 0"),
    ("passwords", "TABLE pg_catalog.pg_shadow LIMIT 0"),
    ("passwords", "SELECT EXISTS (SELECT FROM pg_catalog.pg_user_mappings WHERE umoptions IS NOT NULL)"),
    ("passwords", "WITH x AS (SELECT subconninfo FROM pg_catalog.pg_subscription LIMIT 0) TABLE x"),
    ("statistics", "TABLE pg_catalog.pg_statistic LIMIT 0"),
    ("statistics", "TABLE pg_catalog.pg_statistic_ext_data LIMIT 0"),
    (
        "statistics",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND (schemaname NOT IN ($schemas) OR '$shared' <> ''))",
    ),
    (
        "statistics",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_stats_ext WHERE schemaname NOT IN ($schemas) AND most_common_vals IS NOT NULL)",
    ),
    ("large objects", "TABLE pg_catalog.pg_largeobject LIMIT 0"),
    (
        "statements",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE usename <> '$role' AND query NOT IN ('', '<insufficient privilege>'))",
    ),
    (
        "sequences",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_sequences WHERE last_value IS NOT NULL AND schemaname NOT IN ($schemas))",
    ),
    ("files", "TABLE pg_catalog.pg_file_settings LIMIT 0"),
    ("files", "TABLE pg_catalog.pg_hba_file_rules LIMIT 0"),
    ("foreign servers", "SELECT EXISTS (SELECT FROM pg_catalog.pg_foreign_server WHERE has_server_privilege(oid, 'USAGE'))"),
    (
        "foreign servers",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper WHERE has_foreign_data_wrapper_privilege(oid, 'USAGE'))",
    ),
    (
        "parameters",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_parameter_acl WHERE has_parameter_privilege(parname, 'SET, ALTER SYSTEM'))",
    ),
    ("tablespaces", "SELECT EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE has_tablespace_privilege(oid, 'CREATE'))"),
    ("database", "SELECT has_database_privilege(current_database(), 'CREATE')"),
    (
        "catalogue",
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'pg_settings'
                        AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES'))",
    ),
];
