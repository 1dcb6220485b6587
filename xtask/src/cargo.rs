//! How xtask calls cargo: the same cargo that runs xtask, without the variables that `cargo run` set for
//! xtask itself, which would make build scripts of other packages run again.

use std::path::PathBuf;
use std::process::Command;

/// A cargo command with the given subcommand and arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|p| text.starts_with(p));
        if of_xtask || matches!(&*text, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// The folder of cargo's build output.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}
