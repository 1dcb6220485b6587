//! Seeds: the initial rows of a new tenant, by locale, as YAML. Values may be strict templates over the
//! tenant's name and other facts. Accesses no database: the provider that inserts the rows checks tables and
//! columns.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, context};
use serde::Deserialize;
use serde_json::Value;
use tenantry_model::Failure;

use crate::files::Files;
use crate::verbs::Tenant;

/// The fallback language.
pub const FALLBACK: &str = "en";

/// A parsed seed in one language.
pub struct Seed {
    /// Language of the file.
    pub locale: String,
    /// Rows grouped by table and columns, in the order of the file.
    pub blocks: Vec<Block>,
    templates: Environment<'static>,
}

/// Rows of one table with the same columns.
pub struct Block {
    /// Name of the table.
    pub table: String,
    /// Names of the columns, in alphabetical order.
    pub columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

enum Cell {
    /// JSON text that is the same for every tenant.
    Fixed(String),
    /// Name of a template.
    Template(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    table: String,
    rows: Vec<BTreeMap<String, Value>>,
}

/// Languages to try for a locale, best first: `de-AT`, `de`, `en`.
pub fn languages(locale: &str) -> Vec<String> {
    let known = !locale.is_empty() && locale.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut found = Vec::new();
    if known {
        let mut rest = locale;
        loop {
            found.push(rest.to_owned());
            match rest.rsplit_once('-') {
                Some((shorter, _)) if !shorter.is_empty() => rest = shorter,
                _ => break,
            }
        }
    }
    if !found.iter().any(|language| language == FALLBACK) {
        found.push(FALLBACK.to_owned());
    }
    found
}

/// A seed in all its languages.
pub struct Languages<T = Seed>(BTreeMap<String, T>);

impl Languages {
    /// Reads all files of the seed `name`. An error if the fallback language is missing.
    pub fn load(files: &Files, name: &str) -> Result<Self, Failure> {
        let mut found = BTreeMap::new();
        for file in files.list(name)? {
            let Some(language) = file.strip_suffix(".yaml") else { continue };
            let path = format!("{name}/{file}");
            let text = files.read(&path)?.unwrap_or_default();
            found.insert(language.to_owned(), Seed::parse(language, &text).map_err(|why| bad(&path, why))?);
        }
        if found.contains_key(FALLBACK) {
            Ok(Self(found))
        } else {
            Err(Failure::invalid(
                "unknown_seed",
                format!("the seed `{name}` does not exist: create the file {name}/{FALLBACK}.yaml"),
            ))
        }
    }
}

impl<T> Languages<T> {
    /// The best language for a locale.
    pub fn pick(&self, locale: &str) -> Option<&T> {
        languages(locale).iter().find_map(|language| self.0.get(language))
    }

    /// All languages.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    /// Converts the seed of each language.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Languages<U> {
        Languages(self.0.into_iter().map(|(language, seed)| (language, f(seed))).collect())
    }
}

fn bad(file: &str, why: impl std::fmt::Display) -> Failure {
    Failure::invalid("bad_seed", format!("{file}: {why}"))
}

impl Seed {
    /// Parses a seed file. The error names the place.
    pub fn parse(locale: &str, text: &str) -> Result<Self, String> {
        let entries: Vec<Entry> = yaml_serde::from_str(text).map_err(|error| error.to_string())?;
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut blocks: Vec<Block> = Vec::new();
        for entry in entries {
            for (index, row) in entry.rows.into_iter().enumerate() {
                let columns: Vec<String> = row.keys().cloned().collect();
                let mut cells = Vec::with_capacity(columns.len());
                for (column, value) in row {
                    cells.push(match value {
                        Value::String(text) if text.contains("{{") || text.contains("{%") => {
                            let name = format!("{}, row {}, {column}", entry.table, index + 1);
                            templates
                                .add_template_owned(name.clone(), text)
                                .map_err(|error| error.to_string())?;
                            Cell::Template(name)
                        }
                        value => Cell::Fixed(value.to_string()),
                    });
                }
                match blocks.last_mut().filter(|block| block.table == entry.table && block.columns == columns)
                {
                    Some(block) => block.rows.push(cells),
                    None => blocks.push(Block { table: entry.table.clone(), columns, rows: vec![cells] }),
                }
            }
        }
        Ok(Self { locale: locale.to_owned(), blocks, templates })
    }

    /// Appends a block's rows for a tenant to `out` as comma-separated JSON arrays `["ten_…", value, value
    /// …]`, with values in the order of the block's columns.
    pub fn render(&self, block: &Block, tenant: &Tenant, out: &mut String) -> Result<(), Failure> {
        let Tenant { name, slug, plan, region, locale, .. } = tenant;
        let facts = context! { tenant => context! { name, slug, plan, region, locale } };
        for row in &block.rows {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str("[\"");
            out.push_str(&tenant.id.to_string());
            out.push('"');
            for cell in row {
                out.push(',');
                match cell {
                    Cell::Fixed(json) => out.push_str(json),
                    Cell::Template(name) => {
                        // Report only the kind of the error: the engine's message may quote a value.
                        let rendered = self
                            .templates
                            .get_template(name)
                            .and_then(|template| template.render(&facts))
                            .map_err(|error| bad(name, error.kind()))?;
                        out.push_str(&Value::String(rendered).to_string());
                    }
                }
            }
            out.push(']');
        }
        Ok(())
    }

    /// Table and fixed values of the first row.
    pub fn first_row(&self) -> Option<(&str, serde_json::Map<String, Value>)> {
        let block = self.blocks.first()?;
        let cells = block.columns.iter().zip(block.rows.first()?);
        let fixed = cells.filter_map(|(column, cell)| match cell {
            Cell::Fixed(json) => Some((column.clone(), serde_json::from_str(json).ok()?)),
            Cell::Template(_) => None,
        });
        Some((&block.table, fixed.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant {
            id: tenantry_model::TenantId::from_uuid(uuid::Uuid::nil()),
            slug: "acme".into(),
            name: name.into(),
            plan: "starter".into(),
            region: "eu".into(),
            locale: "en".into(),
            admin: Default::default(),
        }
    }

    #[test]
    fn the_best_language_comes_first() {
        assert_eq!(languages("de-AT"), ["de-AT", "de", "en"]);
        assert_eq!(languages("en-GB"), ["en-GB", "en"]);
        assert_eq!(languages("../../etc"), ["en"]);
        assert_eq!(languages(""), ["en"]);
        assert_eq!(languages("-"), ["-", "en"]);
    }

    #[test]
    fn rows_with_other_columns_start_another_block() {
        let seed = Seed::parse("en", "[{table: t, rows: [{id: a, n: 1}, {id: b, n: 2}, {id: c}]}]").unwrap();
        let columns: Vec<_> = seed.blocks.iter().map(|b| b.columns.join(" ")).collect();
        assert_eq!(columns, ["id n", "id"]);
        let mut out = String::new();
        seed.render(&seed.blocks[0], &tenant("x"), &mut out).unwrap();
        assert_eq!(
            out,
            r#"["ten_00000000000000000000000000","a",1],["ten_00000000000000000000000000","b",2]"#
        );
    }

    #[test]
    fn a_tenants_name_is_never_interpreted() {
        let seed = Seed::parse("en", r#"[{table: t, rows: [{id: "Hi {{ tenant.name }}"}]}]"#).unwrap();
        let name = "\"},{{ 7 * 7 }}'; DROP TABLE t; --\u{7}\n<b>";
        let mut out = String::new();
        seed.render(&seed.blocks[0], &tenant(name), &mut out).unwrap();
        let row: Vec<String> = serde_json::from_str(&out).unwrap();
        assert_eq!(row[1], format!("Hi {name}"));
    }

    #[test]
    fn rejects_undefined_variables_and_malformed_seeds() {
        let seed = Seed::parse("en", r#"[{table: t, rows: [{id: "{{ tenant.nam }}"}]}]"#).unwrap();
        let failure = seed.render(&seed.blocks[0], &tenant("x"), &mut String::new()).unwrap_err();
        assert_eq!(failure.code, "bad_seed");
        for bad in
            ["[{table: t, rows: [], extra: 1}]", "[{table: t, rows: [{id: '{{ '}]}]", "{", "[{rows: []}]"]
        {
            assert!(Seed::parse("en", bad).is_err(), "{bad}");
        }
    }
}
