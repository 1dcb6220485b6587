//! Errors of a real server: every SQLSTATE that it knows is in the table, and what it says about a violation names no
//! value.

use tenantry_model::FailureClass::{self, Fatal, Invalid, Retryable, Unknown};
use tenantry_postgres::sqlstate::{entries, listed, meaning};
use tenantry_postgres::{Server, Session};
use tenantry_testkit::TestDatabase;

/// Codes and classes that not every supported release has.
const OF_SOME_RELEASES: [&str; 5] = ["10", "25P04", "58P03", "72", "10608"];

#[tokio::test]
async fn every_sqlstate_of_the_server_is_classified() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let mut session = Session::open(&database.url().parse::<Server>().unwrap()).await.unwrap();
    // The file from which the server's own codes are generated.
    let list: String = session
        .one("SELECT pg_read_file(setting || '/errcodes.txt') FROM pg_config WHERE name = 'SHAREDIR'", &[])
        .await
        .unwrap();
    let codes: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(code, _)| code)
        .filter(|code| is_sqlstate(code))
        .collect();
    assert!(codes.len() > 250, "{} codes", codes.len());
    let missing: Vec<_> = codes.iter().filter(|code| listed(code).is_none()).collect();
    assert!(missing.is_empty(), "without a class: {missing:?}");
    // No entry of the table is a typing error.
    let unknown: Vec<_> = entries()
        .filter(|entry| {
            !codes.iter().any(|code| code.starts_with(entry)) && !OF_SOME_RELEASES.contains(entry)
        })
        .collect();
    assert!(unknown.is_empty(), "not known to the server: {unknown:?}");
}

fn is_sqlstate(text: &str) -> bool {
    text.len() == 5 && text.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
}

#[test]
fn exact_codes_come_before_their_class() {
    let cases: [(&str, FailureClass, &str, &str); 33] = [
        ("08006", Unknown, "connection_lost", "may have taken effect"),
        ("08001", Retryable, "unreachable", "check that it runs"),
        ("22P02", Invalid, "bad_value", "does not fit"),
        ("23505", Invalid, "constraint", "violates"),
        ("25006", Retryable, "read_only", "name the primary"),
        ("25P03", Unknown, "connection_lost", "may have taken effect"),
        ("25001", Fatal, "database", "outside of one"),
        ("28000", Fatal, "bad_credentials", "`url` (or `clusters`), or pg_hba.conf"),
        ("28P01", Fatal, "bad_credentials", "the password: correct it in the provider's `url`"),
        ("2BP01", Fatal, "database", "depend on this one"),
        ("3D000", Fatal, "no_database", "does not exist"),
        ("40001", Retryable, "serialization", "try again"),
        ("40002", Retryable, "rolled_back", "try again"),
        ("40003", Unknown, "connection_lost", "may have taken effect"),
        ("40P01", Retryable, "deadlock", "try again"),
        ("42501", Fatal, "not_allowed", "tenantry doctor"),
        ("42601", Fatal, "database", "rejected"),
        ("53000", Retryable, "out_of_resources", "out of a resource"),
        ("53100", Retryable, "disk_full", "free space"),
        ("53200", Retryable, "out_of_resources", "out of memory"),
        ("53300", Retryable, "too_many_connections", "max_connections"),
        ("53400", Retryable, "out_of_resources", "raise the setting"),
        ("54000", Invalid, "too_big", "smaller"),
        ("55006", Retryable, "busy", "end them"),
        ("55P03", Retryable, "busy", "lock"),
        ("57014", Retryable, "timeout", "too long"),
        ("57P01", Unknown, "connection_lost", "may have taken effect"),
        ("57P03", Retryable, "restarting", "starting"),
        ("57P04", Fatal, "no_database", "dropped"),
        ("58030", Retryable, "io_error", "disk"),
        ("58P01", Fatal, "io_error", "lacks a file"),
        ("XX000", Retryable, "rolled_back", "internal error"),
        ("XX001", Fatal, "corrupt", "damaged"),
    ];
    for (sqlstate, class, code, words) in cases {
        let found = meaning(sqlstate);
        assert_eq!((found.class, found.code.as_str()), (class, code), "{sqlstate}");
        assert!(found.sentence.contains(words), "{sqlstate}: {}", found.sentence);
    }
    // A code that a function has made up.
    assert_eq!(listed("ZZ123"), None);
    assert_eq!(meaning("ZZ123").class, Invalid);
}

#[tokio::test]
async fn reports_of_the_server_name_objects_and_no_values() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let mut session = Session::open(&database.url().parse::<Server>().unwrap()).await.unwrap();
    session
        .run(
            "CREATE TABLE t (email text UNIQUE, n int CHECK (n < 5), d date NOT NULL DEFAULT '2026-01-01',
                             span int4range, EXCLUDE USING gist (span WITH &&));
             CREATE TABLE child (email text REFERENCES t (email));
             CREATE TABLE parts (email text) PARTITION BY LIST (email);
             CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'no place for \"%\"', NEW.email; END $$;
             CREATE TRIGGER reject BEFORE DELETE OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION reject();
             INSERT INTO t (email, span) VALUES ('secret@x', '[70001,70003)')",
        )
        .await
        .unwrap();
    for (sql, words) in [
        (
            "INSERT INTO t (email) VALUES ('secret@x')",
            "detail: Key (email) already exists; statement: INSERT INTO t (email) VALUES (…)",
        ),
        ("INSERT INTO t (span) VALUES ('[70001,70009)')", "detail: Key (span)"),
        ("INSERT INTO child VALUES ('secret@y')", "detail: Key (email) is not present in table \"t\""),
        (
            "INSERT INTO parts VALUES ('secret@y')",
            "detail: Partition key of the failing row contains (email)",
        ),
        ("INSERT INTO t (n) VALUES (70001)", "violates check constraint \"t_n_check\""),
        ("INSERT INTO t (d) VALUES (NULL)", "null value in column \"d\" of relation \"t\""),
        ("INSERT INTO t (n) VALUES ('secret@x')", "invalid input syntax for type integer: \"…\""),
        ("INSERT INTO t (d) VALUES ('70001-secret')", "\"…\""),
        ("SELECT to_tsquery('secret ! & |')", "statement: SELECT to_tsquery(…)"),
        ("SELECT 'secret'::jsonb", "invalid input syntax for type json"),
        ("SELECT FROM t WHERE email = 'secret' 'secret'", "syntax error at or near \"…\""),
        ("UPDATE t SET email = NULL", "in: PL/pgSQL function"),
        ("UPDATE t SET n = 70001 WHERE email = 'secret@x'", "no place for \"…\""),
        (
            "SELECT 1; SELECT nothing FROM t WHERE email = 'secret@x'",
            "statement: SELECT nothing FROM t WHERE email = …",
        ),
        (
            "DROP FUNCTION reject()",
            "detail: trigger reject on table t depends on function reject(); hint: Use DROP ... CASCADE",
        ),
    ] {
        let error = session.run(sql).await.unwrap_err();
        let report = error.report().unwrap_or_else(|| panic!("{sql}: {error}")).to_string();
        assert!(report.contains(words), "{sql}: {report}");
        assert!(!report.contains("secret") && !report.contains("70001"), "{sql}: {report}");
    }
}
