//! Fills a registry with many tenants by plain SQL while no server runs: copies of one real tenant's rows
//! with new ids and digests.
//!
//! Differences from real tenants: a copy keeps the first 21 of an id's 26 characters, so that copies have the
//! age of the original and stand together in an index, as old tenants do. Events and audit records are copied
//! as sealed, with consecutive numbers and without heads, so the chain cannot be verified. Keys are copies of
//! the original's ciphertext, which is bound to its tenant, so data sealed for a copy cannot be read; no
//! measurement reads it.

use anyhow::{Context, Result};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};

use crate::sample::{ALPHABET, Base, Cell, Column, Kind, Piece, Row, Sample};
use crate::sandbox::{Sandbox, Store};

/// Number of an id's last characters, of five bits each, that distinguish the copies.
const OWN: usize = 5;

/// Adds copies of the sample to the sandbox that it was read from.
pub async fn fill(sandbox: &Sandbox, sample: &Sample, copies: usize) -> Result<()> {
    let first = free(sample, copies);
    match (sandbox.postgres(), sandbox.databases()) {
        (Some(server), Some([registry, keyring])) => {
            let (mut one, mut two) = (server.open(&registry).await?, server.open(&registry).await?);
            numbers_postgres(&mut one, copies, first).await?;
            numbers_postgres(&mut two, copies, first).await?;
            // Two connections, to use two cores.
            let all = statements(sample, Store::Postgres, Base::Registry);
            let (even, odd): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
            let pool = file(sandbox, sample, copies, Base::Pool);
            let (a, b, c) = tokio::join!(postgres(&mut one, &even), postgres(&mut two, &odd), pool);
            (a.and(b).and(c))?;
            let mut keys = server.open(&keyring).await?;
            numbers_postgres(&mut keys, copies, first).await?;
            let of_keys: Vec<_> =
                statements(sample, Store::Postgres, Base::Keyring).into_iter().enumerate().collect();
            postgres(&mut keys, &of_keys).await?;
            // Now, so that the server does not do it during the measurement.
            for connection in [&mut one, &mut keys] {
                connection.execute("VACUUM (ANALYZE)").await?;
            }
            keys.execute("CHECKPOINT").await?;
            for connection in [one, two, keys] {
                connection.close().await?;
            }
        }
        _ => {
            let (keys, registry, pool) = tokio::join!(
                file(sandbox, sample, copies, Base::Keyring),
                file(sandbox, sample, copies, Base::Registry),
                file(sandbox, sample, copies, Base::Pool),
            );
            keys.and(registry).and(pool)?;
        }
    }
    Ok(())
}

/// Fills a SQLite file without a journal: a crash destroys the file, which is temporary.
async fn file(sandbox: &Sandbox, sample: &Sample, copies: usize, base: Base) -> Result<()> {
    let path = sandbox.file(base.file());
    let mut connection: SqliteConnection = SqliteConnectOptions::new()
        .filename(&path)
        .foreign_keys(false)
        .pragma("locking_mode", "EXCLUSIVE")
        .pragma("journal_mode", "OFF")
        .pragma("synchronous", "OFF")
        .pragma("cache_size", "-400000")
        .disable_statement_logging()
        .connect()
        .await
        .with_context(|| format!("cannot open {}", path.display()))?;
    let numbers = format!(
        "CREATE TEMP TABLE n AS WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c WHERE i < {copies})
         SELECT i, {} AS c FROM c",
        code(free(sample, copies))
    );
    connection.execute(AssertSqlSafe(numbers)).await?;
    connection.execute("BEGIN").await?;
    for statement in statements(sample, Store::Sqlite, base) {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    connection.execute("COMMIT").await?;
    connection.execute("PRAGMA locking_mode = NORMAL").await?;
    connection.execute("PRAGMA journal_mode = WAL").await?;
    // Writes the file to the disk before the measurement.
    connection.close().await?;
    Ok(std::fs::File::open(path)?.sync_all()?)
}

async fn numbers_postgres(connection: &mut PgConnection, copies: usize, first: usize) -> Result<()> {
    let numbers = format!(
        "CREATE TEMP TABLE n AS SELECT i, {} AS c FROM generate_series(1, {copies}) AS s(i)",
        code(first)
    );
    connection.execute("SET synchronous_commit = off").await?;
    connection.execute(AssertSqlSafe(numbers)).await?;
    Ok(())
}

async fn postgres(connection: &mut PgConnection, statements: &[(usize, String)]) -> Result<()> {
    for (_, statement) in statements {
        connection.execute(AssertSqlSafe(statement.as_str())).await?;
    }
    Ok(())
}

/// One statement per row of the sample, which inserts the row of every copy.
fn statements(sample: &Sample, store: Store, base: Base) -> Vec<String> {
    let rows = sample.rows.iter().filter(|row| row.base == base);
    rows.map(|row| statement(sample, store, row)).collect()
}

fn statement(sample: &Sample, store: Store, row: &Row) -> String {
    let names: Vec<String> = row.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let values: Vec<String> =
        row.columns.iter().zip(&row.cells).map(|(column, cell)| value(sample, store, column, cell)).collect();
    format!("INSERT INTO \"{}\" ({}) SELECT {} FROM n", row.table, names.join(", "), values.join(", "))
}

fn value(sample: &Sample, store: Store, column: &Column, cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        // Sequence numbers of sealed rows: unique, and beyond the existing ones.
        Cell::Int(seq) if column.name == "seq" => format!("{seq} + 10 + i * 10"),
        Cell::Int(value) | Cell::Number(value) => value.to_string(),
        Cell::Bool(value) => value.to_string(),
        Cell::Text(pieces) => {
            let pieces: Vec<String> = pieces.iter().map(|piece| part(sample, store, piece)).collect();
            let text = pieces.join(" || ");
            match (store, column.kind) {
                (Store::Postgres, Kind::Json) => format!("({text})::jsonb"),
                (Store::Postgres, Kind::Time) => format!("({text})::timestamptz"),
                _ => text,
            }
        }
    }
}

fn part(sample: &Sample, store: Store, piece: &Piece) -> String {
    let hole = match piece {
        Piece::Fixed(text) => return format!("'{}'", text.replace('\'', "''")),
        Piece::Hole(hole) => *hole,
    };
    let original = &sample.holes[hole];
    match store {
        _ if original.len() == 26 => format!("'{}' || c", &original[..original.len() - OWN]),
        Store::Sqlite => "lower(hex(randomblob(32)))".to_owned(),
        Store::Postgres => format!("md5('{hole}' || c) || md5(c || '{hole}')"),
    }
}

/// The last characters of the ids of copy `i`, as an expression.
fn code(first: usize) -> String {
    let alphabet: String = ALPHABET.iter().map(|byte| char::from(*byte)).collect();
    let one = |n: usize| format!("substr('{alphabet}', 1 + ((i + {first}) >> {} & 31), 1)", 5 * n);
    (0..OWN).rev().map(one).collect::<Vec<_>>().join(" || ")
}

/// A number after which `copies` consecutive codes are free: no id of the sample ends in one of them.
fn free(sample: &Sample, copies: usize) -> usize {
    let ids = sample.holes.iter().filter(|hole| hole.len() == 26);
    let digit = |byte: u8| ALPHABET.iter().position(|known| *known == byte).unwrap_or(0);
    let mut taken: Vec<usize> =
        ids.map(|id| id.bytes().skip(26 - OWN).fold(0, |code, byte| code << 5 | digit(byte))).collect();
    taken.sort_unstable();
    let mut first = 0;
    for code in taken {
        if code > first + copies {
            break;
        }
        first = first.max(code);
    }
    first
}
