//! `tenantry event`: lists and streams events in order.

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::output::Column;
use super::{Format, Session, yaml};

const COLUMNS: [Column; 5] =
    [("SEQ", "/seq"), ("AT", "/at"), ("TYPE", "/type"), ("TENANT", "/tenant_id"), ("DATA", "/data")];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List events, oldest first
    List {
        /// Start after this sequence number
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: i64,
        /// Maximum number of events
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Stream events, one per line
    Watch {
        /// Start after this sequence number
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: i64,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    match command {
        Command::List { after, limit } => {
            let mut after = after;
            let mut events: Vec<Value> = Vec::new();
            while events.len() < limit {
                let page_limit = (limit - events.len()).min(100);
                let page = client.get(&format!("/v1/events?limit={page_limit}&cursor={after}")).await?;
                let Some(data) = page.get("data").and_then(Value::as_array).filter(|data| !data.is_empty())
                else {
                    break;
                };
                after = data.last().and_then(|event| event.get("seq")?.as_i64()).unwrap_or(after);
                events.extend(data.iter().cloned());
            }
            session.output.list(&events, &COLUMNS)
        }
        Command::Watch { after } => {
            client
                .follow_events(after, |event| match session.output.format {
                    Format::Json => session.output.text(&event.to_string()),
                    Format::Yaml => session.output.text(&format!("---\n{}", yaml::document(event)?)),
                    Format::Table => {
                        let text =
                            |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or("-").to_owned();
                        let seq = event.get("seq").and_then(Value::as_i64).unwrap_or_default();
                        session.output.text(&format!(
                            "{seq}  {}  {}  {}",
                            text("/at"),
                            text("/type"),
                            text("/tenant_id")
                        ))
                    }
                })
                .await
        }
    }
}
