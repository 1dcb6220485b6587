//! `Stamp`: a `Timestamp` as a column. PostgreSQL keeps `timestamptz`; SQLite keeps the 27-character text.

use std::ops::Deref;

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;
use tokio_postgres::types::Type;

/// PostgreSQL counts microseconds from 2000-01-01 on; this is that day in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// An instant in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub Timestamp);

impl Stamp {
    /// The number by which PostgreSQL knows it.
    pub(super) const fn to_postgres(self) -> i64 {
        self.0.micros().saturating_sub(POSTGRES_EPOCH)
    }
}

impl Deref for Stamp {
    type Target = Timestamp;
    fn deref(&self) -> &Timestamp {
        &self.0
    }
}

impl From<Timestamp> for Stamp {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Stamp> for Timestamp {
    fn from(stamp: Stamp) -> Self {
        stamp.0
    }
}

impl rusqlite::types::FromSql for Stamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let at = value.as_str()?.parse::<Timestamp>();
        at.map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

impl<'a> tokio_postgres::types::FromSql<'a> for Stamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Timestamp::from_micros(micros.saturating_add(POSTGRES_EPOCH))))
    }
    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}
