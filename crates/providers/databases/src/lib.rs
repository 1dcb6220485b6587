//! The database providers on SQLite and PostgreSQL: shared tables, a file, a schema or a database for each
//! tenant. Beside them what they share: migrations, the rows of seeds, recorded schemas, and the task that
//! fills warm pools.

mod content;
pub mod database_postgres;
pub mod database_postgres_database;
pub mod database_postgres_pool;
pub mod database_postgres_schema;
pub mod database_sqlite;
pub mod database_sqlite_file;
pub mod database_sqlite_pool;
pub mod migrations;
mod shape;
mod tables;
mod warm_task;
