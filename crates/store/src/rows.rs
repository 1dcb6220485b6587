//! Converts rows to the engine's types. A row that cannot be converted is an error: the registry is damaged, or a newer
//! release has written it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_engine::{Operation, Signal, Step};
use tenantry_model::IdError;

use super::ReadError;
use super::entity::{operation, signal, step};

impl TryFrom<operation::Model> for Operation {
    type Error = ReadError;
    fn try_from(row: operation::Model) -> Result<Self, ReadError> {
        Ok(Self {
            id: parse(&row.id)?,
            subject: row.tenant_id,
            kind: row.kind,
            parent: row.parent_id.as_deref().map(parse).transpose()?,
            state: word(row.state)?,
            version: row.version,
            epoch: row.epoch,
            input: row.input,
            error: row.error.map(serde_json::from_value).transpose()?,
            error_step: row.error_step,
            cancelled: row.cancelled,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            finished_at: row.finished_at.map(Into::into),
            expected_by: row.expected_by.map(Into::into),
            stuck: row.stuck,
            wake_at: row.wake_at.map(Into::into),
            idle: row.idle,
        })
    }
}

impl TryFrom<step::Model> for Step {
    type Error = ReadError;
    fn try_from(row: step::Model) -> Result<Self, ReadError> {
        Ok(Self {
            key: row.key,
            position: row.position,
            kind: row.kind,
            provider: row.provider,
            needs: serde_json::from_value(row.needs)?,
            policy: serde_json::from_value(row.policy)?,
            input: row.input,
            state: word(row.state)?,
            attempts: row.attempts,
            interruptions: row.interruptions,
            failing_since: row.failing_since.map(Into::into),
            due_at: row.due_at.map(Into::into),
            started_at: row.started_at.map(Into::into),
            finished_at: row.finished_at.map(Into::into),
            output: row.output,
            error: row.error.map(serde_json::from_value).transpose()?,
            uncertain: row.uncertain,
            note: row.note,
            child: row.child_id.as_deref().map(parse).transpose()?,
        })
    }
}

impl TryFrom<signal::Model> for Signal {
    type Error = ReadError;
    fn try_from(row: signal::Model) -> Result<Self, ReadError> {
        let kind = serde_json::from_value(row.signal)?;
        Ok(Self { id: parse(&row.id)?, kind, by: row.by, at: row.at.into() })
    }
}

/// Parses a state from its stored word.
fn word<T: DeserializeOwned>(text: String) -> Result<T, ReadError> {
    Ok(serde_json::from_value(Value::String(text))?)
}

/// Parses an id.
pub(super) fn parse<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<T, ReadError> {
    text.parse().map_err(|error| ReadError(format!("{text}: {error}")))
}
