//! `tenantry store`: the registry's database itself. Works offline, on the databases.

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
    /// The old one is frozen: a server that still runs on it answers, and writes nothing. Every row is copied, read back and
    /// compared. If this command dies in the middle, run it again. Leave passwords out of the URLs: PGPASSWORD and ~/.pgpass
    /// are honoured.
    Migrate {
        /// Where it is, such as sqlite:///var/lib/tenantry/registry.db
        #[arg(long, value_name = "URL")]
        from: String,
        /// Where it is to be: an empty database, such as postgres://tenantry@db/registry
        #[arg(long, value_name = "URL")]
        to: String,
        /// It is the keyring, not the registry
        #[arg(long)]
        keyring: bool,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Migrate { from, to, keyring } = command;
    let moved = if keyring { move_keyring(&from, &to).await } else { move_registry(&from, &to).await };
    let moved = moved.map_err(|why| match why {
        MoveError::Open { .. } => Exit::Usage.with(why),
        MoveError::To(_) | MoveError::From(_) => Exit::Conflict.with(why),
        MoveError::Copy { .. } | MoveError::Differs { .. } | MoveError::Frozen(_) => Exit::Failure.with(why),
    })?;
    let tables: Vec<_> = moved
        .iter()
        .map(|(table, contents)| json!({ "table": table, "rows": contents.rows, "checksum": contents.checksum() }))
        .collect();
    session.output.list(&tables, &[("TABLE", "/table"), ("ROWS", "/rows"), ("CHECKSUM", "/checksum")])?;
    let what = if keyring { "keyring" } else { "store" };
    eprintln!("every row is there; now name the new one as `{what}.url` and start the server again");
    if keyring {
        eprintln!(
            "the old one has no tenants' keys any more; destroy its backups, which have: they open whoever is erased from now on"
        );
    }
    Ok(())
}
