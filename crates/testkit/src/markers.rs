//! A search for deleted data: finds a unique word in files and databases, plain, encoded or compressed. It
//! shares no code with the product and decompresses with `zstd` and `gzip`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::skip::skip;

/// First bytes of compressed data, and the program that decompresses it.
const COMPRESSED: [(&[u8], &str); 2] = [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\x1f\x8b\x08", "gzip")];
/// Deepest level of nested compressed data.
const MAX_DEPTH: u32 = 3;
/// Most bytes that are decompressed from one place.
const MAX_BYTES: u64 = 256 << 20;

/// A word to search for.
pub struct Marker {
    forms: Vec<(&'static str, Vec<u8>)>,
    /// First bytes of the forms and of compressed data.
    begins: [bool; 256],
}

impl Marker {
    /// Searches for this lower-case word: plain in any case; `word`, `Word` and `WORD` in hexadecimal, and in
    /// base64 at any offset.
    pub fn new(word: &str) -> Self {
        let mut forms = vec![("plain", word.as_bytes().to_vec())];
        let capital = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
        for word in [word, &capital, &word.to_uppercase()] {
            forms.push((
                "hexadecimal",
                word.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
            ));
            forms.extend((0..3).map(|skip| ("base64", in_base64(word, skip))));
        }
        let mut begins = [false; 256];
        for first in forms.iter().map(|(_, form)| form[0]).chain(COMPRESSED.map(|(packed, _)| packed[0])) {
            begins[usize::from(first)] = true;
            begins[usize::from(first.to_ascii_uppercase())] = true;
        }
        Self { forms, begins }
    }

    /// Occurrences in bytes and in compressed data within them.
    pub fn in_bytes(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        self.search(place, bytes, MAX_DEPTH)
    }

    fn search(&self, place: &str, bytes: &[u8], depth: u32) -> Vec<String> {
        let mut found = BTreeMap::new();
        let mut unpacked = Vec::new();
        // One pass, because database files are long and test builds are not optimized.
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| self.begins[usize::from(**byte)]) {
            let rest = &bytes[at..];
            for (number, (form, wanted)) in self.forms.iter().enumerate() {
                if begins_with(rest, form, wanted) {
                    let around = &bytes[at.saturating_sub(60)..(at + 60).min(bytes.len())];
                    let occurrence = || format!("{place} ({form}): {}", String::from_utf8_lossy(around));
                    found.entry(number).or_insert_with(occurrence);
                }
            }
            for (_, program) in COMPRESSED.iter().filter(|(packed, _)| depth > 0 && rest.starts_with(packed))
            {
                let inside = format!("{place} ({program} at {at})");
                unpacked.extend(self.search(&inside, &unpack(program, rest), depth - 1));
            }
        }
        found.into_values().chain(unpacked).collect()
    }

    /// Occurrences in the names and contents of files below a folder.
    pub fn in_folder(&self, folder: &Path) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
        while let Some(path) = open.pop() {
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            found.extend(self.in_bytes(&name, name.as_bytes()));
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.extend(self.in_bytes(&name, &bytes));
            }
        }
        found
    }

    /// Occurrences in a PostgreSQL database: in its dump, and in its files after `VACUUM FULL`. A part that
    /// this machine cannot read is reported as skipped.
    pub async fn in_postgres(&self, url: &str) -> Vec<String> {
        let mut found = match Command::new("pg_dump").arg(url).output() {
            Ok(dump) => {
                assert!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
                self.in_bytes("the dump", &dump.stdout)
            }
            Err(why) => {
                skip("markers in a dump", &format!("pg_dump: {why}"), "apt-get install postgresql-client");
                Vec::new()
            }
        };
        let mut connection = PgConnection::connect(url).await.expect("the database");
        for sql in [WAIT_FOR_SNAPSHOTS, "VACUUM FULL", "CHECKPOINT"] {
            connection.execute(sql).await.expect("a vacuumed database");
        }
        let place = "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database
                     WHERE datname = current_database()";
        let folder: String = sqlx::query_scalar(place).fetch_one(&mut connection).await.expect("a folder");
        connection.close().await.expect("closes");
        if std::fs::read_dir(&folder).is_ok() {
            found.extend(self.in_folder(Path::new(&folder)));
        } else {
            skip(
                "markers in PostgreSQL's files",
                "the data folder is on another machine or not readable",
                "cargo xtask test",
            );
        }
        found
    }
}

fn begins_with(rest: &[u8], form: &str, wanted: &[u8]) -> bool {
    rest.get(..wanted.len()).is_some_and(|here| match form {
        "base64" => here == wanted,
        _ => here.eq_ignore_ascii_case(wanted),
    })
}

/// Waits until no other session has a snapshot of the database, such as an autovacuum: `VACUUM` keeps dead
/// rows that a snapshot may still see.
const WAIT_FOR_SNAPSHOTS: &str = "SET statement_timeout = '60s';
    DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)) LOOP
        PERFORM pg_stat_clear_snapshot(); PERFORM pg_sleep(0.01); END LOOP; END $$;
    RESET statement_timeout";

/// The base64 characters that depend on the word alone when it begins `skip` bytes after a group of three.
fn in_base64(word: &str, skip: usize) -> Vec<u8> {
    let text = STANDARD.encode(format!("{}{word}", &"   "[..skip]));
    text.as_bytes()[(skip * 8).div_ceil(6)..(skip + word.len()) * 8 / 6].to_vec()
}

/// The output of a program that decompresses these bytes, up to its first error.
fn unpack(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => {
            skip("markers in compressed data", &format!("{program}: {why}"), "apt-get install zstd gzip");
            return Vec::new();
        }
    };
    let (mut into, from) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut unpacked = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The program stops reading at the end of its data.
            let _ = into.write_all(bytes);
        });
        from.take(MAX_BYTES).read_to_end(&mut unpacked).expect("what comes out");
    });
    child.wait().expect("it ends");
    unpacked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestDatabase;

    fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        std::fs::write(&file, bytes).expect("a file");
        Command::new(program).arg("-c").arg(file).output().expect("it packs").stdout
    }

    #[test]
    fn finds_each_form() {
        let text = b"here is a MarKer0815, planted".repeat(3);
        let mut planted = vec![("plain", text.clone())];
        for word in ["marker", "Marker", "MARKER"] {
            let hex: String = word.bytes().map(|byte| format!("{byte:02X}")).collect();
            planted.push(("hexadecimal", format!("\\x00{hex}0815").into_bytes()));
            for skip in 0..3 {
                let text = format!("{}{word}0815 and more", &"xyz"[..skip]);
                planted.push(("base64", STANDARD.encode(text).into_bytes()));
            }
        }
        for program in ["zstd", "gzip"] {
            let one = packed(program, &text);
            // Between other bytes, and compressed twice.
            let inside = [&b"\x00before "[..], &one, b" and after"].concat();
            planted.push((program, packed("gzip", &one)));
            planted.push((program, inside));
        }
        let marker = Marker::new("marker");
        let folder = tempfile::tempdir().expect("a folder");
        for (place, (form, bytes)) in planted.iter().enumerate() {
            let found = marker.in_bytes("here", bytes);
            assert!(found.iter().any(|found| found.contains(form)), "{form}: {found:?}");
            std::fs::write(folder.path().join(format!("{place}")), bytes).expect("a file");
        }
        assert!(marker.in_folder(folder.path()).len() >= planted.len());
        std::fs::create_dir(folder.path().join("a MARKER folder")).expect("a folder");
        assert!(marker.in_folder(folder.path()).iter().any(|found| found.starts_with("a MARKER")));
        let harmless = [text.repeat(2), b"mark er".to_vec()].concat();
        assert!(Marker::new("another").in_bytes("here", &harmless).is_empty());
    }

    #[tokio::test]
    async fn finds_words_in_postgres() {
        let Some(database) = TestDatabase::postgres().await else { return };
        let execute = async |sql: &str| crate::database::execute(database.url(), sql.to_owned()).await;
        let marker = Marker::new("marker");
        assert_eq!(marker.in_postgres(database.url()).await, Vec::<String>::new());
        execute("CREATE TABLE things (text text)").await.expect("a table");
        execute("INSERT INTO things VALUES ('a Marker'), (repeat('long marker ', 5000))")
            .await
            .expect("rows");
        let found = marker.in_postgres(database.url()).await;
        assert!(found.iter().any(|found| found.starts_with("the dump")), "{found:?}");
        assert!(found.iter().any(|found| !found.starts_with("the dump")), "in a file too: {found:?}");
        // Deleted rows disappear from the dump; the statistics keep values until the table is dropped.
        execute("ANALYZE things").await.expect("statistics");
        execute("DELETE FROM things").await.expect("no rows");
        let found = marker.in_postgres(database.url()).await;
        assert!(found.iter().all(|found| !found.starts_with("the dump")), "{found:?}");
        execute("DROP TABLE things").await.expect("no table");
        assert_eq!(marker.in_postgres(database.url()).await, Vec::<String>::new());
    }
}
