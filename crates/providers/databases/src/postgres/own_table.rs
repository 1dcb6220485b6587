//! Rejects migration files that name Tenantry's own table, which is in the same schema as the tenant's tables.
//! Reads only the text of the files, without comments.

use tenantry_model::Failure;

use super::migrate::TABLE;
use crate::migrations::{Migration, tokens};

/// Returns an error that names the lines if a file names the table of applied migrations.
pub fn check(migrations: &[Migration]) -> Result<(), Failure> {
    let statements = |migration: &Migration| {
        let own = migration.statements.iter().filter(|statement| names_own_table(statement.text()));
        own.map(|statement| format!("{}:{}", migration.file, statement.line)).collect::<Vec<_>>()
    };
    let found: Vec<String> = migrations.iter().flat_map(statements).collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::fatal(
        "bad_migration",
        format!(
            "{}: `{TABLE}` is the table in which Tenantry records applied files: give your table another name",
            found.join(", ")
        ),
    ))
}

/// Whether the table's name is among the words of a statement.
fn names_own_table(sql: &str) -> bool {
    let separates = |c: char| c.is_whitespace() || "\"'(),;.".contains(c);
    // The body of a function is one token.
    tokens(sql)
        .iter()
        .flat_map(|token| token.text.split(separates))
        .any(|word| word.eq_ignore_ascii_case(TABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_on_the_own_table_are_found() {
        for (sql, found) in [
            ("create table\n_Migrations(id int)", true),
            ("CREATE TABLE IF NOT EXISTS \"_migrations\" (id int)", true),
            ("ALTER TABLE ONLY _migrations ADD a int; SELECT 1", true),
            ("DROP TABLE _migrations;", true),
            ("CREATE TABLE public._migrations (id int)", true),
            ("CREATE TABLE mine._migrations (id int)", true),
            ("DROP TABLE IF EXISTS a, _migrations CASCADE", true),
            ("ALTER TABLE a RENAME TO _migrations", true),
            ("DELETE FROM _migrations -- all", true),
            ("DROP TABLE /*--*/ _migrations", true),
            ("DO $$ BEGIN PERFORM '--'; DROP TABLE _migrations; END $$", true),
            ("DO $$ BEGIN EXECUTE 'DROP TABLE _migrations'; END $$", true),
            ("/* _migrations */ SELECT 1", false),
            ("CREATE TABLE schema_migrations (id int)", false),
            ("CREATE TABLE _migrations_of_mine (id int)", false),
            ("-- like _migrations\nCREATE TABLE a (id int)", false),
        ] {
            assert_eq!(names_own_table(sql), found, "{sql}");
        }
    }
}
