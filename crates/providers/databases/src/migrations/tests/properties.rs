//! Properties of splitting and reading over generated texts.

use proptest::prelude::*;
use squawk_lexer::TokenKind;

use super::*;
use crate::migrations::postgres::tokens;
use crate::migrations::statements::{Split, split_all};

/// Statements that contain semicolons which do not end them.
fn whole_statement(dialect: Dialect) -> BoxedStrategy<String> {
    let any = "[ -~\n]{0,12}";
    let quoted = |open: &'static str, close: &'static str, doubled: &'static str| {
        any.prop_map(move |text| {
            let text = text.replace(close, doubled);
            format!("SELECT {open};{text}{close}")
        })
    };
    let comment = any.prop_map(|text| format!("SELECT /* ;{} */ 1", text.replace(['*', '/'], " ")));
    let line = any.prop_map(|text| format!("SELECT -- ;{}\n 1", text.replace('\n', " ")));
    let text = prop_oneof![quoted("'", "'", "''"), quoted("\"", "\"", "\"\""), comment, line];
    match dialect {
        Dialect::Sqlite => {
            let trigger = any.prop_map(|text| {
                format!("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT '{}'; END", text.replace('\'', "''"))
            });
            prop_oneof![text, trigger].boxed()
        }
        Dialect::Postgres => {
            let dollar = any.prop_map(|text| format!("DO $q$ ;{} $q$", text.replace('$', " ")));
            let escaped = any.prop_map(|text| format!("SELECT E';\\'{}'", text.replace(['\\', '\''], " ")));
            let nested =
                any.prop_map(|text| format!("SELECT /* /* ;{} */ ; */ 1", text.replace(['*', '/'], " ")));
            let body = (0..3_usize).prop_map(|n| {
                format!(
                    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC {}END",
                    "SELECT CASE WHEN a THEN 1 END;".repeat(n)
                )
            });
            let rule = Just("CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2)".to_owned());
            prop_oneof![text, dollar, escaped, nested, body, rule].boxed()
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

/// Parts of files in any order.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "-- +goose Up\n",
        "-- +goose Down\n",
        "-- migrate:up\n",
        "-- +goose StatementBegin\n",
        "\\restrict a\n",
        "\\.\n",
        "COPY ",
        "a FROM stdin;\n",
        "1\t\\N\\x",
        "SET ",
        "search_path ",
        "SELECT set_config('search_path', '', false);",
        "CREATE FUNCTION f() ",
        "BEGIN ATOMIC ",
        "BEGIN;",
        "COMMIT;",
        "END",
        "CASE ",
        "DO ",
        "EXECUTE ",
        "nextval(",
        "::regclass ",
        "SCHEMA ",
        "public",
        ".",
        "\"public\"",
        "'",
        "E'",
        "U&'",
        "\"",
        "$$",
        "$é$",
        "${",
        "/*",
        "*/",
        "--",
        "(",
        ")",
        ";",
        "\n",
        "é",
        "x ",
    ]);
    prop::collection::vec(parts, 0..30).prop_map(|parts| parts.concat().into_bytes())
}

/// The tokens of a text except those between statements.
fn words(text: &str) -> Vec<&str> {
    tokens(text).into_iter().filter(|token| token.kind != TokenKind::Semi).map(|token| token.text).collect()
}

fn joined(split: &Split<'_>) -> String {
    split.statements.iter().map(|statement| format!("{};\n", statement.text)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn statements_never_split_inside_of_a_text_or_body(
        all in prop::collection::vec((whole_statement(Dialect::Postgres), "[ \n]{0,3}"), 0..8),
    ) {
        whole_statements(&all, Dialect::Postgres)?;
    }

    #[test]
    fn sqlite_statements_never_split_inside_of_a_text_or_trigger(
        all in prop::collection::vec((whole_statement(Dialect::Sqlite), "[ \n]{0,3}"), 0..8),
    ) {
        whole_statements(&all, Dialect::Sqlite)?;
    }

    #[test]
    fn splitting_and_joining_loses_nothing(text in "([a-z ;'\"$()\n]|--|/\\*|\\*/|\\$\\$|BEGIN|END|CREATE FUNCTION ){0,40}") {
        let first = split_all(&text, Dialect::Postgres);
        if first.faults.is_empty() {
            let again = joined(&first);
            prop_assert_eq!(words(&text), words(&again));
            let second = split_all(&again, Dialect::Postgres);
            let texts = |split: &Split<'_>| split.statements.iter().map(|it| it.text.to_owned()).collect::<Vec<_>>();
            prop_assert_eq!(texts(&first), texts(&second));
        }
    }

    #[test]
    fn a_qualified_name_is_rewritten_wherever_it_is_a_name(prefix in "[a-z ,=<>+()]{0,12}", name in "[a-z]{1,6}") {
        let sql = format!("SELECT {prefix} public.{name}, 'public.{name}', \"x.public\"");
        let split = split_all(&sql, Dialect::Postgres);
        prop_assume!(split.faults.is_empty() && !prefix.contains("public"));
        let all = rewritten(&[("1_a.sql", &sql)]);
        let expected = format!("1 SELECT {prefix} \"s\".{name}, 'public.{name}', \"x.public\"");
        prop_assert_eq!(statements(&all.unwrap()[0]), vec![expected]);
    }

    #[test]
    fn no_file_panics(bytes in prop_oneof![bytes(), fragments()], name in "(1_a|V1__a|1_a\\.up)\\.sql") {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            for public in [PublicSchema::Reject, PublicSchema::Rewrite] {
                let _ = Set::new(&[(&name, &bytes)]).load(dialect, public);
            }
        }
    }
}

fn whole_statements(all: &[(String, String)], dialect: Dialect) -> Result<(), TestCaseError> {
    let text: String = all.iter().map(|(statement, space)| format!("{space}{statement};{space}")).collect();
    let split = split_all(&text, dialect);
    prop_assert!(split.faults.is_empty(), "{:?}", split.faults);
    let found: Vec<&str> = split.statements.iter().map(|statement| statement.text).collect();
    let expected: Vec<&str> = all.iter().map(|(statement, _)| statement.as_str()).collect();
    prop_assert_eq!(&found, &expected);
    for statement in &split.statements {
        let begin = text.lines().take(statement.line - 1).map(|line| line.len() + 1).sum::<usize>();
        let first = statement.text.lines().next().unwrap_or_default();
        prop_assert!(text[begin..].lines().next().unwrap_or_default().contains(first), "wrong line");
    }
    Ok(())
}

#[test]
fn no_truncated_file_panics() {
    let files = [
        "-- +goose Up\nCREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN; END $$;\n-- +goose Down\nDROP FUNCTION f();",
        "\\restrict a\nSELECT pg_catalog.set_config('search_path', '', false);\nCOPY public.é (a) FROM stdin;\n1\\x4é\t\\N\n\\.\n\\unrestrict a\n",
        "DO $é$ BEGIN EXECUTE 'SELECT ''public.a'''; END $é$; SELECT 'public.a'::regclass, U&\"public\".b, E'\\'é';",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT nextval('public.s'), E'public.é'::regclass;",
        "CREATE OR REPLACE FUNCTION public.f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN é THEN 1 END; END;",
    ];
    for text in files {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                for public in [PublicSchema::Reject, PublicSchema::Rewrite] {
                    let _ = Set::of(&[("1_a.sql", &text[..end])]).load(dialect, public);
                }
            }
        }
    }
}
