//! Sessions, transactions, locks and the pool against a real server: above all what a dropped future leaves.

mod sqlstates;
mod tls;

use std::future::pending;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tenantry_postgres::{AdvisoryLock, Error, Kind, Limits, Pool, Server, Session, Transaction};
use tenantry_testkit::TestDatabase;
use tokio::net::TcpListener;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(200);

fn pool(url: &str, sessions: u32, wait: Duration) -> Pool {
    let limits = Limits { sessions, wait, idle: Duration::from_secs(20) };
    Pool::new(url.parse().unwrap(), limits, |session| {
        Box::pin(async { session.run("SET application_name = 'prepared'").await })
    })
}

async fn pid(session: &mut Session) -> i32 {
    session.one("SELECT pg_backend_pid()", &[]).await.unwrap()
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let pool = pool(database.url(), 1, Duration::from_secs(10));
    let mut session = pool.get().await.unwrap();
    assert_eq!(session.one::<String>("SHOW application_name", &[]).await.unwrap(), "prepared");
    session.run("CREATE TABLE kept (id int)").await.unwrap();
    let first = pid(&mut session).await;
    drop(session);
    let work = async {
        let mut transaction = pool.begin().await.unwrap();
        transaction.run("SET LOCAL search_path = pg_temp; INSERT INTO public.kept VALUES (1)").await.unwrap();
        pending::<()>().await;
    };
    timeout(SOON, work).await.unwrap_err();
    let mut session = pool.get().await.unwrap();
    assert_eq!(pid(&mut session).await, first, "the session went back");
    assert_eq!(session.one::<i64>("SELECT count(*) FROM kept", &[]).await.unwrap(), 0);
    // Outside of a transaction, each statement has a time of its own.
    let at = "SELECT now()::text";
    let before: String = session.one(at, &[]).await.unwrap();
    assert_ne!(session.one::<String>(at, &[]).await.unwrap(), before);
    let mut inner = session.begin().await.unwrap();
    inner.run("INSERT INTO kept VALUES (2)").await.unwrap();
    drop(inner);
    assert_eq!(session.one::<i64>("SELECT count(*) FROM kept", &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_session_with_an_unanswered_statement_is_not_used_again() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let pool = pool(database.url(), 1, Duration::from_secs(10));
    let first = pid(&mut pool.get().await.unwrap()).await;
    let work = async { pool.get().await.unwrap().run("SET search_path = pg_temp; SELECT pg_sleep(1)").await };
    timeout(SOON, work).await.unwrap_err();
    let mut session = pool.get().await.unwrap();
    assert_ne!(pid(&mut session).await, first);
    assert_ne!(session.one::<String>("SHOW search_path", &[]).await.unwrap(), "pg_temp");
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_replaced() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let pool = pool(database.url(), 2, Duration::from_secs(10));
    let mut transaction = pool.begin().await.unwrap();
    let victim = pid(&mut transaction).await;
    let end = "SELECT pg_terminate_backend($1, 5000)";
    pool.get().await.unwrap().execute(end, &[&victim]).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(error.code() == Some("57P01") || matches!(error.kind(), Kind::Lost(_)), "{error:?}");
    for _ in 0..3 {
        assert_ne!(pid(&mut pool.get().await.unwrap()).await, victim);
    }
    pool.close().await;
    assert!(matches!(pool.get().await.err(), Some(Error::Closed)));
}

#[tokio::test]
async fn an_advisory_lock_is_held_by_one_session() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let pool = pool(database.url(), 2, Duration::from_secs(10));
    let mut session = pool.get().await.unwrap();
    assert!(session.try_lock("tenantry one").await.unwrap());
    let lock = AdvisoryLock::held("tenantry one", session);
    let mut other = pool.get().await.unwrap();
    assert!(!other.try_lock("tenantry one").await.unwrap());
    other.run("SET lock_timeout = 100").await.unwrap();
    let error = other.lock("tenantry one").await.unwrap_err();
    assert_eq!(error.code(), Some("55P03"));
    drop(lock);
    other.lock("tenantry one").await.unwrap();
}

#[tokio::test]
async fn texts_with_nul_are_rejected() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let server: Server = database.url().parse().unwrap();
    let mut session = Session::open(&server).await.unwrap();
    assert_eq!(session.run("SELECT 'a\0b'").await.unwrap_err().kind(), Kind::Unsendable);
    let error = session.one::<String>("SELECT $1", &[&"a\0b"]).await.unwrap_err();
    assert_eq!(error.code(), Some("22021"));
    assert_eq!(session.one::<String>("SELECT $1", &[&"ab"]).await.unwrap(), "ab");
    let mut transaction = Transaction::begin(&mut session).await.unwrap();
    transaction.run("SELECT 1/0").await.unwrap_err();
    transaction.rollback().await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:p@{}/x", listener.local_addr().unwrap());
    let asked = Instant::now();
    assert_eq!(pool(&url, 1, SOON).get().await.err().unwrap().kind(), Kind::Busy);
    assert!(asked.elapsed() < Duration::from_secs(5));
    drop(listener);
    let refused = pool(&url, 1, SOON).get().await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Lost(ErrorKind::ConnectionRefused), "not that it is busy");
    let refused = Session::open(&url.parse().unwrap()).await.err().unwrap();
    assert!(matches!(refused.kind(), Kind::Lost(_)), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_named() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let query = if database.url().contains('?') { '&' } else { '?' };
    let read_only = format!("{}{query}options[default_transaction_read_only]=on", database.url());
    assert!(Session::open(&read_only.parse().unwrap()).await.is_ok());
    let server = format!("{read_only}&target_session_attrs=read-write").parse().unwrap();
    let refused = Session::open(&server).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::ReadOnly, "{refused:?}");
}
