//! What can be said and what is merged. The provider's contract is tested in `tests/it`.

use super::*;

#[test]
fn what_is_there_is_kept() {
    let mut there = map(&json!({ "flags": { "a": false, "own": 1 } }), "flags");
    assert!(complete(&mut there, map(&json!({ "f": { "a": true, "b": true } }), "f")));
    assert_eq!(Value::Object(there.clone()), json!({ "a": false, "b": true, "own": 1 }));
    assert!(!complete(&mut there, map(&json!({ "f": { "a": true } }), "f")));
}

#[test]
fn quotas_come_from_the_plan_alone() {
    let settings = Settings {
        settings: map(&json!({ "s": { "quotas": { "seats": 999 }, "date_format": "iso" } }), "s"),
        quotas: map(&json!({ "q": { "seats": 5 } }), "q"),
        ..Settings::default()
    };
    let (_, values) = defaults(settings);
    assert_eq!(Value::Object(values), json!({ "quotas": { "seats": 5 }, "date_format": "iso" }));
    let faults = ConfigBuiltin::default().check(&json!({ "settings": { "quotas": {} } }));
    assert_eq!(faults.first().map(|fault| fault.path.as_str()), Some("settings.quotas"));
}

#[test]
fn names_that_nobody_could_type() {
    for key in [String::new(), "a\u{7}".to_owned(), "x".repeat(129)] {
        assert_eq!(ConfigBuiltin::default().check(&json!({ "flags": { key: true } })).len(), 1);
    }
    assert!(
        ConfigBuiltin::default()
            .check(&json!({ "flags": { "beta": true }, "settings": { "x": "y" } }))
            .is_empty()
    );
}
