//! `tenantry config`: checks and prints the configuration of `serve` without starting a server.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::{Exit, Format, Session};
use crate::config::{Config, DEFAULTS};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate a configuration and report every error
    Check {
        /// Configuration file [default: defaults and environment only]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the effective configuration, with passwords hidden
    Show {
        /// Configuration file [default: defaults and environment only]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the defaults with their comments instead
        #[arg(long, conflicts_with = "config")]
        defaults: bool,
    },
}

pub fn run(command: Command, session: &Session) -> Result<()> {
    let load =
        |file: Option<PathBuf>| Config::load(file.as_deref()).map_err(|faults| Exit::Failure.with(faults));
    match command {
        Command::Check { config } => {
            load(config)?;
            eprintln!("the configuration is valid");
            Ok(())
        }
        Command::Show { defaults: true, .. } => session.output.text(DEFAULTS.trim_end()),
        Command::Show { config, .. } => {
            let shown = load(config)?.shown();
            match session.output.format {
                // TOML has no null: keys that are not set are left out.
                Format::Table => session.output.text(toml::to_string(&without_nulls(shown))?.trim_end()),
                _ => session.output.value(&shown),
            }
        }
    }
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(object) => {
            object.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        other => other,
    }
}
