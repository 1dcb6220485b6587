//! How Tenantry connects to PostgreSQL: the URL, TLS, sessions, a pool, transactions, and what the server's errors mean.
//! Knows no table.

mod connection;
mod error;
mod lock;
mod pool;
mod redact;
mod report;
mod server;
mod session;
pub mod sqlstate;
mod tls;
mod transaction;
mod value;

pub use connection::{Driver, connect};
pub use error::{Error, Kind};
pub use lock::AdvisoryLock;
pub use pool::{Limits, Pool, Pooled};
pub use report::Report;
pub use server::Server;
pub use session::Session;
pub use tls::{Tls, Verify};
pub use tokio_postgres::types::Json;
pub use tokio_postgres::{Client, Row};
pub use transaction::Transaction;
pub use value::Value;
