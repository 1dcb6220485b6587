//! Lists of rows. A SQLite file hands over every column of every row through a queue between two threads; as one value, which
//! it writes as JSON, a list takes half as long. PostgreSQL sends all rows at once, and takes longer to write JSON than to send them.

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, EntityTrait, FromQueryResult, QuerySelect as _,
    QueryTrait as _, Select, Statement,
};
use serde::de::DeserializeOwned;

use super::ReadError;
use super::table::{Column, Kind, column, columns};

/// All rows of a query, in its order. The names of an entity's fields are those of its columns, as serde has them.
pub(super) async fn all<E>(db: &DatabaseConnection, query: Select<E>) -> Result<Vec<E::Model>, ReadError>
where
    E: EntityTrait,
    E::Model: DeserializeOwned,
{
    read::<E, E::Model>(db, query, &columns::<E>()).await
}

/// The same of these columns alone, which are the fields of `M`.
pub(super) async fn some<E, M>(
    db: &DatabaseConnection,
    query: Select<E>,
    only: &[E::Column],
) -> Result<Vec<M>, ReadError>
where
    E: EntityTrait,
    M: FromQueryResult + DeserializeOwned,
{
    let query = query.select_only().columns(only.iter().copied());
    read(db, query, &only.iter().copied().map(column).collect::<Vec<_>>()).await
}

async fn read<E, M>(
    db: &DatabaseConnection,
    query: Select<E>,
    columns: &[Column],
) -> Result<Vec<M>, ReadError>
where
    E: EntityTrait,
    M: FromQueryResult + DeserializeOwned,
{
    let backend = db.get_database_backend();
    if backend != DbBackend::Sqlite {
        return Ok(query.into_model::<M>().all(db).await?);
    }
    let rows = query.build(backend);
    let members: Vec<String> = columns.iter().map(member).collect();
    let sql = format!("SELECT json_group_array(json_object({})) FROM ({})", members.join(", "), rows.sql);
    let Some(row) = db.query_one_raw(Statement { sql, ..rows }).await? else { return Ok(Vec::new()) };
    let list: String = row.try_get_by_index(0)?;
    Ok(serde_json::from_str(&list)?)
}

/// A column as a member of a JSON object.
fn member(column: &Column) -> String {
    let name = column.name;
    match column.kind {
        Kind::Json => format!("'{name}', json(\"{name}\")"),
        Kind::Bool => {
            format!("'{name}', CASE \"{name}\" WHEN 0 THEN json('false') WHEN 1 THEN json('true') END")
        }
        Kind::Text | Kind::Int | Kind::BigInt | Kind::Time => format!("'{name}', \"{name}\""),
    }
}
