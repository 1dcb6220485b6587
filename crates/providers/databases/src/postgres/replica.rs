//! Pauses triggers of shared tables for the current transaction by `session_replication_role = replica`. `DISABLE TRIGGER`
//! would stop the writes of all tenants. Only a superuser may set it, or a role that has a grant for the parameter.
//!
//! Foreign keys are triggers too: what writes rows meanwhile checks them itself.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::failure::failure;
use super::server::run;

/// SQLSTATE of a missing privilege.
const DENIED: &str = "42501";

/// Pauses triggers until [`resume`] or the end of the transaction. False: the server denies it to the administrator.
pub async fn pause(transaction: &mut Session) -> Result<bool, Failure> {
    run(transaction, "SAVEPOINT pause".to_owned()).await?;
    // A setting may also be allowed by an extension, so asking for the privilege is not enough.
    let paused = transaction.run("SET LOCAL session_replication_role = replica").await;
    match paused {
        Ok(()) => run(transaction, "RELEASE pause".to_owned()).await.map(|()| true),
        Err(error) if error.code() == Some(DENIED) => {
            run(transaction, "ROLLBACK TO pause; RELEASE pause".to_owned()).await.map(|()| false)
        }
        Err(error) => Err(failure(error)),
    }
}

/// Lets triggers run again.
pub async fn resume(transaction: &mut Session) -> Result<(), Failure> {
    run(transaction, "SET LOCAL session_replication_role = origin".to_owned()).await
}

/// Whether the administrator may pause triggers.
pub async fn is_allowed(transaction: &mut Session) -> Result<bool, Failure> {
    let allowed = pause(transaction).await?;
    if allowed {
        resume(transaction).await?;
    }
    Ok(allowed)
}
