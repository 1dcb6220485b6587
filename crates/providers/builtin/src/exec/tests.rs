//! Settings, and the input, environment and output of commands. Processes that die are tested in
//! `tests/it/exec.rs`.

use super::*;

fn faults(settings: Value) -> Vec<String> {
    Exec::default().check(&settings).into_iter().map(|fault| fault.path).collect()
}

#[test]
fn rejects_settings_without_a_runnable_command() {
    assert!(faults(json!({ "command": ["true"], "parameters": { "a": 1 } })).is_empty());
    for bad in [json!({ "command": [] }), json!({ "command": [""] }), json!({ "command": ["a", "b\0"] })] {
        assert_eq!(faults(bad), ["command"]);
    }
    assert_eq!(faults(json!({})).len(), 1);
    assert_eq!(
        faults(json!({ "command": "rm -rf /" })).len(),
        1,
        "the command is a list, not a line for a shell"
    );
}

async fn run(config: Config, command: &[&str], request: &str) -> Result<Ended, Failure> {
    let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
    Group::start(&config, &command)?.run(request).await
}

#[tokio::test]
async fn arguments_and_request_arrive_as_they_are() {
    let script = r#"printf '%s|' "$@"; cat"#;
    let request = r#"{"a":"\\ $HOME `id` 'x' %s \u0007 ü"}"#;
    let ended =
        run(Config::default(), &["sh", "-c", script, "x", "a b", "", "$HOME", "*", ";exit 3"], request)
            .await
            .unwrap();
    assert_eq!(String::from_utf8(ended.output).unwrap(), format!("a b||$HOME|*|;exit 3|{request}\n"));
    assert_eq!(ended.status.code(), Some(0));
}

#[tokio::test]
async fn the_environment_holds_only_the_configured_variables() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "this process has more than PATH");
    let ended = run(Config::default(), &["env"], "{}").await.unwrap();
    let text = String::from_utf8(ended.output).unwrap();
    // The shell may add these.
    let own = ["PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    for line in text.lines() {
        assert!(own.contains(&line.split('=').next().unwrap()), "{line}");
    }
    assert!(text.contains("PATH="));
}

#[tokio::test]
async fn bounds_output_and_keeps_the_end_of_errors() {
    let endless = run(
        Config::default(),
        &["sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"],
        "{}",
    );
    assert_eq!(endless.await.unwrap_err().code, "too_much_output");
    let noisy = run(Config::default(), &["sh", "-c", "seq 1 20000 >&2; echo the reason >&2; exit 9"], "{}")
        .await
        .unwrap();
    assert!(noisy.errors.len() < 32 * 1024 && noisy.errors.ends_with(b"the reason\n"));
}

#[tokio::test]
async fn a_descendant_left_running_does_not_delay_the_attempt() {
    // The descendant keeps the pipe open; it is killed with the group.
    let ended = run(Config::default(), &["sh", "-c", "sleep 1000 & echo '{}'"], "{}").await.unwrap();
    assert_eq!(ended.output, b"{}\n");
}

#[tokio::test]
async fn a_missing_working_directory_fails_the_start() {
    let config = Config { directory: Some("/nowhere/at/all".into()), ..Config::default() };
    assert_eq!(run(config.clone(), &["true"], "{}").await.unwrap_err().code, "cannot_start");
    assert!(Exec::new(config).probe().await.is_err());
    assert!(
        Exec::new(Config { env: Vec::new(), ..Config::default() }).probe().await.is_ok(),
        "sh has a default path"
    );
    Exec::default().probe().await.unwrap();
}
