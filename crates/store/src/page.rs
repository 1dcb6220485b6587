//! Pages: a list by id, newest first, from a cursor on. Ids are ordered by creation, so a page stays right while rows
//! are added.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select};

/// Up to `limit` rows older than `after`.
pub(super) fn newest<E: EntityTrait>(
    query: Select<E>,
    id: impl ColumnTrait,
    after: Option<&str>,
    limit: u64,
) -> Select<E> {
    let query = match after {
        Some(after) => query.filter(id.lt(after)),
        None => query,
    };
    query.order_by_desc(id).limit(limit)
}
