//! Runs the demo's server as a child process that never outlives the demo: dropping its handle kills it, and
//! it ends by itself when the pipe to its stdin closes, even after a `kill -9` of the demo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::lock;

/// Time for the server to start or stop on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// A running `tenantry dev`.
pub struct Child {
    process: std::process::Child,
    folder: PathBuf,
    url: String,
}

impl Child {
    /// Starts a server on this folder and waits until it is ready.
    pub async fn start(folder: &Path) -> Result<Self> {
        let log = folder.join("server.log");
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).context("the server log")?;
        let mut command = Command::new(std::env::current_exe().context("cannot locate this program")?);
        command.arg("dev").arg("--data").arg(folder).args(["--listen", "127.0.0.1:0", "--exit-with-stdin"]);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TENANTRY_"))
        {
            command.env_remove(name);
        }
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        let process = process.context("cannot start the server")?;
        let mut child = Self { process, folder: folder.to_owned(), url: String::new() };
        child.ready().await?;
        Ok(child)
    }

    async fn ready(&mut self) -> Result<()> {
        let started = Instant::now();
        let pid = self.process.id();
        loop {
            let held = lock::holder(&self.folder).filter(|holder| holder.pid == pid);
            if let Some(url) = held.and_then(|holder| holder.url) {
                self.url = url;
                if self.client()?.get("/readyz").await.is_ok() {
                    return Ok(());
                }
            }
            if let Some(status) = self.process.try_wait()? {
                let log = std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                bail!(
                    "the server exited with {status}:\n{}",
                    last.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            if started.elapsed() > TIMEOUT {
                bail!(
                    "the server did not become ready within {TIMEOUT:?}; see its log {}",
                    self.folder.join("server.log").display()
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A client with the admin key.
    pub fn client(&self) -> Result<Client> {
        let key = std::fs::read_to_string(self.folder.join("admin.key")).unwrap_or_default();
        Client::new(&self.url, key)
    }

    /// Kills the server with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().context("cannot kill the server")?;
        self.process.wait().context("the killed server")?;
        Ok(())
    }

    /// Stops the server with SIGTERM, as an operator would.
    pub async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("cannot stop the server")?;
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            if let Some(status) = self.process.try_wait()? {
                anyhow::ensure!(status.success(), "the server exited with {status}");
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("the server did not stop within {TIMEOUT:?}")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
