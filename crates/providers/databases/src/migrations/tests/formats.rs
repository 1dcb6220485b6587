//! The files of each tool: exactly the statements that migrate up run, each with its line.

use super::*;

#[test]
fn goose() {
    let text = "-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE post (
    id int NOT NULL, -- the key; of a post
    title text
);
-- +goose StatementBegin
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END;
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION f();
DROP TABLE post;
";
    let all = postgres(&[("00001_create_post.sql", text)]).unwrap();
    assert!(!all[0].transaction);
    assert_eq!(
        statements(&all[0]),
        [
            "3 CREATE TABLE post (\n    id int NOT NULL, -- the key; of a post\n    title text\n)",
            "8 CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n    RETURN NEW;\nEND;\n$$",
        ]
    );
    let last = postgres(&[("00002_a.sql", "-- a comment\n--  +goose up\nSELECT 1\n")]).unwrap();
    assert_eq!((statements(&last[0]), last[0].transaction), (vec!["3 SELECT 1".to_owned()], true));
}

#[test]
fn sql_migrate() {
    let text = "
-- +migrate Up notransaction
-- SQL in section 'Up' is executed when this migration is applied
CREATE TABLE people (id int);
-- +migrate StatementBegin
DO $$ BEGIN PERFORM 1; END $$;
-- +migrate StatementEnd

-- +migrate Down
-- SQL section 'Down' is executed when this migration is rolled back
DROP TABLE people;
";
    let all = postgres(&[("20260101120000-people.sql", text)]).unwrap();
    assert!(!all[0].transaction);
    assert_eq!(statements(&all[0]), ["4 CREATE TABLE people (id int)", "6 DO $$ BEGIN PERFORM 1; END $$"]);
}

/// As of dbmate 2.36 and sql-migrate 1.8.
#[test]
fn all_up_parts_of_a_file_run() {
    let text = "-- migrate:up
BEGIN; CREATE TABLE a (x int); COMMIT;
-- migrate:down
DROP TABLE a;
-- migrate:up
CREATE TABLE b (x int)
-- migrate:down
DROP TABLE b;
";
    let expected = ["2 CREATE TABLE a (x int)", "6 CREATE TABLE b (x int)"];
    assert_eq!(statements(&postgres(&[("1_a.sql", text)]).unwrap()[0]), expected);
    let text = text.replace("migrate:up", "+migrate Up").replace("migrate:down", "+migrate Down");
    let all = postgres(&[("1_a.sql", &*text)]).unwrap();
    assert_eq!((statements(&all[0]), all[0].transaction), (expected.map(str::to_owned).to_vec(), true));
    let text = "-- +migrate Up\nSELECT 1;\n-- +migrate Up notransaction\nVACUUM;\n-- +migrate Down\n-- +migrate Down\n";
    let all = postgres(&[("1_a.sql", text)]).unwrap();
    assert_eq!(
        (statements(&all[0]), all[0].transaction),
        (vec!["2 SELECT 1".into(), "4 VACUUM".into()], false)
    );
}

#[test]
fn dbmate() {
    let text = "-- migrate:up transaction:false\nCREATE TABLE a (x int);\n\n-- migrate:down\nDROP TABLE a;\n";
    let all = postgres(&[("20260101120000_a.sql", text)]).unwrap();
    assert_eq!(statements(&all[0]), ["2 CREATE TABLE a (x int)"]);
    assert!(!all[0].transaction);
}

#[test]
fn node_pg_migrate() {
    let text = "-- Up Migration\n\nCREATE TABLE a (x int);\n\n-- Down Migration\n\nDROP TABLE a;\n";
    let all = postgres(&[("1700000000000_a.sql", text)]).unwrap();
    assert_eq!(statements(&all[0]), ["3 CREATE TABLE a (x int)"]);
    let dashes = "------ UP migration\nSELECT 1;\n--- down   migrations follow\nSELECT 2;";
    assert_eq!(statements(&postgres(&[("2_b.sql", dashes)]).unwrap()[0]), ["2 SELECT 1"]);
}

#[test]
fn sqlx_and_golang_migrate() {
    let all = postgres(&[
        ("1_a.up.sql", "CREATE TABLE a (x int);"),
        ("1_a.down.sql", "DROP TABLE a;"),
        ("2_b.up.sql", "CREATE INDEX CONCURRENTLY i ON a (x);"),
        ("2_b.down.sql", "DROP INDEX i;"),
        ("3_c.up.sql", "-- no-transaction\nVACUUM a;\nSELECT ';' -- end\n;"),
        ("3_c.down.sql", ""),
    ])
    .unwrap();
    let read: Vec<_> = all.iter().map(|one| (statements(one), one.transaction)).collect();
    let text = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    assert_eq!(read[0], (text(&["1 CREATE TABLE a (x int)"]), true));
    // golang-migrate sends a file as one message, so a single statement is in no transaction.
    assert_eq!(read[1], (text(&["1 CREATE INDEX CONCURRENTLY i ON a (x)"]), false));
    assert_eq!(read[2], (text(&["2 VACUUM a", "3 SELECT ';'"]), false));
}

#[test]
fn flyway() {
    let all = postgres(&[
        ("V1__init.sql", "CREATE TABLE a (x int);"),
        ("V1_1__index.sql", "CREATE INDEX CONCURRENTLY i ON a (x);\nDROP INDEX CONCURRENTLY j;"),
        ("U1_1__index.sql", "DROP INDEX i;"),
    ])
    .unwrap();
    let read: Vec<_> =
        all.iter().map(|one| (&*one.version, statements(one).len(), one.transaction)).collect();
    assert_eq!(read, [("1", 1, true), ("1.1", 2, false)]);
}

#[test]
fn flyway_with_its_own_prefixes() {
    for (name, text) in [
        ("flyway.conf", "flyway.sqlMigrationPrefix=D\nflyway.undoSqlMigrationPrefix=Z\n"),
        (
            "flyway.toml",
            "databaseType = 'PostgreSql'\n[flyway] # names\nsqlMigrationPrefix = \"D\" # not V\nundoSqlMigrationPrefix = 'Z'\n[environments.dev]\nurl = 'x'",
        ),
    ] {
        let all = postgres(&[
            (name, text),
            ("D2__b.sql", "CREATE TABLE b (x int);"),
            ("D1_1__a.sql", "CREATE TABLE a (x int);"),
            ("Z2__b.sql", "DROP TABLE b;"),
        ]);
        let read: Vec<_> = all.unwrap().into_iter().map(|one| (one.version, one.file)).collect();
        assert_eq!(read, [("1.1", "D1_1__a.sql"), ("2", "D2__b.sql")].map(|(v, f)| (v.into(), f.into())));
    }
}

#[test]
fn prisma() {
    let all = postgres(&[
        ("migration_lock.toml", "# Please do not edit this file manually\nprovider = \"postgresql\"\n"),
        ("0_init/migration.sql", "-- CreateTable\nCREATE TABLE \"User\" (\n    \"id\" SERIAL NOT NULL\n);\n"),
        (
            "20260101120000_b/migration.sql",
            "-- CreateIndex\nCREATE INDEX CONCURRENTLY \"i\" ON \"User\"(\"id\");",
        ),
        ("20260101120000_b/down.sql", "DROP INDEX \"i\";"),
    ])
    .unwrap();
    let read: Vec<_> = all.iter().map(|one| (&*one.file, &*one.version, one.transaction)).collect();
    assert_eq!(
        read,
        [("0_init/migration.sql", "0", true), ("20260101120000_b/migration.sql", "20260101120000", false)]
    );
    assert_eq!(statements(&all[0]), ["2 CREATE TABLE \"User\" (\n    \"id\" SERIAL NOT NULL\n)"]);
}

/// In the style of drizzle-kit 0.31.
const DRIZZLE: &str = "CREATE TYPE \"public\".\"role\" AS ENUM('admin', 'user');--> statement-breakpoint
CREATE TABLE \"posts\" (
\t\"id\" serial PRIMARY KEY NOT NULL
);
--> statement-breakpoint
ALTER TABLE \"posts\" ADD CONSTRAINT \"fk\" FOREIGN KEY (\"id\") REFERENCES \"public\".\"users\"(\"id\")--> statement-breakpoint
DO $$ BEGIN
 ALTER TABLE \"posts\" ADD FOREIGN KEY (\"id\") REFERENCES \"public\".\"users\"(\"id\");
EXCEPTION
 WHEN duplicate_object THEN null;
END $$;";

const JOURNAL: &str = r#"{ "version": "7", "dialect": "postgresql", "entries": [
    { "idx": 0, "version": "7", "when": 1796036770429, "tag": "0000_sour_starbolt", "breakpoints": true } ] }"#;

#[test]
fn drizzle() {
    let expected = [
        "1 CREATE TYPE \"s\".\"role\" AS ENUM('admin', 'user')",
        "2 CREATE TABLE \"posts\" (\n\t\"id\" serial PRIMARY KEY NOT NULL\n)",
        "6 ALTER TABLE \"posts\" ADD CONSTRAINT \"fk\" FOREIGN KEY (\"id\") REFERENCES \"s\".\"users\"(\"id\")",
        "7 DO $$ BEGIN\n ALTER TABLE \"posts\" ADD FOREIGN KEY (\"id\") REFERENCES \"s\".\"users\"(\"id\");\nEXCEPTION\n WHEN duplicate_object THEN null;\nEND $$",
    ];
    let files = [
        ("0000_sour_starbolt.sql", DRIZZLE),
        ("meta/_journal.json", JOURNAL),
        ("meta/0000_snapshot.json", "{}"),
    ];
    let all = rewritten(&files).unwrap();
    assert_eq!((statements(&all[0]), &*all[0].version), (expected.map(str::to_owned).to_vec(), "0000"));
    // Since 1.0 each migration has a folder.
    let files = [("20260101120000_a/migration.sql", DRIZZLE), ("20260101120000_a/snapshot.json", "{}")];
    assert_eq!(statements(&rewritten(&files).unwrap()[0]), expected);
}

/// With `prefix: "none"` only the journal orders the files.
#[test]
fn drizzle_without_numbers() {
    let journal = |tags: &[&str]| {
        let entries: Vec<String> = tags.iter().map(|tag| format!("{{\"tag\": \"{tag}\"}}")).collect();
        format!("{{\"entries\": [{}]}}", entries.join(", "))
    };
    let tags = ["sour_starbolt", "2fa", "another"];
    let mut files =
        vec![("2fa.sql", "SELECT 2;"), ("another.sql", "SELECT 3;"), ("sour_starbolt.sql", "SELECT 1;")];
    let written = journal(&tags);
    files.push(("meta/_journal.json", &written));
    let read: Vec<_> = postgres(&files).unwrap().into_iter().map(|one| (one.version, one.file)).collect();
    let expected = [("0", "sour_starbolt.sql"), ("1", "2fa.sql"), ("2", "another.sql")];
    assert_eq!(read, expected.map(|(version, file)| (version.into(), file.into())));
    // A set that had the prefix `index` before.
    let written = journal(&["0000_a", "later"]);
    let files = [("0000_a.sql", "SELECT 1;"), ("later.sql", "SELECT 2;"), ("meta/_journal.json", &*written)];
    let keys: Vec<_> = postgres(&files).unwrap().iter().map(Migration::key).collect();
    assert_eq!(keys, ["0", "1"]);
}

/// In the style of `pg_dump` 15.18 and 17, with data.
const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict W5qHelWJIn1fWKBo6XN9

-- Dumped from database version 17.6

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;

CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;

CREATE TABLE public.users (
    id bigint NOT NULL,
    m public.mood DEFAULT 'a'::public.mood
);

CREATE SEQUENCE public.users_id_seq;

ALTER TABLE ONLY public.users ALTER COLUMN id SET DEFAULT nextval('public.users_id_seq'::regclass);

COPY public.users (id, m) FROM stdin;
1<TAB>it's; public.x
2<TAB>\N
\.

COPY public.empty (id) FROM stdin;
\.

SELECT pg_catalog.setval('public.users_id_seq', 2, true);

CREATE FUNCTION public.f() RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT
        CASE
            WHEN true THEN 1
            ELSE 2
        END AS "case"
   FROM public.users;
 SELECT 2;
END;

--
-- PostgreSQL database dump complete
--

\unrestrict W5qHelWJIn1fWKBo6XN9
"#;

#[test]
fn pg_dump() {
    let all = rewritten(&[("0001_dump.sql", &*DUMP.replace("<TAB>", "\t"))]).unwrap();
    assert_eq!(
        statements(&all[0]),
        [
            "14 SET check_function_bodies = false",
            "18 CREATE TABLE \"s\".users (\n    id bigint NOT NULL,\n    m \"s\".mood DEFAULT 'a'::\"s\".mood\n)",
            "23 CREATE SEQUENCE \"s\".users_id_seq",
            "25 ALTER TABLE ONLY \"s\".users ALTER COLUMN id SET DEFAULT nextval('\"s\".users_id_seq'::regclass)",
            "27 INSERT INTO \"s\".users (id, m) OVERRIDING SYSTEM VALUE VALUES\n('1', 'it''s; public.x'),\n('2', NULL)",
            "35 SELECT pg_catalog.setval('\"s\".users_id_seq', 2, true)",
            "37 CREATE FUNCTION \"s\".f() RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT\n        CASE\n            WHEN true THEN 1\n            ELSE 2\n        END AS \"case\"\n   FROM \"s\".users;\n SELECT 2;\nEND",
        ]
    );
}

/// `x` has the extensions' objects.
#[test]
fn extensions_of_a_dump() {
    let text = "SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA IF NOT EXISTS extensions;
COMMENT ON SCHEMA extensions IS 'of Supabase';
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;


COMMENT ON EXTENSION citext IS 'data type for case-insensitive character strings';
CREATE TABLE public.users (email public.citext DEFAULT ''::public.citext, name text);
CREATE DOMAIN public.email AS public.citext;
CREATE INDEX users_name ON public.users USING gin (name public.gin_trgm_ops);
SELECT email OPERATOR(public.<->) name, public.\"similarity\"(name, 'x'), 'public.citext'::regtype FROM public.users;
CREATE FUNCTION public.similarity(a integer, b public.citext) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA extensions;
SET search_path = \"$user\", public, extensions;
";
    let all = rewritten(&[("0001_structure.sql", text)]).unwrap();
    assert_eq!(
        statements(&all[0]),
        [
            "8 CREATE TABLE \"s\".users (email \"x\".citext DEFAULT ''::\"x\".citext, name text)",
            "9 CREATE DOMAIN \"s\".email AS \"x\".citext",
            "10 CREATE INDEX users_name ON \"s\".users USING gin (name \"x\".gin_trgm_ops)",
            "11 SELECT email OPERATOR(\"x\".<->) name, \"x\".\"similarity\"(name, 'x'), '\"x\".citext'::regtype FROM \"s\".users",
            "12 CREATE FUNCTION \"s\".similarity(a integer, b \"x\".citext) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        ]
    );
    let named: Vec<_> = all[0].extensions.iter().map(|it| (it.line, it.name.as_str())).collect();
    assert_eq!(named, [(4, "citext"), (13, "uuid-ossp")]);
}

#[test]
fn rails_structure() {
    let text = "SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA public;
COMMENT ON SCHEMA public IS 'standard public schema';
CREATE TABLE public.schema_migrations (
    version character varying NOT NULL
);
SET search_path TO \"$user\", public;

INSERT INTO \"schema_migrations\" (version) VALUES
('20260101120000');
";
    let all = rewritten(&[("structure.sql", text), ("0001_later.sql", "SELECT 1;")]).unwrap();
    assert_eq!((&*all[0].file, &*all[0].version, all.len()), ("structure.sql", "0", 2));
    assert_eq!(
        statements(&all[0]),
        [
            "6 CREATE TABLE \"s\".schema_migrations (\n    version character varying NOT NULL\n)",
            "11 INSERT INTO \"schema_migrations\" (version) VALUES\n('20260101120000')",
        ]
    );
}

#[test]
fn django_sqlmigrate() {
    let text = "BEGIN;\n--\n-- Create model Post\n--\nCREATE TABLE \"blog_post\" (\"id\" bigint NOT NULL PRIMARY KEY);\nCOMMIT;\n";
    for dialect in [Dialect::Postgres, Dialect::Sqlite] {
        let all = Set::of(&[("0001_initial.sql", text)]).load(dialect, PublicSchema::Reject).unwrap();
        assert_eq!(
            statements(&all[0]),
            ["5 CREATE TABLE \"blog_post\" (\"id\" bigint NOT NULL PRIMARY KEY)"]
        );
        assert!(all[0].transaction);
    }
    for (begin, end) in
        [("BEGIN TRANSACTION;", "END;"), ("START TRANSACTION;", "COMMIT WORK"), ("begin;", "commit")]
    {
        let all = postgres(&[("1_a.sql", &*format!("{begin} SELECT 1; {end}"))]).unwrap();
        assert_eq!(statements(&all[0]), ["1 SELECT 1"]);
    }
}

#[test]
fn sqlite_triggers_are_one_statement() {
    let text = "PRAGMA foreign_keys=OFF;
CREATE TABLE a (x);
CREATE TRIGGER t AFTER INSERT ON a BEGIN
  UPDATE a SET x = CASE WHEN 1 THEN 2 END; -- END;
  SELECT 'x;''', [a;b], `c;`;
END;
INSERT INTO a VALUES (1) /* ; */";
    let all = sqlite(&[("1_a.sql", text)]).unwrap();
    let lines: Vec<usize> = all[0].statements.iter().map(|it| it.line).collect();
    assert_eq!(lines, [1, 2, 3, 7]);
    assert!(all[0].statements[2].text().ends_with("END"), "{:?}", all[0]);
}

#[test]
fn postgresql_statements_are_split_by_its_tokens() {
    let text = r#"SELECT 'a;', E'it\'s;', U&'d\0061;', "b;", $x$ ; $$ ; $x$, /* ; /* ; */ ; */ 1 -- ;
;;
CREATE RULE r AS ON INSERT TO a DO ALSO (INSERT INTO b VALUES (1); INSERT INTO c VALUES (2));
CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO a SELECT CASE WHEN true THEN 1 END; SELECT (SELECT 1); END;
SELECT $1, a$b$c, 1::int;
CREATE TABLE later (a int, PERIOD FOR p (a, b))"#;
    let all = postgres(&[("1_a.sql", text)]).unwrap();
    let lines: Vec<usize> = all[0].statements.iter().map(|it| it.line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 6], "{:#?}", statements(&all[0]));
    let last = statements(&all[0]).pop().unwrap();
    assert_eq!(
        last, "6 CREATE TABLE later (a int, PERIOD FOR p (a, b))",
        "a syntax that is unknown here stays whole"
    );
}

#[test]
fn all_encodings_with_a_byte_order_mark_are_read() {
    let text = "SELECT 1;\r\nSELECT 'é';\r\n";
    let utf16: Vec<u8> =
        [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    for bytes in [text.as_bytes(), &[b"\xEF\xBB\xBF", text.as_bytes()].concat(), &utf16] {
        let all = Set::new(&[("1_a.sql", bytes)]).load(Dialect::Postgres, PublicSchema::Reject).unwrap();
        assert_eq!(statements(&all[0]), ["1 SELECT 1", "2 SELECT 'é'"]);
    }
}

#[test]
fn marks_of_shared_tables_belong_to_the_next_statement() {
    let shared = |file: &str, text: &str| -> Vec<String> {
        let set = postgres(&[(file, text)]).unwrap();
        let marked =
            |statement: &Statement| Some(format!("{} {}", statement.line, statement.lookup_table()?));
        set[0].statements.iter().filter_map(marked).collect()
    };
    for (file, text, tables) in [
        ("1_a.sql", "-- tenantry: lookup\nCREATE TABLE a (x int);\nCREATE TABLE b (y int);", &["2 a"][..]),
        (
            "1_a.sql",
            "CREATE TABLE b ();\r\n--Tenantry: Lookup\r\n\r\n-- Countries\r\nCREATE UNLOGGED TABLE IF NOT EXISTS \"A\"\"b\" ();",
            &["5 \"A\"\"b\""],
        ),
        ("1_a.sql", "BEGIN;\n  -- tenantry: lookup\nCREATE TABLE s.A AS SELECT 1;\nCOMMIT;", &["3 A"]),
        (
            "1_a.sql",
            "-- +goose Up\n-- tenantry: lookup\n-- +goose StatementBegin\nCREATE TABLE a ();\n-- +goose StatementEnd\n-- +goose Down\n-- tenantry: lookup\nDROP TABLE a;",
            &["4 a"],
        ),
        (
            "1_a.sql",
            "-- migrate:up\n-- tenantry: lookup\nCREATE TABLE a ();\n-- migrate:down\nDROP TABLE a;",
            &["3 a"],
        ),
        (
            "1_a.sql",
            "-- Up Migration\n-- tenantry: lookup\nCREATE TABLE a ();\n-- Down Migration\nDROP TABLE a;",
            &["3 a"],
        ),
        (
            "1_a.sql",
            "-- +migrate Up\n-- tenantry: lookup\nCREATE TABLE a ();\n-- +migrate Down\nDROP TABLE a;",
            &["3 a"],
        ),
        ("V1__a.sql", "-- tenantry: lookup\nCREATE TABLE a ();", &["2 a"]),
        ("1_a.up.sql", "-- tenantry: lookup\nCREATE TABLE a ();", &["2 a"]),
        (
            "20260101120000_a/migration.sql",
            "-- CreateTable\n-- tenantry: lookup\nCREATE TABLE \"Country\" ();",
            &["3 \"Country\""],
        ),
        (
            "0000_a.sql",
            "CREATE TABLE b ();--> statement-breakpoint\n-- tenantry: lookup\nCREATE TABLE a ();",
            &["3 a"],
        ),
        ("1_a.sql", "SELECT '\n-- tenantry: lookup\n'; /* tenantry: lookup */ CREATE TABLE a ();", &[]),
    ] {
        assert_eq!(shared(file, text), tables, "{text}");
    }
    let set = sqlite(&[("1_a.sql", "-- tenantry: lookup\nCREATE TABLE \"a(b\" (x int);")]).unwrap();
    assert_eq!(statements(&set[0]), ["2 CREATE TABLE \"a(b\" (/* tenantry: lookup */x int)"]);
}

/// In one transaction PostgreSQL before 17 lets no statement use a value that was added in it.
#[test]
fn enums_have_all_values_from_the_beginning_where_files_share_a_transaction() {
    let set = [
        ("1_a.sql", "CREATE TYPE public.\"Mood\" AS ENUM ('a', 'b''; c');\nCREATE TABLE t (m \"Mood\");"),
        ("2_b.sql", "ALTER TYPE \"public\".\"Mood\" ADD VALUE IF NOT EXISTS 'first' BEFORE 'a';"),
        ("3_c.sql", "alter type \"Mood\" add value 'x' after 'a'; ALTER TYPE \"Mood\" ADD VALUE 'last'"),
        ("4_d.sql", "ALTER TYPE \"Mood\" ADD VALUE 'z' AFTER 'unknown'; ALTER TYPE mood ADD VALUE 'z'"),
        (
            "5_e.sql",
            "CREATE TYPE other AS (a int); ALTER TYPE other ADD ATTRIBUTE b int; CREATE VIEW v AS SELECT 1",
        ),
    ];
    let folded = for_one_transaction(&rewritten(&set).unwrap());
    assert_eq!(folded.len(), set.len());
    assert_eq!(
        folded.iter().flat_map(statements).collect::<Vec<_>>(),
        [
            "1 CREATE TYPE \"s\".\"Mood\" AS ENUM ('first', 'a', 'x', 'b''; c', 'last')",
            "2 CREATE TABLE t (m \"Mood\")",
            "1 ALTER TYPE \"Mood\" ADD VALUE 'z' AFTER 'unknown'",
            "1 ALTER TYPE mood ADD VALUE 'z'",
            "1 CREATE TYPE other AS (a int)",
            "1 ALTER TYPE other ADD ATTRIBUTE b int",
            "1 CREATE VIEW v AS SELECT 1",
        ]
    );
}

/// Prisma removes a value by a new type that takes the old one's name.
#[test]
fn values_are_added_to_the_enum_that_has_the_name_by_then() {
    let set = [
        ("1_a.sql", "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE mood_new AS ENUM ('a');"),
        (
            "2_b.sql",
            "ALTER TYPE mood RENAME TO mood_old; ALTER TYPE mood_new RENAME TO mood; DROP TYPE mood_old",
        ),
        ("3_c.sql", "ALTER TYPE mood ADD VALUE 'z'; ALTER TYPE mood_old ADD VALUE 'y'"),
        ("4_d.sql", "DROP TYPE mood; CREATE TYPE mood AS ENUM ('c'); ALTER TYPE mood ADD VALUE 'd'"),
        ("5_e.sql", "ALTER TYPE mood RENAME VALUE 'c' TO 'e'; ALTER TYPE mood ADD VALUE 'c'"),
    ];
    let folded = for_one_transaction(&rewritten(&set).unwrap());
    assert_eq!(
        folded.iter().flat_map(statements).collect::<Vec<_>>(),
        [
            "1 CREATE TYPE mood AS ENUM ('a', 'b')",
            "1 CREATE TYPE mood_new AS ENUM ('a', 'z')",
            "1 ALTER TYPE mood RENAME TO mood_old",
            "1 ALTER TYPE mood_new RENAME TO mood",
            "1 DROP TYPE mood_old",
            "1 ALTER TYPE mood_old ADD VALUE 'y'",
            "1 DROP TYPE mood",
            "1 CREATE TYPE mood AS ENUM ('c', 'd')",
            "1 ALTER TYPE mood RENAME VALUE 'c' TO 'e'",
            "1 ALTER TYPE mood ADD VALUE 'c'",
        ]
    );
}

/// Prisma's first file creates the schema, which exists.
#[test]
fn the_schema_public_itself_is_never_created() {
    let text = "CREATE SCHEMA IF NOT EXISTS \"public\";\nSELECT 1;";
    assert_eq!(statements(&postgres(&[("1_a.sql", text)]).unwrap()[0]), ["2 SELECT 1"]);
    assert!(postgres(&[("1_a.sql", "CREATE SCHEMA public;")]).unwrap_err().contains("names the schema"));
}
