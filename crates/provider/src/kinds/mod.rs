//! Resource kinds, a file for each: the settings that template and planner set, the outputs that other steps and clients
//! read, and the rules for every provider of the kind.

pub mod billing;
pub mod bucket;
pub mod certificate;
pub mod config;
pub mod custom;
pub mod database;
pub mod dns;
pub mod identity;
pub mod mail;
pub mod namespace;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::verbs::Kind;

/// Settings of a resource kind. In a template they stand beside the step's own keys, and the provider's own settings
/// stand under `with`. The ledger stores both in one object, so a provider's setting must not have the name of one of
/// its kind's.
pub trait KindSettings: Serialize + DeserializeOwned + JsonSchema + Default + Send {
    /// The kind.
    const KIND: Kind;
    /// Names of the settings.
    const KEYS: &'static [&'static str];
}

/// Runs code with the settings type of a kind.
macro_rules! by_kind {
    ($kind:expr, $T:ident => $body:expr) => {
        match $kind {
            Kind::Database => {
                type $T = database::DatabaseSettings;
                $body
            }
            Kind::Bucket => {
                type $T = bucket::BucketSettings;
                $body
            }
            Kind::Namespace => {
                type $T = namespace::NamespaceSettings;
                $body
            }
            Kind::Dns => {
                type $T = dns::DnsSettings;
                $body
            }
            Kind::Certificate => {
                type $T = certificate::CertificateSettings;
                $body
            }
            Kind::Identity => {
                type $T = identity::IdentitySettings;
                $body
            }
            Kind::Config => {
                type $T = config::ConfigSettings;
                $body
            }
            Kind::Billing => {
                type $T = billing::BillingSettings;
                $body
            }
            Kind::Mail => {
                type $T = mail::MailSettings;
                $body
            }
            Kind::Custom => {
                type $T = custom::CustomSettings;
                $body
            }
        }
    };
}

/// Names of the settings of a kind.
pub fn keys(kind: Kind) -> &'static [&'static str] {
    by_kind!(kind, T => T::KEYS)
}

/// JSON Schema of the settings of a kind.
pub fn schema(kind: Kind) -> Value {
    by_kind!(kind, T => schemars::schema_for!(T).to_value())
}

/// Splits a step's settings into those of the kind and those of the provider.
pub fn split(kind: Kind, settings: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let keys = keys(kind);
    settings.clone().into_iter().partition(|(key, _)| keys.contains(&key.as_str()))
}

/// Checks the outputs of a resource; returns the fault, or none if they have all fields of the kind. More fields are
/// allowed.
pub fn outputs_fault(kind: Kind, outputs: &Value) -> Option<String> {
    fn fault<T: DeserializeOwned>(outputs: &Value) -> Option<String> {
        T::deserialize(outputs).err().map(|why| why.to_string())
    }
    match kind {
        Kind::Database => fault::<database::DatabaseOutputs>(outputs),
        Kind::Bucket => fault::<bucket::BucketOutputs>(outputs),
        Kind::Namespace => fault::<namespace::NamespaceOutputs>(outputs),
        Kind::Dns => fault::<dns::DnsOutputs>(outputs),
        Kind::Certificate => fault::<certificate::CertificateOutputs>(outputs),
        Kind::Identity => fault::<identity::IdentityOutputs>(outputs),
        Kind::Config => fault::<config::ConfigOutputs>(outputs),
        Kind::Billing => fault::<billing::BillingOutputs>(outputs),
        Kind::Mail => fault::<mail::MailOutputs>(outputs),
        Kind::Custom => fault::<custom::CustomOutputs>(outputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 10] = [
        Kind::Database,
        Kind::Bucket,
        Kind::Namespace,
        Kind::Dns,
        Kind::Certificate,
        Kind::Identity,
        Kind::Config,
        Kind::Billing,
        Kind::Mail,
        Kind::Custom,
    ];

    #[test]
    fn keys_are_those_of_the_type() {
        for kind in ALL {
            assert_eq!(by_kind!(kind, T => T::KIND), kind);
            let schema = schema(kind);
            let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            let mut keys = keys(kind).to_vec();
            keys.sort_unstable();
            let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
            described.sort_unstable();
            assert_eq!(described, keys, "{kind:?}");
            assert_eq!(schema["additionalProperties"], false, "{kind:?}");
            let empty: Map<String, Value> = Map::new();
            assert!(
                by_kind!(kind, T => serde_json::from_value::<T>(Value::Object(empty)).is_ok()),
                "{kind:?}"
            );
        }
    }
}
