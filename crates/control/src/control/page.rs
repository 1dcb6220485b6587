//! Pages of lists: by cursor, newest first. The cursor is the last id of the page before.

use crate::error::{Error, ErrorKind, FieldError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::ErrorCode;

/// Which page.
#[derive(Clone, Debug)]
pub struct PageQuery {
    limit: usize,
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// `cursor` of the next page.
    pub next_cursor: Option<String>,
}

impl PageQuery {
    /// `limit` from 1 to 100, 50 without it; `cursor` as a page gave it.
    pub fn new(limit: Option<u64>, cursor: Option<String>) -> Result<Self> {
        let limit = limit.unwrap_or(50);
        let faulty = |path: &str, message: &str| {
            Error::invalid(ErrorCode::QueryInvalid, vec![FieldError::new(path, message)])
        };
        if !(1..=100).contains(&limit) {
            return Err(faulty("limit", "must be from 1 to 100"));
        }
        // An id of any kind: a prefix, an underscore, base 32.
        let id = |text: &str| {
            text.len() <= 64
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if cursor.as_deref().is_some_and(|c| c.is_empty() || !id(c)) {
            return Err(faulty("cursor", "must be the `next_cursor` of a page"));
        }
        Ok(Self { limit: usize::try_from(limit).unwrap_or(100), cursor })
    }

    pub(crate) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// One row more than the page holds: it tells whether there is another page.
    pub(crate) fn probe(&self) -> u64 {
        self.limit as u64 + 1
    }

    /// The page of these rows. A row that cannot be read is logged and left out, so that it does not hide the others.
    pub(crate) fn cut<R, T>(
        &self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> String,
        view: impl Fn(R) -> Result<T>,
    ) -> Result<Page<T>> {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next_cursor = rows.last().filter(|_| has_more).map(&id);
        let mut data = Vec::with_capacity(rows.len());
        for row in rows {
            let name = id(&row);
            match view(row) {
                Ok(view) => data.push(view),
                Err(why) if why.kind() == ErrorKind::Internal => {
                    tracing::error!(row = name, cause = why.cause, "a row of a list cannot be read");
                }
                Err(why) => return Err(why),
            }
        }
        Ok(Page { data, has_more, next_cursor })
    }
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { limit: 50, cursor: None }
    }
}
