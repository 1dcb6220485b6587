//! Productions that reach outside of the tenant's place, give privileges away, or break a rule of shared tables.
//! Some are harmless in a schema or database of the tenant's own, and the round trip must hold there.

use super::known::Grammar;

/// Statements with `T` for a table, `N` for a new name, and `S` for a schema beside the tenant's.
const STATEMENTS: &[&str] = &[
    // Privileges.
    "GRANT ALL ON T TO PUBLIC",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON T TO PUBLIC WITH GRANT OPTION",
    "GRANT SELECT ON T TO PUBLIC",
    "GRANT ALL ON ALL TABLES IN SCHEMA S TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "DO $$ BEGIN EXECUTE format('GRANT ALL ON SCHEMA %I TO PUBLIC', current_schema()); END $$",
    "DO $$ BEGIN EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %I TO PUBLIC', current_schema()); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT ALL ON TABLES TO PUBLIC', current_schema()); END $$",
    "DO $$ BEGIN EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$",
    "ALTER TABLE T OWNER TO pg_database_owner",
    "DO $$ BEGIN EXECUTE 'ALTER TABLE T OWNER TO pg_monitor'; END $$",
    "GRANT pg_read_all_data TO PUBLIC",
    "GRANT pg_monitor TO CURRENT_USER",
    "REASSIGN OWNED BY CURRENT_USER TO pg_monitor",
    // Code that runs with the privileges of its owner.
    "CREATE FUNCTION N() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM T $$",
    "CREATE FUNCTION N(int) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true'",
    "CREATE VIEW N AS SELECT * FROM T",
    "CREATE VIEW N AS SELECT relname, reltuples FROM pg_class",
    "CREATE VIEW N AS SELECT * FROM tenantry.homes",
    "CREATE VIEW N AS SELECT rolname FROM pg_authid",
    "CREATE MATERIALIZED VIEW N AS SELECT * FROM T",
    "CREATE TABLE N AS SELECT * FROM pg_authid",
    "CREATE RULE N AS ON UPDATE TO T DO ALSO SELECT 1",
    "CREATE RULE N AS ON INSERT TO T DO INSTEAD NOTHING",
    "CREATE POLICY N ON T USING (true)",
    "ALTER TABLE T DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE T NO FORCE ROW LEVEL SECURITY",
    "CREATE EVENT TRIGGER N ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    // Places beside the tenant's.
    "CREATE SCHEMA N",
    "CREATE SCHEMA N CREATE TABLE inner_table (a int)",
    "CREATE TABLE S.N (a int)",
    "CREATE TABLE IF NOT EXISTS S.canary (a int)",
    "CREATE FUNCTION S.N() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE S.N AS ENUM ('a')",
    "CREATE SEQUENCE S.N",
    "DO $$ BEGIN BEGIN CREATE TABLE S.hidden (a int); EXCEPTION WHEN others THEN NULL; END; END $$",
    "DO $$ BEGIN EXECUTE 'CREATE SCHEMA dynamic'; EXECUTE 'CREATE TABLE dynamic.t (a int)'; END $$",
    "ALTER TABLE T SET SCHEMA S",
    "INSERT INTO S.beside VALUES (1)",
    "UPDATE S.beside SET a = a + 1",
    "DELETE FROM S.beside",
    "TRUNCATE S.beside",
    "DROP TABLE S.beside",
    "DROP SCHEMA S CASCADE",
    "DO $$ BEGIN EXECUTE 'DROP TABLE S.beside'; END $$",
    "ALTER TABLE S.beside ADD COLUMN b int",
    "COMMENT ON TABLE S.beside IS 'changed'",
    "DELETE FROM tenantry.homes",
    "UPDATE tenantry.homes SET access = 'full'",
    "DROP TABLE tenantry.homes CASCADE",
    "DROP SCHEMA tenantry CASCADE",
    "DROP FUNCTION tenantry.session_tenant(boolean) CASCADE",
    "TRUNCATE _migrations",
    "DO $$ BEGIN EXECUTE 'DELETE FROM _mig' || 'rations'; END $$",
    "DO $$ BEGIN EXECUTE 'DROP TABLE _mig' || 'rations'; END $$",
    // Settings and roles.
    "SET search_path = S, public",
    "SELECT set_config('search_path', 'S', false)",
    "DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$",
    "DO $$ BEGIN SET LOCAL search_path = pg_temp; END $$",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ROLE",
    "DO $$ BEGIN SET ROLE pg_monitor; END $$",
    "SET row_security = off",
    "SET session_replication_role = replica",
    "SET app.current_tenant_id = 'x'",
    "DO $$ BEGIN EXECUTE format('ALTER ROLE %I SET work_mem = 100000', current_user); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 100000', current_database()); END $$",
    "CREATE ROLE fuzz_made_role",
    "DO $$ BEGIN CREATE ROLE fuzz_made_role; END $$",
    // Objects of the database or the server.
    "SELECT lo_create(0)",
    "DO $$ BEGIN PERFORM lo_from_bytea(0, 'x'); END $$",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA S",
    "CREATE EXTENSION citext; ALTER EXTENSION citext SET SCHEMA S",
    "CREATE EXTENSION citext; DROP EXTENSION citext CASCADE",
    "CREATE EXTENSION citext VERSION '0'",
    "DO $$ BEGIN CREATE EXTENSION cube; END $$",
    "CREATE EXTENSION seg; DO $$ BEGIN EXECUTE format('ALTER EXTENSION seg SET SCHEMA %I', current_schema()); END $$",
    "CREATE EXTENSION seg; DO $$ BEGIN DROP EXTENSION seg CASCADE; END $$",
    "CREATE EXTENSION seg; DO $$ BEGIN ALTER EXTENSION seg ADD TABLE T; END $$",
    "CREATE EXTENSION seg; CREATE FUNCTION extensions.N() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION seg; CREATE TYPE extensions.N AS ENUM ('a')",
    "CREATE EXTENSION seg; DO $$ BEGIN GRANT CREATE ON SCHEMA extensions TO PUBLIC; END $$",
    "CREATE EXTENSION pgcrypto; CREATE OR REPLACE FUNCTION extensions.digest(text, text) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'",
    "CREATE SERVER N FOREIGN DATA WRAPPER none",
    "CREATE FOREIGN DATA WRAPPER N",
    "CREATE PUBLICATION N FOR ALL TABLES",
    "CREATE CAST (boolean AS interval) WITH INOUT",
    "CREATE LANGUAGE N HANDLER plpgsql_call_handler",
    "CREATE ACCESS METHOD N TYPE TABLE HANDLER heap_tableam_handler",
    "ALTER SYSTEM SET work_mem = '8MB'",
    "CREATE DATABASE fuzz_made_database",
    "SELECT pg_create_logical_replication_slot('fuzz_made_slot', 'pgoutput')",
    // Sessions.
    "LISTEN changes",
    "NOTIFY changes, 'x'",
    "CREATE FUNCTION N() RETURNS void LANGUAGE sql AS 'SELECT pg_notify(''changes'', ''x'')'",
    "BEGIN",
    "COMMIT",
    "ROLLBACK; SELECT 1",
    "SAVEPOINT a",
    "PREPARE TRANSACTION 'fuzz'",
    "DO $$ BEGIN COMMIT; END $$",
    "LOAD 'auto_explain'",
    "SET statement_timeout = '1min'",
    "SET standard_conforming_strings = off",
    "SET client_encoding = latin1",
    "VACUUM T",
    "PREPARE N AS SELECT 1",
    "DECLARE N CURSOR WITH HOLD FOR SELECT * FROM T",
    "SELECT pg_advisory_lock(4711)",
    "CREATE TEMP TABLE T AS SELECT 1 AS a",
    "CREATE TEMP TABLE N (a int)",
    // What no reader may take for something else.
    "SELEC 1",
    "CREATE TABLE N (a int",
    "CREATE TABLE N (a text DEFAULT 'x)",
    "\\connect postgres",
    "\\! true",
    "CREATE TABLE public.N (a int)",
    "CREATE TABLE _migrations (a int)",
    "CREATE TABLE N (tenant_id text, id int PRIMARY KEY)",
    "CREATE TABLE N (id int PRIMARY KEY)",
    "CREATE TABLE _N (a int)",
    "ALTER TABLE T ADD COLUMN tenant_id int",
    "ALTER TABLE T DROP COLUMN id CASCADE",
    "DROP OWNED BY CURRENT_USER",
    "ALTER TABLE T RENAME TO _migrations_position_seq",
    "CREATE UNIQUE INDEX ON T ((1))",
    "CREATE TABLE N PARTITION OF T DEFAULT",
    "CREATE TABLE N () INHERITS (T)",
    "CREATE TABLE N () INHERITS (S.beside)",
    "COPY T TO '/tmp/fuzz_made_file'",
    "COPY T FROM PROGRAM 'true'",
    "SELECT pg_read_file('postgresql.conf')",
];

/// One of the statements.
pub fn statement(g: &mut Grammar) -> Vec<String> {
    let table = g.table().name;
    let name = g.name("h");
    let sql = g.pick(STATEMENTS);
    let placed = |sql: &str| {
        let mut out = String::new();
        let mut word = String::new();
        for c in sql.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            out.push_str(match &*word {
                "T" => &table,
                "N" => &name,
                "S" => super::BESIDE,
                "_N" => "_hidden",
                word => word,
            });
            word.clear();
            out.push(c);
        }
        out.trim_end().to_owned()
    };
    let noise = g.noise();
    // An extension that a second statement changes.
    match sql.split_once("; ").filter(|(first, _)| first.starts_with("CREATE EXTENSION")) {
        Some((first, second)) => vec![placed(first), format!("{noise}{}", placed(second))],
        None => vec![format!("{noise}{}", placed(sql))],
    }
}
