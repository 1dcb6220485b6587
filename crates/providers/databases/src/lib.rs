//! The database providers on SQLite and PostgreSQL: shared tables, a file, a schema or a database for each
//! tenant. Beside them what they share: migrations, the rows of seeds, recorded schemas, and the task that
//! fills warm pools.

mod content;
pub mod migrations;
pub mod postgres;
pub mod postgres_database;
pub mod postgres_pool;
pub mod postgres_schema;
mod shape;
pub mod sqlite;
pub mod sqlite_file;
pub mod sqlite_pool;
mod tables;
mod warm_task;
