//! One server process, the debug build of `tenantry` beside this program. A supervisor starts it again whenever it has ended,
//! as systemd does.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time in which a server answers `/readyz`, and in which it ends after SIGTERM.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at the process.
const PAUSE: Duration = Duration::from_millis(100);

/// A server process.
pub struct Replica {
    /// The data folder.
    folder: PathBuf,
    log: PathBuf,
    child: Mutex<Child>,
    url: String,
}

impl Replica {
    /// Starts a process with the configuration beside this data folder, which listens at this URL and writes to this log.
    pub fn start(folder: PathBuf, url: String, log: PathBuf) -> Result<Self> {
        let child = spawn(&folder, &log)?;
        Ok(Self { folder, log, child: Mutex::new(child), url })
    }

    /// URL of the process.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Path of the log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        // It may have ended in between.
        let _ = kill_process(Pid::from_child(&self.child.lock()), signal);
    }

    /// Starts the process again whenever it has ended. `ended` gets the status of one that had started to serve. Never returns.
    pub async fn supervise(&self, ended: impl Fn(ExitStatus)) {
        let mut serves = false;
        loop {
            let status = self.child.lock().try_wait().ok().flatten();
            if let Some(status) = status {
                if std::mem::take(&mut serves) {
                    ended(status);
                }
                // A start that fails, for instance on a full disk, is tried again.
                if let Ok(child) = spawn(&self.folder, &self.log) {
                    *self.child.lock() = child;
                }
            } else {
                serves = holder(&self.folder) == Some(self.child.lock().id().into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the process answers that it is ready.
    pub async fn ready(&self, http: &reqwest::Client) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = http.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            if started.elapsed() > TIMEOUT {
                bail!("the server does not get ready; its log is {}", self.log.display());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends the process by SIGTERM. Nothing may supervise it any more.
    pub async fn stop(&self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        loop {
            let status = self.child.lock().try_wait()?;
            if let Some(status) = status {
                return Ok(status);
            }
            if asked.elapsed() > TIMEOUT {
                bail!("the server does not end after SIGTERM; its log is {}", self.log.display());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The binary, in the folder of this one.
pub fn binary() -> Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name("tenantry");
    if !binary.is_file() {
        bail!("{} does not exist: build it, or run `cargo xtask chaos`", binary.display());
    }
    Ok(binary)
}

/// Whether a process ended without having been killed.
pub fn ended_by_itself(status: ExitStatus) -> bool {
    status.signal() != Some(Signal::KILL.as_raw())
}

/// A command of the binary, without the variables of this process that would configure it.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TENANTRY_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    Ok(command)
}

fn spawn(folder: &Path, log: &Path) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    let config = folder.with_extension("toml");
    let mut command = command()?;
    command.arg("serve").arg("--config").arg(config).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start tenantry")
}

/// Process id in the lock file of a data folder, which a server writes once it serves.
fn holder(folder: &Path) -> Option<u64> {
    let lock: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("lock")).ok()?).ok()?;
    lock["url"].as_str().and(lock["pid"].as_u64())
}
