//! A bucket's index in SQLite: the file of each key, and the sums of objects and bytes. Holds all SQL of the
//! bucket.

use std::path::Path;

use serde_json::json;
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqlitePool};
use tenantry_model::{Failure, Timestamp};

use super::connection::{self, failure};
use tenantry_provider::kinds::bucket::Encryption;
use tenantry_provider::objects::{Meta, over_quota};

/// Most connections to one index.
const CONNECTIONS: u32 = 2;
/// Most objects that one transaction deletes.
const BATCH: i64 = 500;

/// Triggers keep the sums in `usage`, so that no statement can omit them.
const TABLES: &str = "
CREATE TABLE objects (
    key          TEXT NOT NULL PRIMARY KEY,
    file         TEXT NOT NULL UNIQUE,
    size         INTEGER NOT NULL,
    etag         TEXT NOT NULL,
    content_type TEXT,
    modified     INTEGER NOT NULL,
    encryption   TEXT NOT NULL CHECK (encryption IN ('standard', 'enhanced'))
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_by_modified ON objects (modified);
CREATE TABLE usage (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    objects INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) STRICT;
INSERT INTO usage VALUES (1, 0, 0);
CREATE TRIGGER objects_in AFTER INSERT ON objects BEGIN
    UPDATE usage SET objects = objects + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER objects_out AFTER DELETE ON objects BEGIN
    UPDATE usage SET objects = objects - 1, bytes = bytes - OLD.size;
END;";

/// An open index.
pub struct Index {
    pool: SqlitePool,
}

/// An object and its file.
#[derive(Debug)]
pub struct Entry {
    /// The object's metadata; size and digest are of its decrypted bytes.
    pub meta: Meta,
    /// Name of its file.
    pub file: String,
    /// Encryption level of its file.
    pub encryption: Encryption,
}

fn entry(row: &SqliteRow) -> Entry {
    let meta = Meta {
        key: row.get("key"),
        size: u64::try_from(row.get::<i64, _>("size")).unwrap_or(0),
        etag: row.get("etag"),
        content_type: row.get("content_type"),
        modified: Timestamp::from_micros(row.get("modified")),
    };
    let enhanced = row.get::<&str, _>("encryption") == Encryption::Enhanced.as_str();
    let encryption = if enhanced { Encryption::Enhanced } else { Encryption::Standard };
    Entry { meta, file: row.get("file"), encryption }
}

/// Creates an empty index at a path that no other connection uses yet.
pub async fn create(file: &Path) -> Result<(), Failure> {
    let mut connection = connection::draft(file).connect().await.map_err(failure)?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await.map_err(failure)?;
    connection.close().await.map_err(failure)
}

impl Index {
    /// An existing index; it is opened at the first query.
    pub fn new(file: &Path) -> Self {
        let options = connection::in_use(file);
        Self { pool: SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options) }
    }

    /// The object with this key.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Failure> {
        let found = sqlx::query("SELECT * FROM objects WHERE key = ?1").bind(key).fetch_optional(&self.pool);
        Ok(found.await.map_err(failure)?.as_ref().map(entry))
    }

    /// Up to `limit` objects in the order of their keys, starting at `from`, or after it if `beyond`.
    pub async fn list(&self, from: &str, beyond: bool, limit: u32) -> Result<Vec<Entry>, Failure> {
        let found = sqlx::query(
            "SELECT * FROM objects WHERE key >= ?1 AND (NOT ?2 OR key > ?1) ORDER BY key LIMIT ?3",
        )
        .bind(from)
        .bind(beyond)
        .bind(i64::from(limit))
        .fetch_all(&self.pool);
        Ok(found.await.map_err(failure)?.iter().map(entry).collect())
    }

    /// Number of objects and sum of their bytes.
    pub async fn usage(&self) -> Result<(u64, u64), Failure> {
        let (objects, bytes): (i64, i64) = sqlx::query_as("SELECT objects, bytes FROM usage")
            .fetch_one(&self.pool)
            .await
            .map_err(failure)?;
        Ok((u64::try_from(objects).unwrap_or(0), u64::try_from(bytes).unwrap_or(0)))
    }

    /// Inserts an object, replacing one with the same key, and returns the replaced object's file. The quota
    /// is checked in the same transaction; an error `quota_exceeded` if the bytes do not fit.
    pub async fn put(&self, new: &Entry, quota: Option<u64>) -> Result<Option<String>, Failure> {
        let size = i64::try_from(new.meta.size).map_err(|_| over_quota())?;
        let mut work = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failure)?;
        let old = sqlx::query("DELETE FROM objects WHERE key = ?1 RETURNING *")
            .bind(&new.meta.key)
            .fetch_optional(&mut *work)
            .await
            .map_err(failure)?;
        let old = old.as_ref().map(entry);
        sqlx::query(
            "INSERT INTO objects (key, file, size, etag, content_type, modified, encryption)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.meta.key)
        .bind(&new.file)
        .bind(size)
        .bind(&new.meta.etag)
        .bind(&new.meta.content_type)
        .bind(new.meta.modified.micros())
        .bind(new.encryption.as_str())
        .execute(&mut *work)
        .await
        .map_err(failure)?;
        let bytes: i64 =
            sqlx::query_scalar("SELECT bytes FROM usage").fetch_one(&mut *work).await.map_err(failure)?;
        // An object that gets smaller may always be stored, even if the quota was lowered since.
        let grows = old.as_ref().is_none_or(|old| new.meta.size > old.meta.size);
        if grows && quota.is_some_and(|quota| u64::try_from(bytes).unwrap_or(0) > quota) {
            work.rollback().await.map_err(failure)?;
            return Err(over_quota());
        }
        work.commit().await.map_err(failure)?;
        Ok(old.map(|old| old.file))
    }

    /// Deletes an object and returns its file.
    pub async fn delete(&self, key: &str) -> Result<Option<String>, Failure> {
        let gone = sqlx::query_scalar("DELETE FROM objects WHERE key = ?1 RETURNING file").bind(key);
        // Fetch all rows, so that the statement runs to completion.
        Ok(gone.fetch_all(&self.pool).await.map_err(failure)?.pop())
    }

    /// Deletes up to a batch of objects with this key prefix that were stored no later than `until`, and
    /// returns their files and sizes. Empty when none is left.
    pub async fn expire(&self, prefix: &str, until: Timestamp) -> Result<Vec<(String, u64)>, Failure> {
        let gone: Vec<(String, i64)> = sqlx::query_as(
            "DELETE FROM objects WHERE key IN (
               SELECT key FROM objects WHERE modified <= ?2 AND substr(key, 1, length(?1)) = ?1 LIMIT ?3)
             RETURNING file, size",
        )
        .bind(prefix)
        .bind(until.micros())
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .map_err(failure)?;
        Ok(gone.into_iter().map(|(file, size)| (file, u64::try_from(size).unwrap_or(0))).collect())
    }

    /// Whether any object has this encryption level.
    pub async fn holds(&self, encryption: Encryption) -> Result<bool, Failure> {
        let found = sqlx::query_scalar::<_, i64>("SELECT 1 FROM objects WHERE encryption = ?1 LIMIT 1");
        let found = found.bind(encryption.as_str()).fetch_optional(&self.pool);
        Ok(found.await.map_err(failure)?.is_some())
    }

    /// Those of the given files that belong to no object.
    pub async fn unknown(&self, files: &[String]) -> Result<Vec<String>, Failure> {
        let unknown = sqlx::query_scalar(
            "SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM objects WHERE file = value)",
        );
        unknown.bind(json!(files).to_string()).fetch_all(&self.pool).await.map_err(failure)
    }
}
