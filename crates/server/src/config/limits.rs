//! `[limits]`: what clients may use at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_control::template::Span;

use crate::api::Kind;
use crate::pace::Pace;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described where people read it, in tenantry.default.toml")]
pub struct Limits {
    pub connections: Connections,
    pub timeouts: Timeouts,
    pub requests: Requests,
    pub streams: Streams,
    pub uploads: Transfers,
    pub downloads: Transfers,
    pub rate: Rate,
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

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Requests {
    #[schemars(range(min = 1))]
    pub per_address: usize,
    #[schemars(range(min = 1))]
    pub per_key: usize,
    #[schemars(range(min = 1))]
    pub per_tenant: usize,
    #[schemars(range(min = 2))]
    pub total: usize,
    #[schemars(range(min = 2))]
    pub operators: usize,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Streams {
    #[schemars(range(min = 1))]
    pub per_key: usize,
    #[schemars(range(min = 1))]
    pub per_tenant: usize,
    #[schemars(range(min = 2))]
    pub total: usize,
    #[schemars(range(min = 2))]
    pub operators: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Transfers {
    #[schemars(range(min = 1))]
    pub per_tenant: usize,
    #[schemars(range(min = 2))]
    pub total: usize,
    #[schemars(range(min = 2))]
    pub operators: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as above")]
pub struct Rate {
    #[schemars(range(min = 1))]
    pub per_address: u32,
    #[schemars(range(min = 1))]
    pub per_key: u32,
    #[schemars(range(min = 1))]
    pub per_tenant: u32,
}

/// The most in flight of one kind: of one client, key and tenant, of all of them, and of operators.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Of one client without a credential.
    pub per_address: usize,
    /// Of one tenant's key or member.
    pub per_key: usize,
    /// Of one tenant.
    pub per_tenant: usize,
    /// Of all of these.
    pub total: usize,
    /// Of operators' keys.
    pub operators: usize,
}

impl Share {
    /// Of one operator's key: it leaves a quarter to the others.
    pub fn per_operator(&self) -> usize {
        (self.operators * 3 / 4).max(1)
    }
}

impl Limits {
    /// The shares of this kind. No client and no tenant has more than half of the total.
    pub fn shares(&self, kind: Kind) -> Share {
        let none = usize::MAX;
        let (per_address, per_key, per_tenant, total, operators) = match kind {
            Kind::Requests => {
                let Requests { per_address, per_key, per_tenant, total, operators } = self.requests;
                (per_address, per_key, per_tenant, total, operators)
            }
            Kind::Streams => {
                let Streams { per_key, per_tenant, total, operators } = self.streams;
                (none, per_key, per_tenant, total, operators)
            }
            Kind::Uploads | Kind::Downloads => {
                let transfers = if kind == Kind::Uploads { &self.uploads } else { &self.downloads };
                (none, none, transfers.per_tenant, transfers.total, transfers.operators)
            }
        };
        let half = (total / 2).max(1);
        let (per_address, per_tenant) = (per_address.min(half), per_tenant.min(half));
        Share { per_address, per_key, per_tenant, total, operators }
    }

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
