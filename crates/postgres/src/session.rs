//! A session that runs one statement after the other. No statement is prepared by name, so sessions also work
//! through a pooler in transaction mode.

use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, CopyInSink, CopyOutStream, Row};

use crate::connection::{Driver, connect};
use crate::error::Error;
use crate::lock;
use crate::server::Server;
use crate::transaction::Transaction;
use crate::value::Value;

/// A session. Dropping it cuts the connection, which ends its transaction and releases its locks.
pub struct Session {
    client: Client,
    driver: Driver,
    /// Whether a statement was sent whose future was dropped before the reply.
    unanswered: bool,
    /// Whether statements were queued without awaiting their replies.
    queued: bool,
    /// Process id on the server, once it was asked for.
    backend: Option<i32>,
    opened: Instant,
    used: Instant,
}

impl Session {
    /// Opens a session. Waits for the server without a time limit.
    pub async fn open(server: &Server) -> Result<Self, Error> {
        let (client, driver) = connect(server, None).await?;
        let now = Instant::now();
        Ok(Self { client, driver, unanswered: false, queued: false, backend: None, opened: now, used: now })
    }

    /// Runs statements without parameters in one round trip.
    pub async fn run(&mut self, sql: &str) -> Result<(), Error> {
        whole(&mut self.unanswered, self.client.batch_execute(sql)).await.map_err(Error::of(sql))?;
        self.used = Instant::now();
        Ok(())
    }

    /// All rows of a query.
    pub async fn rows(&mut self, sql: &str, values: &[&dyn Value]) -> Result<Vec<Row>, Error> {
        let values: Vec<_> = values.iter().map(|value| value.typed()).collect();
        let rows = whole(&mut self.unanswered, self.client.query_typed(sql, &values)).await;
        let rows = rows.map_err(Error::of(sql))?;
        self.used = Instant::now();
        Ok(rows)
    }

    /// The first column of all rows.
    pub async fn all<T: FromSqlOwned>(&mut self, sql: &str, values: &[&dyn Value]) -> Result<Vec<T>, Error> {
        self.rows(sql, values).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The first two columns of all rows.
    pub async fn pairs<A: FromSqlOwned, B: FromSqlOwned>(
        &mut self,
        sql: &str,
        values: &[&dyn Value],
    ) -> Result<Vec<(A, B)>, Error> {
        let rows = self.rows(sql, values).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The first row, if there is one.
    pub async fn row(&mut self, sql: &str, values: &[&dyn Value]) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The first column of the first row, if there is one.
    pub async fn first<T: FromSqlOwned>(
        &mut self,
        sql: &str,
        values: &[&dyn Value],
    ) -> Result<Option<T>, Error> {
        self.rows(sql, values).await?.first().map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// The first column of the first row.
    pub async fn one<T: FromSqlOwned>(&mut self, sql: &str, values: &[&dyn Value]) -> Result<T, Error> {
        self.first(sql, values).await?.ok_or(Error::NoRow)
    }

    /// Runs a statement; returns the number of rows that it changed.
    pub async fn execute(&mut self, sql: &str, values: &[&dyn Value]) -> Result<u64, Error> {
        let values: Vec<_> = values.iter().map(|value| value.typed()).collect();
        let changed = whole(&mut self.unanswered, self.client.execute_typed(sql, &values)).await;
        let changed = changed.map_err(Error::of(sql))?;
        self.used = Instant::now();
        Ok(changed)
    }

    /// Runs `COPY … TO STDOUT`: a stream of rows, read from the server as fast as they are taken.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOutStream, Error> {
        whole(&mut self.unanswered, self.client.copy_out(sql)).await.map_err(Error::of(sql))
    }

    /// Runs `COPY … FROM STDIN`: a sink for bytes, as fast as the server takes them. Dropping it before its end fails
    /// the statement.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyInSink<Bytes>, Error> {
        whole(&mut self.unanswered, self.client.copy_in(sql)).await.map_err(Error::of(sql))
    }

    /// Begins a transaction.
    pub async fn begin(&mut self) -> Result<Transaction<&mut Self>, Error> {
        Transaction::begin(self).await
    }

    /// The session's process id on the server.
    pub async fn backend(&mut self) -> Result<i32, Error> {
        if let Some(known) = self.backend {
            return Ok(known);
        }
        let backend = self.one("SELECT pg_backend_pid()", &[]).await?;
        self.backend = Some(backend);
        Ok(backend)
    }

    /// Takes the advisory lock of this name, which is held until the session ends.
    pub async fn lock(&mut self, name: &str) -> Result<(), Error> {
        self.run(&format!("SELECT pg_advisory_lock({})", lock::key(name))).await
    }

    /// Takes the advisory lock of this name if it is free, until the session ends. False: another session has it.
    pub async fn try_lock(&mut self, name: &str) -> Result<bool, Error> {
        self.one(&format!("SELECT pg_try_advisory_lock({})", lock::key(name)), &[]).await
    }

    /// Sends statements at once, without awaiting the reply: for `drop`.
    pub(crate) fn queue(&mut self, sql: &str) {
        // The first poll sends.
        let _ = self.client.batch_execute(sql).now_or_never();
        self.queued = true;
    }

    /// When the session was opened.
    pub(crate) const fn opened(&self) -> Instant {
        self.opened
    }

    /// When the latest statement was answered.
    pub(crate) const fn used(&self) -> Instant {
        self.used
    }

    /// Whether the session was left in order: the connection stands, and no statement runs whose caller is gone.
    pub(crate) fn is_whole(&self) -> bool {
        !self.unanswered && !self.client.is_closed()
    }

    /// Whether the server answers, after all statements that were queued.
    pub(crate) async fn answers(&mut self) -> bool {
        let answers = self.run("").await.is_ok();
        self.queued &= !answers;
        answers
    }

    /// Whether statements were queued whose end is not known.
    pub(crate) const fn is_queued(&self) -> bool {
        self.queued
    }

    /// Closes the session in order. The server may list it for a moment longer.
    pub async fn close(self) {
        let Self { client, driver, .. } = self;
        drop(client);
        driver.ended().await;
    }
}

/// Awaits a reply; `unanswered` stays set if the future is dropped before.
async fn whole<T>(unanswered: &mut bool, reply: impl Future<Output = T>) -> T {
    *unanswered = true;
    let reply = reply.await;
    *unanswered = false;
    reply
}
