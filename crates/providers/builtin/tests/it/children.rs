//! Runs a part of this test binary as a child process, so that it can be killed, or starved of disk space, for real. The
//! parts are ordinary tests that do nothing unless they are called as a child.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "TENANTRY_TEST_CHILD";
/// Longest wait for something that happens at once unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder to work in, if this process is a child.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The command that runs the test `name` as a child, behind a shell's `prelude`.
pub fn command(name: &str, folder: &std::path::Path, prelude: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{prelude} exec \"$@\"")).arg("sh");
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Kills a child as nothing can be caught, and takes its leave.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until something is so; panics if it never is.
pub fn until<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = is() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs: is there and not only waiting to be buried.
pub fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}
