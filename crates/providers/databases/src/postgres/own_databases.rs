//! The databases that no tenant's login may connect to: the registry and the keyring. A login that reaches them can take
//! the locks with which Tenantry starts and writes. Every role may connect to a new database of PostgreSQL, so the
//! tenants' servers are checked before tenants are created on them.

use tenantry_model::Failure;
use tenantry_postgres::{Server as Address, Session};
use tenantry_provider::factory::OwnDatabases;

use super::failure::{connecting, failure};

/// Identifies a database: the system identifier of its server, and its name.
const IDENTITY: &str =
    "SELECT system_identifier::text, current_database()::text FROM pg_catalog.pg_control_system()";
/// The statement that closes the database `$2` of the server `$1` to PUBLIC, if that is this server and PUBLIC may connect.
const OPEN: &str = "
    SELECT CASE datname WHEN current_database() THEN 'give `url` a database of its own'
                        ELSE format('run REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', datname) END
    FROM pg_catalog.pg_database, pg_catalog.pg_control_system()
    WHERE system_identifier::text = $1 AND datname = $2
      AND (datname = current_database() OR has_database_privilege('public', pg_database.oid, 'CONNECT'))";

/// The PostgreSQL databases among these URLs.
pub fn addresses(urls: &OwnDatabases) -> Result<Vec<Address>, Failure> {
    let urls = urls.0.iter().filter(|url| url.starts_with("postgres:") || url.starts_with("postgresql:"));
    urls.map(|url| url.parse().map_err(|why: String| Failure::fatal("bad_url", why))).collect()
}

/// What closes those of these databases to which the logins of this server may connect: a clause for each.
pub async fn open_to_tenants(connection: &mut Session, own: &[Address]) -> Result<Vec<String>, Failure> {
    let mut open = Vec::new();
    for address in own {
        let mut session = Session::open(address).await.map_err(connecting)?;
        let identities: Vec<(String, String)> = session.pairs(IDENTITY, &[]).await.map_err(failure)?;
        session.close().await;
        for (server, name) in identities {
            let remedies: Vec<String> = connection.all(OPEN, &[&server, &name]).await.map_err(failure)?;
            open.extend(
                remedies
                    .into_iter()
                    .map(|remedy| format!("the database {name} of Tenantry itself: {remedy}")),
            );
        }
    }
    Ok(open)
}

/// Returns an error that names each of these databases to which the logins of this server may connect.
pub async fn require_closed(connection: &mut Session, own: &[Address]) -> Result<(), Failure> {
    let open = open_to_tenants(connection, own).await?;
    if open.is_empty() {
        return Ok(());
    }
    let why = format!("tenants' logins could connect to {}", open.join("; "));
    Err(Failure::fatal("own_database_open", why))
}
