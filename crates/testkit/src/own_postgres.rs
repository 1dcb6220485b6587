//! A PostgreSQL server of a test's own, which it may restart, halt and fill up, give a standby, and replace by that: the
//! programs of the server that the tests have, a folder and a port of its own. Gone when its test ends.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::database::admin;
use crate::skip::skip;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where its data is in its folder.
const DATA: &str = "data";

/// A server.
pub struct OwnPostgres {
    /// None while it is down.
    child: Option<Child>,
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    /// Who runs it: PostgreSQL refuses root.
    account: (u32, u32),
    settings: Vec<String>,
}

impl OwnPostgres {
    /// With these settings over PostgreSQL's own, such as `max_connections=20`; none, reported as skipped, where the tests
    /// have no server, or one on another machine.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        Self::start_in(&std::env::temp_dir(), settings).await
    }

    /// The same with its files below this folder.
    pub async fn start_in(parent: &Path, settings: &[&str]) -> Option<Self> {
        let mut connection = PgConnection::connect(&admin()?).await.expect("the tests' server");
        let told: (String, String) = sqlx::query_as(
            "SELECT setting, current_setting('data_directory') FROM pg_config WHERE name = 'BINDIR'",
        )
        .fetch_one(&mut connection)
        .await
        .expect("where its programs are");
        connection.close().await.expect("closes");
        let programs = PathBuf::from(told.0);
        let (true, Ok(theirs)) = (programs.join("initdb").is_file(), std::fs::metadata(told.1)) else {
            skip("own postgres", "the tests' PostgreSQL is on another machine", "cargo xtask test");
            return None;
        };
        let account = (theirs.uid(), theirs.gid());
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self {
            child: None,
            programs,
            folder: folder(parent, account),
            port: free_port(),
            account,
            settings,
        };
        server.run(
            "initdb",
            &["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", DATA],
        );
        server.up().await;
        Some(server)
    }

    /// A standby of this server, which follows it from now on and answers reads.
    pub async fn standby(&self) -> Self {
        let mut standby = Self {
            child: None,
            programs: self.programs.clone(),
            folder: folder(&std::env::temp_dir(), self.account),
            port: free_port(),
            account: self.account,
            settings: self.settings.clone(),
        };
        standby.run(
            "pg_basebackup",
            &["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D", DATA, "-d", &self.url()],
        );
        standby.up().await;
        standby
    }

    /// The standby follows its server no more: what is written there from now on, it lacks. It has all that was written before.
    pub async fn cut_off(&self, primary: &Self) {
        let written: String = primary.ask("SELECT pg_current_wal_insert_lsn()::text").await;
        self.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).await;
        self.say("ALTER SYSTEM SET primary_conninfo = ''").await;
        self.say("SELECT pg_reload_conf()").await;
        self.until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)").await;
    }

    /// The server dies, and its standby is promoted and found at its address.
    pub async fn take_over(&mut self, primary: &mut Self) {
        primary.down();
        self.down();
        self.port = primary.port;
        self.up().await;
        self.until("SELECT pg_promote()").await;
    }

    /// The administrator's URL.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it without a word to its clients, as a crash does, and starts it again.
    pub async fn crash(&mut self) {
        self.down();
        self.up().await;
    }

    /// Ends it without a word to its clients.
    pub fn down(&mut self) {
        kill_process(self.pid(), Signal::QUIT).expect("it runs");
        self.child.take().expect("it runs").wait().expect("a child");
    }

    /// Starts it on what it has left.
    pub async fn up(&mut self) {
        let log = self.folder.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let mut command = self.command("postgres");
        command.args(["-D", DATA, "-c", &format!("port={}", self.port)]);
        let quiet = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "timezone=UTC"];
        let own = self.settings.iter().map(String::as_str);
        command.args(quiet.into_iter().chain(own).flat_map(|setting| ["-c", setting]));
        self.child = Some(command.stderr(log).process_group(0).spawn().expect("postgres starts"));
        self.until("SELECT true").await;
    }

    /// Writes to its log until that has no room left, which ends it: to be used on a disk that is full.
    pub async fn write_until_it_crashes(&self) {
        let started = Instant::now();
        loop {
            let written = async {
                let mut connection = PgConnection::connect(&self.url()).await?;
                let sql =
                    "SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000000)); SELECT pg_switch_wal()";
                sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
            };
            match written.await {
                // Whoever is connected when it crashes is sent away with this, or without a word.
                Err(sqlx::Error::Database(error))
                    if error.code().is_none_or(|code| code.starts_with("57P")) =>
                {
                    break;
                }
                Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => break,
                _ => assert!(started.elapsed() < PATIENCE, "there is no end of room"),
            }
        }
    }

    /// Sees to it that it runs after a crash: by itself, or started anew if it could not.
    pub async fn revive(&mut self) {
        let started = Instant::now();
        while PgConnection::connect(&self.url()).await.is_err() {
            if self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
                self.child = None;
                return self.up().await;
            }
            assert!(started.elapsed() < PATIENCE, "it does not come back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a statement.
    pub async fn say(&self, sql: &'static str) {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it answers");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
        connection.close().await.expect("closes");
    }

    async fn ask(&self, sql: &'static str) -> String {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it answers");
        let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql);
        connection.close().await.expect("closes");
        answer
    }

    /// Waits until it answers this question with yes.
    pub async fn until(&self, question: &str) {
        let started = Instant::now();
        let yes = async || -> sqlx::Result<bool> {
            let mut connection = PgConnection::connect(&self.url()).await?;
            let yes = sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok(yes)
        };
        while !yes().await.unwrap_or_default() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "{question} is not so: {}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes every connection that it has left, until they are dropped.
    pub async fn fill(&self) -> Vec<PgConnection> {
        let mut taken = Vec::new();
        while let Ok(connection) = PgConnection::connect(&self.url()).await {
            taken.push(connection);
        }
        taken
    }

    /// All of its processes stand still: connections stay, nothing answers.
    pub fn halt(&self) {
        kill_process_group(self.pid(), Signal::STOP).expect("it runs");
        self.each_session(Signal::STOP);
    }

    /// They go on.
    pub fn go_on(&self) {
        self.each_session(Signal::CONT);
        kill_process_group(self.pid(), Signal::CONT).expect("it runs");
    }

    /// Each session is a process in a group of its own.
    fn each_session(&self, signal: Signal) {
        let id = self.pid().as_raw_nonzero();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its sessions");
        for session in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // It may have ended since.
            let _ = kill_process(session, signal);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.command(program).args(arguments).output().expect("a program of PostgreSQL's");
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A program of PostgreSQL's in the folder, without what the environment says to its clients.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env_clear().env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::fs::metadata("/proc/self").is_ok_and(|we| we.uid() == 0) {
            command.uid(self.account.0).gid(self.account.1);
        }
        command
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.go_on();
            self.down();
        }
    }
}

fn folder(parent: &Path, (user, group): (u32, u32)) -> TempDir {
    let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
    chown(folder.path(), Some(user), Some(group)).expect("the tests run as root or as that account");
    folder
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
