//! Names that are qualified with the schema `public`, as Drizzle and `pg_dump` write them. A tenant's tables
//! are in another schema, so `CREATE TABLE IF NOT EXISTS public.t` would create one table for all tenants. By
//! default such a name is a fault; by `public_schema = "rewrite"` it gets the tenant's schema instead, or the schema
//! of the extension that has an object of this name. Names are found by PostgreSQL's tokens, never by searching the
//! text.

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squawk_lexer::{LiteralKind, TokenKind};

use super::postgres::{Token, tokens};
use super::statements::Piece;

/// What happens to names that migrations qualify with `public`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublicSchema {
    /// The file is rejected.
    #[default]
    Reject,
    /// The name refers to the schema of the tenant's rows.
    Rewrite,
}

/// The objects of extensions by name or operator, each with its schema.
pub type Members = BTreeMap<String, String>;

/// A name that is qualified with `public`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicName {
    /// Where `public` stands.
    pub range: Range<usize>,
    /// The name or operator; none if it is certainly no extension's.
    pub name: Option<String>,
    /// Whether the statement creates the object.
    pub is_created: bool,
}

/// The result for one statement.
#[derive(Debug, Default)]
pub struct PublicNames {
    /// Where `public` stands for the tenant's schema, or that of an extension; in the order of the text.
    pub names: Vec<PublicName>,
    /// Offsets at fault, and why.
    pub faults: Vec<(usize, String)>,
    /// Whether the statement has no effect here, because the tenant's schema exists.
    pub skip: bool,
}

/// Types whose texts name objects.
const OBJECT_TYPES: [&str; 8] =
    ["regclass", "regtype", "regproc", "regprocedure", "regoper", "regoperator", "regcollation", "regconfig"];
/// Functions whose first text names an object.
const OBJECT_FUNCTIONS: [&str; 8] = [
    "nextval",
    "setval",
    "currval",
    "to_regclass",
    "to_regtype",
    "to_regproc",
    "to_regprocedure",
    "pg_get_serial_sequence",
];
/// Depth of texts in texts that are read.
const DEPTH: usize = 4;

const SETTING: &str = "or set `public_schema = \"rewrite\"` in the provider's configuration";

/// Finds the names of a statement.
pub fn find(piece: &Piece<'_>, mode: PublicSchema) -> PublicNames {
    // Most statements do not have the word.
    if !piece.text.to_ascii_lowercase().contains("public") {
        return PublicNames::default();
    }
    let tokens = tokens(piece.text);
    let mut search = Search { mode, found: PublicNames::default() };
    // Prisma's first file has the statement with IF NOT EXISTS, and no other name that is qualified.
    let has_effect = mode == PublicSchema::Reject && !piece.begins(&["CREATE", "SCHEMA", "IF", "NOT"]);
    if is_only_the_schema(piece, &tokens) && !has_effect {
        return PublicNames { skip: true, ..PublicNames::default() };
    }
    let body = match piece.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["DO", ..] => Body::RunsNow,
        ["CREATE", "FUNCTION" | "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE"] => {
            Body::Stored
        }
        _ => Body::None,
    };
    search.names(&tokens, 0);
    for (index, token) in tokens.iter().enumerate() {
        if is_text(token) {
            search.text(&tokens, index, body);
        }
    }
    search.found.names.sort_by_key(|name| name.range.start);
    search.found
}

/// What a statement's texts are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Values.
    None,
    /// Code that runs at once, in the tenant's schema.
    RunsNow,
    /// Code that is stored as a text: a name in it would not follow the schema when that is renamed.
    Stored,
}

struct Search {
    mode: PublicSchema,
    found: PublicNames,
}

impl Search {
    /// Finds names in tokens whose text begins at this offset of the statement.
    fn names(&mut self, tokens: &[Token<'_>], offset: usize) {
        for (index, token) in tokens.iter().enumerate() {
            if !token.names("public") {
                continue;
            }
            let before = |n: usize| index.checked_sub(n).and_then(|at| tokens.get(at));
            let is_dot = |token: Option<&Token<'_>>| token.is_some_and(|it| it.kind == TokenKind::Dot);
            let at = offset + token.at;
            if is_dot(tokens.get(index + 1)) {
                let named = tokens.get(index + 2..).unwrap_or_default();
                let name = named.first().map_or("", |name| name.text);
                if is_dot(before(1)) {
                    self.fault(at, format!("`…public.{name}` names a database: write the name without it"));
                } else {
                    let range = at..at + token.text.len();
                    let is_created = is_created(tokens.get(..index).unwrap_or_default());
                    self.found(PublicName { range, name: name_or_operator(named), is_created }, name);
                }
            } else if is_schema_name(&before) || in_search_path(tokens, index) {
                self.fault(
                    at,
                    "names the schema public, but a tenant's rows are in another one: remove it".to_owned(),
                );
            }
        }
    }

    /// Finds names in a text of the statement.
    fn text(&mut self, tokens: &[Token<'_>], index: usize, body: Body) {
        let Some(token) = tokens.get(index) else { return };
        if in_search_path(tokens, index) && token.plain_text().is_some_and(|text| text.contains("public")) {
            let why = "names the schema public, but a tenant's rows are in another one: remove it";
            return self.fault(token.at, why.to_owned());
        }
        if is_object_name(tokens, index) {
            return self.object_name(token);
        }
        if body == Body::None || !mentions(content(token), 0) {
            return;
        }
        if let (Body::RunsNow, PublicSchema::Rewrite, Some(begin)) = (body, self.mode, dollar_quote(token)) {
            // Texts in the code may be put together, so only names outside of them are certain.
            let inner = content(token);
            let inside = super::postgres::tokens(inner);
            let nested = inside.iter().find(|it| is_text(it) && mentions(content(it), 1));
            if let Some(nested) = nested {
                return self.fault(token.at + begin + nested.at, IN_TEXT.to_owned());
            }
            return self.names(&inside, token.at + begin);
        }
        let line = content(token).to_ascii_lowercase().find("public").unwrap_or_default();
        let at = token.at + token.text.len().min(dollar_quote(token).unwrap_or(1) + line);
        self.fault(at, IN_TEXT.to_owned());
    }

    /// A text such as `'public.users_id_seq'` that names an object.
    fn object_name(&mut self, token: &Token<'_>) {
        if !mentions(content(token), DEPTH) {
            return;
        }
        let inner = super::postgres::tokens(content(token));
        match (token.plain_text(), inner.as_slice()) {
            (Some(_), [public, dot, name])
                if public.names("public") && public.at == 0 && dot.kind == TokenKind::Dot =>
            {
                let range = token.at + 1..token.at + 1 + public.text.len();
                self.found(PublicName { range, name: name.name(), is_created: false }, name.text);
            }
            _ => self.fault(token.at, IN_TEXT.to_owned()),
        }
    }

    fn found(&mut self, found: PublicName, name: &str) {
        match self.mode {
            PublicSchema::Rewrite => self.found.names.push(found),
            PublicSchema::Reject => self.fault(
                found.range.start,
                format!("`public.{name}` is not in the tenant's schema: remove `public.`, {SETTING}"),
            ),
        }
    }

    fn fault(&mut self, at: usize, why: String) {
        self.found.faults.push((at, why));
    }
}

const IN_TEXT: &str =
    "names the schema public in a text or function body, which is not rewritten: remove `public.` there";

/// Whether a name after these tokens is the one of the object that the statement creates.
fn is_created(before: &[Token<'_>]) -> bool {
    before.first().is_some_and(|first| first.is("create"))
        && before
            .iter()
            .all(|it| it.kind == TokenKind::Ident && !it.is_any(&["as", "for", "from", "of", "on", "using"]))
}

/// The name or the operator that these tokens begin with, such as `citext` or, in `OPERATOR(public.<->)`, `<->`.
fn name_or_operator(tokens: &[Token<'_>]) -> Option<String> {
    let first = tokens.first()?;
    first.name().or_else(|| {
        let of_operator = tokens.iter().take_while(|it| it.kind != TokenKind::CloseParen);
        Some(of_operator.map(|it| it.text).collect())
    })
}

/// `CREATE SCHEMA public` and `COMMENT ON SCHEMA public IS …`.
fn is_only_the_schema(piece: &Piece<'_>, tokens: &[Token<'_>]) -> bool {
    let name = |index: usize| tokens.get(index).is_some_and(|token| token.names("public"));
    let creates = tokens.len() == 3 && name(2) || tokens.len() == 6 && name(5);
    piece.begins(&["CREATE", "SCHEMA"]) && creates || piece.begins(&["COMMENT", "ON", "SCHEMA"]) && name(3)
}

/// Whether the words before a name are `SCHEMA` or `SCHEMA IF [NOT] EXISTS`.
fn is_schema_name<'a>(before: &dyn Fn(usize) -> Option<&'a Token<'a>>) -> bool {
    let is = |n: usize, word: &str| before(n).is_some_and(|token| token.is(word));
    is(1, "schema") || is(1, "exists") && (is(3, "schema") || is(4, "schema"))
}

/// Whether a name stands in the list after `search_path`.
fn in_search_path(tokens: &[Token<'_>], index: usize) -> bool {
    let before = tokens.get(..index).unwrap_or_default();
    let list = before.iter().rev().skip_while(|token| {
        token.kind == TokenKind::Comma
            || token.kind == TokenKind::Eq
            || token.is("to")
            || is_text(token)
            || matches!(token.kind, TokenKind::QuotedIdent { .. })
            || token.kind == TokenKind::Ident && !token.is_any(&["search_path", "set"])
    });
    list.take(1).any(|token| token.is("search_path"))
}

/// Whether PostgreSQL reads a text as the name of an object.
fn is_object_name(tokens: &[Token<'_>], index: usize) -> bool {
    let after = |n: usize| tokens.get(index + n);
    let before = |n: usize| index.checked_sub(n).and_then(|at| tokens.get(at));
    let is = |token: Option<&Token<'_>>, kind: TokenKind| token.is_some_and(|token| token.kind == kind);
    let cast = is(after(1), TokenKind::Colon) && is(after(2), TokenKind::Colon);
    let type_at = if is(after(4), TokenKind::Dot) { 5 } else { 3 };
    cast && after(type_at).is_some_and(|token| token.is_any(&OBJECT_TYPES))
        || before(1).is_some_and(|token| token.is_any(&OBJECT_TYPES))
        || is(before(1), TokenKind::OpenParen)
            && before(2).is_some_and(|token| token.is_any(&OBJECT_FUNCTIONS))
}

/// Whether a token is a text in quotes.
pub fn is_text(token: &Token<'_>) -> bool {
    match token.kind {
        TokenKind::Literal { kind } => !matches!(kind, LiteralKind::Int { .. } | LiteralKind::Numeric { .. }),
        _ => false,
    }
}

/// Length of the opening `$tag$`.
fn dollar_quote(token: &Token<'_>) -> Option<usize> {
    let TokenKind::Literal { kind: LiteralKind::DollarQuotedString { .. } } = token.kind else { return None };
    Some(token.text.get(1..)?.find('$')? + 2)
}

/// A text without its quotes.
pub fn content<'a>(token: &Token<'a>) -> &'a str {
    let quotes = match dollar_quote(token) {
        Some(length) => (length, length),
        None => (token.text.find('\'').map_or(0, |at| at + 1), 1),
    };
    let end = token.text.len().saturating_sub(quotes.1);
    token.text.get(quotes.0..end).unwrap_or_default()
}

/// Whether code has a name that is qualified with `public`, also in texts inside of it.
fn mentions(code: &str, depth: usize) -> bool {
    let tokens = tokens(code);
    let qualified = tokens.windows(2).any(|pair| {
        matches!(pair, [public, dot] if public.names("public") && dot.kind == TokenKind::Dot
            && dot.at == public.at + public.text.len())
    });
    qualified
        || depth < DEPTH && tokens.iter().any(|token| is_text(token) && mentions(content(token), depth + 1))
}
