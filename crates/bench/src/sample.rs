//! The rows of one real tenant, with placeholders (holes) for ids and digests, which differ between tenants.
//! The limit and `fill` write copies of them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::sandbox::Sandbox;

/// Database of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// Keys of the tenants.
    Keyring,
    /// Data of the control plane.
    Registry,
    /// Rows of tenants, always on SQLite.
    Pool,
}

impl Base {
    /// Every database.
    pub const ALL: [Self; 3] = [Self::Keyring, Self::Registry, Self::Pool];

    /// The name of its SQLite file.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::Registry => "registry",
            Self::Pool => "tenants",
        }
    }
}

/// Tables with rows of a tenant, and the condition of these rows. `audit_heads` belongs to no tenant.
const TABLES: &[(Base, &str, &str)] = &[
    (Base::Keyring, "tenant_keys", "tenant_id = '{}'"),
    (Base::Registry, "tenants", "id = '{}'"),
    (Base::Registry, "operations", "tenant_id = '{}'"),
    (Base::Registry, "steps", "operation_id IN (SELECT id FROM operations WHERE tenant_id = '{}')"),
    (Base::Registry, "signals", "operation_id IN (SELECT id FROM operations WHERE tenant_id = '{}')"),
    (Base::Registry, "resources", "tenant_id = '{}'"),
    (Base::Registry, "events", "tenant_id = '{}'"),
    (Base::Registry, "audit", "tenant_id = '{}'"),
    (Base::Registry, "idempotency_keys", "tenant_id = '{}'"),
    (Base::Registry, "credentials", "tenant_id = '{}'"),
    (Base::Registry, "members", "tenant_id = '{}'"),
    (Base::Registry, "invitations", "tenant_id = '{}'"),
    (Base::Registry, "sign_in_codes", "tenant_id = '{}'"),
    (Base::Registry, "configs", "tenant_id = '{}'"),
    (Base::Registry, "customers", "tenant_id = '{}'"),
    (Base::Registry, "subscriptions", "tenant_id = '{}'"),
    (Base::Registry, "invoices", "tenant_id = '{}'"),
    (Base::Pool, "_tenants", "tenant_id = '{}'"),
    (Base::Pool, "workspaces", "tenant_id = '{}'"),
    (Base::Pool, "categories", "tenant_id = '{}'"),
    (Base::Pool, "notification_settings", "tenant_id = '{}'"),
    (Base::Pool, "projects", "tenant_id = '{}'"),
    (Base::Pool, "tasks", "tenant_id = '{}'"),
];

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text.
    Text,
    /// Integer.
    Int,
    /// Boolean.
    Bool,
    /// JSON as text.
    Json,
    /// Instant as text.
    Time,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Name of the column.
    pub name: String,
    /// Type of the values.
    pub kind: Kind,
}

/// A value. Texts that differ between tenants are holes, to be filled for each tenant.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// An integer, or a boolean of SQLite.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// Text, JSON or an instant.
    Text(Vec<Piece>),
    /// A number that is unique to the tenant.
    Number(i64),
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Literal text.
    Fixed(String),
    /// A text that differs between tenants: the number of the hole.
    Hole(usize),
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Database of the row.
    pub base: Base,
    /// Table of the row.
    pub table: String,
    /// Columns that have values.
    pub columns: Vec<Column>,
    /// Values, one per column.
    pub cells: Vec<Cell>,
}

impl Row {
    /// The value of this column.
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        let at = self.columns.iter().position(|column| column.name == name)?;
        self.cells.get(at)
    }

    /// True when this column has this text.
    pub fn is(&self, name: &str, text: &str) -> bool {
        matches!(self.cell(name), Some(Cell::Text(pieces)) if *pieces == [Piece::Fixed(text.to_owned())])
    }
}

/// A tenant's rows.
#[derive(Debug)]
pub struct Sample {
    /// The rows in the order of the tables.
    pub rows: Vec<Row>,
    /// Text of each hole in the sampled tenant.
    pub holes: Vec<String>,
}

impl Sample {
    /// Reads the tenant with this name from a sandbox whose server has stopped.
    pub async fn read(sandbox: &Sandbox, name: &str) -> Result<Self> {
        let mut sample = Self { rows: Vec::new(), holes: Vec::new() };
        let mut tenant = None;
        for base in Base::ALL {
            let mut source = Source::open(sandbox, base).await?;
            for (_, table, condition) in TABLES.iter().filter(|(its, ..)| *its == base) {
                let tenant = match &tenant {
                    Some(tenant) => tenant,
                    None => tenant.insert(Source::tenant(sandbox, name).await?),
                };
                source.rows(base, table, &condition.replace("{}", tenant), &mut sample).await?;
            }
            source.close().await?;
        }
        Ok(sample)
    }

    /// Number of rows in a database.
    pub fn count(&self, base: Base) -> usize {
        self.rows.iter().filter(|row| row.base == base).count()
    }

    /// Replaces ids and digests in a text by holes.
    pub fn cut(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut fixed = String::new();
        for word in words(text) {
            if !is_unique(word) {
                fixed.push_str(word);
                continue;
            }
            let known = self.holes.iter().position(|hole| hole == word);
            let hole = known.unwrap_or_else(|| {
                self.holes.push(word.to_owned());
                self.holes.len() - 1
            });
            if !fixed.is_empty() {
                pieces.push(Piece::Fixed(std::mem::take(&mut fixed)));
            }
            pieces.push(Piece::Hole(hole));
        }
        if !fixed.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Fixed(fixed));
        }
        pieces
    }

    /// New texts for every hole: new ids and random digests.
    pub fn fill(&self) -> Vec<String> {
        let new = |hole: &String| if hole.len() == ID { id() } else { digest() };
        self.holes.iter().map(new).collect()
    }

    fn cell(&mut self, value: Json) -> Result<Cell> {
        Ok(match value {
            Json::Null => Cell::Null,
            Json::Bool(value) => Cell::Bool(value),
            Json::Number(number) => Cell::Int(number.as_i64().context("a number that is not an integer")?),
            Json::String(text) => Cell::Text(self.cut(&text)),
            value => bail!("{value} is not a scalar"),
        })
    }
}

/// A database to read from.
enum Source {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Source {
    async fn open(sandbox: &Sandbox, base: Base) -> Result<Self> {
        Ok(match (sandbox.postgres(), sandbox.databases(), base) {
            (Some(server), Some([registry, _]), Base::Registry) => {
                Self::Postgres(server.open(&registry).await?)
            }
            (Some(server), Some([_, keyring]), Base::Keyring) => Self::Postgres(server.open(&keyring).await?),
            _ => Self::Sqlite(open_file(&sandbox.file(base.file())).await?),
        })
    }

    /// The id of the tenant with this name.
    async fn tenant(sandbox: &Sandbox, name: &str) -> Result<String> {
        let query = AssertSqlSafe(format!("SELECT id FROM tenants WHERE name = '{name}'"));
        Ok(match Self::open(sandbox, Base::Registry).await? {
            Self::Sqlite(mut c) => sqlx::query_scalar(query).fetch_one(&mut c).await?,
            Self::Postgres(mut c) => sqlx::query_scalar(query).fetch_one(&mut c).await?,
        })
    }

    /// Name and declared type of the columns.
    async fn columns(&mut self, table: &str) -> Result<Vec<Column>> {
        let found: Vec<(String, String)> = match self {
            Self::Sqlite(c) => {
                let query =
                    format!("SELECT name, lower(type) FROM pragma_table_info('{table}') ORDER BY cid");
                sqlx::query_as(AssertSqlSafe(query)).fetch_all(c).await?
            }
            Self::Postgres(c) => {
                let query = format!(
                    "SELECT column_name::text, data_type::text FROM information_schema.columns
                     WHERE table_name = '{table}' AND table_schema = current_schema() ORDER BY ordinal_position"
                );
                sqlx::query_as(AssertSqlSafe(query)).fetch_all(c).await?
            }
        };
        if found.is_empty() {
            bail!("there is no table {table}");
        }
        Ok(found.into_iter().map(|(name, kind)| Column { name, kind: kind_of(&kind) }).collect())
    }

    async fn rows(&mut self, base: Base, table: &str, condition: &str, sample: &mut Sample) -> Result<()> {
        let columns = self.columns(table).await?;
        let rows: Vec<String> = match self {
            Self::Sqlite(c) => {
                let pairs: Vec<String> = columns.iter().map(|c| format!("'{0}', \"{0}\"", c.name)).collect();
                let query =
                    format!("SELECT json_object({}) FROM \"{table}\" WHERE {condition}", pairs.join(", "));
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(c).await?
            }
            Self::Postgres(c) => {
                // As text, to distinguish JSON null from NULL.
                let pairs = columns.iter().map(|c| {
                    let cast = if c.kind == Kind::Json { "::text" } else { "" };
                    format!("'{0}', \"{0}\"{cast}", c.name)
                });
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                let query =
                    format!("SELECT json_build_object({pairs})::text FROM \"{table}\" WHERE {condition}");
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(c).await?
            }
        };
        for row in rows {
            let mut values: Map<String, Json> = serde_json::from_str(&row)?;
            let mut cells = Vec::with_capacity(columns.len());
            for column in &columns {
                let value = values.remove(&column.name).unwrap_or_default();
                cells.push(sample.cell(value)?);
            }
            sample.rows.push(Row { base, table: table.to_owned(), columns: columns.clone(), cells });
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        match self {
            Self::Sqlite(c) => c.close().await?,
            Self::Postgres(c) => c.close().await?,
        }
        Ok(())
    }
}

/// Opens a SQLite file of a stopped server.
pub async fn open_file(path: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
    options.connect().await.with_context(|| format!("cannot open {}", path.display()))
}

/// The kind of a declared type.
fn kind_of(declared: &str) -> Kind {
    match declared {
        "integer" | "bigint" => Kind::Int,
        "boolean" => Kind::Bool,
        declared if declared.starts_with("json") => Kind::Json,
        declared if declared.starts_with("timestamp") => Kind::Time,
        _ => Kind::Text,
    }
}

/// Length of an id without its prefix.
const ID: usize = 26;
/// Length of a SHA-256 in hexadecimal.
const DIGEST: usize = 64;
/// The alphabet of ids.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Splits a text into words of letters and digits and the parts between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = first.is_ascii_alphanumeric();
        let end = rest.find(|c: char| c.is_ascii_alphanumeric() != is_word).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// True when a word is an id without its prefix, or a digest.
fn is_unique(word: &str) -> bool {
    let id = || word.bytes().all(|b| ALPHABET.contains(&b)) && word.as_bytes()[0] <= b'7';
    let digest = || word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    word.len() == ID && id() || word.len() == DIGEST && digest()
}

/// A new id without its prefix.
fn id() -> String {
    let bits = Uuid::now_v7().as_u128();
    (0..ID).rev().map(|i| ALPHABET[(bits >> (5 * i)) as usize & 31] as char).collect()
}

fn digest() -> String {
    let (high, low): (u128, u128) = rand::random();
    format!("{high:032x}{low:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_ids_and_digests_by_holes() {
        let mut sample = Sample { rows: Vec::new(), holes: Vec::new() };
        let (one, two, hash) = (id(), id(), digest());
        let pieces = sample.cut(&format!("tenantry:ten_{one}:res_{two} \"{hash}\", ten_{one}"));
        let fixed = |text: &str| Piece::Fixed(text.to_owned());
        let expected = [
            fixed("tenantry:ten_"),
            Piece::Hole(0),
            fixed(":res_"),
            Piece::Hole(1),
            fixed(" \""),
            Piece::Hole(2),
            fixed("\", ten_"),
            Piece::Hole(0),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(sample.holes, [one, two, hash]);
        assert_eq!(sample.cut("First steps"), [fixed("First steps")]);
        assert_eq!(sample.cut(""), [fixed("")]);
        let fresh = sample.fill();
        assert_eq!(fresh.iter().map(String::len).collect::<Vec<_>>(), [ID, ID, DIGEST]);
        assert!(fresh.iter().all(|text| is_unique(text)) && fresh != sample.holes);
    }
}
