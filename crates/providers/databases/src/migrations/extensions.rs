//! `CREATE EXTENSION` in migration files. A database has an extension once, so a file only names it: the statement does
//! not run with the file, and the administrator installs the extension beside all tenants' schemas. Which extensions
//! a file may name is a list in the configuration.

use std::collections::BTreeSet;

use super::postgres::Token;
use super::rules::Verdict;

/// Schema in which extensions are installed.
pub const SCHEMA: &str = "extensions";

/// The extensions that files may name by default: those of PostgreSQL's contrib modules that a role without superuser
/// rights may install (`trusted`), except those that are for a database of one tenant only. They add types, functions,
/// operators and index methods, and reach neither files nor the network.
pub const DEFAULT: [&str; 16] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "seg",
    "tablefunc",
    "unaccent",
    "uuid-ossp",
];

/// Names of extensions, and why they are refused.
type Refused = (&'static [&'static str], &'static str);

/// Extensions that no list allows.
const REFUSED: [Refused; 4] = [
    (
        &[
            "aws_lambda",
            "aws_s3",
            "azure_storage",
            "dblink",
            "http",
            "mongo_fdw",
            "mysql_fdw",
            "oracle_fdw",
            "pg_net",
            "plproxy",
            "postgres_fdw",
            "redis_fdw",
            "tds_fdw",
            "wrappers",
        ],
        "opens connections from the database server, past the isolation of tenants",
    ),
    (&["adminpack", "file_fdw", "parquet_fdw"], "reads or writes files of the database server"),
    (
        &[
            "amcheck",
            "pageinspect",
            "pg_buffercache",
            "pg_cron",
            "pg_freespacemap",
            "pg_logicalinspect",
            "pg_stat_monitor",
            "pg_stat_statements",
            "pg_surgery",
            "pg_visibility",
            "pg_walinspect",
            "pgrowlocks",
            "pgstattuple",
        ],
        "shows or changes what belongs to the whole server, which only the operator may do: the operator can create it in a \
         database without tenants",
    ),
    (&["plr", "plsh"], UNTRUSTED_LANGUAGE),
];
const UNTRUSTED_LANGUAGE: &str = "runs code with the rights of the database server";

/// Extensions for a database of a tenant's own only.
const OF_ONE_TENANT: [Refused; 3] = [
    (&["lo"], "its large objects belong to the database and not to a tenant"),
    (&["tcn"], "it sends the keys of changed rows to every session of the database"),
    (
        &["tsm_system_rows", "tsm_system_time"],
        "a sample of shared rows tells how many rows other tenants have",
    ),
];

/// An extension that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Name of the extension.
    pub name: String,
    /// The version that the statement asks for.
    pub version: Option<String>,
    /// Line of the file at which the statement begins.
    pub line: usize,
}

/// The extensions that files may name.
#[derive(Clone, Debug, Default)]
pub struct Allowed(BTreeSet<String>);

impl Allowed {
    /// Returns an error if one of them must not be allowed, because it would leave the database.
    pub fn new(names: &[String]) -> Result<Self, String> {
        match names.iter().find_map(|name| Some((name, refusal(name)?))) {
            Some((name, why)) => Err(format!("`{name}` cannot be allowed: it {why}")),
            None => Ok(Self(names.iter().cloned().collect())),
        }
    }

    /// Why a file must not name this extension; none if it may.
    pub fn fault(&self, name: &str) -> Option<String> {
        if self.0.contains(name) {
            return None;
        }
        Some(match refusal(name) {
            Some(why) => format!("the extension `{name}` is not allowed: it {why}; remove the statement"),
            None => format!(
                "the extension `{name}` is not allowed: add it to `extensions` in the provider's configuration, or remove the statement"
            ),
        })
    }
}

/// Why no tenant's file may name this extension, whatever the configuration says.
fn refusal(name: &str) -> Option<&'static str> {
    // By convention, `u` is the last letter of a language that is not trusted: `plpython3u`, `hstore_plpython3u`.
    let is_untrusted = |part: &str| part.starts_with("pl") && part.ends_with('u');
    if name.split('_').any(is_untrusted) {
        return Some(UNTRUSTED_LANGUAGE);
    }
    REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

/// Why a file for a database with several tenants must not name this extension.
pub fn shared_fault(name: &str) -> Option<String> {
    let (_, why) = OF_ONE_TENANT.iter().find(|(names, _)| names.contains(&name))?;
    Some(format!(
        "the extension `{name}` needs a database of the tenant's own: {why}; remove the statement, or use the isolation `database`"
    ))
}

/// Decides about a statement `CREATE EXTENSION` that begins at this line. Its schema has no effect: a name that is
/// qualified with another schema than the extension's is not found when the file is tried.
pub fn create(tokens: &[Token<'_>], line: usize) -> Verdict {
    let unreadable = || Verdict::Refuse("is not a CREATE EXTENSION that can be read: correct it".to_owned());
    let mut rest = tokens.get(2..).unwrap_or_default();
    if let [a, b, c, after @ ..] = rest
        && a.is("if")
        && b.is("not")
        && c.is("exists")
    {
        rest = after;
    }
    let Some((name, mut rest)) = rest.split_first() else { return unreadable() };
    let Some(name) = name.name() else { return unreadable() };
    let mut extension = Extension { name, version: None, line };
    loop {
        rest = match rest {
            [] => break,
            [word, after @ ..] if word.is("with") => after,
            // What the extension needs is named by a statement of its own.
            [word, after @ ..] if word.is("cascade") => after,
            [word, schema, after @ ..] if word.is("schema") && schema.name().is_some() => after,
            [word, version, after @ ..] if word.is("version") => {
                extension.version = version.plain_text().map(str::to_owned).or_else(|| version.name());
                after
            }
            _ => return unreadable(),
        };
    }
    // Every database has it.
    if extension.name == "plpgsql" { Verdict::Skip } else { Verdict::Installs(extension) }
}

/// Whether a statement only creates the schema of extensions, or comments on it.
pub fn is_only_the_schema(tokens: &[Token<'_>]) -> bool {
    let is_schema = |token: &Token<'_>| token.names(SCHEMA);
    match tokens {
        [comment, _, schema, name, ..] if comment.is("comment") => schema.is("schema") && is_schema(name),
        [create, schema, name] | [create, schema, _, _, _, name] => {
            create.is("create") && schema.is("schema") && is_schema(name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::postgres::tokens;

    #[test]
    fn every_form_of_the_statement_is_read() {
        let extension = |name: &str, version: Option<&str>| {
            let version = version.map(str::to_owned);
            Verdict::Installs(Extension { name: name.to_owned(), version, line: 7 })
        };
        for (sql, expected) in [
            ("CREATE EXTENSION Citext", extension("citext", None)),
            ("create extension if not exists \"uuid-ossp\" with schema public", extension("uuid-ossp", None)),
            ("CREATE EXTENSION hstore WITH VERSION '1.8' CASCADE", extension("hstore", Some("1.8"))),
            ("CREATE EXTENSION hstore SCHEMA \"Own\" VERSION \"1.8\"", extension("hstore", Some("1.8"))),
            ("CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog", Verdict::Skip),
        ] {
            assert_eq!(create(&tokens(sql), 7), expected, "{sql}");
        }
        for sql in ["CREATE EXTENSION", "CREATE EXTENSION a FROM unpackaged", "CREATE EXTENSION 'a'"] {
            assert!(matches!(create(&tokens(sql), 7), Verdict::Refuse(_)), "{sql}");
        }
    }

    #[test]
    fn some_extensions_are_on_no_list() {
        let all = |names: &[&str]| Allowed::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let allowed = all(&DEFAULT).unwrap();
        assert_eq!(allowed.fault("citext"), None);
        assert!(allowed.fault("postgis").unwrap().contains("add it to `extensions`"));
        for (name, why) in [
            ("dblink", "opens connections"),
            ("postgres_fdw", "opens connections"),
            ("file_fdw", "reads or writes files"),
            ("pg_stat_statements", "whole server"),
            ("plpython3u", "runs code"),
            ("jsonb_plperlu", "runs code"),
        ] {
            assert!(allowed.fault(name).unwrap().contains(why), "{name}");
            assert!(all(&["citext", name]).unwrap_err().contains(why), "{name}");
        }
        all(&["lo"]).unwrap();
        assert!(shared_fault("lo").unwrap().contains("needs a database of the tenant's own"));
        assert_eq!(DEFAULT.into_iter().find_map(shared_fault), None);
    }
}
