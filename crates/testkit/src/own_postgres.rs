//! A PostgreSQL server of a test's own, which it may restart, halt and fill up: the programs of the server that the tests
//! have, a folder and a port of its own. Gone when its test ends.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::database::admin;
use crate::skip::skip;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub struct OwnPostgres {
    child: Child,
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        chown(folder.path(), Some(account.0), Some(account.1))
            .expect("the tests run as root or as that account");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let data = folder.path().join("data");
        let made = command(&programs.join("initdb"), folder.path(), account)
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        drop(listener);
        let child = spawn(&programs, folder.path(), port, account, &settings);
        let server = Self { child, programs, folder, port, account, settings };
        server.answers().await;
        Some(server)
    }

    /// The administrator's URL.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it without a word to its clients, as a crash does, and starts it again.
    pub async fn crash(&mut self) {
        kill_process(self.pid(), Signal::QUIT).expect("it runs");
        self.child.wait().expect("a child");
        self.child = spawn(&self.programs, self.folder.path(), self.port, self.account, &self.settings);
        self.answers().await;
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
        let id = self.child.id();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("its sessions");
        for session in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // It may have ended since.
            let _ = kill_process(session, signal);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it takes connections.
    async fn answers(&self) {
        let started = Instant::now();
        while PgConnection::connect(&self.url()).await.is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "PostgreSQL does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.go_on();
        let _ = kill_process(self.pid(), Signal::QUIT);
        let _ = self.child.wait();
    }
}

fn spawn(programs: &Path, folder: &Path, port: u16, account: (u32, u32), settings: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = command(&programs.join("postgres"), folder, account);
    command.arg("-D").arg(folder.join("data")).args(["-c", &format!("port={port}")]);
    command.args([
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "timezone=UTC",
    ]);
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    command.stderr(log).process_group(0).spawn().expect("postgres starts")
}

/// A program of PostgreSQL's in the folder, without what the environment says to its clients.
fn command(program: &Path, folder: &Path, (user, group): (u32, u32)) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    if std::fs::metadata("/proc/self").is_ok_and(|we| we.uid() == 0) {
        command.uid(user).gid(group);
    }
    command
}
