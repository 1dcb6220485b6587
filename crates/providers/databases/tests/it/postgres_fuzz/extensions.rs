//! Productions of extensions: statements as tools write them, and types, operators, functions and index methods of extensions in
//! columns, keys, indexes, defaults and code.

use super::known::Grammar;

/// Ways in which tools write the statement, with `$` for the extension.
const FORMS: [&str; 5] = [
    "CREATE EXTENSION IF NOT EXISTS \"$\"",
    "CREATE EXTENSION IF NOT EXISTS \"$\" WITH SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS \"$\" WITH SCHEMA extensions",
    "CREATE EXTENSION \"$\"",
    "create extension \"$\" cascade",
];

/// An extension, and something that uses it.
pub fn extension(g: &mut Grammar) -> Vec<String> {
    let (name, table) = (g.name("x"), g.table());
    let on = &table.name;
    let owner = if g.is_shared() { "tenant_id WITH =, " } else { "" };
    let key =
        if g.is_shared() { "tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id)," } else { "" };
    let (extension, uses) = match g.number(9) {
        0 => {
            g.kinds.push("citext".to_owned());
            (
                "citext",
                format!("CREATE TABLE {name} ({key} word citext DEFAULT 'Zoë', CHECK (word <> 'NEVER'))"),
            )
        }
        1 => (
            "btree_gist",
            format!(
                "CREATE TABLE {name} ({key} room int, during int4range, EXCLUDE USING gist ({owner}room WITH =, during WITH &&))"
            ),
        ),
        2 => ("pg_trgm", format!("CREATE INDEX {name} ON {on} USING gin ((1::text) gin_trgm_ops)")),
        3 => (
            "uuid-ossp",
            format!(
                "CREATE TABLE {name} ({key} code uuid DEFAULT uuid_generate_v4(), other uuid DEFAULT extensions.uuid_nil())"
            ),
        ),
        4 => {
            g.kinds.push("hstore".to_owned());
            (
                "hstore",
                format!(
                    "CREATE TABLE {name} ({key} tags hstore DEFAULT 'a=>1', CHECK (tags ? 'a' OR tags IS NULL OR true))"
                ),
            )
        }
        5 => (
            "pgcrypto",
            format!("CREATE TABLE {name} ({key} secret text DEFAULT encode(digest('x', 'sha256'), 'hex'))"),
        ),
        6 => {
            g.kinds.push("ltree".to_owned());
            ("ltree", format!("CREATE TABLE {name} ({key} path ltree, paths ltree[])"))
        }
        7 => (
            "unaccent",
            format!(
                "CREATE FUNCTION {name}(word text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT unaccent(word) $$"
            ),
        ),
        _ => (
            "fuzzystrmatch",
            format!(
                "CREATE TABLE {name} ({key} word text, sound text GENERATED ALWAYS AS (soundex(word)) STORED)"
            ),
        ),
    };
    let form = g.pick(&FORMS).replace('$', extension);
    let noise = g.noise();
    vec![format!("{noise}{form}"), format!("COMMENT ON EXTENSION \"{extension}\" IS {}", g.text()), uses]
}
