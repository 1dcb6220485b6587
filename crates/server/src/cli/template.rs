//! `tenantry template`: lists and compares the server's templates; offline, prints the schema, validates a
//! file, and prints the templates of this program and its configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use tenantry_control::template::{self, ChangeKind, Library, Template, TemplateDiff};
use tenantry_provider::Registry;

use super::output::Column;
use super::{Exit, Session, yaml};
use crate::client::path_segment;
use crate::config::{self, Config};
use crate::process::explain;

const COLUMNS: [Column; 4] =
    [("NAME", "/template"), ("VERSION", "/version"), ("ISOLATION", "/isolation"), ("STEPS", "/steps")];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all versions of the server's templates
    List,
    /// Compare two versions on the server, or the newest one with a file
    Diff {
        /// Template name
        name: String,
        /// Old version [default: the version before --to]
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
        from: Option<u32>,
        /// New version [default: the newest]
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
        /// File to compare the newest version with; it is validated first
        #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
        file: Option<PathBuf>,
        /// Configuration file with the providers, to validate --file
        #[arg(long, value_name = "FILE", requires = "file")]
        config: Option<PathBuf>,
    },
    /// Print the JSON Schema of template files, for editors (offline)
    Schema {
        /// Configuration file with the providers
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Validate a template file and report every error (offline)
    Validate {
        /// Template file
        file: PathBuf,
        /// Configuration file with the providers
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a template (offline)
    Show {
        /// Template name
        name: String,
        /// Version [default: the newest]
        #[arg(long)]
        version: Option<u32>,
        /// Configuration file with the location of the templates
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
        Command::Diff { name, from, to, file: None, .. } => {
            let versions = [("from", from), ("to", to)];
            let versions =
                versions.iter().filter_map(|(name, version)| Some(format!("{name}={}", (*version)?)));
            let query = versions.collect::<Vec<_>>().join("&");
            let path = format!("/v1/templates/{}/diff?{query}", path_segment(&name));
            show_diff(session, &session.client()?.get(path.trim_end_matches('?')).await?)
        }
        Command::Diff { name, file: Some(file), config, .. } => {
            let new = load(&file, config).await?;
            if new.template != name {
                let found = new.template;
                return Err(Exit::Usage
                    .with(format!("{} contains the template `{found}`, not `{name}`", file.display())));
            }
            let old = session.client()?.get(&format!("/v1/templates/{}", path_segment(&name))).await?;
            let old: Template = serde_json::from_value(old)?;
            show_diff(session, &json!(template::diff(&old, &new)))
        }
        Command::Schema { config } => {
            let (_, providers) = providers(config).await?;
            session.output.text(&serde_json::to_string_pretty(&template::schema(&providers))?)
        }
        Command::Validate { file, config } => {
            let template = load(&file, config).await?;
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
                Exit::NotFound.with(format!("no such template or version; available: {}", known.join(", ")))
            };
            let template = found.ok_or_else(known)?;
            match session.output.format {
                // Serialized from the template itself: a JSON value would lose the order of the steps.
                super::Format::Json => session.output.text(&serde_json::to_string_pretty(template.as_ref())?),
                _ => session.output.text(&yaml::document(template.as_ref())?),
            }
        }
    }
}

/// Reads and validates a template file; the error lists every invalid field.
async fn load(file: &Path, config: Option<PathBuf>) -> Result<Template> {
    let (_, providers) = providers(config).await?;
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let loaded = template::load(&text, &providers).map_err(|error| {
        let fields = error.errors.iter().map(|field| format!("\n  {}: {}", field.path, field.message));
        Exit::Failure.with(format!("{} is not valid:{}", file.display(), fields.collect::<String>()))
    })?;
    Ok(loaded.template)
}

/// Prints a line for each change: `+` added, `-` removed, `~` changed.
fn show_diff(session: &Session, diff: &Value) -> Result<()> {
    if session.output.format != super::Format::Table {
        return session.output.value(diff);
    }
    let diff: TemplateDiff = serde_json::from_value(diff.clone())?;
    let nothing = if diff.changes.is_empty() { ": no changes for tenants" } else { "" };
    eprintln!("{}, version {} → {}{nothing}", diff.template, diff.from, diff.to);
    for change in &diff.changes {
        let (old, new) = (plain(change.old.as_ref()), plain(change.new.as_ref()));
        session.output.text(&match change.change {
            ChangeKind::Added => format!("+ {}: {new}", change.path),
            ChangeKind::Removed => format!("- {}: {old}", change.path),
            ChangeKind::Changed => format!("~ {}: {old} → {new}", change.path),
        })?;
    }
    Ok(())
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

async fn providers(config: Option<PathBuf>) -> Result<(Config, Registry)> {
    let config = Config::load(config.as_deref()).map_err(|faults| Exit::Usage.with(faults))?;
    let url = config.url(config.listen.parse().context("listen")?);
    let providers = config::build(&config, &url).await?;
    Ok((config, providers))
}
