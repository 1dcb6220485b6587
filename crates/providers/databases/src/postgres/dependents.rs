//! What dropping a tenant's schema would take along outside of it.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::failure::failure;

/// Objects outside of the schema `$1` that would be dropped with it.
const DEPENDENTS: &str = include_str!("dependents.sql");
/// Maximum number of objects that a message names; the rest is counted.
const NAMED: usize = 20;

/// Returns an error that names the objects outside of this schema that would be dropped with it.
pub async fn require_none(connection: &mut Session, schema: &str) -> Result<(), Failure> {
    let mut objects: Vec<String> = connection.all(DEPENDENTS, &[&schema]).await.map_err(failure)?;
    if objects.is_empty() {
        return Ok(());
    }
    let more = objects.len().saturating_sub(NAMED);
    objects.truncate(NAMED);
    if more > 0 {
        objects.push(format!("and {more} more"));
    }
    Err(Failure::fatal(
        "has_dependents",
        format!(
            "the schema {schema} was not dropped, because objects outside of it depend on it and would be dropped too: {}; \
             drop, change or move them, then retry",
            objects.join(", ")
        ),
    ))
}
