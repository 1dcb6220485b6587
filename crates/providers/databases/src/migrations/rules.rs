//! Statements that a migration must not contain, because they would leave its transaction, its schema or its
//! database, and statements that cannot run in a transaction.

use super::Dialect;
use super::extensions::{self, Extension};
use super::postgres::{Token, tokens};
use super::public::{content, is_text};
use super::statements::Piece;

/// What is done with a statement.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Run,
    /// The statement has no effect here.
    Skip,
    /// Names the schema `public` as the place of later names.
    FindsPublic,
    /// The statement names an extension, which the administrator installs.
    Installs(Extension),
    Refuse(String),
}

/// Words that begin a statement which ends the transaction or reaches beyond the database.
const SQLITE: [&str; 10] =
    ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM", "PRAGMA"];
const POSTGRES: [&str; 9] =
    ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE", "DISCARD", "LOAD"];

/// Functions that take a lock until the session ends.
const SESSION_LOCKS: [&str; 4] =
    ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"];

/// Settings in the head of a dump for which Tenantry's session has its own values, or which a server of
/// another version does not know.
const OF_DUMPS: [&str; 6] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "standard_conforming_strings",
];

/// Whether the statement is a plain `BEGIN`, which may open a file.
pub fn is_begin(piece: &Piece<'_>) -> bool {
    matches!(
        words(piece).as_slice(),
        ["BEGIN"] | ["BEGIN", "WORK" | "TRANSACTION"] | ["START", "TRANSACTION"]
    )
}

/// Whether the statement is a plain `COMMIT`, which may close a file.
pub fn is_commit(piece: &Piece<'_>) -> bool {
    matches!(words(piece).as_slice(), ["COMMIT" | "END"] | ["COMMIT" | "END", "WORK" | "TRANSACTION"])
}

fn words<'a>(piece: &'a Piece<'_>) -> Vec<&'a str> {
    piece.words.iter().map(String::as_str).collect()
}

/// Decides about a statement. `is_dump`: the file is output of `pg_dump`.
pub fn verdict(piece: &Piece<'_>, dialect: Dialect, is_dump: bool) -> Verdict {
    let first = piece.words.first().map_or("", String::as_str);
    let refused: &[&str] = if dialect == Dialect::Sqlite { &SQLITE } else { &POSTGRES };
    // SQLite ignores the first in a transaction; the second ends with it.
    let harmless = ["FOREIGN_KEYS", "DEFER_FOREIGN_KEYS"].iter().any(|name| piece.begins(&["PRAGMA", name]));
    if refused.contains(&first) && !harmless {
        return Verdict::Refuse(format!(
            "contains {first}: a migration must not end or leave its transaction; remove the statement"
        ));
    }
    if dialect == Dialect::Sqlite {
        return Verdict::Run;
    }
    let tokens = tokens(piece.text);
    match first {
        "SET" | "RESET" => setting(&tokens, is_dump),
        "SELECT" | "WITH" | "DO" if takes_session_lock(&tokens, first == "DO") => Verdict::Refuse(
            "takes a lock that lasts until the session ends, which other files and tenants use next: call pg_advisory_xact_lock"
                .to_owned(),
        ),
        "SELECT" => set_config(&tokens),
        "ALTER" if changes_owner(&tokens) => Verdict::Refuse(
            "changes the owner, which is the administrator's role: remove the statement, or dump with `--no-owner`"
                .to_owned(),
        ),
        "GRANT" | "REVOKE" if is_dump => Verdict::Refuse(
            "changes privileges, which Tenantry grants: remove the statement, or dump with `--no-privileges`".to_owned(),
        ),
        "CREATE" if piece.begins(&["CREATE", "EXTENSION"]) => extensions::create(&tokens, piece.line),
        "ALTER" | "DROP" if piece.begins(&[first, "EXTENSION"]) => Verdict::Refuse(format!(
            "contains {first} EXTENSION: all tenants of a database share its extensions, which the administrator changes; remove the statement"
        )),
        "COMMENT" if piece.begins(&["COMMENT", "ON", "EXTENSION"]) => Verdict::Skip,
        "CREATE" | "COMMENT" if extensions::is_only_the_schema(&tokens) => Verdict::Skip,
        _ => Verdict::Run,
    }
}

/// `SET` and `RESET`: the search path is Tenantry's, and the splitter and the connection depend on two others.
fn setting(tokens: &[Token<'_>], is_dump: bool) -> Verdict {
    let reset = tokens.first().is_some_and(|first| first.is("reset"));
    let mut rest = tokens.get(1..).unwrap_or_default();
    if rest.first().is_some_and(|token| token.is_any(&["session", "local"])) {
        rest = rest.get(1..).unwrap_or_default();
    }
    let Some((name, values)) = rest.split_first() else { return Verdict::Run };
    let is_own_role = reset || values.iter().any(|it| it.is_any(&["none", "default"]));
    // `SET SESSION AUTHORIZATION`, without its second word, and `SET LOCAL SESSION AUTHORIZATION`.
    let is_role = name.is_any(&["role", "session_authorization", "authorization"])
        || name.is("session") && values.first().is_some_and(|it| it.is("authorization"));
    if is_role && !is_own_role {
        return Verdict::Refuse(OWN_ROLE.to_owned());
    }
    let is_value = |word: &str| {
        values
            .iter()
            .any(|it| it.is(word) || it.plain_text().is_some_and(|text| text.eq_ignore_ascii_case(word)))
    };
    if name.is("search_path") || name.is("schema") || reset && name.is("all") {
        let word = |it: &Token<'_>| it.plain_text().unwrap_or(it.text).trim_matches('"').to_lowercase();
        let words: Vec<String> =
            values.iter().map(word).filter(|word| !matches!(&**word, "to" | "=" | ",")).collect();
        let only_public = !reset
            && words.iter().all(|word| matches!(&**word, "$user" | "public" | extensions::SCHEMA))
            && words.iter().any(|word| word != extensions::SCHEMA);
        return match only_public {
            true => Verdict::FindsPublic,
            false => Verdict::Refuse(OWN_PATH.to_owned()),
        };
    }
    if name.is("standard_conforming_strings") && !reset && !is_value("on") {
        return Verdict::Refuse(
            "changes how texts are read: write texts with backslashes as E'…', and remove the statement"
                .to_owned(),
        );
    }
    if (name.is("client_encoding") || name.is("names")) && !reset && !is_value("utf8") && !is_value("utf-8") {
        return Verdict::Refuse(
            "changes the encoding, but files are UTF-8: convert the file, and remove the statement"
                .to_owned(),
        );
    }
    if is_dump && name.is_any(&OF_DUMPS) { Verdict::Skip } else { Verdict::Run }
}

const OWN_ROLE: &str =
    "changes the role, which is the administrator's while migrations run: remove the statement";
const OWN_PATH: &str =
    "changes the search path, which Tenantry sets to the tenant's schema: remove the statement";

/// `SELECT pg_catalog.set_config('search_path', …)`, which a dump has in its head.
fn set_config(tokens: &[Token<'_>]) -> Verdict {
    let texts: Vec<&str> = tokens.iter().filter_map(Token::plain_text).collect();
    match texts.as_slice() {
        ["search_path", value, ..] if tokens.iter().any(|token| token.is("set_config")) => match *value {
            // All names of a dump are qualified.
            "" => Verdict::Skip,
            _ => Verdict::Refuse(OWN_PATH.to_owned()),
        },
        _ => Verdict::Run,
    }
}

/// Whether a statement calls one of the [`SESSION_LOCKS`]; `is_code`: its texts do.
fn takes_session_lock(tokens: &[Token<'_>], is_code: bool) -> bool {
    let in_text = |it: &Token<'_>| is_code && takes_session_lock(&self::tokens(content(it)), false);
    tokens.iter().any(|it| it.is_any(&SESSION_LOCKS) || is_text(it) && in_text(it))
}

/// Whether a file is output of `pg_dump`, with or without its comments.
pub fn is_dump(text: &str, pieces: &[Piece<'_>]) -> bool {
    let head = |line: &str| line.starts_with("-- PostgreSQL database dump");
    text.lines().take_while(|line| line.is_empty() || line.starts_with(['-', '\\'])).any(head)
        || pieces.iter().take(40).any(|piece| {
            piece.begins(&["SELECT", "PG_CATALOG", "SET_CONFIG"])
                && set_config(&tokens(piece.text)) == Verdict::Skip
        })
}

/// `ALTER … OWNER TO role`; the current role is the administrator already.
fn changes_owner(tokens: &[Token<'_>]) -> bool {
    tokens.windows(3).any(|three| {
        matches!(three, [owner, to, role] if owner.is("owner") && to.is("to")
            && !role.is_any(&["current_user", "current_role", "session_user"]))
    })
}

/// The words of a statement that PostgreSQL does not run in a transaction.
pub fn outside_transaction(piece: &Piece<'_>) -> Option<&'static str> {
    let tokens = tokens(piece.text);
    let has = |word: &str| tokens.iter().any(|token| token.is(word));
    let index = piece.begins(&["CREATE", "INDEX", "CONCURRENTLY"])
        || piece.begins(&["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY"]);
    if index {
        return Some("CREATE INDEX CONCURRENTLY");
    }
    match piece.words.first()?.as_str() {
        "DROP" if piece.begins(&["DROP", "INDEX", "CONCURRENTLY"]) => Some("DROP INDEX CONCURRENTLY"),
        "REINDEX" if has("concurrently") => Some("REINDEX CONCURRENTLY"),
        "REINDEX" if ["schema", "database", "system"].iter().any(|word| has(word)) => Some("REINDEX SCHEMA"),
        "VACUUM" => Some("VACUUM"),
        "ALTER" if piece.begins(&["ALTER", "TABLE"]) && has("detach") && has("concurrently") => {
            Some("DETACH PARTITION CONCURRENTLY")
        }
        _ => None,
    }
}
