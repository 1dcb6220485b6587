//! The measured server: the release binary as a child process, with a configuration in its sandbox.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::StatusCode;

use crate::client::Connection;
use crate::process;
use crate::sandbox::Sandbox;

/// Longest start, drain or stop of a server.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Time without CPU use after which a server counts as idle.
const QUIET: Duration = Duration::from_millis(60);

/// Templates and plans of the bench, besides those of the product.
const PLANS: &str = include_str!("../files/plans.yaml");
const GATED: &str = include_str!("../files/gated.yaml");

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    key: String,
    /// Time from its start to the first 200 of /readyz.
    pub started_in: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The product's binary, in the folder of this binary.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name("tenantry");
    if !binary.is_file() {
        bail!("{} does not exist: build it, or run `cargo xtask bench`", binary.display());
    }
    Ok(binary)
}

impl Server {
    /// Starts a server on the data of a sandbox.
    pub async fn start(sandbox: &Sandbox) -> Result<Self> {
        Self::start_with(sandbox, "").await
    }

    /// `start` with additional tables of configuration.
    pub async fn start_with(sandbox: &Sandbox, tables: &str) -> Result<Self> {
        configure(sandbox, tables)?;
        let log = fs::File::options().create(true).append(true).open(sandbox.folder().join("server.log"))?;
        let mut command = Command::new(binary()?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TENANTRY_")) {
            command.env_remove(name);
        }
        command.arg("serve").arg("--config").arg(sandbox.folder().join("tenantry.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().context("cannot start tenantry")?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address, key: String::new(), started_in: Duration::ZERO };
        loop {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(sandbox.folder().join("server.log")).unwrap_or_default();
                bail!("the server ended with {status}:\n{log}");
            }
            if let Some(address) = announced(sandbox.folder(), server.pid())
                && is_ready(address).await
            {
                server.started_in = started.elapsed();
                server.address = address;
                server.key = fs::read_to_string(sandbox.folder().join("admin.key"))?.trim().to_owned();
                return Ok(server);
            }
            if started.elapsed() > TIMEOUT {
                bail!("the server does not get ready");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connections with the administrator's key.
    pub async fn connect(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(self.address, &self.key).await?);
        }
        Ok(connections)
    }

    /// Waits until no operation is active and every event is sealed. Returns the time until the last
    /// operation was idle.
    pub async fn drain(&self) -> Result<Duration> {
        let started = Instant::now();
        let mut connection = Connection::open(self.address, &self.key).await?;
        loop {
            let (_, metrics) = connection.get("/metrics").await?;
            let active = metrics
                .lines()
                .find_map(|line| line.strip_prefix("tenantry_executor_active_operations "))
                .context("the metrics lack the number of active operations")?;
            if active == "0" {
                break;
            }
            if started.elapsed() > TIMEOUT {
                bail!("{active} operations do not end");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = started.elapsed();
        let mut before = process::cpu(self.pid())?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = process::cpu(self.pid())?;
            if now == before {
                return Ok(ended);
            }
            before = now;
        }
    }

    /// Stops the server by SIGTERM.
    pub async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > TIMEOUT {
                bail!("the server does not end");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// Address of the process with this id, from the lock file in its data folder.
fn announced(folder: &Path, pid: u32) -> Option<SocketAddr> {
    let lock: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("lock")).ok()?).ok()?;
    let url = lock["url"].as_str().filter(|_| lock["pid"] == pid)?;
    url.strip_prefix("http://")?.parse().ok()
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address, "").await else { return false };
    matches!(connection.get("/readyz").await, Ok((StatusCode::OK, _)))
}

/// Writes the configuration: defaults, the sandbox's data, one more plan, and these tables.
fn configure(sandbox: &Sandbox, tables: &str) -> Result<()> {
    let folder = sandbox.folder();
    let templates = folder.join("templates");
    fs::create_dir_all(&templates)?;
    fs::write(templates.join("gated.yaml"), GATED)?;
    fs::write(folder.join("plans.yaml"), PLANS)?;
    let mut config = format!(
        "listen = '127.0.0.1:0'\ndata_dir = '{}'\n[files]\ntemplates = '{}'\ncatalogue = '{}'\n",
        folder.display(),
        templates.display(),
        folder.join("plans.yaml").display(),
    );
    if let (Some(server), Some([registry, keyring])) = (sandbox.postgres(), sandbox.databases()) {
        config.push_str(&format!("[store]\nurl = '{}'\n", server.database_url(&registry)));
        config.push_str(&format!("[keyring]\nurl = '{}'\n", server.database_url(&keyring)));
    }
    config.push_str(tables);
    Ok(fs::write(folder.join("tenantry.toml"), config)?)
}
