//! Validation and merging of settings. The provider contract is tested in `tests/it`.

use serde_json::{Value, json};
use tenantry_provider::Provider as _;
use tenantry_provider::kinds::config::ConfigSettings;

use super::{ConfigBuiltin, complete, defaults, map};

#[test]
fn merging_keeps_existing_values() {
    let mut there = map(json!({ "a": false, "own": 1 }));
    assert!(complete(&mut there, map(json!({ "a": true, "b": true }))));
    assert_eq!(Value::Object(there.clone()), json!({ "a": false, "b": true, "own": 1 }));
    assert!(!complete(&mut there, map(json!({ "a": true }))));
}

#[test]
fn quotas_come_only_from_the_plan() {
    let settings = ConfigSettings {
        settings: map(json!({ "quotas": { "seats": 999 }, "date_format": "iso" })),
        quotas: map(json!({ "seats": 5 })),
        ..ConfigSettings::default()
    };
    let (_, values) = defaults(settings);
    assert_eq!(Value::Object(values), json!({ "quotas": { "seats": 5 }, "date_format": "iso" }));
    let faults = ConfigBuiltin::default().check(&json!({ "settings": { "quotas": {} } }));
    assert_eq!(faults.first().map(|fault| fault.path.as_str()), Some("settings.quotas"));
}

#[test]
fn rejects_empty_long_and_unprintable_keys() {
    for key in [String::new(), "a\u{7}".to_owned(), "x".repeat(129)] {
        assert_eq!(ConfigBuiltin::default().check(&json!({ "flags": { key: true } })).len(), 1);
    }
    assert!(
        ConfigBuiltin::default()
            .check(&json!({ "flags": { "beta": true }, "settings": { "x": "y" } }))
            .is_empty()
    );
}
