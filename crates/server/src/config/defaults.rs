//! The commented tables of the default configuration: written from the provider types, so that it says what holds.

use std::path::Path;

use serde_json::{Map, Value, json};
use tenantry_provider::{BuildContext, ProviderFactory};

use super::DEFAULTS;
use crate::providers::FACTORIES;

/// Everything after this line is written from the provider types.
const BOUNDARY: &str = "# ---- Providers:";
/// Longest line, in characters.
const WIDTH: usize = 110;

const INTRODUCTION: &str = "Each table makes an instance of a provider type: [providers.NAME] with `type = \"…\"`. Any number of \
    instances may have one type; templates, regions and limits name them by NAME. A table that is named as a type needs \
    no `type`: it is the default instance. Every server has the default instances of all types below, unless it says \
    otherwise. Paths of other instances lie in providers/NAME in data_dir. A setting that holds a secret can also be given as \
    TENANTRY_PROVIDERS_NAME_SETTING, or in the file of TENANTRY_PROVIDERS_NAME_SETTING_FILE.";

/// The text, broken into lines that begin so.
fn comment(prefix: &str, text: &str) -> String {
    let mut lines = vec![prefix.to_owned()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() > WIDTH);
        if full {
            lines.push(prefix.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

/// A value in TOML, on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| format!("{} = {}", json!(key), inline(value));
            format!("{{ {} }}", Vec::from_iter(map.iter().map(entry)).join(", "))
        }
        Value::Array(values) => format!("[{}]", Vec::from_iter(values.iter().map(inline)).join(", ")),
        other => other.to_string(),
    }
}

fn table(factory: &ProviderFactory) -> String {
    let mut text = comment("#", &format!("{}.", factory.about)) + "#\n";
    text.push_str(&format!("# [providers.{}]\n", factory.type_name));
    let defaults = (factory.defaults)(&BuildContext {
        public_url: "https://tenantry.example.com".to_owned(),
        ..BuildContext::new(factory.type_name, Path::new("tenantry-data"))
    });
    let schema = (factory.schema)();
    let none = Map::new();
    for (key, setting) in schema.get("properties").and_then(Value::as_object).unwrap_or(&none) {
        let description = setting.get("description").and_then(Value::as_str).unwrap_or_default();
        text.push_str(&comment("# #", description));
        let example = setting.get("examples").and_then(|examples| examples.get(0));
        let values = [defaults.get(key), setting.get("default"), example];
        let value = values.into_iter().flatten().find(|value| !value.is_null() && **value != json!({}));
        text.push_str(&match value {
            Some(value) => format!("# {key} = {}\n", inline(value)),
            None => format!("# # {key} is not set.\n"),
        });
    }
    text
}

/// Generates the text after the boundary: the commented table of each provider type.
fn tables() -> String {
    let tables = FACTORIES.iter().map(table);
    Vec::from_iter(std::iter::once(comment("#", INTRODUCTION)).chain(tables)).join("#\n")
}

#[test]
fn the_defaults_say_what_the_providers_say() {
    let at = DEFAULTS.find(BOUNDARY).expect("the boundary");
    let end = at + DEFAULTS[at..].find('\n').expect("the end of the boundary's line") + 1;
    let (own, given) = DEFAULTS.split_at(end);
    let expected = tables();
    if std::env::var_os("UPDATE_DEFAULTS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tenantry.default.toml");
        std::fs::write(file, format!("{own}{expected}")).unwrap();
        return;
    }
    assert!(given == expected, "write it anew: UPDATE_DEFAULTS=1 cargo test -p tenantry defaults");
}

#[test]
fn every_line_is_toml_once_it_is_no_comment() {
    let uncommented = tables();
    let lines = uncommented.lines().map(|line| line.strip_prefix("# ").unwrap_or_default());
    let settings =
        lines.filter(|line| !line.starts_with('#') && (line.contains(" = ") || line.starts_with('[')));
    let text = Vec::from_iter(settings.filter(|line| !line.contains('…'))).join("\n");
    let parsed: Result<toml::Table, _> = toml::from_str(&text);
    assert!(parsed.is_ok(), "{parsed:?}\n{text}");
}
