//! What cannot be applied is refused with its file, line and tool, and all faults of a set at once.

use super::*;

/// Loads one file and compares the message.
fn refused(file: &str, text: &str, expected: &[&str]) {
    let message = postgres(&[(file, text)]).err().unwrap_or_else(|| panic!("accepted: {text}"));
    for part in expected {
        assert!(message.contains(part), "no `{part}` in: {message}\nfor {file}: {text}");
    }
}

#[test]
fn marks_that_their_tool_rejects() {
    for (text, expected) in [
        ("-- +goose Down\nDROP TABLE a;", "1_a.sql:1: goose: a Down part without an Up part"),
        ("-- +goose Up\nSELECT 1;\n-- +goose Up\nSELECT 2;", "1_a.sql:3: goose: a second Up part"),
        ("-- +goose Up\n-- +goose Down\n-- +goose Down\n", "1_a.sql:3: goose: a second Down part"),
        ("SELECT 1;\n-- +goose Up\nSELECT 2;", "1_a.sql:1: goose: a statement before the Up part"),
        ("-- +goose Up\n-- +goose StatementBegin\nSELECT 1;", "1_a.sql:2: goose: `StatementBegin` without"),
        ("-- +goose Up\n-- +goose StatementEnd\nSELECT 1;", "1_a.sql:2: goose: `StatementEnd` without"),
        ("-- +goose StatementBegin\n-- +goose Up\nSELECT 1;", "1_a.sql:1: goose: `StatementBegin` must"),
        (
            "-- +goose Up\n-- +goose StatementBegin\n-- +goose Down\n",
            "1_a.sql:3: goose: a part begins inside",
        ),
        ("-- +goose ENVSUB ON\n-- +goose Up\nSELECT '${X}';", "1_a.sql:1: goose: ENVSUB"),
        ("-- +goose Up\n  -- +goose Down\nDROP TABLE a;", "1_a.sql:2: goose: a mark must begin its line"),
        ("-- +goose Upwards\nSELECT 1;", "1_a.sql:1: goose: `upwards` is not a mark"),
        ("-- +goose NO TRANSACTION\nSELECT 1;", "1_a.sql:1: goose: the file has no Up part"),
        ("-- +migrate Down\nDROP TABLE a;", "1_a.sql:1: sql-migrate: a Down part without"),
        (
            "-- +migrate Up\n--+migrate Down\nDROP TABLE a;",
            "1_a.sql:2: sql-migrate: sql-migrate does not see",
        ),
        ("-- +migrate up\nSELECT 1;", "1_a.sql:1: sql-migrate: `up` is not a mark"),
        ("-- migrate:down\nDROP TABLE a;", "1_a.sql:1: dbmate: a Down part without"),
        ("-- migrate:up\n-- migrate:up\nSELECT 1;\n-- migrate:down", "1_a.sql:2: dbmate: a second Up part"),
        ("-- migrate:up\n-- migrate:down\n-- migrate:down\n", "1_a.sql:3: dbmate: a second Down part"),
        (
            "-- migrate:up\nSELECT 1;\n-- migrate:down\n-- migrate:up transaction:false\nVACUUM;",
            "1_a.sql:4: dbmate: an Up part with another `transaction` option",
        ),
        ("-- +migrate Up\nSELECT 'a\n-- +migrate Down\n-- +migrate Up\n';", "1_a.sql:2: sql-migrate: a text"),
        ("-- +migrate Down\n-- +migrate Up\nSELECT 1;", "1_a.sql:1: sql-migrate: a Down part without"),
        ("-- migrate:up\nSELECT 1;\n-- migrate:downwards\n", "1_a.sql:3: dbmate: dbmate does not see"),
        ("-- Down Migration\nDROP TABLE a;", "1_a.sql:1: node-pg-migrate: a Down part without"),
        ("SELECT 1;\n-- Up Migration\nSELECT 2;", "1_a.sql:1: node-pg-migrate: a statement before"),
        (
            "-- +goose Up\nSELECT 1;\n-- migrate:down\nDROP TABLE a;",
            "1_a.sql:3: dbmate: the file has marks of goose too",
        ),
    ] {
        refused("1_a.sql", text, &[expected]);
    }
    refused("V1__a.sql", "-- +goose Up\nSELECT 1;", &["V1__a.sql:1: Flyway: the file has marks of goose"]);
}

#[test]
fn marks_of_shared_tables_before_no_table() {
    const NONE: &str = "the mark `tenantry: lookup` stands before no CREATE TABLE";
    for (text, line, why) in [
        ("SELECT 1;\n-- tenantry: lookup\nCREATE VIEW a AS SELECT 1;", 2, NONE),
        ("CREATE TABLE a ();\n-- tenantry: lookup\n", 2, NONE),
        ("-- tenantry: lookup\n-- tenantry: lookup\nCREATE TABLE a ();", 2, NONE),
        ("CREATE TABLE b (); -- tenantry: lookup\nCREATE TABLE a ();", 1, NONE),
        ("CREATE TABLE a (\n-- tenantry: lookup\nx int);", 2, NONE),
        ("-- tenantry: lookup\nBEGIN;\nCREATE TABLE a ();\nCOMMIT;", 1, NONE),
        ("-- tenantry: lookup\n-- +goose Up\nCREATE TABLE a ();", 1, NONE),
        ("-- tenantry: lookup\nCREATE TEMP TABLE a ();", 1, "stands before a temporary table"),
        ("-- tenantry: lookup\nCREATE TABLE a PARTITION OF b DEFAULT;", 1, "stands before a partition"),
        ("SELECT 1;\n-- tenantry: shared\nCREATE TABLE a ();", 2, "`tenantry: shared` is not a mark"),
    ] {
        let message = postgres(&[("1_a.sql", text)]).err().unwrap_or_else(|| panic!("accepted: {text}"));
        assert!(message.contains(&format!("1_a.sql:{line}: ")) && message.contains(why), "{message}");
    }
}

#[test]
fn texts_that_cannot_be_read() {
    for (text, expected) in [
        ("SELECT 1;\nSELECT 'it;\nSELECT 2;", "1_a.sql:2: a text or name that begins here is not closed"),
        ("SELECT 1;\nSELECT \"a;", "1_a.sql:2: a text or name"),
        ("\nDO $x$ BEGIN; END $y$;", "1_a.sql:2: a text or name"),
        ("SELECT E'a\\';", "1_a.sql:1: a text or name"),
        ("/* a /* b */\nSELECT 1;", "1_a.sql:1: a comment that begins here is not closed"),
        ("CREATE TABLE a (\n  x int;\nSELECT 1;", "1_a.sql:1: a parenthesis that opens here"),
        ("CREATE FUNCTION f() RETURNS int\nBEGIN ATOMIC SELECT 1;", "1_a.sql:2: a body that begins here"),
        ("COPY a (x) FROM stdin;\n1\n2\n", "1_a.sql:1: the data of COPY have no end"),
        ("COPY a FROM stdin WITH (FORMAT csv);\n1\n\\.\nSELECT 1;", "1_a.sql:1: COPY with options"),
        ("SELECT 1;\n\\connect app\nSELECT 'it''s';", "1_a.sql:2: `\\connect` is a command of psql"),
        ("SELECT 1 \\gexec\n", "1_a.sql:1: `\\gexec` is a command of psql"),
    ] {
        refused("1_a.sql", text, &[expected]);
    }
    // A Down mark inside of a text cuts it, as in the tool.
    refused("1_a.sql", "-- +goose Up\nSELECT '\n-- +goose Down\n';", &["1_a.sql:2: goose: a text or name"]);
    let latin = Set::new(&[("1_a.sql", b"SELECT 1;\nSELECT '\xE9';")]);
    let failure = latin.load(Dialect::Postgres, PublicSchema::Reject).unwrap_err();
    assert_eq!((&*failure.code, failure.class), ("bad_migration", FailureClass::Fatal));
    assert!(failure.message.starts_with("1_a.sql:2: the byte 0xE9"), "{failure}");
    let message = sqlite(&[("1_a.sql", "CREATE TRIGGER t AFTER INSERT ON a BEGIN\nSELECT 1;")]).unwrap_err();
    assert!(message.starts_with("1_a.sql:1: the trigger's body is not closed"), "{message}");
}

#[test]
fn statements_that_leave_the_transaction_or_the_schema() {
    for (text, expected) in [
        ("CREATE TABLE a (x int);\ncommit;\nCREATE TABLE b (x int);", "1_a.sql:2: contains COMMIT"),
        ("BEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2;", "1_a.sql:1: contains BEGIN"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT 1;\nCOMMIT;", "1_a.sql:1: contains BEGIN"),
        ("-- no-transaction\nBEGIN;\nSELECT 1;\nCOMMIT;", "1_a.sql:2: contains BEGIN"),
        ("SELECT 1;\nSET search_path = app;", "1_a.sql:2: changes the search path"),
        ("SELECT set_config('search_path', 'app', false);", "1_a.sql:1: changes the search path"),
        ("RESET ALL;", "1_a.sql:1: changes the search path"),
        ("SELECT 1;\nSET ROLE app;", "1_a.sql:2: changes the role"),
        ("SET LOCAL role = 'app';", "1_a.sql:1: changes the role"),
        ("SET SESSION AUTHORIZATION 'app';", "1_a.sql:1: changes the role"),
        ("SET LOCAL SESSION AUTHORIZATION app;", "1_a.sql:1: changes the role"),
        ("SET standard_conforming_strings = off;", "1_a.sql:1: changes how texts are read"),
        ("SET client_encoding = 'LATIN1';", "1_a.sql:1: changes the encoding"),
        ("ALTER TABLE a OWNER TO app;", "1_a.sql:1: changes the owner"),
        (
            "SELECT 1;\nCREATE EXTENSION postgis;",
            "1_a.sql:2: the extension `postgis` is not allowed: add it to",
        ),
        (
            "CREATE EXTENSION dblink;",
            "1_a.sql:1: the extension `dblink` is not allowed: it opens connections",
        ),
        ("CREATE EXTENSION citext FROM '1.0';", "1_a.sql:1: is not a CREATE EXTENSION that can be read"),
        ("ALTER EXTENSION citext UPDATE;", "1_a.sql:1: contains ALTER EXTENSION"),
        ("DROP EXTENSION IF EXISTS citext;", "1_a.sql:1: contains DROP EXTENSION"),
        ("SET search_path = extensions;", "1_a.sql:1: changes the search path"),
        (
            "SELECT 1;\nSELECT pg_advisory_lock(1);",
            "1_a.sql:2: takes a lock that lasts until the session ends",
        ),
        (
            "DO $$ BEGIN PERFORM pg_catalog.pg_try_advisory_lock_shared(1); END $$;",
            "1_a.sql:1: takes a lock that lasts until the session ends",
        ),
        (
            "SELECT 1;\nVACUUM;",
            "1_a.sql:2: VACUUM cannot run in a transaction: begin the file with `-- no-transaction`",
        ),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON a (x);", "1_a.sql:1: CREATE INDEX CONCURRENTLY cannot run"),
        ("REINDEX (CONCURRENTLY) TABLE a;", "1_a.sql:1: REINDEX CONCURRENTLY cannot run"),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY;", "1_a.sql:1: DETACH PARTITION CONCURRENTLY"),
    ] {
        refused("1_a.sql", text, &[expected]);
    }
    for (file, text, how) in [
        (
            "1_a.sql",
            "-- +goose Up\nVACUUM;\n",
            "goose: VACUUM cannot run in a transaction: add the line `-- +goose NO TRANSACTION`",
        ),
        ("1_a.sql", "-- +migrate Up\nVACUUM;\n", "`-- +migrate Up notransaction`"),
        ("1_a.sql", "-- migrate:up\nVACUUM;\n", "`-- migrate:up transaction:false`"),
        ("1_a.up.sql", "VACUUM;\nSELECT 1;", "move the statement to a file of its own"),
        ("V1__a.sql", "VACUUM;\nSELECT 1;", "Flyway: VACUUM cannot run"),
        (
            "1_a.sql",
            "-- PostgreSQL database dump\nGRANT ALL ON TABLE a TO app;",
            "1_a.sql:2: pg_dump: changes privileges",
        ),
    ] {
        refused(file, text, &[how]);
    }
    for (text, expected) in [
        ("CREATE TABLE a (x);\nCOMMIT;\nCREATE TABLE b (x);", "1_a.sql:2: contains COMMIT"),
        (
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;\nROLLBACK;",
            "1_a.sql:2: contains ROLLBACK",
        ),
        ("ATTACH 'x' AS y;", "1_a.sql:1: contains ATTACH"),
        ("PRAGMA journal_mode = DELETE;", "1_a.sql:1: contains PRAGMA"),
    ] {
        let message = sqlite(&[("1_a.sql", text)]).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
    for text in [
        "CREATE TABLE \"commit\" (\"end\" text, public boolean); SELECT E'\\'; COMMIT;' -- COMMIT;\n; ALTER TABLE a OWNER TO CURRENT_USER",
        "CREATE TABLE a (public boolean); UPDATE a SET public = true WHERE a.public; GRANT SELECT ON a TO PUBLIC",
        "INSERT INTO a VALUES ('public.example.com', 'the general public.'); COMMENT ON TABLE a IS 'public.a'",
        "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA extensions; SET LOCAL lock_timeout = '1s'",
    ] {
        postgres(&[("1_a.sql", text)]).unwrap_or_else(|message| panic!("{message}"));
    }
}

#[test]
fn names_in_the_schema_public() {
    for (text, expected) in [
        (
            "SELECT 1;\nCREATE TABLE IF NOT EXISTS public.a (\n  m \"public\".mood\n);",
            ["1_a.sql:2: `public.a` is", "1_a.sql:3: `public.mood`"],
        ),
        ("ALTER TABLE a ALTER x SET DEFAULT\n nextval('public.s'::regclass);", ["1_a.sql:2: `public.s`", ""]),
        ("SET search_path TO public;", ["1_a.sql:1: sets the search path to public", "rewrite"]),
        (
            "DO $$ BEGIN\n  UPDATE public.a SET x = 1; END $$;",
            ["1_a.sql:2: names the schema public in a text", ""],
        ),
    ] {
        refused("1_a.sql", text, &expected);
    }
    let both: [&str; 9] = [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$\n  SELECT x FROM public.a $$;",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS\n 'SELECT x FROM public.a';",
        "DO $$ BEGIN EXECUTE\n 'DROP TABLE public.a'; END $$;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql\n SET search_path TO 'public' AS 'SELECT 1';",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql\n SET search_path = app, public AS 'SELECT 1';",
        "GRANT USAGE ON SCHEMA\n public TO app;",
        "DROP SCHEMA IF EXISTS\n public;",
        "SELECT *\n FROM app.public.a;",
        "SELECT\n E'public.a'::regclass;",
    ];
    for text in both {
        for public in [PublicSchema::Reject, PublicSchema::Rewrite] {
            let failure = Set::of(&[("1_a.sql", text)]).load(Dialect::Postgres, public).unwrap_err();
            assert!(failure.message.starts_with("1_a.sql:2: "), "{text}: {failure}");
        }
    }
    let one = |text: &str| statements(&rewritten(&[("1_a.sql", text)]).unwrap()[0]).join("\n");
    assert_eq!(
        one(
            "SELECT PUBLIC . f('x'), public./* */g(), U&\"public\".h('public.x') FROM \"public\".t WHERE t.public"
        ),
        "1 SELECT \"s\" . f('x'), \"s\"./* */g(), \"s\".h('public.x') FROM \"s\".t WHERE t.public"
    );
    assert_eq!(one("SELECT to_regclass('\"public\".\"a b\"')"), "1 SELECT to_regclass('\"s\".\"a b\"')");
    assert_eq!(one("CREATE SCHEMA IF NOT EXISTS \"public\"; SELECT 1"), "1 SELECT 1");
}

#[test]
fn folders_that_no_single_tool_explains() {
    let one = "SELECT 1;";
    let journal = |tags: &[&str]| {
        let entries: Vec<String> = tags.iter().map(|tag| format!("{{\"tag\": \"{tag}\"}}")).collect();
        format!("{{\"entries\": [{}]}}", entries.join(", "))
    };
    let (of_one, swapped, broken) = (journal(&["0000_a"]), journal(&["0001_b", "0000_a"]), "{");
    let unnumbered = journal(&["b", "a"]);
    for (files, expected) in [
        (vec![("1_a.sql", one), ("old/2_b.sql", one)], "old/2_b.sql: is in a folder"),
        (vec![("1_a.sql", one), ("a/b/c.SQL", one)], "a/b/c.SQL: is in a folder"),
        (vec![("20260101_a/migration.sql", one), ("2_b.sql", one)], "2_b.sql: Prisma: stands beside folders"),
        (
            vec![("20260101_a/migration.sql", one), ("20260102_b/x.txt", "")],
            "20260102_b/: Prisma: has no migration.sql",
        ),
        (
            vec![("20260101_a/migration.sql", one), ("20260101_a/more.sql", one)],
            "20260101_a/more.sql: is in a folder",
        ),
        (vec![("first/migration.sql", one)], "first/migration.sql: Prisma: its folder has no number"),
        (vec![("2_a/migration.sql", one), ("10_b/migration.sql", one)], "is applied before"),
        (
            vec![("migration_lock.toml", "provider = \"mysql\""), ("1_a/migration.sql", one)],
            "migration_lock.toml:1: Prisma: the files are for `mysql`",
        ),
        (
            vec![("0000_a.sql", one), ("0001_b.sql", one), ("meta/_journal.json", &of_one)],
            "0001_b.sql: Drizzle: is missing in meta/_journal.json",
        ),
        (vec![("0001_b.sql", one), ("meta/_journal.json", &swapped)], "lists 0000_a.sql, which"),
        (
            vec![("0000_a.sql", one), ("0001_b.sql", one), ("meta/_journal.json", &swapped)],
            "against their numbers",
        ),
        (
            vec![("b.sql", one), ("a.sql", one), ("meta/_journal.json", &unnumbered), ("c.sql", one)],
            "c.sql: has no number",
        ),
        (vec![("b.sql", one), ("meta/_journal.json", &unnumbered)], "lists a.sql, which"),
        (vec![("structure.sql", one), ("0_a.sql", one)], "structure.sql: has the number of 0_a.sql"),
        (
            vec![
                ("V1__a.sql", one),
                ("flyway.conf", "flyway.sqlMigrationPrefix=D\nsqlMigrationSuffixes=.pkg"),
            ],
            "flyway.conf:2: Flyway: only files that end in `.sql`",
        ),
        (
            vec![("V1__a.sql", one), ("flyway.toml", "[flyway]\nsqlMigrationPrefix = 'D'")],
            "V1__a.sql: has no number",
        ),
        (
            vec![("V1__a.sql", one), ("flyway.toml", "[flyway]\nsqlMigrationSuffixes = ['.sql', '.pkg']")],
            "flyway.toml:2: Flyway: only files that end in `.sql`",
        ),
        (
            vec![("V1__a.sql", one), ("flyway.toml", "[flyway]\nsqlMigrationPrefix = D")],
            "flyway.toml:2: Flyway: cannot be read as TOML",
        ),
        (
            vec![("V1__a.sql", one), ("flyway.conf", "flyway.sqlMigrationSeparator=")],
            "flyway.conf:1: Flyway: must not be empty",
        ),
        (
            vec![("0000_a.sql", one), ("meta/_journal.json", broken)],
            "meta/_journal.json:1: Drizzle: cannot be read",
        ),
        (
            vec![("1_a.down.sql", one), ("2_b.sql", one)],
            "1_a.down.sql: golang-migrate or sqlx: is a Down part without",
        ),
        (vec![("V1__a.sql", one), ("U2__b.sql", one)], "U2__b.sql: Flyway: is a Down part without"),
        (
            vec![("V1__a.sql", "SELECT 1;\nSELECT '${name}';")],
            "V1__a.sql:2: Flyway: the placeholder `${name}`",
        ),
        (vec![("1_a.sql", one), ("2_b.go", "package x")], "2_b.go: goose: is a migration that is not SQL"),
        (vec![("1_a b.sql", one)], "1_a b.sql: has other characters in its name"),
        (vec![("1_a.sql", one), ("0001_b.sql", one)], "1_a.sql: has the number of 0001_b.sql"),
        (vec![("V1__a.sql", one), ("V1.0__b.sql", one)], "has the number of"),
        (
            vec![("1_a.sql", "-- +goose Up\nSELECT 1;"), ("2_b.sql", "-- migrate:up\nSELECT 1;")],
            "2_b.sql: dbmate: the set has files of goose too",
        ),
        (
            vec![("1_a.up.sql", one), ("V2__b.sql", one)],
            "V2__b.sql: Flyway: the set has files of golang-migrate or sqlx too",
        ),
        (vec![("README.md", "")], "the set `app` has no migrations"),
    ] {
        let message = postgres(&files).err().unwrap_or_else(|| panic!("accepted: {expected}"));
        assert!(message.contains(expected), "no `{expected}` in: {message}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_named() {
    let set = Set::of(&[("1_a.sql", "SELECT 1;")]);
    let Files::Folder(root) = &set.files else { panic!("not a folder") };
    std::os::unix::fs::symlink("nothing", root.join("app/2_b.sql")).unwrap();
    let failure = set.load(Dialect::Postgres, PublicSchema::Reject).unwrap_err();
    assert!(failure.message.starts_with("2_b.sql: cannot be found"), "{failure}");
}

#[test]
fn all_faults_are_reported_at_once() {
    let message = postgres(&[
        ("2_b.sql", "SELECT 1;\nCOMMIT;\nCREATE TABLE public.a (x int);"),
        ("1_a.sql", "-- +goose Up\n-- +goose Up\n"),
        ("init.sql", "SELECT 1;"),
    ])
    .unwrap_err();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 5, "{message}");
    assert_eq!(lines[0], "the set `app` has 4 faults:");
    for (line, begin) in lines[1..].iter().zip([
        "1_a.sql:2: goose: ",
        "2_b.sql:2: contains COMMIT",
        "2_b.sql:3: `public.a`",
        "init.sql: has no number",
    ]) {
        assert!(line.starts_with(begin), "{line}");
    }
    let many = "COMMIT; SELECT 1;\n".repeat(60);
    let message = postgres(&[("1_a.sql", &*many)]).unwrap_err();
    assert_eq!(message.lines().count(), 52, "{message}");
    assert!(message.contains("has 60 faults") && message.ends_with("and 10 more"), "{message}");
}
