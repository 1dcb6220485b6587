//! The rights that the administrator's role needs on a server for an isolation. Each that is missing is named with the
//! statement that grants it, before anything is created.

use tenantry_model::{Failure, Isolation};
use tenantry_postgres::Session;

use super::failure::failure;

/// Finds the missing rights, one sentence each.
const MISSING: &str = include_str!("administrator.sql");

/// Returns an error that names every right that the session's role lacks for tenants of this isolation. `connections`
/// is what the server must have room for; 0: not checked.
pub async fn check(
    connection: &mut Session,
    isolation: Isolation,
    app_role: &str,
    connections: u32,
) -> Result<(), Failure> {
    let connections = i32::try_from(connections).unwrap_or(i32::MAX);
    let values: [&dyn tenantry_postgres::Value; 3] = [&isolation.as_str(), &app_role, &connections];
    let missing: Vec<String> = connection.all(MISSING, &values).await.map_err(failure)?;
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "the administrator's role lacks what the isolation `{}` needs: {}",
        isolation.as_str(),
        missing.join("; ")
    );
    Err(Failure::fatal("not_allowed", why))
}
