//! Runs a command and everything that it starts in one process group. The group is killed when the attempt is
//! cancelled, and a watcher inside the group kills it when this process dies for any reason.

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

/// The script of the group's first process. It starts the command only after it has read one line. Its input
/// stays open as long as this process lives; at its end the watcher kills the whole group, itself included.
const LEADER: &str = r#"
IFS= read -r request || exit 70
exec 3<&0 </dev/null
( exec >/dev/null 2>&1; read -r nothing <&3; kill -KILL 0 ) &
printf '%s\n' "$request" | "$@" 3<&- &
wait "$!"
"#;
/// Bytes kept from the end of a command's standard error.
const TAIL: usize = 8 * 1024;
/// Time to wait for output after the group's end. Only a process that left the group can still hold the pipes
/// open.
const DRAIN: Duration = Duration::from_secs(2);
/// Time within which killed processes must end.
const DYING: Duration = Duration::from_secs(5);

/// Identifies a group after a crash. The start time distinguishes it from a later process with the same
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Id of the process group, which is the id of its first process.
    pub pgid: i32,
    /// Start of the first process, in clock ticks since the machine's start (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

/// Result of a command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// The whole standard output.
    pub output: Vec<u8>,
    /// The end of the standard error.
    pub errors: Vec<u8>,
}

/// A process group whose command waits for its request. Dropping it kills the group.
pub struct Group {
    child: Child,
    lifeline: Option<ChildStdin>,
    output: ChildStdout,
    errors: ChildStderr,
    /// Identifies the group after a crash.
    pub mark: Mark,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Group {
    /// Starts the group's first process.
    pub fn start(config: &Config, command: &[String]) -> Result<Self, Failure> {
        let mut leader = Command::new("/bin/sh");
        leader.arg("-c").arg(LEADER).arg("sh").args(command).env_clear().process_group(0).kill_on_drop(true);
        leader.envs(config.env.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Some(directory) = &config.directory {
            leader.current_dir(directory);
        }
        leader.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let broken = || Failure::retryable("cannot_start", "the command's process could not be set up");
        let mut child = leader.spawn().map_err(|error| cannot_start(config, &error))?;
        let pgid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(broken)?;
        let lifeline = child.stdin.take();
        let (output, errors) = child.stdout.take().zip(child.stderr.take()).ok_or_else(broken)?;
        let start_time = stat(pgid).map(|stat| stat.start_time);
        let mut group = Self { child, lifeline, output, errors, mark: Mark { pgid, start_time: 0 } };
        group.mark.start_time = start_time.ok_or_else(broken)?;
        Ok(group)
    }

    /// Sends the command its request and waits until the whole group has ended.
    pub async fn run(&mut self, request: &str) -> Result<Ended, Failure> {
        let broken = |error: std::io::Error| {
            Failure::unknown("command", format!("reading from the command failed: {error}"))
        };
        if let Some(lifeline) = &mut self.lifeline {
            let line = format!("{request}\n");
            // A process that is gone is reported by its exit status.
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
        // The watcher kills what the command left running, which also closes the pipes.
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

    /// Kills the group, unless its first process has ended: then the watcher does it, and another process may
    /// have the number.
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
            tracing::warn!(pgid = self.mark.pgid, "killed process group of a command is still running");
        }
    }
}

fn cannot_start(config: &Config, error: &std::io::Error) -> Failure {
    let place =
        config.directory.as_ref().map(|directory| format!(" in {}", directory.display())).unwrap_or_default();
    Failure::retryable("cannot_start", format!("no command can be started{place}: {error}"))
}

/// Appends the next bytes; false at the end of the stream.
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
            format!("the command wrote more than {} bytes to its standard output", answer::MAX),
        ));
    }
    Ok(())
}

fn kill(pgid: i32) {
    if let Some(pid) = Pid::from_raw(pgid).filter(|_| pgid > 1) {
        // An error means that the group has ended already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills the group that an attempt before a crash left running, and waits for its end. Does nothing if
/// another process has the number by now.
pub async fn kill_survivors(mark: Mark) -> Result<(), Failure> {
    if stat(mark.pgid).is_none_or(|stat| stat.start_time != mark.start_time) {
        return Ok(());
    }
    kill(mark.pgid);
    let late = |_| {
        Failure::retryable(
            "survivor",
            "a process of an earlier attempt is still running after SIGKILL; it is checked again at the next attempt",
        )
    };
    tokio::time::timeout(DYING, gone(mark.pgid)).await.map_err(late)
}

/// Returns when no process of the group runs. Polls, because the kernel notifies only the parent of a
/// process.
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

/// Fields of `/proc/PID/stat`.
struct Stat {
    dead: bool,
    group: i32,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

/// Parses `pid (name) state ppid pgrp …`. The name may hold any characters, so the fields are counted from
/// behind the last bracket.
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
    fn parses_the_stat_of_a_process_with_brackets_in_its_name() {
        let text = "42 (a) b (c)) S 1 42 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.dead, stat.group, stat.start_time), (false, 42, 987_654));
        assert!(parse_stat("42 (a) Z 1 42").is_none());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(super::stat(own).unwrap().start_time > 0);
    }
}
