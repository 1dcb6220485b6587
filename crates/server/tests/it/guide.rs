//! Runs the commands of the guide: blocks of `sh` in order, `sh server` in the background, `yaml NAME`
//! written to files.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tenantry_testkit::TestDatabase;

use crate::server::{PATIENCE, TENANTRY, clean, holder};

/// The fenced blocks of a page: the words after the fence, and the text.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => open = Some((kind.trim(), String::new())),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// A shell command in which `tenantry` is the binary under test.
fn shell(folder: &Path, text: &str, variables: &[(&str, &str)]) -> Command {
    let programs = Path::new(TENANTRY).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs.into()).chain(std::env::split_paths(&path)));
    let mut command = Command::new("bash");
    clean(&mut command).args(["-euo", "pipefail", "-c", text]).current_dir(folder).env("PATH", path.unwrap());
    command.stdin(Stdio::null()).envs(variables.iter().copied());
    command
}

#[tokio::test]
async fn getting_started() {
    follow(include_str!("../../../../docs/guide/getting-started.md"), 15).await;
}

#[tokio::test]
async fn plans() {
    follow(include_str!("../../../../docs/guide/plans.md"), 7).await;
}

#[tokio::test]
async fn export() {
    follow(include_str!("../../../../docs/guide/export.md"), 6).await;
}

#[tokio::test]
async fn clones() {
    follow(include_str!("../../../../docs/guide/clones.md"), 5).await;
}

#[tokio::test]
async fn leaving() {
    follow(include_str!("../../../../docs/guide/offboarding.md"), 9).await;
}

#[tokio::test]
async fn status() {
    follow(include_str!("../../../../docs/guide/status.md"), 5).await;
}

#[tokio::test]
async fn sessions() {
    follow(include_str!("../../../../docs/guide/sessions.md"), 12).await;
}

#[tokio::test]
async fn suspension() {
    follow(include_str!("../../../../docs/guide/suspension.md"), 6).await;
}

#[tokio::test]
async fn rotation() {
    let Some(tenants) = TestDatabase::postgres().await else { return };
    let variables = [("TENANTRY_PROVIDERS_POSTGRES_URL", tenants.url())];
    follow_with(include_str!("../../../../docs/guide/rotation.md"), 8, &variables).await;
}

/// Runs a page and asserts that it has at least this many commands.
async fn follow(page: &str, commands: usize) {
    follow_with(page, commands, &[]).await;
}

async fn follow_with(page: &str, commands: usize, variables: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    let mut ran = 0;
    for (kind, text) in blocks(page) {
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("yaml", file) if !file.is_empty() => std::fs::write(folder.path().join(file), text).unwrap(),
            ("sh", "server") => {
                // A free port, because tests run in parallel.
                let text = format!("exec {} --listen 127.0.0.1:0", text.trim());
                let mut server =
                    Guard(shell(folder.path(), &text, variables).stderr(Stdio::null()).spawn().unwrap());
                let started = Instant::now();
                while holder(&folder.path().join("tenantry-data"), server.0.id()).is_none() {
                    assert!(server.0.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE, "{text}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                servers.push(server);
            }
            ("sh", "") => {
                let output = shell(folder.path(), &text, variables).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success(),
                    "{text}\n{}\n{said}",
                    String::from_utf8_lossy(&output.stdout)
                );
                ran += text.lines().count();
            }
            _ => {}
        }
    }
    assert!(ran >= commands && servers.len() == 1, "the page was read: {ran} commands");
}

/// A server that is killed when the test ends.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
