//! `tenantry template`: what the server has, and, offline, the schema, the check of a file, and what this program and
//! its configuration would load.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use tenantry_control::template::{self, Library};
use tenantry_providers::Registry;

use super::output::Column;
use super::{Exit, Session};
use crate::config::{self, Config};
use crate::process::explain;

const COLUMNS: [Column; 4] =
    [("NAME", "/template"), ("VERSION", "/version"), ("ISOLATION", "/isolation"), ("STEPS", "/steps")];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the server's templates, every version
    List,
    /// Print the JSON Schema of template files, for editors (offline)
    Schema {
        /// The configuration that says which providers there are
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a template file; every fault is named (offline)
    Validate {
        /// The file
        file: PathBuf,
        /// The configuration that says which providers there are
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a template (offline)
    Show {
        /// Its name
        name: String,
        /// Which version; the newest without it
        #[arg(long)]
        version: Option<u32>,
        /// The configuration that says where the templates are
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::List => {
            let mut templates = session.client()?.all("/v1/templates").await?;
            if session.output.format == super::Format::Table {
                for template in &mut templates {
                    let keys = template
                        .get("steps")
                        .and_then(Value::as_object)
                        .map(|steps| steps.keys().cloned().collect::<Vec<_>>());
                    template["steps"] = json!(keys);
                }
            }
            session.output.list(&templates, &COLUMNS)
        }
        Command::Schema { config } => {
            let (_, providers) = providers(config).await?;
            session.output.text(&serde_json::to_string_pretty(&template::schema(&providers))?)
        }
        Command::Validate { file, config } => {
            let (_, providers) = providers(config).await?;
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let loaded = template::load(&text, &providers).map_err(|error| {
                let faults =
                    error.errors.iter().map(|fault| format!("\n  {}: {}", fault.path, fault.message));
                Exit::Failure.with(format!("{} is not valid:{}", file.display(), faults.collect::<String>()))
            })?;
            let template = loaded.template;
            eprintln!(
                "{}: template {} version {} is valid",
                file.display(),
                template.template,
                template.version
            );
            Ok(())
        }
        Command::Show { name, version, config } => {
            let (config, providers) = providers(config).await?;
            let library = Library::open(config.files.templates.as_deref(), &providers).map_err(explain)?;
            let found = match version {
                Some(version) => library.version(&name, version),
                None => library.latest(&name),
            };
            let known = || {
                let known: Vec<_> = library.iter().map(|t| format!("{} {}", t.template, t.version)).collect();
                Exit::NotFound.with(format!("there is no such template; there are: {}", known.join(", ")))
            };
            let template = found.ok_or_else(known)?;
            match session.output.format {
                // From the template itself: a JSON object would lose the order of the steps.
                super::Format::Json => session.output.text(&serde_json::to_string_pretty(template.as_ref())?),
                _ => session.output.text(yaml_serde::to_string(template.as_ref())?.trim_end()),
            }
        }
    }
}

async fn providers(config: Option<PathBuf>) -> Result<(Config, Registry)> {
    let config = Config::load(config.as_deref()).map_err(|faults| Exit::Usage.with(faults))?;
    let url = config.url(config.listen.parse().context("listen")?);
    let providers = config::build(&config, &url).await?;
    Ok((config, providers))
}
