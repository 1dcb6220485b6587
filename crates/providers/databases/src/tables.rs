//! The tenants' tables as a database server describes them, whichever it is: tables, columns, the order in which rows
//! can be deleted; and the checks of what callers name. Knows no SQL but how names and texts are written in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tenantry_model::Failure;
use uuid::Uuid;

use crate::shape::Shape;
use tenantry_provider::data::MAX_PAGE;

/// The column that says whose a row is.
pub const OWNER: &str = "tenant_id";

/// The tenants' tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By name. Ours, which begin with an underscore, are not among them.
    pub tables: BTreeMap<String, Table>,
    /// The same names so that a row's table comes before those that it refers to.
    pub deletion_order: Vec<String>,
    /// All that the schema is made of.
    pub shape: Shape,
}

/// A table of tenants' rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order of their definition, without `tenant_id`.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The declared type, as the server writes it.
    pub kind: String,
    /// Computed from others: cannot be given.
    pub generated: bool,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that a row to be added names, in its order. `name` is this table's.
    pub fn given(&self, name: &str, row: &Map<String, Value>) -> Result<Vec<&Column>, Failure> {
        if row.contains_key(OWNER) {
            return Err(Failure::invalid(
                "not_allowed",
                format!("`{OWNER}` cannot be given: it comes from the token"),
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

    /// Gives a row that has no `id` a fresh one, where ids are texts or UUIDs.
    pub fn name_row(&self, row: &mut Map<String, Value>) {
        let takes = |column: &Column| matches!(&*column.kind.to_ascii_lowercase(), "text" | "uuid");
        if self.column("id").is_some_and(takes) && !row.contains_key("id") {
            row.insert("id".to_owned(), Uuid::now_v7().to_string().into());
        }
    }
}

impl Catalogue {
    /// Of no tables.
    pub const fn new() -> Self {
        Self { tables: BTreeMap::new(), deletion_order: Vec::new(), shape: Shape::new() }
    }

    /// The table of this name; it must have an `id`, by which rows are addressed.
    pub fn addressable(&self, name: &str) -> Result<(&str, &Table), Failure> {
        match self.tables.get_key_value(name) {
            Some((name, table)) if table.column("id").is_some() => Ok((name, table)),
            _ => {
                let names: Vec<&str> = self.tables.keys().map(String::as_str).collect();
                Err(Failure::invalid(
                    "unknown_table",
                    format!("there is no such table; there are: {}", names.join(", ")),
                ))
            }
        }
    }
}

/// How many rows a page may have.
pub fn check_limit(limit: u32) -> Result<(), Failure> {
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(());
    }
    Err(Failure::invalid("bad_limit", format!("`limit` must be from 1 to {MAX_PAGE}")))
}

/// Samples that cannot be removed are in use.
pub fn sample_in_use(failure: Failure) -> Failure {
    match failure.code.as_str() {
        "constraint" => Failure::invalid(
            "sample_in_use",
            "a sample is in use by a row that is not a sample: remove that first",
        ),
        _ => failure,
    }
}

/// An identifier as SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Children before parents.
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
                    "tables refer to each other in a circle, so no tenant could be removed: {}",
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
