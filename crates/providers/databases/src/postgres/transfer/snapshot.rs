//! One snapshot for a whole export, read in transactions that each lock few tables.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use crate::postgres::failure::failure;
use crate::postgres::name::Name;
use crate::postgres::relations::AT_ONCE;
use crate::postgres::server::{Server, run};
use crate::tables::literal;

/// Begins a transaction that sees one snapshot.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;";

/// Reads the tables of one snapshot.
pub struct Reader<'a> {
    /// Has the snapshot, until the end.
    main: &'a mut Session,
    /// Reads tables in its place, one transaction after the other, if there are many.
    more: Option<More>,
}

/// A session whose transactions see the same snapshot.
struct More {
    session: Session,
    begin: String,
    /// Number of tables that its transaction has locked.
    locks: usize,
}

impl<'a> Reader<'a> {
    /// Begins a transaction with these settings.
    pub async fn begin(main: &'a mut Session, settings: &str) -> Result<Self, Failure> {
        run(main, format!("{BEGIN} {settings}")).await?;
        Ok(Self { main, more: None })
    }

    /// The session that has the snapshot: for the catalogue.
    pub fn main(&mut self) -> &mut Session {
        self.main
    }

    /// Prepares to read this many tables and partitions with these settings.
    pub async fn prepare(
        &mut self,
        tables: usize,
        settings: &str,
        (server, database): (&Server, &Name),
    ) -> Result<(), Failure> {
        if tables <= AT_ONCE {
            return Ok(());
        }
        let snapshot: String = self.main.one("SELECT pg_export_snapshot()", &[]).await.map_err(failure)?;
        let mut session = server.connect_to(database).await?;
        let begin = format!("{BEGIN} SET TRANSACTION SNAPSHOT {}; {settings}", literal(&snapshot));
        run(&mut session, begin.clone()).await?;
        self.more = Some(More { session, begin, locks: 0 });
        Ok(())
    }

    /// The session that reads a part of a table, which takes this many locks.
    pub async fn session(&mut self, locks: usize) -> Result<&mut Session, Failure> {
        let Some(more) = &mut self.more else { return Ok(self.main) };
        if more.locks + locks > AT_ONCE {
            run(&mut more.session, format!("COMMIT; {}", more.begin)).await?;
            more.locks = 0;
        }
        more.locks += locks;
        Ok(&mut more.session)
    }

    /// Ends the transactions.
    pub async fn end(self) -> Result<(), Failure> {
        if let Some(more) = self.more {
            more.session.close().await;
        }
        run(self.main, "COMMIT".to_owned()).await
    }
}
