//! Benches of tenants on PostgreSQL: creation and claims of schemas and databases, and cost of row level
//! security. They call the providers as the engine does.

mod baseline;
mod claim;
mod creation;
mod limit;
mod peer;
mod rls;
mod world;

use std::sync::Arc;

use anyhow::{Result, bail};
use tempfile::TempDir;
use tenantry_databases::postgres::{Config, Postgres as Servers};

use crate::sandbox::Postgres;
pub use creation::Amount;

/// A main database for tenants, with their migrations and seeds.
pub struct Fleet {
    server: Postgres,
    database: String,
    product: TempDir,
}

impl Fleet {
    /// Creates an empty fleet.
    pub async fn make(server: &Postgres, word: &str) -> Result<Self> {
        let database = format!("tenantry_bench_{word}_{}", std::process::id());
        server.administer(&[format!("CREATE DATABASE \"{database}\"")]).await?;
        Ok(Self { server: server.clone(), database, product: baseline::write()? })
    }

    /// Servers of its providers, as another process has them.
    pub fn servers(&self, change: impl FnOnce(&mut Config)) -> Result<Arc<Servers>> {
        let mut config = Config::new(self.server.database_url(&self.database));
        config.set = baseline::SET.to_owned();
        config.migrations = Some(self.product.path().join("migrations"));
        config.seeds = Some(self.product.path().join("seeds"));
        change(&mut config);
        Ok(Servers::new(config)?)
    }

    /// Drops the database. Roles and databases of tenants are deleted with the temporary server.
    pub async fn remove(self) -> Result<()> {
        self.server.administer(&[format!("DROP DATABASE \"{}\" WITH (FORCE)", self.database)]).await?;
        Ok(self.product.close()?)
    }
}

/// Measures one of the benches on tenants and prints it.
pub async fn measure(bench: &str, server: &Postgres, amount: Amount) -> Result<()> {
    println!("PostgreSQL {}", server.version);
    match bench {
        "schemas" => {
            let alone = creation::schemas(server, amount).await?;
            peer::measure(server, amount, alone).await
        }
        "growth" => creation::growth(server, amount).await,
        "databases" => creation::databases(server, amount).await,
        "claims" => claim::measure(server, amount).await,
        "policies" => rls::measure(server, amount).await,
        other => bail!("there is no bench {other}"),
    }
}
