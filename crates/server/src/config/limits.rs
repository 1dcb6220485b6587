//! `[limits]`: what clients may use at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_control::template::Span;

use crate::pace::Pace;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described where people read it, in tenantry.default.toml")]
pub struct Limits {
    pub connections: Connections,
    pub timeouts: Timeouts,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Connections {
    #[schemars(range(min = 1))]
    pub total: usize,
    #[schemars(range(min = 1))]
    pub per_address: usize,
    #[schemars(range(min = 1))]
    pub operators: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Timeouts {
    pub header: Span,
    pub body: Span,
    pub write: Span,
    pub min_bytes_per_second: u32,
}

impl Limits {
    /// These limits in a process that has descriptors for this number of connections.
    pub fn within(mut self, descriptors: usize) -> Self {
        let Connections { total, operators, .. } = &mut self.connections;
        // The reserve and the operators' listener have `operators` each.
        *operators = (*operators).min(descriptors / 4).max(1);
        let most = descriptors.saturating_sub(2 * *operators).max(1);
        if *total > most {
            tracing::warn!(
                total,
                most,
                "fewer connections than configured: the limit of open files is too low"
            );
            *total = most;
        }
        self
    }
}

impl Timeouts {
    /// The pace at which a client has to read.
    pub fn write_pace(&self) -> Pace {
        Pace { window: self.write.duration(), bytes_per_second: self.min_bytes_per_second }
    }

    /// The pace at which a client has to send a body.
    pub fn body_pace(&self) -> Pace {
        Pace { window: self.body.duration(), bytes_per_second: self.min_bytes_per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn connections_leave_file_descriptors_for_everything_else() {
        let limits = Config::read("", []).unwrap().limits;
        let within = |descriptors| {
            let Connections { total, operators, .. } = limits.clone().within(descriptors).connections;
            (total, operators)
        };
        assert_eq!(within(1_000_000), (limits.connections.total, limits.connections.operators));
        assert_eq!(within(1_000), (1_000 - 2 * 128, 128));
        assert_eq!(within(100), (50, 25));
        assert_eq!(within(1), (1, 1));
    }
}
