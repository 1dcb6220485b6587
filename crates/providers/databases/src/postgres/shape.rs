//! Reads the definition of a tenant's schemas from the server, in a form that is the same for all tenants and on all supported
//! releases: the schema's own name and the names of its roles are left out.

use sha2::{Digest, Sha256};
use tenantry_model::Failure;
use tenantry_postgres::{Error, Row, Session};

use super::failure::failure;
use crate::shape::{FORM, Shape};
use crate::tables::{literal, quoted};

/// All parts of a schema, or of a tenant's own database.
const QUERY: &str = include_str!("shape.sql");
/// Length in bytes from which a definition is stored as its hash.
const LONG: usize = 200;

/// The definition of everything in this main schema and those beside it. To be compared with an earlier one, it is read in the form of that one:
/// a definition that was recorded before Tenantry compared all that it compares now does not differ for this reason.
/// The session's search path is `pg_catalog`.
pub async fn shape(
    connection: &mut Session,
    schema: &str,
    earlier: Option<&Shape>,
) -> Result<Shape, Failure> {
    let form = earlier.map_or(FORM, Shape::form);
    let query = QUERY.replace("OWN_SCHEMAS", own_schemas!());
    let rows = connection.rows(&query, &[&schema]).await.map_err(failure)?;
    let part = |row: &Row| {
        let definition: Option<&str> = row.try_get(if form == 1 { 2 } else { 3 })?;
        let Some(definition) = definition else { return Ok(None) };
        let name = |column: usize| Ok::<_, Error>(unqualified(row.try_get(column)?, schema));
        let definition = if form == 1 { unqualified(definition, schema) } else { normal(definition, schema) };
        Ok::<_, Error>(Some((name(0)?, name(1)?, definition)))
    };
    let parts = rows.iter().filter_map(|row| part(row).transpose());
    let shape: Shape = parts.collect::<Result<_, _>>().map_err(failure)?;
    Ok(shape.in_form(form))
}

/// The text without the schema's name before other names.
fn unqualified(text: &str, schema: &str) -> String {
    text.replace(&format!("{schema}."), "").replace(&format!("{}.", quoted(schema)), "")
}

/// The text without the schema's name, also where it is a setting; hashed if it is long.
fn normal(text: &str, schema: &str) -> String {
    let text = unqualified(text, schema).replace(&literal(schema), "'the schema'");
    match text.len() {
        ..LONG => text,
        _ => hex::encode(Sha256::digest(&text)),
    }
}
