//! A command and everything it starts, as one process group that cannot outlive its attempt: it is killed when the
//! attempt is given up, and by a watcher of its own when this process dies, however that happens.

use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tenantry_model::Failure;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::config::Config;
use crate::answer;

/// The leader of the group. It reads one line, and does nothing before: until then the command does not exist. Its input
/// stays open for as long as we live; when it ends, the watcher kills the whole group, itself included.
const LEADER: &str = r#"
IFS= read -r request || exit 70
exec 3<&0 </dev/null
( exec >/dev/null 2>&1; read -r nothing <&3; kill -KILL 0 ) &
printf '%s\n' "$request" | "$@" 3<&- &
wait "$!"
"#;
/// Of what a command says on its standard error, the end is kept: this many bytes.
const TAIL: usize = 8 * 1024;
/// How long to wait for output after the group's end: only something that left the group can still hold it.
const DRAIN: Duration = Duration::from_secs(2);
/// How long killed processes may take to end.
const DYING: Duration = Duration::from_secs(5);

/// How to find a group again after a crash. The start time tells it from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Process group, which is the leader's process.
    pub pgid: i32,
    /// The leader's start in clock ticks since the machine's start (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

/// What a command left.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All it said on its standard output.
    pub output: Vec<u8>,
    /// The end of what it said on its standard error.
    pub errors: Vec<u8>,
}

/// A group whose command waits for its request.
pub struct Group {
    child: Child,
    lifeline: Option<ChildStdin>,
    output: ChildStdout,
    errors: ChildStderr,
    /// How to find it again.
    pub mark: Mark,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Group {
    /// Starts the leader.
    pub fn start(config: &Config, command: &[String]) -> Result<Self, Failure> {
        let mut leader = Command::new("/bin/sh");
        leader.arg("-c").arg(LEADER).arg("sh").args(command).env_clear().process_group(0).kill_on_drop(true);
        leader.envs(config.env.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Some(directory) = &config.directory {
            leader.current_dir(directory);
        }
        leader.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let broken = || Failure::retryable("cannot_start", "a command's process could not be set up");
        let mut child = leader.spawn().map_err(|error| cannot_start(config, &error))?;
        let pgid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(broken)?;
        let lifeline = child.stdin.take();
        let (output, errors) = child.stdout.take().zip(child.stderr.take()).ok_or_else(broken)?;
        let start_time = stat(pgid).map(|stat| stat.start_time);
        let mut group = Self { child, lifeline, output, errors, mark: Mark { pgid, start_time: 0 } };
        group.mark.start_time = start_time.ok_or_else(broken)?;
        Ok(group)
    }

    /// Gives the command its request and waits for its end. Nothing of the group is left then.
    pub async fn run(&mut self, request: &str) -> Result<Ended, Failure> {
        let broken = |error: std::io::Error| {
            Failure::unknown("command", format!("the command's pipes broke: {error}"))
        };
        if let Some(lifeline) = &mut self.lifeline {
            let line = format!("{request}\n");
            // A leader that is gone shows it by its status.
            let _ = lifeline.write_all(line.as_bytes()).await;
            let _ = lifeline.flush().await;
        }
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (mut output_open, mut errors_open) = (true, true);
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status.map_err(broken)?,
                more = chunk(&mut self.output, &mut output), if output_open => output_open = more,
                more = chunk(&mut self.errors, &mut errors), if errors_open => errors_open = more,
            }
            keep_tail(&mut errors);
            too_long(&output)?;
        };
        // The watcher ends whatever the command left behind, which also closes the pipes.
        self.lifeline = None;
        let rest = async {
            while output_open && output.len() <= answer::MAX {
                output_open = chunk(&mut self.output, &mut output).await;
            }
            while errors_open {
                errors_open = chunk(&mut self.errors, &mut errors).await;
                keep_tail(&mut errors);
            }
        };
        let _ = tokio::time::timeout(DRAIN, rest).await;
        too_long(&output)?;
        Ok(Ended { status, output, errors })
    }

    /// Kills the group, unless its leader has ended: then the watcher does, and the number may be somebody else's.
    fn kill(&mut self) {
        if self.child.id().is_some() {
            kill(self.mark.pgid);
        }
    }

    /// Kills the group and waits until all of it has ended.
    pub async fn end(mut self) {
        self.kill();
        self.lifeline = None;
        let _ = self.child.wait().await;
        if tokio::time::timeout(DYING, gone(self.mark.pgid)).await.is_err() {
            tracing::warn!(
                pgid = self.mark.pgid,
                "a process of a command does not end, though it was killed"
            );
        }
    }
}

fn cannot_start(config: &Config, error: &std::io::Error) -> Failure {
    let place =
        config.directory.as_ref().map(|directory| format!(" in {}", directory.display())).unwrap_or_default();
    Failure::retryable("cannot_start", format!("no command can be started{place}: {error}"))
}

/// Appends what there is; false at the end.
async fn chunk(from: &mut (impl AsyncRead + Unpin), to: &mut Vec<u8>) -> bool {
    from.read_buf(to).await.is_ok_and(|read| read > 0)
}

fn keep_tail(errors: &mut Vec<u8>) {
    if errors.len() > 2 * TAIL {
        errors.drain(..errors.len() - TAIL);
    }
}

fn too_long(output: &[u8]) -> Result<(), Failure> {
    if output.len() > answer::MAX {
        return Err(Failure::fatal(
            "too_much_output",
            format!("the command said more than {} bytes", answer::MAX),
        ));
    }
    Ok(())
}

fn kill(pgid: i32) {
    if let Some(pid) = Pid::from_raw(pgid).filter(|_| pgid > 1) {
        // Gone already is as good.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills what an attempt before a crash has left running, and waits for its end. Touches nothing if the number belongs
/// to another process by now.
pub async fn kill_survivors(mark: Mark) -> Result<(), Failure> {
    if stat(mark.pgid).is_none_or(|stat| stat.start_time != mark.start_time) {
        return Ok(());
    }
    kill(mark.pgid);
    let late = |_| {
        Failure::retryable("survivor", "a process of an earlier attempt does not end, though it was killed")
    };
    tokio::time::timeout(DYING, gone(mark.pgid)).await.map_err(late)
}

/// Returns when no process of the group runs. The kernel tells nobody but the parent, so it is asked again and again.
async fn gone(pgid: i32) {
    while lives(pgid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process of the group runs.
fn lives(pgid: i32) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .any(|stat| stat.group == pgid && !stat.dead)
}

/// What the kernel says of a process.
struct Stat {
    dead: bool,
    group: i32,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// `pid (name) state ppid pgrp …`: the name may hold anything, so counting begins behind its last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        dead: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let text = "42 (a) b (c)) S 1 42 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.dead, stat.group, stat.start_time), (false, 42, 987_654));
        assert!(parse_stat("42 (a) Z 1 42").is_none());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(super::stat(own).unwrap().start_time > 0);
    }
}
