//! The tenants' tables as a database server describes them: tables, columns, deletion order; and the checks
//! of the table and column names that callers pass. Contains no SQL except quoting of names and texts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tenantry_model::{Failure, TenantId};
use uuid::Uuid;

use crate::shape::Shape;
use tenantry_provider::data::MAX_PAGE;

/// The column that holds the tenant's id in every table.
pub const OWNER: &str = "tenant_id";
/// Maximum number of faults of a schema that are listed; the rest are counted.
const MAX_FAULTS: usize = 50;

/// The tenants' tables in one schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By name, without Tenantry's own tables, with lookup tables. The name of a table in another schema than the tenant's
    /// main one is `schema.table`.
    pub tables: BTreeMap<String, Table>,
    /// The same names, ordered so that a table comes before the tables that its rows refer to. Tables that refer to each
    /// other in a cycle are one group. Lookup tables, which have no tenant's rows, are not among them.
    pub deletion_order: Vec<Vec<String>>,
    /// Whether every row belongs to one tenant, whatever its `tenant_id`. If not, `tenant_id` selects a tenant's rows.
    pub is_whole: bool,
    /// If every row belongs to one tenant: the tables that are lookup tables in a pool, and like all others here.
    pub lookups: BTreeSet<String>,
    /// The definition of the whole schema.
    pub shape: Shape,
}

/// A table of tenants' rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the order of the table's definition, without a `tenant_id` that Tenantry fills.
    pub columns: Vec<Column>,
    /// Its schema and name, if it is in another schema than the tenant's main one.
    pub elsewhere: Option<[String; 2]>,
    /// The type of a `tenant_id` that Tenantry fills with the tenant's id; none if the table has no such column.
    pub owner: Option<OwnerType>,
    /// Whether the table's rows are in its partitions.
    pub is_partitioned: bool,
    /// Whether it is a lookup table: without `tenant_id`, with rows from migrations that all tenants read.
    pub is_lookup: bool,
}

/// The types of a `tenant_id` that holds ids of Tenantry's tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerType {
    /// `ten_…`
    Text,
    /// The UUID that the id stands for.
    Uuid,
}

impl OwnerType {
    /// The type of this name, as PostgreSQL writes it.
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "text" => Some(Self::Text),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// The type's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Uuid => "uuid",
        }
    }

    /// The tenant's id as a value of this type.
    pub fn value(self, tenant: TenantId) -> String {
        match self {
            Self::Text => tenant.to_string(),
            Self::Uuid => tenant.uuid().to_string(),
        }
    }

    /// The tenant's id as SQL of this type for PostgreSQL.
    pub fn literal(self, tenant: TenantId) -> String {
        format!("{}::{}", literal(&self.value(tenant)), self.as_str())
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// The declared type, as the server writes it.
    pub kind: String,
    /// Filled by the database, so a caller cannot set it.
    pub generated: bool,
    /// Computed from other columns, so an import cannot set it either.
    pub computed: bool,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that a new row sets, in its order. `name` is this table's name.
    pub fn given(&self, name: &str, row: &Map<String, Value>) -> Result<Vec<&Column>, Failure> {
        if self.owner.is_some() && row.contains_key(OWNER) {
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
        Self {
            tables: BTreeMap::new(),
            deletion_order: Vec::new(),
            is_whole: false,
            lookups: BTreeSet::new(),
            shape: Shape::new(),
        }
    }

    /// The table of this name. Returns an error if there is none, or if it has no `id`, by which rows are
    /// addressed.
    pub fn addressable(&self, name: &str) -> Result<(&str, &Table), Failure> {
        let has_id = |table: &Table| table.column("id").is_some();
        match self.tables.get_key_value(name) {
            Some((name, table)) if has_id(table) => Ok((name, table)),
            _ => {
                let names: Vec<&str> = self
                    .tables
                    .iter()
                    .filter(|(_, table)| has_id(table))
                    .map(|(name, _)| name.as_str())
                    .collect();
                Err(Failure::invalid(
                    "unknown_table",
                    format!("no such table with a column `id`; these have one: {}", names.join(", ")),
                ))
            }
        }
    }
}

/// Returns an error unless a table takes rows of tenants.
pub fn check_writable(name: &str, table: &Table) -> Result<(), Failure> {
    if !table.is_lookup {
        return Ok(());
    }
    Err(Failure::invalid(
        "not_allowed",
        format!("`{name}` is shared by all tenants and read-only: its rows come from migrations"),
    ))
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

/// A list of quoted column names in parentheses; empty without columns.
pub fn in_parentheses(columns: &[String]) -> String {
    if columns.is_empty() { String::new() } else { format!("({})", columns.join(", ")) }
}

/// Quotes a text for SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Groups tables so that children come before their parents. `parents` names the tables that each table refers to.
/// Tables that refer to each other in a cycle are in one group, with the tables that they refer to.
pub fn deletion_order(
    tables: &BTreeMap<String, Table>,
    mut parents: BTreeMap<String, BTreeSet<String>>,
) -> Vec<Vec<String>> {
    let is_lookup = |name: &str| tables.get(name).is_some_and(|table| table.is_lookup);
    let mut left: BTreeSet<&String> = tables.keys().filter(|name| !is_lookup(name)).collect();
    parents.retain(|child, _| !is_lookup(child));
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_parent =
            |name: &str| parents.values().flatten().any(|parent| parent.eq_ignore_ascii_case(name));
        let free: Vec<&String> = left.iter().filter(|name| !is_parent(name)).copied().collect();
        if free.is_empty() {
            ordered.push(left.into_iter().cloned().collect());
            break;
        }
        for name in free {
            left.remove(name);
            parents.remove(name);
            ordered.push(vec![name.clone()]);
        }
    }
    ordered
}

/// The failure of tables that break rules: all of them, up to a length that can be read.
pub fn bad_schema(mut faults: Vec<String>) -> Failure {
    let more = faults.len().saturating_sub(MAX_FAULTS);
    faults.truncate(MAX_FAULTS);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Failure::fatal("bad_schema", faults.join("; "))
}

/// The failure of a seed, which is a tenant's, with rows for a lookup table.
pub fn seed_of_lookup(table: &str) -> Failure {
    let why = format!(
        "table `{table}` is marked `tenantry: lookup`: insert its rows in a migration, not in a seed"
    );
    Failure::invalid("bad_seed", why)
}

/// The fault of a table without a tenant's id; `column` describes the column that it needs.
pub fn unowned(name: &str, column: &str) -> String {
    format!(
        "table `{name}` cannot be shared by tenants: it needs a column {column}; or, if all tenants read the same rows, the line `-- tenantry: lookup` \
         before its CREATE TABLE"
    )
}

/// The fault of a lookup table that has a tenant's id.
pub fn owned_lookup(name: &str) -> String {
    format!(
        "table `{name}` is marked `tenantry: lookup`, but has a column `{OWNER}`: remove the mark, or the column"
    )
}

/// The fault of a lookup table that refers to a tenant's table.
pub fn lookup_reference(child: &str, parent: &str) -> String {
    format!(
        "table `{child}` is marked `tenantry: lookup`, but refers to `{parent}`, which has rows of tenants: remove the foreign key"
    )
}

/// The fault of a group of tables that refer to each other in a cycle.
pub fn cycle(group: &[String]) -> String {
    format!(
        "foreign keys form a cycle, so no tenant could be removed; drop one of those between: {}",
        group.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_before_parents_and_cycles_are_groups() {
        let tables = ["a", "b", "c", "d"].map(|name| (name.to_owned(), Table::default())).into();
        let order = |pairs: &[(&str, &str)]| {
            let mut parents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (child, parent) in pairs {
                parents.entry((*child).to_owned()).or_default().insert((*parent).to_owned());
            }
            deletion_order(&tables, parents).iter().map(|group| group.concat()).collect::<Vec<_>>()
        };
        assert_eq!(order(&[]), ["a", "b", "c", "d"]);
        assert_eq!(order(&[("a", "b"), ("b", "c"), ("d", "b")]), ["a", "d", "b", "c"]);
        assert_eq!(order(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]), ["a", "bcd"]);
    }
}
