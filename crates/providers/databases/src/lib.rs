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

// Former names of the modules.
pub use postgres as database_postgres;
pub use postgres_database as database_postgres_database;
pub use postgres_pool as database_postgres_pool;
pub use postgres_schema as database_postgres_schema;
pub use sqlite as database_sqlite;
pub use sqlite_file as database_sqlite_file;
pub use sqlite_pool as database_sqlite_pool;
