//! Commands keep the contract, and die with the attempt and with the process that started them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tenantry_builtin::exec::{Config, Exec};
use tenantry_model::{Failure, FailureClass};
use tenantry_provider::{Notes, Provider, Spec};
use tenantry_testkit::children::{self, runs, until};

use crate::contract::{Environment, violations};
use crate::world::{World, personal, spec};

/// A command as an operator would write it: things are files, whose first line is the owner mark.
const THINGS: &str = r#"
dir=$1
IFS= read -r request
verb=$(printf '%s' "$request" | sed -n 's/.*"verb":"\([a-z]*\)".*/\1/p')
claim=$(printf '%s' "$request" | sed -n 's/.*"claim":"\([^"]*\)".*/\1/p')
name=$(printf '%s' "$request" | sed -n 's/.*"name":"\(thing-[^"]*\)".*/\1/p')
thing=$dir/$name
owner() { head -n 1 "$thing" 2>/dev/null; }
case $verb in
ensure)
    draft=$dir/.draft.$$
    printf '%s\n' "$claim" >"$draft"
    ln "$draft" "$thing" 2>/dev/null
    rm -f "$draft"
    [ "$(owner)" = "$claim" ] || { echo '{"foreign": true}'; exit 0; }
    : >"$thing.done"
    printf '{"outputs": {"thing": "%s"}}\n' "$name"
    ;;
observe)
    [ -e "$thing" ] || { echo '{"present": false}'; exit 0; }
    [ "$(owner)" = "$claim" ] || { echo '{"foreign": true}'; exit 0; }
    if [ -e "$thing.done" ]; then healthy=true; else healthy=false; fi
    printf '{"present": true, "healthy": %s, "version": "1", "fingerprint": "%s"}\n' "$healthy" "$name"
    ;;
remove)
    if [ "$(owner)" = "$claim" ]; then rm -f "$thing.done" "$thing"; echo '{"receipt": {"things": 1}}'; fi
    ;;
esac
"#;

struct Commands {
    dir: TempDir,
    exec: Exec,
    world: World,
}

impl Commands {
    fn things(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.dir.path().join("things")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[async_trait]
impl Environment for Commands {
    fn provider(&self) -> &dyn Provider {
        &self.exec
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({ "command": ["sh", self.dir.path().join("things.sh"), self.dir.path().join("things")] })
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.things().iter().filter(|file| file.ends_with(&spec.name)).count()
    }
    async fn snapshot(&self) -> String {
        self.things()
            .iter()
            .map(|file| format!("{}: {:?}\n", file.display(), std::fs::read(file).unwrap()))
            .collect()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        std::fs::write(self.dir.path().join("things").join(&spec.name), "another tenant\n").unwrap();
    }
    async fn leave_half(&self, spec: &Spec) {
        std::fs::write(self.dir.path().join("things").join(&spec.name), format!("{}\n", spec.claim)).unwrap();
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        Some(Box::new(Exec::new(Config { directory: Some("/nowhere/at/all".into()), ..Config::default() })))
    }
}

#[tokio::test]
async fn commands_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("things.sh"), THINGS).unwrap();
    std::fs::create_dir(dir.path().join("things")).unwrap();
    let commands = Commands { dir, exec: Exec::default(), world: World::default() };
    assert_eq!(violations(&commands).await, []);
}

fn shell(script: &str, folder: &Path) -> Spec {
    spec(json!({ "command": ["sh", "-c", script, "sh", folder] }))
}

#[tokio::test]
async fn what_an_exit_code_means() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::default();
    for (script, class, code, word) in [
        ("echo later >&2; exit 75", FailureClass::Retryable, "try_again", "later"),
        (
            "echo first >&2; echo no such thing >&2; echo >&2; exit 2",
            FailureClass::Fatal,
            "command_failed",
            "no such thing",
        ),
        ("exit 1", FailureClass::Fatal, "command_failed", "exit code 1"),
        ("exec /nowhere/at/all", FailureClass::Fatal, "cannot_start", "cannot be started"),
        ("echo 'no JSON'", FailureClass::Unknown, "bad_answer", "outputs"),
        ("echo '{\"outputs\": 7}'", FailureClass::Unknown, "bad_answer", "outputs"),
        ("kill -9 $$", FailureClass::Fatal, "command_failed", "exit code 137"),
    ] {
        let failure = Exec::default().ensure(&world.context(), &shell(script, dir.path())).await.unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (class, code), "{script}: {failure}");
        assert!(failure.message.contains(word), "{script}: {failure}");
        assert_eq!(failure.wrong_answers > 0, code == "bad_answer", "{script}");
    }
    let silent = Exec::default().ensure(&world.context(), &shell(":", dir.path())).await.unwrap();
    assert_eq!(silent.outputs, json!({}));
}

#[tokio::test]
async fn what_a_command_blurts_out_is_kept_out_of_failures() {
    let dir = tempfile::tempdir().unwrap();
    let echoed = "cat >&2; printf '\\033[31m' >&2; exit 1";
    let spec = shell(echoed, dir.path());
    let failure = Exec::default().ensure(&World::default().context(), &spec).await.unwrap_err();
    for word in personal(&spec).into_iter().chain(["\u{1b}"]) {
        assert!(!failure.message.contains(word), "{failure}");
    }
    assert!(failure.message.chars().count() < 400);
}

struct NoNotes {
    fails: bool,
}

#[async_trait]
impl Notes for NoNotes {
    async fn note(&self, _: Value) -> Result<(), Failure> {
        if self.fails {
            return Err(Failure::retryable("ledger", "not now"));
        }
        std::future::pending().await
    }
}

#[tokio::test]
async fn nothing_happens_before_the_note_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let exec = Exec::default();
    let spec = shell(": >\"$1/acted\"", dir.path());
    for fails in [true, false] {
        let mut context = World::default().context();
        context.notes = Arc::new(NoNotes { fails });
        let attempt = tokio::time::timeout(Duration::from_millis(300), exec.ensure(&context, &spec)).await;
        assert_eq!(attempt.is_ok(), fails, "it waits for the note");
    }
    // The next one for the same resource begins when those before have ended; then nothing can act any more.
    let world = World::default();
    let looked = exec
        .ensure(&world.context(), &Spec { settings: json!({ "command": ["true"] }), ..spec.clone() })
        .await;
    assert!(looked.is_ok() && !dir.path().join("acted").exists());
    exec.ensure(&world.context(), &spec).await.unwrap();
    assert!(dir.path().join("acted").exists(), "with a note it does act");
    let note = world.notes.0.lock().clone().unwrap();
    assert!(note["pgid"].as_i64().unwrap() > 1 && note["start_time"].as_u64().unwrap() > 0);
}

/// Tells its own process, and that of a descendant, then stays.
const STAYS: &str = "sleep 1000 & echo $! >\"$1/child.new\"; mv \"$1/child.new\" \"$1/child\"; echo $$ >\"$1/self.new\"; mv \"$1/self.new\" \"$1/self\"; wait";

fn told(folder: &Path) -> [String; 2] {
    ["child", "self"]
        .map(|name| until("the command runs", || std::fs::read_to_string(folder.join(name)).ok()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_given_up_takes_its_processes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::default();
    let exec = Exec::default();
    let spec = shell(STAYS, dir.path());
    let context = world.context();
    let pids = tokio::select! {
        done = exec.ensure(&context, &spec) => panic!("it ended: {done:?}"),
        pids = tokio::task::spawn_blocking({ let dir = dir.path().to_owned(); move || told(&dir) }) => pids.unwrap(),
    };
    // The next attempt's command does not begin before the last one's processes have ended.
    let check = format!(
        "for pid in {} {}; do kill -0 $pid 2>/dev/null && ! grep -q '^State:.*Z' /proc/$pid/status && exit 3; done; exit 0",
        pids[0].trim(),
        pids[1].trim()
    );
    let next = Spec { settings: json!({ "command": ["sh", "-c", check] }), ..spec };
    exec.ensure(&context, &next).await.unwrap();
    assert!(!pids.iter().any(|pid| runs(pid)));
}

#[test]
fn child_runs_a_command() {
    let Some(folder) = children::folder() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = Exec::default().ensure(&World::default().context(), &shell(STAYS, &folder)).await;
    });
}

#[test]
fn a_command_dies_with_the_process_that_started_it() {
    let dir = tempfile::tempdir().unwrap();
    let child = children::command("exec::child_runs_a_command", dir.path(), "").spawn().unwrap();
    let pids = told(dir.path());
    assert!(pids.iter().all(|pid| runs(pid)));
    children::kill(child);
    until("the command and its descendant have ended", || (!pids.iter().any(|pid| runs(pid))).then_some(()));
}

/// A process group without a watcher: what is left when a crash took the watcher too.
fn survivor(folder: &Path) -> (std::process::Child, Value) {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("sh");
    let child = command.args(["-c", STAYS, "sh"]).arg(folder).process_group(0).spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let note = json!({ "pgid": child.id(), "start_time": start });
    (child, note)
}

#[tokio::test]
async fn what_survived_a_crash_is_killed_before_the_command_runs_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut left, note) = survivor(dir.path());
    let pids = told(dir.path());
    let world = World::default();
    let mut again = spec(json!({ "command": ["true"] }));
    again.note = Some(note.clone());
    again.note.as_mut().unwrap()["start_time"] = json!(note["start_time"].as_u64().unwrap() + 1);
    Exec::default().ensure(&world.context(), &again).await.unwrap();
    assert!(pids.iter().all(|pid| runs(pid)), "a process with another start is another program's");

    again.note = Some(note);
    Exec::default().ensure(&world.context(), &again).await.unwrap();
    assert!(!pids.iter().any(|pid| runs(pid)), "killed before the command ran");
    left.wait().unwrap();
}
