//! What the writer and generic reads must know of a table: names, types, nullability, key. All of it is derived from
//! the entities; nothing is written twice.

use futures::future::BoxFuture;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, ColumnType, DatabaseConnection, EntityTrait, IdenStatic, Iterable, ModelTrait, Order,
    PrimaryKeyToColumn, QueryFilter, QueryOrder, QuerySelect,
};
use serde::Serialize;
use serde_json::Value;
use tenantry_model::{Columns, Datum, Timestamp};

use super::ReadError;

/// How a column's values travel and are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    BigInt,
    /// Boolean.
    Bool,
    /// JSON of any shape.
    Json,
    /// An instant.
    Time,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
}

/// Rows of a table with these column values, in key order.
type Find = for<'a> fn(
    &'a DatabaseConnection,
    &'a [(&'static str, Value)],
) -> BoxFuture<'a, Result<Vec<Value>, ReadError>>;

/// Up to so many rows of a table in key order, those after this key; with the key of the last one.
type ReadPage =
    for<'a> fn(&'a DatabaseConnection, Option<Key>, u64) -> BoxFuture<'a, Result<Page, ReadError>>;

/// Rows, and the key of the last one.
pub type Page = (Vec<Columns>, Option<Key>);

/// The values of a primary key.
pub type Key = Vec<sea_orm::Value>;

/// A table. At most 32 columns: sets of columns are bits of a `u32`.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The primary key, as indices of columns, in key order.
    pub key: Vec<usize>,
    /// Reads rows by equality.
    pub find: Find,
    /// Reads all rows, page by page.
    pub page: ReadPage,
}

impl Table {
    /// The table of an entity.
    pub fn of<E>() -> Self
    where
        E: EntityTrait,
        E::Model: Serialize + Sync,
    {
        let columns = columns::<E>();
        let key = E::PrimaryKey::iter()
            .filter_map(|key| columns.iter().position(|c| c.name == key.into_column().as_str()))
            .collect();
        Self { name: E::default().table_name(), columns, key, find: find::<E>, page: page::<E> }
    }

    /// The index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// The columns of an entity.
pub fn columns<E: EntityTrait>() -> Vec<Column> {
    E::Column::iter().map(column).collect()
}

/// A column of an entity.
pub fn column(column: impl ColumnTrait) -> Column {
    let def = column.def();
    Column { name: column.as_str(), kind: kind(def.get_column_type()), nullable: def.is_null() }
}

/// A row's columns, ready to be written.
pub fn columns_of<M: ModelTrait>(model: &M) -> Columns {
    let mut columns = Columns::default();
    for column in <M::Entity as EntityTrait>::Column::iter() {
        columns.put(column.as_str(), datum(model.get(column)));
    }
    columns
}

/// A value of one of the kinds.
fn datum(value: sea_orm::Value) -> Datum {
    use sea_orm::Value;
    match value {
        Value::Bool(Some(value)) => Datum::Bool(value),
        Value::Int(Some(value)) => Datum::Int(value.into()),
        Value::BigInt(Some(value)) => Datum::Int(value),
        Value::String(Some(text)) => Datum::Text(text.as_str().into()),
        Value::Json(Some(value)) => Datum::Json(value.to_string().into()),
        Value::ChronoDateTimeUtc(Some(at)) => Datum::Text(Timestamp::from(at).to_string().into()),
        _ => Datum::Null,
    }
}

fn kind(column: &ColumnType) -> Kind {
    match column {
        ColumnType::Integer => Kind::Int,
        ColumnType::BigInteger => Kind::BigInt,
        ColumnType::Boolean => Kind::Bool,
        ColumnType::Json | ColumnType::JsonBinary => Kind::Json,
        ColumnType::TimestampWithTimeZone => Kind::Time,
        _ => Kind::Text,
    }
}

fn find<'a, E>(
    db: &'a DatabaseConnection,
    equal: &'a [(&'static str, Value)],
) -> BoxFuture<'a, Result<Vec<Value>, ReadError>>
where
    E: EntityTrait,
    E::Model: Serialize + Sync,
{
    Box::pin(async move {
        let mut query = E::find();
        for (name, value) in equal {
            let column = name.parse::<E::Column>().map_err(|_| ReadError::column(name))?;
            query = query.filter(match value {
                Value::Null => column.is_null(),
                Value::Bool(value) => column.eq(*value),
                Value::String(value) => column.eq(value.as_str()),
                Value::Number(value) => column.eq(value.as_i64().ok_or_else(|| ReadError::column(name))?),
                Value::Array(_) | Value::Object(_) => return Err(ReadError::column(name)),
            });
        }
        for key in E::PrimaryKey::iter() {
            query = query.order_by(key.into_column(), Order::Asc);
        }
        let rows = query.all(db).await?;
        rows.iter().map(|row| serde_json::to_value(row).map_err(ReadError::from)).collect()
    })
}

fn page<E>(db: &DatabaseConnection, after: Option<Key>, limit: u64) -> BoxFuture<'_, Result<Page, ReadError>>
where
    E: EntityTrait,
    E::Model: Serialize + Sync,
{
    Box::pin(async move {
        let key = || E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column);
        let mut query = E::find();
        if let Some(after) = after {
            let columns = Expr::tuple(key().map(Expr::col));
            query = query.filter(columns.gt(Expr::tuple(after.into_iter().map(Expr::val))));
        }
        for column in key() {
            query = query.order_by(column, Order::Asc);
        }
        let rows = query.limit(limit).all(db).await?;
        let last = rows.last().map(|row| key().map(|column| row.get(column)).collect());
        Ok((rows.iter().map(columns_of).collect(), last))
    })
}

/// The tables of one database.
#[derive(Debug)]
pub struct Schema(pub Vec<Table>);

impl Schema {
    /// The table of this name and its number.
    pub fn table(&self, name: &str) -> Option<(u8, &Table)> {
        (0u8..).zip(&self.0).find(|(_, table)| table.name == name)
    }

    /// The table of this number.
    pub fn at(&self, number: u8) -> &Table {
        &self.0[usize::from(number)]
    }
}
