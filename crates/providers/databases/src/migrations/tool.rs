//! The migration tools whose files are read, and what a message tells their users.

/// A tool, recognised by a file's name, by its marks or by the layout of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Numbered files without marks, as [sqlx](https://docs.rs/sqlx/latest/sqlx/migrate/trait.MigrationSource.html)
    /// reads them.
    Plain,
    /// `1_a.up.sql` beside `1_a.down.sql`, as sqlx and
    /// [golang-migrate](https://github.com/golang-migrate/migrate/blob/master/MIGRATIONS.md) read them.
    UpDown,
    /// [dbmate](https://github.com/amacneil/dbmate#creating-migrations).
    Dbmate,
    /// [Flyway](https://documentation.red-gate.com/fd/migrations-271585107.html).
    Flyway,
    /// [goose](https://pressly.github.io/goose/documentation/annotations/).
    Goose,
    /// [sql-migrate](https://github.com/rubenv/sql-migrate#writing-migrations).
    SqlMigrate,
    /// [node-pg-migrate](https://salsita.github.io/node-pg-migrate/migrations/).
    NodePgMigrate,
    /// [Prisma](https://www.prisma.io/docs/orm/prisma-migrate/understanding-prisma-migrate/migration-histories).
    Prisma,
    /// [Drizzle](https://orm.drizzle.team/docs/drizzle-kit-generate).
    Drizzle,
    /// Output of [`pg_dump`](https://www.postgresql.org/docs/current/app-pgdump.html), also as Rails'
    /// [`structure.sql`](https://guides.rubyonrails.org/active_record_migrations.html#types-of-schema-dumps).
    PgDump,
}

impl Tool {
    /// The tool's name as its users write it; empty for plain files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::UpDown => "golang-migrate or sqlx",
            Self::Dbmate => "dbmate",
            Self::Flyway => "Flyway",
            Self::Goose => "goose",
            Self::SqlMigrate => "sql-migrate",
            Self::NodePgMigrate => "node-pg-migrate",
            Self::Prisma => "Prisma",
            Self::Drizzle => "Drizzle",
            Self::PgDump => "pg_dump",
        }
    }

    /// How a file of this tool runs outside of a transaction.
    pub fn without_transaction(self) -> &'static str {
        match self {
            Self::Plain | Self::PgDump => "begin the file with `-- no-transaction`",
            Self::UpDown | Self::Prisma | Self::Flyway => "move the statement to a file of its own",
            Self::Dbmate => "write `-- migrate:up transaction:false`",
            Self::Goose => "add the line `-- +goose NO TRANSACTION`",
            Self::SqlMigrate => "write `-- +migrate Up notransaction`",
            Self::NodePgMigrate | Self::Drizzle => {
                "move the statement to a file of its own that begins with `-- no-transaction`"
            }
        }
    }

    /// Whether a file can have another Up part: after a Down part, or directly after another one (`adjacent`).
    pub fn has_several_ups(self, adjacent: bool) -> bool {
        match self {
            Self::SqlMigrate => true,
            Self::Dbmate => !adjacent,
            _ => false,
        }
    }

    /// Whether the tool sends a file as one message without `BEGIN`, so that a single statement runs outside
    /// of a transaction.
    pub fn sends_file_as_one_message(self) -> bool {
        matches!(self, Self::UpDown | Self::Prisma)
    }
}
