//! Runs a test of this binary as a child process, which can be killed or limited in disk space. Such tests do
//! nothing unless they run as a child.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "TENANTRY_TEST_CHILD";
/// Maximum wait for a condition.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder to work in, if this process is a child.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The command that runs the test `name` as a child, after the shell commands `prelude`.
pub fn command(name: &str, folder: &std::path::Path, prelude: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{prelude} exec \"$@\"")).arg("sh");
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Kills a child with SIGKILL and waits for it.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until the condition returns a value; panics if it does not.
pub fn until<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = is() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs, that is, exists and is not a zombie.
pub fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}
