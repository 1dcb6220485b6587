//! A temporary PostgreSQL server for one test, which can restart, crash and halt it, fill its disk, add a
//! standby and fail over to it. It uses the programs and the account of the tests' server.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

use crate::database::admin;
use crate::skip::skip;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The data directory in the server's folder.
const DATA: &str = "data";

/// A server. Dropping it stops it and deletes its folder.
pub struct OwnPostgres {
    /// None while it is stopped.
    child: Option<Child>,
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    /// User and group of the server, because PostgreSQL does not run as root.
    account: (u32, u32),
    settings: Vec<String>,
}

impl OwnPostgres {
    /// Starts a server with these settings, such as `max_connections=20`. None, reported as skipped, when the
    /// tests have no server or a remote one.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        Self::start_in(&std::env::temp_dir(), settings).await
    }

    /// `start` with the server's folder below `parent`.
    pub async fn start_in(parent: &Path, settings: &[&str]) -> Option<Self> {
        Self::start_with(parent, &[], settings).await
    }

    /// Starts a server that offers TLS with this certificate and key, in PEM. The role `bound` needs TLS and its password.
    pub async fn start_encrypted(certificate: &str, key: &str) -> Option<Self> {
        let rules = "hostssl all bound 127.0.0.1/32 scram-sha-256\nhost all bound 127.0.0.1/32 reject\n\
                     host all all 127.0.0.1/32 trust\n";
        let files = [("server.crt", certificate), ("server.key", key), ("rules", rules)];
        let settings =
            ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key", "hba_file=rules"];
        Self::start_with(&std::env::temp_dir(), &files, &settings).await
    }

    /// `start_in` with these files in the server's folder, which only the server can read.
    async fn start_with(parent: &Path, files: &[(&str, &str)], settings: &[&str]) -> Option<Self> {
        let mut connection = PgConnection::connect(&admin()?).await.expect("the tests' server");
        let paths: (String, String) = sqlx::query_as(
            "SELECT setting, current_setting('data_directory') FROM pg_config WHERE name = 'BINDIR'",
        )
        .fetch_one(&mut connection)
        .await
        .expect("the paths of the server");
        connection.close().await.expect("closes");
        let programs = PathBuf::from(paths.0);
        let (true, Ok(data)) = (programs.join("initdb").is_file(), std::fs::metadata(paths.1)) else {
            skip("own postgres", "the tests' PostgreSQL is on another machine", "cargo xtask test");
            return None;
        };
        let account = (data.uid(), data.gid());
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
        for (name, content) in files {
            server.write(name, content);
        }
        server.up().await;
        Some(server)
    }

    /// A hot standby of this server. Copies the files itself, because not every installation has pg_basebackup.
    pub async fn standby(&self) -> Self {
        let mut standby = Self {
            child: None,
            programs: self.programs.clone(),
            folder: folder(&std::env::temp_dir(), self.account),
            port: free_port(),
            account: self.account,
            settings: self.settings.clone(),
        };
        let mut backup = PgConnection::connect(&self.url()).await.expect("it answers");
        backup.execute("SELECT pg_backup_start('standby', fast => true)").await.expect("a backup begins");
        let data = self.folder.path().join(DATA);
        standby.run("/bin/cp", &["-R", "-p", data.to_str().expect("a path in UTF-8"), DATA]);
        let label = "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)";
        let label: String = sqlx::query_scalar(label).fetch_one(&mut backup).await.expect("a backup ends");
        backup.close().await.expect("closes");
        std::fs::remove_file(standby.folder.path().join(DATA).join("postmaster.pid"))
            .expect("the primary runs");
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        for (name, content) in
            [("backup_label", &*label), ("standby.signal", ""), ("postgresql.auto.conf", &primary)]
        {
            standby.write(&format!("{DATA}/{name}"), content);
        }
        standby.up().await;
        standby
    }

    /// Stops the replication to this standby after it has received everything written so far.
    pub async fn cut_off(&self, primary: &Self) {
        let written: String = primary.ask("SELECT pg_current_wal_insert_lsn()::text").await;
        self.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).await;
        self.say("ALTER SYSTEM SET primary_conninfo = ''").await;
        self.say("SELECT pg_reload_conf()").await;
        self.until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)").await;
    }

    /// Fails over: stops the primary and promotes this standby at the primary's address.
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

    /// Stops the server as a crash does, and starts it again.
    pub async fn crash(&mut self) {
        self.down();
        self.up().await;
    }

    /// Stops the server as a crash does, without a shutdown of its sessions.
    pub fn down(&mut self) {
        kill_process(self.pid(), Signal::QUIT).expect("it runs");
        self.child.take().expect("it runs").wait().expect("a child");
    }

    /// Starts the stopped server.
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

    /// Writes to the WAL until the server crashes, on a full disk.
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
                // A crash ends connections with one of these codes or without a message.
                Err(sqlx::Error::Database(error))
                    if error.code().is_none_or(|code| code.starts_with("57P")) =>
                {
                    break;
                }
                Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => break,
                _ => assert!(started.elapsed() < TIMEOUT, "the disk is never full"),
            }
        }
    }

    /// Waits until the server has recovered from a crash, and starts it if it has ended.
    pub async fn revive(&mut self) {
        let started = Instant::now();
        while PgConnection::connect(&self.url()).await.is_err() {
            if self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
                self.child = None;
                return self.up().await;
            }
            assert!(started.elapsed() < TIMEOUT, "the server does not recover");
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

    /// Waits until this query returns true.
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
            assert!(started.elapsed() < TIMEOUT, "{question} stays false: {}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes every free connection of the server.
    pub async fn fill(&self) -> Vec<PgConnection> {
        let mut taken = Vec::new();
        while let Ok(connection) = PgConnection::connect(&self.url()).await {
            taken.push(connection);
        }
        taken
    }

    /// Stops every process of the server by SIGSTOP: connections stay open and get no answer.
    pub fn halt(&self) {
        kill_process_group(self.pid(), Signal::STOP).expect("it runs");
        self.each_session(Signal::STOP);
    }

    /// Continues the halted processes.
    pub fn go_on(&self) {
        self.each_session(Signal::CONT);
        kill_process_group(self.pid(), Signal::CONT).expect("it runs");
    }

    /// Sends a signal to each session, which is a process in its own group.
    fn each_session(&self, signal: Signal) {
        let id = self.pid().as_raw_nonzero();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its sessions");
        for session in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // The session may have ended in between.
            let _ = kill_process(session, signal);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Writes a file in the server's folder, which only the server can read.
    fn write(&self, name: &str, content: &str) {
        let file = self.folder.path().join(name);
        std::fs::write(&file, content).expect("writes");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its own file");
        let (user, group) = self.account;
        if std::fs::metadata(&file).is_ok_and(|file| file.uid() != user) {
            chown(&file, Some(user), Some(group)).expect("as root");
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.command(program).args(arguments).output().expect("an installed program");
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A program of PostgreSQL, or one with its whole path, in the server's folder, with an empty environment and as the server's account.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env_clear().env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
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
