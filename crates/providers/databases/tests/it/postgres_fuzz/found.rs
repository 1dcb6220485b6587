//! Cases that once failed, as small as the fuzzer made them.

use super::case::{Case, File};
use super::layout::Tool;
use super::round_trip::{Ending, hold};
use crate::postgres::{MODELS, Model};

/// A set that must be refused, or must hold.
struct Found {
    /// What was wrong.
    was: &'static str,
    models: &'static [Model],
    /// Statements of each file after that of the canary's table.
    files: &'static [&'static [&'static str]],
    /// Number of files that come when tenants have rows.
    later: usize,
    is_refused: bool,
}

const FOUND: &[Found] = &[
    Found {
        was: "a draft of the template database was left",
        models: &[Model::Database],
        files: &[&["CREATE TABLE broken (a no_such_type)"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "files could drop what is not theirs",
        models: &[Model::Pool, Model::Schema],
        files: &[&["DO $$ BEGIN EXECUTE 'DROP TABLE beside.beside'; END $$"]],
        later: 1,
        is_refused: true,
    },
    Found {
        was: "rows of Tenantry's own list were deleted, because there were none when the files were tried",
        models: &[Model::Pool, Model::Schema],
        files: &[&["DELETE FROM tenantry.homes"]],
        later: 1,
        is_refused: true,
    },
    Found {
        was: "a privilege of PUBLIC on a shared table outlasted a suspension",
        models: &MODELS,
        files: &[&["GRANT SELECT ON t TO PUBLIC"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a tenant's login became the administrator, by a temporary view `t` that calls a function of its own",
        models: &[Model::Schema, Model::Database],
        files: &[&[
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM t'",
        ]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "default privileges that code grants opened tables of later files to every login",
        models: &MODELS,
        files: &[&[
            "DO $$ BEGIN EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT ALL ON TABLES TO PUBLIC', current_schema()); END $$",
        ]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "tables that code grants to every login stayed open to a suspended tenant",
        models: &MODELS,
        files: &[&[
            "DO $$ BEGIN EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %I TO PUBLIC', current_schema()); END $$",
        ]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a column that a file grants to every login stayed open to a suspended tenant",
        models: &[Model::Schema, Model::Database],
        files: &[&["GRANT UPDATE (n) ON t TO PUBLIC"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "every login could create objects in the schema of a tenant",
        models: &MODELS,
        files: &[&[
            "DO $$ BEGIN EXECUTE format('GRANT ALL ON SCHEMA %I TO PUBLIC', current_schema()); END $$",
        ]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "an import left the valid constraints of a child not valid, as that of its parent",
        models: &[Model::Schema, Model::Database],
        files: &[&[
            "CREATE TABLE parent (a int)",
            "ALTER TABLE parent ADD CHECK (a > 0) NOT VALID",
            "CREATE TABLE child (b int) INHERITS (parent)",
            "CREATE TABLE grandchild (c int) INHERITS (child)",
        ]],
        later: 0,
        is_refused: false,
    },
    Found {
        was: "a tenant's login deleted the list of tenants by a view, which reads and writes as the administrator",
        models: &MODELS,
        files: &[&["CREATE VIEW listed AS SELECT * FROM tenantry.homes"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a tenant's login deleted the roles of the server by a view of a superuser on a catalogue",
        models: &[Model::Schema, Model::Database],
        files: &[&["CREATE VIEW roles AS SELECT * FROM pg_authid"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a view on a catalogue that every login may read can be written as well",
        models: &[Model::Schema, Model::Database],
        files: &[&["CREATE VIEW relations AS SELECT relname FROM pg_class"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a view on a catalogue that reads as the tenant is accepted",
        models: &[Model::Schema, Model::Database],
        files: &[&["CREATE VIEW relations WITH (security_invoker = true) AS SELECT relname FROM pg_class"]],
        later: 0,
        is_refused: false,
    },
    Found {
        was: "a rule wrote as the administrator what belongs to others",
        models: &[Model::Pool, Model::Schema],
        files: &[&["CREATE RULE noted AS ON INSERT TO t DO ALSO INSERT INTO beside.beside VALUES (1)"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "temporary tables and cursors were left in the session, where the next tenant's file found them",
        models: &[Model::Schema, Model::Database],
        files: &[
            &["CREATE TEMP TABLE step (a int)", "DECLARE rows CURSOR WITH HOLD FOR SELECT * FROM t"],
            &["CREATE TEMP TABLE step (b int)"],
        ],
        later: 1,
        is_refused: false,
    },
    Found {
        was: "a lock of the session kept other processes from applying the file for hours",
        models: &MODELS,
        files: &[&["SELECT pg_advisory_lock(4711)"]],
        later: 1,
        is_refused: true,
    },
    Found {
        was: "a file whose own session uses the table was tried again for hours",
        models: &[Model::Pool, Model::Schema, Model::Database],
        files: &[&["DECLARE rows CURSOR FOR SELECT * FROM t", "ALTER TABLE t ADD COLUMN more text"]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a table that a cursor of its file still read could not be protected",
        models: &MODELS,
        files: &[&[
            "CREATE TABLE more (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id))",
            "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM more",
        ]],
        later: 0,
        is_refused: false,
    },
    Found {
        was: "a file that alters what the one before it filled was refused, for constraints that had been checked by then",
        models: &[Model::Schema, Model::Database],
        files: &[
            &[
                "CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people DEFERRABLE INITIALLY DEFERRED)",
                "INSERT INTO people VALUES (1000001, 1000002), (1000002, 1000001)",
            ],
            &[
                "ALTER TABLE people ADD COLUMN name text",
                "CREATE TABLE more (id int PRIMARY KEY, other int REFERENCES more DEFERRABLE INITIALLY DEFERRED)",
                "INSERT INTO more VALUES (1000001, 1000002)",
                "INSERT INTO more VALUES (1000002, 1000001)",
            ],
            &["INSERT INTO people VALUES (1000003, 1000004)", "INSERT INTO people VALUES (1000004, 1000003)"],
        ],
        later: 0,
        is_refused: false,
    },
    Found {
        was: "a deferred constraint that a file violates was found when the first tenant was there, without a line",
        models: &[Model::Schema, Model::Database],
        files: &[&[
            "CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO people VALUES (1, 2)",
        ]],
        later: 0,
        is_refused: true,
    },
    Found {
        was: "a removal stopped at rows that refer to rows of a table that inherits from another",
        models: &[Model::Pool],
        files: &[&[
            "CREATE TABLE a (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id))",
            "CREATE TABLE heir (PRIMARY KEY (tenant_id, id)) INHERITS (a)",
            "CREATE TABLE b (tenant_id text NOT NULL, id text NOT NULL, heir text, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, heir) REFERENCES heir (tenant_id, id))",
        ]],
        later: 0,
        is_refused: false,
    },
    Found {
        was: "rows of a published table without a replica identity could not be replaced",
        models: &[Model::Database],
        files: &[&[
            "CREATE TABLE keyless (a int)",
            "CREATE TABLE nothing (a int PRIMARY KEY)",
            "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
            "CREATE TABLE late (a int PRIMARY KEY DEFERRABLE)",
            "CREATE PUBLICATION published FOR TABLE keyless, nothing, late",
        ]],
        later: 0,
        is_refused: false,
    },
];

/// Storage parameters stand after PARTITION BY, and a partitioned table cannot have them.
#[tokio::test]
async fn postgres_tables_with_storage_parameters_are_created_in_partitioned_pools() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    let sql = "CREATE TABLE parameters (tenant_id text, id int, PRIMARY KEY (tenant_id, id)) WITH (fillfactor = 70)";
    let case = Case { partitions: 2, ..of(Model::Pool, &[&[sql]], 0) };
    let ending = hold(&case).await;
    assert!(matches!(ending, Ok(Ending::Held(_))), "{ending:?}");
}

#[tokio::test]
async fn postgres_indexes_of_partitioned_tables_are_not_created_concurrently() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    let index = &["CREATE INDEX CONCURRENTLY late ON t (n)"][..];
    for (partitions, is_refused) in [(2, true), (0, false)] {
        let mut case = Case { partitions, ..of(Model::Pool, &[index], 0) };
        case.files[1].transaction = false;
        let ending = hold(&case).await.unwrap_or_else(|why| panic!("{why}\n{case}"));
        match ending {
            Ending::Refused(why) => assert!(is_refused && why.contains("leave CONCURRENTLY out"), "{why}"),
            Ending::Held(_) => assert!(!is_refused, "{case}"),
        }
    }
}

/// The role is the next file's as well, unless it is reset.
#[tokio::test]
async fn postgres_roles_that_code_sets_end_with_their_file() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    let role = &["DO $$ BEGIN SET ROLE pg_monitor; END $$"][..];
    let table =
        &["CREATE TABLE later (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id))"][..];
    for model in MODELS {
        let case = Case { superuser: true, ..of(model, &[role, table], 0) };
        let ending = hold(&case).await;
        assert!(matches!(ending, Ok(Ending::Held(_))), "{ending:?}\n{case}");
    }
}

/// A case of these files, after that of the canary's table.
fn of(model: Model, files: &[&[&str]], later: usize) -> Case {
    let table =
        ["CREATE TABLE t (tenant_id text NOT NULL, id text NOT NULL, n int, PRIMARY KEY (tenant_id, id))"];
    let file = |statements: &[&str]| File {
        statements: statements.iter().map(|sql| (*sql).to_owned()).collect(),
        transaction: true,
    };
    let files = [&table[..]].into_iter().chain(files.iter().copied()).map(file).collect();
    Case { seed: 0, model, superuser: false, tool: Tool::Plain, partitions: 0, files, later }
}

#[tokio::test]
async fn postgres_cases_that_once_failed() {
    if tenantry_testkit::database::admin().is_none() {
        return;
    }
    for Found { was, models, files, later, is_refused } in FOUND {
        for model in MODELS.into_iter().filter(|model| models.contains(model)) {
            let case = of(model, files, *later);
            let ending = hold(&case).await;
            let as_expected = matches!(
                (&ending, is_refused),
                (Ok(Ending::Refused(_)), true) | (Ok(Ending::Held(_)), false)
            );
            assert!(as_expected, "{was}: {ending:?}\n{case}");
        }
    }
}
