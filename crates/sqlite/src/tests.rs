//! Files with many rows of several owners, from which those of one are deleted, are searched byte by byte.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A database with two indexes whose rows of many owners are added and changed in no order. `settings`: SQL to run first.
fn filled(folder: &Path, settings: &str) -> (PathBuf, Connection) {
    let file = folder.join("test.db");
    let connection = Connection::open(&file).unwrap();
    let schema = format!(
        "{settings}; PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON; PRAGMA synchronous = OFF;
         CREATE TABLE things (id TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
         CREATE INDEX by_body ON things (body, owner);
         CREATE INDEX by_owner ON things (owner, id);"
    );
    connection.execute_batch(&schema).unwrap();
    // A generator of Lehmer's kind: the same numbers in every run.
    let mut state = 1_u64;
    let mut number = move || {
        state = state * 48_271 % 2_147_483_647;
        state
    };
    connection.execute_batch("BEGIN").unwrap();
    for _ in 0..4_000 {
        let (id, owner, length) = (number(), number() % 40, [3, 50, 300, 2_000][number() as usize % 4]);
        let body = format!("{:x} of owner_{owner:02} {}", number(), "x".repeat(length));
        let row = (format!("{id:016x}"), format!("owner_{owner:02}"), body);
        connection.execute("INSERT INTO things VALUES (?1, ?2, ?3)", row).unwrap();
        if id % 7 == 0 {
            let other = format!("owner_{:02}", number() % 40);
            connection
                .execute("UPDATE things SET body = substr(body, 2) WHERE owner = ?1 AND id > '8'", [other])
                .unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
    (file, connection)
}

/// How often a word is in the database file and in its log.
fn count(file: &Path, word: &str) -> [usize; 2] {
    ["", "-wal"].map(|end| {
        let bytes = std::fs::read(format!("{}{end}", file.display())).unwrap_or_default();
        bytes.windows(word.len()).filter(|window| *window == word.as_bytes()).count()
    })
}

/// Rows by owner, and a checksum of their content.
fn rows(connection: &Connection) -> (i64, i64) {
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let all = "SELECT count(*), sum(length(body) * unicode(body)) FROM things NOT INDEXED";
    connection.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn nothing_is_left_of_deleted_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (file, connection) = filled(folder.path(), "");
    for (n, owner) in ["owner_07", "owner_23", "owner_39"].into_iter().enumerate() {
        connection.execute("DELETE FROM things WHERE owner = ?1", [owner]).unwrap();
        assert!(n > 0 || count(&file, owner)[1] > 0, "the log has {owner}");
        let before = rows(&connection);
        let purged = purge(&file).unwrap();
        assert_eq!(count(&file, owner), [0, 0], "{owner}");
        assert_eq!(rows(&connection), before);
        let methods = purged.iter().map(|file| (&*file.file, file.method, file.bytes > 0));
        let expected =
            [("test.db", PurgeMethod::Overwritten, true), ("test.db-wal", PurgeMethod::Truncated, false)];
        assert_eq!(methods.collect::<Vec<_>>(), expected);
    }
    assert!(count(&file, "owner_08")[0] > 0);
}

/// SQLite itself leaves rows behind: otherwise nothing would need to be overwritten.
#[test]
fn unused_parts_of_pages_have_deleted_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (file, connection) = filled(folder.path(), "");
    let mut left = 0;
    for owner in 0..40 {
        let owner = format!("owner_{owner:02}");
        connection.execute("DELETE FROM things WHERE owner = ?1", [&owner]).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        left += count(&file, &owner)[0];
    }
    assert!(left > 0);
}

#[test]
fn a_file_with_an_unknown_form_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let (file, connection) = filled(folder.path(), "PRAGMA auto_vacuum = FULL");
    connection.execute("DELETE FROM things WHERE owner = 'owner_07'", []).unwrap();
    let before = rows(&connection);
    assert_eq!(purge(&file).unwrap()[0].method, PurgeMethod::Rewritten);
    assert_eq!((count(&file, "owner_07"), rows(&connection)), ([0, 0], before));
}

#[test]
fn an_open_transaction_is_waited_for_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (file, connection) = filled(folder.path(), "");
    let reader = Connection::open(&file).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM things").unwrap();
    connection.execute("DELETE FROM things WHERE owner = 'owner_07'", []).unwrap();
    assert!(matches!(purge(&file), Err(PurgeError::Busy)));
    reader.execute_batch("COMMIT").unwrap();
    purge(&file).unwrap();
    assert_eq!(count(&file, "owner_07"), [0, 0]);
}

/// Ends the other threads, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_and_writers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, connection) = filled(folder.path(), "");
    let stop = AtomicBool::new(false);
    let ends = || stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for n in 0..3 {
            let (file, ends) = (&file, &ends);
            scope.spawn(move || {
                let own = Connection::open(file).unwrap();
                own.busy_timeout(Duration::from_secs(30)).unwrap();
                own.execute_batch("PRAGMA secure_delete = ON; PRAGMA synchronous = OFF").unwrap();
                for round in (0..).take_while(|_| !ends()) {
                    if n == 0 {
                        let row = (format!("w{round}"), "owner_50", "y".repeat(500));
                        own.execute("INSERT INTO things VALUES (?1, ?2, ?3)", row).unwrap();
                    } else {
                        own.query_row("SELECT count(*) FROM things", [], |row| row.get::<_, i64>(0)).unwrap();
                    }
                }
            });
        }
        for owner in ["owner_07", "owner_23", "owner_39"] {
            let deleted =
                (0..).find_map(|_| connection.execute("DELETE FROM things WHERE owner = ?1", [owner]).ok());
            assert!(deleted.is_some_and(|rows| rows > 0));
            purge(&file).unwrap();
            assert_eq!(count(&file, owner), [0, 0], "{owner}");
        }
    });
    rows(&connection);
}
