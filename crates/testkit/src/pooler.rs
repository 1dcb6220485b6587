//! Runs PgBouncer in transaction mode in front of the tests' PostgreSQL, on a free port and in a temporary folder.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::skip::skip;

/// Time for PgBouncer to accept connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running PgBouncer. It stops when this is dropped.
pub struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// Starts PgBouncer for all databases of the server with this URL. It connects each client as the superuser.
    /// None, reported as skipped, if PgBouncer is not installed.
    pub fn start(server: &str) -> Option<Self> {
        // With `any`, PgBouncer uses the `user` of the database's line.
        Self::with(server, |database, user| {
            format!(
                "[databases]\n{database} user={user}\n[pgbouncer]\nauth_type = any\nignore_startup_parameters = extra_float_digits, options\n"
            )
        })
    }

    /// Starts PgBouncer as `start` does, but it authenticates each client by password and connects it as the
    /// client's role.
    pub fn for_all_roles(server: &str) -> Option<Self> {
        Self::with(server, |database, user| {
            format!(
                "[databases]\n{database} auth_user={user}\n[pgbouncer]\nauth_type = scram-sha-256\nauth_file = users.txt\n\
                 auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1\n"
            )
        })
    }

    /// Starts PgBouncer with the configuration that `config` makes from the line of all databases and the
    /// superuser's name.
    fn with(server: &str, config: impl FnOnce(&str, &str) -> String) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).is_file()) else {
            skip("pooler", "pgbouncer is not installed", "cargo xtask services install");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let (user, host) = server.split_once('@').expect("a user in the URL");
        let user =
            user.rsplit('/').next().and_then(|user| user.split(':').next()).expect("a user in the URL");
        let (host, _) = host.split_once('/').expect("a database in the URL");
        let (host, server_port) = host.split_once(':').expect("a port in the URL");
        let file = folder.path().join("pgbouncer.ini");
        let users = folder.path().join("users.txt");
        let config = config(&format!("* = host={host} port={server_port}"), user);
        let config = config.replace("users.txt", &users.display().to_string());
        let config = format!(
            "{config}listen_addr = 127.0.0.1\nlisten_port = {port}\npool_mode = transaction\nunix_socket_dir =\n"
        );
        std::fs::write(&file, config).expect("the configuration");
        std::fs::write(&users, format!("\"{user}\" \"\"\n")).expect("the users");
        for (path, mode) in [(folder.path(), 0o755), (&*file, 0o644), (&*users, 0o644)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
        }
        let mut command = Command::new(program);
        if is_root() {
            // PgBouncer does not run as root.
            command.args(["-u", "nobody"]);
        }
        let child = command.arg("-q").arg(&file).stdin(Stdio::null()).spawn().expect("pgbouncer starts");
        let mut pooler = Self { child, port, _folder: folder };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = pooler.child.try_wait().expect("a child") {
                panic!("pgbouncer ended with {status}");
            }
            assert!(started.elapsed() < START_TIMEOUT, "pgbouncer does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(pooler)
    }

    /// Address and port that PgBouncer listens on.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// URL of a database through PgBouncer, from the database's direct URL.
    pub fn url(&self, direct: &str) -> String {
        let (before, after) = direct.split_once('@').expect("a user in the URL");
        let (_, database) = after.split_once('/').expect("a database in the URL");
        format!("{before}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True when this process runs as root: the owner of its folder in `/proc` is its user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}
