//! A bucket's index in SQLite: the file of each key, and the sums of objects and bytes. Holds all SQL of the
//! bucket.

use std::path::Path;

use rusqlite::{Connection, Params, Row, TransactionBehavior, params};
use serde_json::json;
use tenantry_model::{Failure, Timestamp};

use super::connection::{self, failure};
use tenantry_provider::connections::Connections;
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
    connections: Connections<Connection>,
}

/// An object and its file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The object's metadata; size and digest are of its decrypted bytes.
    pub meta: Meta,
    /// Name of its file.
    pub file: String,
    /// Encryption level of its file.
    pub encryption: Encryption,
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let meta = Meta {
        key: row.get("key")?,
        size: unsigned(row.get("size")?),
        etag: row.get("etag")?,
        content_type: row.get("content_type")?,
        modified: Timestamp::from_micros(row.get("modified")?),
    };
    let enhanced = row.get::<_, String>("encryption")? == Encryption::Enhanced.as_str();
    let encryption = if enhanced { Encryption::Enhanced } else { Encryption::Standard };
    Ok(Entry { meta, file: row.get("file")?, encryption })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// All rows of a statement, which runs to its end.
fn query<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Failure> {
    let mut statement = connection.prepare_cached(sql).map_err(failure)?;
    let rows = statement.query_map(values, read).map_err(failure)?;
    rows.collect::<Result<_, _>>().map_err(failure)
}

/// Creates an empty index at a path that no other connection uses yet.
pub fn create(file: &Path) -> Result<(), Failure> {
    connection::open_draft(file)?.execute_batch(TABLES).map_err(failure)
}

impl Index {
    /// An existing index; it is opened at the first query.
    pub fn new(file: &Path) -> Self {
        let file = file.to_owned();
        let open = move || connection::open(&file);
        Self { connections: Connections::new(CONNECTIONS, "the bucket's index", open) }
    }

    async fn query<T: Send + 'static>(
        &self,
        sql: &'static str,
        values: impl Params + Send + 'static,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Vec<T>, Failure> {
        self.connections.run(move |connection| query(connection, sql, values, read)).await
    }

    /// The object with this key.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Failure> {
        Ok(self.query("SELECT * FROM objects WHERE key = ?1", [key.to_owned()], entry).await?.pop())
    }

    /// Up to `limit` objects in the order of their keys, starting at `from`, or after it if `beyond`.
    pub async fn list(&self, from: &str, beyond: bool, limit: u32) -> Result<Vec<Entry>, Failure> {
        self.query(
            "SELECT * FROM objects WHERE key >= ?1 AND (NOT ?2 OR key > ?1) ORDER BY key LIMIT ?3",
            (from.to_owned(), beyond, limit),
            entry,
        )
        .await
    }

    /// Number of objects and sum of their bytes.
    pub async fn usage(&self) -> Result<(u64, u64), Failure> {
        let sums = |row: &Row<'_>| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)));
        let found = self.query("SELECT objects, bytes FROM usage", [], sums).await?.pop();
        found.ok_or_else(|| failure(rusqlite::Error::QueryReturnedNoRows))
    }

    /// Inserts an object, replacing one with the same key, and returns the replaced object's file. The quota
    /// is checked in the same transaction; an error `quota_exceeded` if the bytes do not fit.
    pub async fn put(&self, new: &Entry, quota: Option<u64>) -> Result<Option<String>, Failure> {
        let size = i64::try_from(new.meta.size).map_err(|_| over_quota())?;
        let new = new.clone();
        let work = move |connection: &mut Connection| {
            // Rolled back unless it is committed.
            let work =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
            let old = "DELETE FROM objects WHERE key = ?1 RETURNING *";
            let old = query(&work, old, [&new.meta.key], entry)?.pop();
            let Entry { meta, file, encryption } = new;
            query(
                &work,
                "INSERT INTO objects (key, file, size, etag, content_type, modified, encryption)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    meta.key,
                    file,
                    size,
                    meta.etag,
                    meta.content_type,
                    meta.modified.micros(),
                    encryption.as_str()
                ],
                |_| Ok(()),
            )?;
            let bytes = query(&work, "SELECT bytes FROM usage", [], |row| Ok(unsigned(row.get(0)?)))?.pop();
            // An object that gets smaller may always be stored, even if the quota was lowered since.
            let grows = old.as_ref().is_none_or(|old| meta.size > old.meta.size);
            if grows && quota.is_some_and(|quota| bytes.unwrap_or(0) > quota) {
                return Err(over_quota());
            }
            work.commit().map_err(failure)?;
            Ok(old.map(|old| old.file))
        };
        self.connections.run(work).await
    }

    /// Deletes an object and returns its file.
    pub async fn delete(&self, key: &str) -> Result<Option<String>, Failure> {
        let sql = "DELETE FROM objects WHERE key = ?1 RETURNING file";
        Ok(self.query(sql, [key.to_owned()], |row| row.get(0)).await?.pop())
    }

    /// Deletes up to a batch of objects with this key prefix that were stored no later than `until`, and
    /// returns their files and sizes. Empty when none is left.
    pub async fn expire(&self, prefix: &str, until: Timestamp) -> Result<Vec<(String, u64)>, Failure> {
        self.query(
            "DELETE FROM objects WHERE key IN (
               SELECT key FROM objects WHERE modified <= ?2 AND substr(key, 1, length(?1)) = ?1 LIMIT ?3)
             RETURNING file, size",
            (prefix.to_owned(), until.micros(), BATCH),
            |row| Ok((row.get(0)?, unsigned(row.get(1)?))),
        )
        .await
    }

    /// Whether any object has this encryption level.
    pub async fn holds(&self, encryption: Encryption) -> Result<bool, Failure> {
        let sql = "SELECT 1 FROM objects WHERE encryption = ?1 LIMIT 1";
        Ok(!self.query(sql, [encryption.as_str()], |_| Ok(())).await?.is_empty())
    }

    /// Returns the names of the given files that belong to no object.
    pub async fn unknown(&self, files: &[String]) -> Result<Vec<String>, Failure> {
        let sql =
            "SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM objects WHERE file = value)";
        self.query(sql, [json!(files).to_string()], |row| row.get(0)).await
    }
}
