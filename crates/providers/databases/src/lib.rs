//! The database providers: a pool, a file, a schema or a database for each tenant, on SQLite and PostgreSQL, and what
//! they share: migrations, seeds' rows, recorded shapes, and the content that copies of a tenant take along.

mod content;
pub mod database_postgres;
pub mod database_postgres_database;
pub mod database_postgres_pool;
pub mod database_postgres_schema;
pub mod database_sqlite;
pub mod database_sqlite_file;
pub mod database_sqlite_pool;
pub mod migrations;
mod refill;
mod shape;
mod tables;
