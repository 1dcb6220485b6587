//! The rows and commits of one onboarding of the starter plan. The limit writes the same ones.
//!
//! | commit | database | rows | why it is a separate commit |
//! |---|---|---|---|
//! | key | keyring | 1 `tenant_keys` | before data that it encrypts |
//! | creation | registry | 1 `tenants`, `operations`, 7 `steps`, 3 `resources`, `events`, `audit`, `members`, `invitations`, `credentials`, `configs` | everything without an outside call; the intent of the database |
//! | database | pool | 1 `_tenants` and 11 rows of the seed | another file |
//! | created | registry | 1 operation, 2 steps and 1 resource change; 1 `sign_in_codes` | the database's end, the smoke test's start |
//! | sign-in | registry | 1 code changes | a code is used once |
//! | write | pool | 1 `projects` | through the tenant's endpoint |
//! | delete | pool | that row is deleted | through the tenant's endpoint |
//! | active | registry | 1 operation, 4 steps and the tenant change, the code is deleted; `events`, `audit`; `operations` and `steps` of billing and mail, 1 each | the caller gets its response |
//! | billing | registry | 1 operation and 1 step change; `resources`, `customers`, `subscriptions`, `invoices` | detached |
//! | mail starts | registry | 1 operation and 1 step change; 1 `resources` | the intent of the mail |
//! | mail sent | registry | 1 operation, 1 step and 1 resource change | its end |
//! | seal, twice | registry | 1 event and 1 audit record get their numbers, 1 `audit_heads` | after the creation and after the activation |
//!
//! That is 13 commits: 1 in the keyring, 9 in the registry, 3 in the pool. The caller waits for 8 of them.
//! The message in the outbox is a synced file and not part of the limit. The product groups commits and seals
//! of concurrent onboardings.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use crate::sample::{Base, Cell, Column, Kind, Piece, Row, Sample};

/// Kind of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Inserts rows.
    Insert,
    /// Changes the rows of a key.
    Update,
    /// Deletes the rows of a key.
    Delete,
}

/// A statement without its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Kind of the statement.
    pub verb: Verb,
    /// Table that it changes.
    pub table: String,
    /// Columns that it has values for.
    pub columns: Vec<Column>,
    /// Number of key columns, which come first; 0 for an insert.
    pub keys: usize,
}

/// A statement with the values of one onboarding.
#[derive(Debug)]
pub struct Change {
    /// Index of the statement in [`Script::shapes`].
    pub shape: usize,
    /// Values of each row.
    pub rows: Vec<Vec<Cell>>,
    /// True when onboardings that share a commit write it once.
    pub once: bool,
}

/// One transaction.
#[derive(Debug)]
pub struct Commit {
    /// Database that is committed.
    pub base: Base,
    /// True when the caller does not wait for the commit.
    pub detached: bool,
    /// Changes, in order.
    pub changes: Vec<Change>,
}

/// The commits of one onboarding.
#[derive(Debug)]
pub struct Script {
    /// The commits in order.
    pub commits: Vec<Commit>,
    /// The statements.
    pub shapes: Vec<Shape>,
    numbers: HashMap<Shape, usize>,
}

/// Columns of an operation that the ledger writes in a commit.
const OPERATION: &[&str] = &[
    "state",
    "version",
    "epoch",
    "error",
    "error_step",
    "cancelled",
    "updated_at",
    "finished_at",
    "stuck",
    "wake_at",
    "idle",
];
/// Columns of a step that the ledger writes.
const STEP: &[&str] = &[
    "state",
    "attempts",
    "interruptions",
    "failing_since",
    "due_at",
    "started_at",
    "finished_at",
    "output",
    "error",
    "uncertain",
    "note",
    "child_id",
];
/// Columns of a resource without its key.
const RESOURCE: &[&str] = &[
    "tenant_id",
    "kind",
    "provider",
    "step_key",
    "name",
    "claim",
    "generation",
    "state",
    "outputs",
    "operation_id",
    "created_at",
    "updated_at",
];

/// Rows of the sample, and which of them the script has used.
struct Rows<'a> {
    sample: &'a Sample,
    used: Vec<bool>,
}

impl<'a> Rows<'a> {
    /// The rows of a table that match `wanted`; marks them as used.
    fn take(&mut self, table: &str, wanted: impl Fn(&Row) -> bool) -> Result<Vec<&'a Row>> {
        let mut found = Vec::new();
        for (row, used) in self.sample.rows.iter().zip(&mut self.used) {
            if row.table == table && wanted(row) {
                *used = true;
                found.push(row);
            }
        }
        if found.is_empty() {
            bail!("an onboarding writes no such row in {table}: update crates/bench/src/script.rs");
        }
        Ok(found)
    }
}

impl Script {
    /// The script of this tenant's onboarding. Fails when the product writes other rows.
    pub fn new(sample: &mut Sample) -> Result<Self> {
        // Placeholders for rows that an onboarding deletes again.
        let (row, digest) = (sample.cut(&"0".repeat(26)), sample.cut(&"0".repeat(64)));
        let sample = &*sample;
        let mut script = Self { commits: Vec::new(), shapes: Vec::new(), numbers: HashMap::new() };
        let mut rows = Rows { sample, used: vec![false; sample.rows.len()] };
        script.write(&mut rows, row, digest)?;
        if let Some((row, _)) = sample.rows.iter().zip(rows.used).find(|(_, used)| !used) {
            bail!("an onboarding writes an unknown row in {}: update crates/bench/src/script.rs", row.table);
        }
        Ok(script)
    }

    fn write(&mut self, rows: &mut Rows<'_>, smoke_row: Vec<Piece>, digest: Vec<Piece>) -> Result<()> {
        let child = |row: &Row| row.cell("parent_id") != Some(&Cell::Null);
        let main = &rows.take("operations", |row| !child(row))?;
        let billing = &rows.take("operations", |row| row.is("kind", "billing"))?;
        let mail = &rows.take("operations", |row| row.is("kind", "welcome"))?;
        let steps_of = |rows: &mut Rows<'_>, operation: &[&Row], keys: &[&str]| {
            let id = operation.first().and_then(|row| row.cell("id")).cloned();
            rows.take("steps", |row| {
                row.cell("operation_id") == id.as_ref()
                    && (keys.is_empty() || keys.iter().any(|key| row.is("key", key)))
            })
            .map(|rows| rows.into_iter().cloned().collect::<Vec<Row>>())
        };
        let steps =
            |script: &mut Self, rows: &mut Rows<'_>, operation: &[&Row], keys: &[&str]| -> Result<()> {
                let found = steps_of(rows, operation, keys)?;
                let found: Vec<&Row> = found.iter().collect();
                script.update(&found, &["operation_id", "key"], STEP)
            };

        self.begin(Base::Keyring, false);
        self.insert(&rows.take("tenant_keys", |_| true)?, &[])?;

        self.begin(Base::Registry, false);
        self.insert(&rows.take("tenants", |_| true)?, &[("status", text("provisioning"))])?;
        self.insert(main, &[("state", text("running"))])?;
        let all = steps_of(rows, main, &[])?;
        self.insert(&all.iter().collect::<Vec<_>>(), &[])?;
        self.insert(
            &rows.take("resources", |row| {
                ["identity", "config", "database"].iter().any(|kind| row.is("kind", kind))
            })?,
            &[],
        )?;
        let unsealed = [("seq", Cell::Null), ("hash", Cell::Null)];
        self.insert(&rows.take("events", |row| row.is("type", "tenant.created"))?, &unsealed)?;
        self.insert(&rows.take("audit", |row| row.is("action", "tenant.create"))?, &unsealed)?;
        for table in ["members", "invitations", "credentials", "configs"] {
            self.insert(&rows.take(table, |_| true)?, &[])?;
        }

        self.begin(Base::Pool, false);
        let tables = ["_tenants", "workspaces", "categories", "notification_settings", "projects", "tasks"];
        for table in tables {
            self.insert(&rows.take(table, |_| true)?, &[])?;
        }

        self.begin(Base::Registry, false);
        self.update(main, &["id"], OPERATION)?;
        steps(self, rows, main, &["database", "smoke_test"])?;
        let database = &rows.take("resources", |row| row.is("kind", "database"))?;
        self.update(database, &["id"], RESOURCE)?;
        let member = rows.take("members", |_| true)?;
        let code = &code(&member[0].clone(), digest);
        self.insert(&[code], &[("used_at", Cell::Null)])?;

        self.begin(Base::Registry, false);
        self.update(&[code], &["hash"], &["used_at"])?;

        let project = rows.take("projects", |_| true)?;
        let id = ("id", Cell::Text(smoke_row));
        self.begin(Base::Pool, false);
        self.insert(&project, std::slice::from_ref(&id))?;
        self.begin(Base::Pool, false);
        self.delete(&project, &["tenant_id", "id"], &[id])?;

        self.begin(Base::Registry, false);
        self.update(main, &["id"], OPERATION)?;
        steps(self, rows, main, &["smoke_test", "activate", "billing", "welcome"])?;
        self.delete(&[code], &["hash"], &[])?;
        let tenant = rows.take("tenants", |_| true)?;
        self.update(&tenant, &["id"], &["status", "activated_at", "last_error", "version"])?;
        self.insert(&rows.take("events", |row| row.is("type", "tenant.provisioned"))?, &unsealed)?;
        self.insert(&rows.take("audit", |row| row.is("action", "tenant.activate"))?, &unsealed)?;
        self.insert(&[billing[0], mail[0]], &[("state", text("running"))])?;
        let all = [steps_of(rows, billing, &[])?, steps_of(rows, mail, &[])?].concat();
        self.insert(&all.iter().collect::<Vec<_>>(), &[])?;

        self.begin(Base::Registry, true);
        self.update(billing, &["id"], OPERATION)?;
        steps(self, rows, billing, &[])?;
        self.insert(&rows.take("resources", |row| row.is("kind", "billing"))?, &[])?;
        for table in ["customers", "subscriptions", "invoices"] {
            self.insert(&rows.take(table, |_| true)?, &[])?;
        }

        let message = rows.take("resources", |row| row.is("kind", "mail"))?;
        self.begin(Base::Registry, true);
        self.update(mail, &["id"], OPERATION)?;
        steps(self, rows, mail, &[])?;
        self.insert(&message, &[])?;
        self.begin(Base::Registry, true);
        self.update(mail, &["id"], OPERATION)?;
        steps(self, rows, mail, &[])?;
        self.update(&message, &["id"], RESOURCE)?;

        for (n, (event_type, action)) in
            (1..).zip([("tenant.created", "tenant.create"), ("tenant.provisioned", "tenant.activate")])
        {
            self.begin(Base::Registry, true);
            let number = ("seq", Cell::Number(n));
            let event = rows.take("events", |row| row.is("type", event_type))?;
            self.set(&event, &["id"], &["seq"], std::slice::from_ref(&number))?;
            let record = rows.take("audit", |row| row.is("action", action))?;
            self.set(&record, &["id"], &["seq", "hash"], std::slice::from_ref(&number))?;
            let head = Row {
                base: Base::Registry,
                table: "audit_heads".to_owned(),
                columns: [
                    ("seq", Kind::Int),
                    ("hash", Kind::Text),
                    ("signature", Kind::Text),
                    ("at", Kind::Time),
                ]
                .map(|(name, kind)| Column { name: name.to_owned(), kind })
                .into(),
                cells: vec![
                    number.1,
                    record[0].cell("hash").cloned().unwrap_or(Cell::Null),
                    text(&"s".repeat(86)),
                    record[0].cell("at").cloned().unwrap_or(Cell::Null),
                ],
            };
            self.insert(&[&head], &[])?;
            let commit = self.commits.last_mut().context("a commit was begun")?;
            if let Some(head) = commit.changes.last_mut() {
                head.once = true;
            }
        }
        Ok(())
    }

    fn begin(&mut self, base: Base, detached: bool) {
        self.commits.push(Commit { base, detached, changes: Vec::new() });
    }

    /// Inserts rows, with replaced values in some columns.
    fn insert(&mut self, rows: &[&Row], replaced: &[(&str, Cell)]) -> Result<()> {
        let columns: Vec<&str> = rows[0].columns.iter().map(|column| column.name.as_str()).collect();
        self.change(Verb::Insert, rows, &[], &columns, replaced)
    }

    fn update(&mut self, rows: &[&Row], key: &[&str], set: &[&str]) -> Result<()> {
        self.change(Verb::Update, rows, key, set, &[])
    }

    fn set(&mut self, rows: &[&Row], key: &[&str], set: &[&str], replaced: &[(&str, Cell)]) -> Result<()> {
        self.change(Verb::Update, rows, key, set, replaced)
    }

    fn delete(&mut self, rows: &[&Row], key: &[&str], replaced: &[(&str, Cell)]) -> Result<()> {
        self.change(Verb::Delete, rows, key, &[], replaced)
    }

    fn change(
        &mut self,
        verb: Verb,
        rows: &[&Row],
        key: &[&str],
        set: &[&str],
        replaced: &[(&str, Cell)],
    ) -> Result<()> {
        let names: Vec<&str> = key.iter().chain(set).copied().collect();
        let first = rows[0];
        let mut columns = Vec::with_capacity(names.len());
        for name in &names {
            let column = first.columns.iter().find(|column| column.name == *name);
            columns.push(column.with_context(|| format!("{} has no column {name}", first.table))?.clone());
        }
        let shape = Shape { verb, table: first.table.clone(), columns, keys: key.len() };
        let shape = *self.numbers.entry(shape.clone()).or_insert_with(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        let value = |row: &Row, name: &str| {
            let other = replaced.iter().find(|(column, _)| *column == name);
            other.map(|(_, cell)| cell).or_else(|| row.cell(name)).cloned().unwrap_or(Cell::Null)
        };
        let rows = rows.iter().map(|row| names.iter().map(|name| value(row, name)).collect()).collect();
        let commit = self.commits.last_mut().context("a commit was begun")?;
        commit.changes.push(Change { shape, rows, once: false });
        Ok(())
    }

    /// Number of commits in a database.
    pub fn count(&self, base: Base) -> usize {
        self.commits.iter().filter(|commit| commit.base == base).count()
    }
}

/// The smoke test's one-time code, for this member.
fn code(member: &Row, digest: Vec<Piece>) -> Row {
    let of_member = |name: &str| member.cell(name).cloned().unwrap_or(Cell::Null);
    let values = [
        ("hash", Kind::Text, Cell::Text(digest)),
        ("tenant_id", Kind::Text, of_member("tenant_id")),
        ("member_id", Kind::Text, of_member("id")),
        ("purpose", Kind::Text, text("smoke_test")),
        ("expires_at", Kind::Time, of_member("created_at")),
        ("used_at", Kind::Time, of_member("created_at")),
    ];
    let (columns, cells) =
        values.into_iter().map(|(name, kind, cell)| (Column { name: name.to_owned(), kind }, cell)).unzip();
    Row { base: Base::Registry, table: "sign_in_codes".to_owned(), columns, cells }
}

fn text(text: &str) -> Cell {
    Cell::Text(vec![Piece::Fixed(text.to_owned())])
}
