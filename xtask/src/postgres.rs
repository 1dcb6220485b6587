//! A throw-away PostgreSQL on a free loopback port, as a plain user, in a temporary folder of its own.
//! A small shell process keeps it: when the pipe to us closes, because we stop it or because we were
//! killed, the keeper stops the server and removes the folder. What even the keeper could not remove is
//! found by the next start, by a file lock that nobody holds any more. It never touches another server.

use std::fs::{DirBuilder, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::services::Postgres;

/// Every folder of ours begins so.
const PREFIX: &str = "tenantry-postgres-";

/// How long a server may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How often a start is tried again when somebody took the port in between.
const ATTEMPTS: u32 = 3;

/// Signals to a terminal's processes must not reach the keeper before it has done its work.
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

/// What the server promises after a crash of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: fast, for tests. A crash of the server's clients loses nothing even so.
    None,
    /// What PostgreSQL promises by default: for measuring.
    Full,
}

/// A running server; dropping it stops it and removes its folder.
pub struct Cluster {
    port: u16,
    keeper: Child,
    _lock: File,
}

/// The account that the server runs under, when it is not ours.
#[derive(Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Cluster {
    /// Makes and starts a server. The error carries what the server said.
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

    /// Where clients connect, as the superuser `postgres`, to the database `postgres`.
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
                // Nothing is started then, or its keeper is told by its closed pipe: only the folder is left.
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

/// Tests take the temporary folder, root's tests one that a plain user can enter; measurements take a
/// folder that is on a disk by convention, because a write to memory would flatter them.
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

/// PostgreSQL refuses root: then its own account runs it, or `nobody`. Whoever owns a folder that we just
/// made is who we are.
fn account_for(folder: &Path) -> Result<Option<Account>, String> {
    let we = std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?.uid();
    if we != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
    plain_account(&passwd).map(Some).ok_or_else(|| {
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody".into()
    })
}

/// The account of `postgres`, else of `nobody`, in the form of /etc/passwd.
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

/// A command in the server's folder and name, without settings of the caller's own PostgreSQL.
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

/// Starts the keeper, and through it the server; returns once the server takes connections.
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

/// The server writes its state into its lock file; its log tells when it gives up.
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

/// Stops and removes what killed runs left behind: folders of ours whose lock nobody holds.
fn sweep(postgres: &Postgres) {
    let mut bases = vec![base(Durability::None), base(Durability::Full)];
    bases.dedup();
    for entry in bases.iter().filter_map(|base| std::fs::read_dir(base).ok()).flatten().flatten() {
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Without a lock file it is being made just now; one that we may not open is somebody else's.
        let Ok(lock) = File::options().write(true).open(folder.join("lock")) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        println!("    removing {}, left behind by a run that was killed", folder.display());
        // The owner of the folder runs the server; for a plain user that is the user itself.
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
    fn picks_the_account_of_postgres_then_nobody_and_never_root() {
        let nobody = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/sbin/nologin\n";
        let account = plain_account(nobody).map(|account| (account.user, account.group));
        assert_eq!(account, Some((65534, 65533)));
        let both = format!("{nobody}postgres:x:101:104::/var/lib/postgresql:/bin/bash\n");
        let account = plain_account(&both).map(|account| (account.user, account.group));
        assert_eq!(account, Some((101, 104)));
        assert!(plain_account("root:x:0:0::/:/bin/sh\npostgres:x:0:0::/:/bin/sh\n").is_none());
    }

    #[test]
    fn is_ready_only_when_the_server_says_so() {
        let starting = "17\n/tmp/data\n1760000000\n5433\n/tmp\n127.0.0.1\n 123 4\nstarting\n";
        assert!(!is_ready(starting));
        assert!(is_ready(&starting.replace("starting", "ready   ")));
        assert!(!is_ready("17\n/tmp/data\n"));
    }
}
