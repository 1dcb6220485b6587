//! `tenantry store`: moves the registry or the keyring to another database. Works offline, on the databases.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use tenantry_store::keyring::move_keyring;
use tenantry_store::{MoveError, move_registry};

use super::{Exit, Session};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move a live registry to another file or server (offline: on the two databases)
    ///
    /// The source becomes read-only: a server that still runs on it answers reads and rejects writes. Every
    /// row is copied, read back and compared. If the command is interrupted, run it again. Do not put
    /// passwords into the URLs; use PGPASSWORD or ~/.pgpass.
    Migrate {
        /// Source, such as sqlite:///var/lib/tenantry/registry.db
        #[arg(long, value_name = "URL")]
        from: String,
        /// Target, an empty database such as postgres://tenantry@db/registry
        #[arg(long, value_name = "URL")]
        to: String,
        /// Move the keyring instead of the registry
        #[arg(long)]
        keyring: bool,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Migrate { from, to, keyring } = command;
    let moved = if keyring { move_keyring(&from, &to).await } else { move_registry(&from, &to).await };
    let moved = moved.map_err(|error| match error {
        MoveError::Open { .. } => Exit::Usage.with(error),
        MoveError::To(_) | MoveError::From(_) => Exit::Conflict.with(error),
        MoveError::Copy { .. } | MoveError::Differs { .. } | MoveError::Frozen(_) => {
            Exit::Failure.with(error)
        }
    })?;
    let tables: Vec<_> = moved
        .iter()
        .map(|(table, contents)| json!({ "table": table, "rows": contents.rows, "checksum": contents.checksum() }))
        .collect();
    session.output.list(&tables, &[("TABLE", "/table"), ("ROWS", "/rows"), ("CHECKSUM", "/checksum")])?;
    let setting = if keyring { "keyring.url" } else { "store.url" };
    eprintln!(
        "every row was copied and verified; set `{setting}` to the new database and restart the server"
    );
    if keyring {
        eprintln!(
            "the old database no longer contains tenants' keys, but its backups do: destroy them, or they can \
             decrypt the data of tenants that are erased from now on"
        );
    }
    Ok(())
}
