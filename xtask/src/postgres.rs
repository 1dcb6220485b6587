//! A temporary PostgreSQL on a free loopback port, as a plain user, in its own temporary folder. A shell
//! process, the keeper, stops the server and removes the folder when its pipe to xtask closes, also when
//! xtask is killed. The next start removes folders that a killed keeper left, which it recognizes by a free
//! file lock. It never touches another server.

use std::fs::{DirBuilder, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::services::Postgres;

/// First part of the name of each server's folder.
const PREFIX: &str = "tenantry-postgres-";

/// Longest time from the start of a server until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Attempts at a start whose port another process took in between.
const ATTEMPTS: u32 = 3;

/// The keeper's script. It ignores the signals of the terminal, so that it can still clean up.
const KEEPER: &str = r#"
trap '' HUP INT TERM
folder=$1
shift
"$@" >"$folder/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server"
rm -rf "$folder"
"#;

/// What the server keeps after a crash of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: fast, for tests. A crash of the server's clients still loses nothing.
    None,
    /// Every commit, as PostgreSQL does by default: for measurements.
    Full,
}

/// A running server. Dropping it stops the server and removes its folder.
pub struct Cluster {
    port: u16,
    keeper: Child,
    _lock: File,
}

/// The account of the server when xtask runs as root.
#[derive(Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Cluster {
    /// Creates and starts a server. The error contains the server's log.
    pub fn start(postgres: &Postgres, durability: Durability) -> Result<Self, String> {
        sweep(postgres);
        let mut attempt = 1;
        loop {
            match Self::try_start(postgres, durability) {
                Err(error) if error.contains("Address already in use") && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// URL of the database `postgres` as the superuser `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn try_start(postgres: &Postgres, durability: Durability) -> Result<Self, String> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let folder = base(durability).join(format!("{PREFIX}{}-{nanos}", std::process::id()));
        let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", folder.display());
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed("cannot make", error))?;
        let lock = File::create(folder.join("lock")).map_err(|error| failed("cannot write in", error))?;
        lock.lock().map_err(|error| failed("cannot lock", error))?;

        let built = account_for(&folder).and_then(|account| {
            if let Some(account) = account {
                chown(&folder, Some(account.user), Some(account.group))
                    .map_err(|error| failed("cannot hand over", error))?;
            }
            initialize(postgres, &folder, account)?;
            serve(postgres, &folder, account, durability)
        });
        match built {
            Ok((port, keeper)) => Ok(Self { port, keeper, _lock: lock }),
            Err(error) => {
                // No keeper was started, or it has stopped the server; only the folder may be left.
                let _ = std::fs::remove_dir_all(&folder);
                Err(error)
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        release(&mut self.keeper);
    }
}

/// Closes the keeper's pipe and waits until it has stopped the server and removed the folder.
fn release(keeper: &mut Child) {
    drop(keeper.stdin.take());
    let _ = keeper.wait();
}

/// The parent of the server's folder: for measurements `/var/tmp`, which is on a disk by convention;
/// otherwise `/tmp`, which a plain user can enter.
fn base(durability: Durability) -> PathBuf {
    let on_disk = PathBuf::from("/var/tmp");
    let shared = PathBuf::from("/tmp");
    if durability == Durability::Full && on_disk.is_dir() {
        on_disk
    } else if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    }
}

/// PostgreSQL does not run as root: returns the account `postgres` or `nobody` then. The owner of a folder
/// that this process created shows whether it runs as root.
fn account_for(folder: &Path) -> Result<Option<Account>, String> {
    let user = std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?.uid();
    if user != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
    plain_account(&passwd).map(Some).ok_or_else(|| {
        "PostgreSQL does not run as root, and this machine has neither an account `postgres` nor `nobody`"
            .into()
    })
}

/// The account `postgres`, or `nobody` without it, from the text of /etc/passwd. Never one with user id 0.
fn plain_account(passwd: &str) -> Option<Account> {
    ["postgres", "nobody"].iter().find_map(|name| {
        let mut fields = passwd.lines().map(|line| line.split(':')).find_map(|mut fields| {
            let matches = fields.next() == Some(*name);
            matches.then_some(fields)
        })?;
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (user != 0).then_some(Account { user, group })
    })
}

/// A command in the server's folder, as the server's account, without the caller's PostgreSQL settings.
fn command(program: &Path, folder: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C").stdin(Stdio::null());
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS", "PGDATABASE"] {
        command.env_remove(name);
    }
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command
}

fn initialize(postgres: &Postgres, folder: &Path, account: Option<Account>) -> Result<(), String> {
    let output = command(&postgres.programs.join("initdb"), folder, account)
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .output()
        .map_err(|error| format!("cannot run initdb: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Starts the keeper, which starts the server. Returns when the server accepts connections.
fn serve(
    postgres: &Postgres,
    folder: &Path,
    account: Option<Account>,
    durability: Durability,
) -> Result<(u16, Child), String> {
    let port = free_port().map_err(|error| format!("no free port: {error}"))?;
    let mut keeper = command(Path::new("/bin/sh"), folder, account);
    keeper.args(["-c", KEEPER, "tenantry-postgres-keeper"]).arg(folder);
    keeper.arg(postgres.programs.join("postgres")).arg("-D").arg(folder.join("data"));
    keeper.args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"]);
    keeper.args(["-c", &format!("unix_socket_directories={}", folder.display())]);
    keeper.args(["-c", "max_connections=400", "-c", "timezone=UTC"]);
    if durability == Durability::None {
        keeper.args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]);
    }
    let mut keeper = keeper
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the keeper of PostgreSQL: {error}"))?;
    match wait_until_ready(folder) {
        Ok(()) => Ok((port, keeper)),
        Err(error) => {
            release(&mut keeper);
            Err(error)
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits for the state `ready` in the server's lock file, and fails on `FATAL` in its log.
fn wait_until_ready(folder: &Path) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let state = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        if is_ready(&state) {
            return Ok(());
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let why = if log.contains("FATAL:") {
            "PostgreSQL did not start"
        } else if started.elapsed() > START_LIMIT {
            "PostgreSQL did not start in time"
        } else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        return Err(format!("{why}: {}", log.trim()));
    }
}

/// The eighth line of `postmaster.pid` is the state.
fn is_ready(postmaster_pid: &str) -> bool {
    postmaster_pid.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

/// Stops servers and removes folders of runs that were killed: folders of this prefix whose lock is free.
fn sweep(postgres: &Postgres) {
    let mut bases = vec![base(Durability::None), base(Durability::Full)];
    bases.dedup();
    for entry in bases.iter().filter_map(|base| std::fs::read_dir(base).ok()).flatten().flatten() {
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // No lock file: another run is creating the folder. No permission: it belongs to another user.
        let Ok(lock) = File::options().write(true).open(folder.join("lock")) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        println!("    removing {}: the run that created it was killed", folder.display());
        let mut stop = command(&postgres.programs.join("pg_ctl"), &folder, None);
        if let Ok(metadata) = entry.metadata() {
            stop.uid(metadata.uid());
        }
        let _ = stop
            .args(["stop", "-m", "immediate", "-D"])
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&folder);
    }
}

#[cfg(test)]
mod tests {
    use super::{is_ready, plain_account};

    #[test]
    fn prefers_the_account_of_postgres_and_never_picks_root() {
        let unprivileged = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/sbin/nologin\n";
        let account = plain_account(unprivileged).map(|account| (account.user, account.group));
        assert_eq!(account, Some((65534, 65533)));
        let both = format!("{unprivileged}postgres:x:101:104::/var/lib/postgresql:/bin/bash\n");
        let account = plain_account(&both).map(|account| (account.user, account.group));
        assert_eq!(account, Some((101, 104)));
        assert!(plain_account("root:x:0:0::/:/bin/sh\npostgres:x:0:0::/:/bin/sh\n").is_none());
    }

    #[test]
    fn reads_the_state_of_the_server() {
        let starting = "17\n/tmp/data\n1760000000\n5433\n/tmp\n127.0.0.1\n 123 4\nstarting\n";
        assert!(!is_ready(starting));
        assert!(is_ready(&starting.replace("starting", "ready   ")));
        assert!(!is_ready("17\n/tmp/data\n"));
    }
}
