//! Migrations of the bench's tenants: 20 tables in 8 files, each with a key, a reference, an index and
//! defaults.

use std::fs;

use anyhow::Result;
use tempfile::TempDir;

/// Name of the migration set.
pub const SET: &str = "bench";
/// Tables in it.
pub const TABLES: usize = 20;
/// Files of the set.
pub const FILES: usize = 8;

/// Name and text of the files, in order.
pub fn files() -> Vec<(String, String)> {
    let file = |n: usize| {
        let tables = (n * TABLES / FILES)..((n + 1) * TABLES / FILES);
        (format!("{:04}_part.sql", n + 1), tables.map(table).collect())
    };
    (0..FILES).map(file).collect()
}

/// The name of a table.
pub fn name(n: usize) -> String {
    format!("records_{n:02}")
}

fn table(n: usize) -> String {
    let name = name(n);
    let reference = match n.checked_sub(1) {
        Some(before) => {
            format!(
                ",\n    FOREIGN KEY (tenant_id, parent_id) REFERENCES {} (tenant_id, id)",
                self::name(before)
            )
        }
        None => String::new(),
    };
    format!(
        "CREATE TABLE {name} (
    tenant_id  text NOT NULL,
    id         text NOT NULL,
    parent_id  text,
    title      text NOT NULL,
    amount     numeric(12, 2) NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id){reference}
);
CREATE INDEX {name}_by_parent ON {name} (tenant_id, parent_id);
"
    )
}

/// Writes the files into a folder, as an operator does.
pub fn write() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("tenantry-bench-").tempdir()?;
    let migrations = folder.path().join("migrations/postgres").join(SET);
    fs::create_dir_all(&migrations)?;
    for (name, text) in files() {
        fs::write(migrations.join(name), text)?;
    }
    let seeds = folder.path().join("seeds");
    fs::create_dir(&seeds)?;
    let canary = format!("- table: {}\n  rows:\n    - {{ id: canary, title: Canary }}\n", name(0));
    fs::write(seeds.join("canary.yaml"), canary)?;
    Ok(folder)
}
