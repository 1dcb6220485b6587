//! How the tables of a schema are read in parts that take few locks: a partitioned table of very many partitions is read
//! partition by partition. A transaction keeps a lock on each table, partition and index that it reads, and a server has
//! 6,400 by default for all its sessions.

use std::collections::BTreeMap;

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::failure::failure;
use crate::tables::{Table, quoted};

/// Tables and partitions that one transaction reads.
pub const AT_ONCE: usize = 100;

/// Something in FROM.
#[derive(Clone)]
pub struct Relation {
    /// The table or partition, without the rows of tables that inherit from it.
    pub from: String,
    /// Number of tables and partitions that are locked to read it.
    pub locks: usize,
}

/// The tables of a schema in parts.
pub struct Relations {
    schema: String,
    partitions: BTreeMap<String, Vec<String>>,
}

impl Relations {
    /// Reads the partitions of the tables of a schema and of those beside it.
    pub async fn read(connection: &mut Session, schema: &str) -> Result<Self, Failure> {
        let found: Vec<(String, String)> = connection
            .pairs(
                concat!(
                    "SELECT ",
                    name_of!(class "root"),
                    ", format('%I.%I', nspname, leaf.relname) FROM pg_class root
                 CROSS JOIN pg_partition_tree(root.oid) JOIN pg_class leaf ON leaf.oid = relid
                 JOIN pg_namespace n ON n.oid = leaf.relnamespace
                 WHERE ",
                    in_schemas!(class "root"),
                    " AND root.relkind = 'p' AND NOT root.relispartition AND leaf.relkind <> 'p'
                 ORDER BY 1, 2"
                ),
                &[&schema],
            )
            .await
            .map_err(failure)?;
        let mut partitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (table, partition) in found {
            partitions.entry(table).or_default().push(partition);
        }
        Ok(Self { schema: schema.to_owned(), partitions })
    }

    /// The parts of a table, which together have all its rows once.
    pub fn of(&self, name: &str, table: &Table) -> Vec<Relation> {
        let partitions = self.partitions.get(name).map_or(&[][..], Vec::as_slice);
        if partitions.len() <= AT_ONCE {
            return vec![Relation { from: relation(&self.schema, name, table), locks: 1 + partitions.len() }];
        }
        partitions.iter().map(|partition| Relation { from: format!("ONLY {partition}"), locks: 1 }).collect()
    }
}

/// A table of a tenant in FROM, without the rows of tables that inherit from it.
pub fn relation(schema: &str, name: &str, table: &Table) -> String {
    let only = if table.is_partitioned { "" } else { "ONLY " };
    format!("{only}{}", qualified(schema, name, table))
}

/// The name of a table with its schema; `schema` is the main one, in which most tables are.
pub fn qualified(schema: &str, name: &str, table: &Table) -> String {
    match &table.elsewhere {
        Some(place) => place.each_ref().map(|part| quoted(part)).join("."),
        None => format!("{}.{}", quoted(schema), quoted(name)),
    }
}

/// The name of a table for sessions whose search path begins with the main schema.
pub fn unqualified(name: &str, table: &Table) -> String {
    match &table.elsewhere {
        Some(place) => place.each_ref().map(|part| quoted(part)).join("."),
        None => quoted(name),
    }
}
