//! The tenants' tables as a database server describes them: tables, columns, deletion order; and the checks
//! of the table and column names that callers pass. Contains no SQL except quoting of names and texts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tenantry_model::Failure;
use uuid::Uuid;

use crate::shape::Shape;
use tenantry_provider::data::MAX_PAGE;

/// The column that holds the tenant's id in every table.
pub const OWNER: &str = "tenant_id";

/// The tenants' tables in one schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By name, without Tenantry's own tables, whose names begin with an underscore.
    pub tables: BTreeMap<String, Table>,
    /// The same names, ordered so that a table comes before the tables that its rows refer to.
    pub deletion_order: Vec<String>,
    /// The definition of the whole schema.
    pub shape: Shape,
}

/// A table of tenants' rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order of the table's definition, without `tenant_id`.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// The declared type, as the server writes it.
    pub kind: String,
    /// Computed by the database, so a caller cannot set it.
    pub generated: bool,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that a new row sets, in its order. `name` is this table's name.
    pub fn given(&self, name: &str, row: &Map<String, Value>) -> Result<Vec<&Column>, Failure> {
        if row.contains_key(OWNER) {
            return Err(Failure::invalid(
                "not_allowed",
                format!("`{OWNER}` cannot be set: it comes from the token; leave it out"),
            ));
        }
        let unknown = |given: &String| {
            let names: Vec<&str> =
                self.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect();
            let given: String = given.chars().filter(|c| !c.is_control()).take(64).collect();
            Failure::invalid(
                "unknown_column",
                format!("`{given}` is not a column of `{name}`; it has: {}", names.join(", ")),
            )
        };
        row.keys()
            .map(|given| self.column(given).filter(|column| !column.generated).ok_or_else(|| unknown(given)))
            .collect()
    }

    /// Adds a fresh `id` to a row that has none, if the table's ids are texts or UUIDs.
    pub fn name_row(&self, row: &mut Map<String, Value>) {
        let takes = |column: &Column| matches!(&*column.kind.to_ascii_lowercase(), "text" | "uuid");
        if self.column("id").is_some_and(takes) && !row.contains_key("id") {
            row.insert("id".to_owned(), Uuid::now_v7().to_string().into());
        }
    }
}

impl Catalogue {
    /// A catalogue without tables.
    pub const fn new() -> Self {
        Self { tables: BTreeMap::new(), deletion_order: Vec::new(), shape: Shape::new() }
    }

    /// The table of this name. Returns an error if there is none, or if it has no `id`, by which rows are
    /// addressed.
    pub fn addressable(&self, name: &str) -> Result<(&str, &Table), Failure> {
        match self.tables.get_key_value(name) {
            Some((name, table)) if table.column("id").is_some() => Ok((name, table)),
            _ => {
                let names: Vec<&str> = self.tables.keys().map(String::as_str).collect();
                Err(Failure::invalid(
                    "unknown_table",
                    format!("no such table; the tables are: {}", names.join(", ")),
                ))
            }
        }
    }
}

/// Returns an error if a page's size is out of range.
pub fn check_limit(limit: u32) -> Result<(), Failure> {
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(());
    }
    Err(Failure::invalid("bad_limit", format!("`limit` must be from 1 to {MAX_PAGE}")))
}

/// Translates the failure of a deletion of samples that other rows refer to.
pub fn sample_in_use(failure: Failure) -> Failure {
    match failure.code.as_str() {
        "constraint" => Failure::invalid(
            "sample_in_use",
            "a sample cannot be removed: a row that is not a sample refers to it; delete that row first",
        ),
        _ => failure,
    }
}

/// Quotes an identifier for SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Orders tables so that children come before their parents. Returns an error if foreign keys form a cycle.
pub fn deletion_order(
    tables: &BTreeMap<String, Table>,
    mut parents: BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<String>, Failure> {
    let mut left: BTreeSet<&String> = tables.keys().filter(|name| !name.starts_with('_')).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free: Vec<&String> = left
            .iter()
            .filter(|name| {
                !parents.values().any(|set| set.iter().any(|parent| parent.eq_ignore_ascii_case(name)))
            })
            .copied()
            .collect();
        if free.is_empty() {
            let names: Vec<&str> = left.iter().map(|name| name.as_str()).collect();
            return Err(Failure::fatal(
                "bad_schema",
                format!(
                    "foreign keys form a cycle, so no tenant could be removed; drop one of those between: {}",
                    names.join(", ")
                ),
            ));
        }
        for name in free {
            left.remove(name);
            parents.remove(name);
            ordered.push(name.clone());
        }
    }
    Ok(ordered)
}
