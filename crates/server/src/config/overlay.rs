//! Merges the sources of the configuration: the file overrides the defaults, environment variables override
//! both. Reads only the files that variables `…_FILE` name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tenantry_control::FieldError;

/// Prefix of the environment variables.
const PREFIX: &str = "TENANTRY";

/// Overrides values of `under` by those of `over`, table by table.
pub fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// Overrides values of the document by environment variables. Ignores variables that name no setting, because
/// orchestrators set some with the same prefix.
pub fn environment(
    value: &mut Value,
    schema: &Value,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<FieldError> {
    let variables: BTreeMap<String, String> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut faults = Vec::new();
    for leaf in leaves(schema, &[]) {
        let name = format!("{PREFIX}_{}", leaf.path.join("_").to_uppercase());
        let path = leaf.path.join(".");
        let text =
            match (variables.get(&name), variables.get(&format!("{name}_FILE")).filter(|_| leaf.secret)) {
                (Some(_), Some(_)) => {
                    faults.push(FieldError::new(
                        path,
                        format!("is set by {name} and by {name}_FILE: unset one"),
                    ));
                    continue;
                }
                (Some(text), None) => text.clone(),
                (None, Some(file)) => match std::fs::read_to_string(file) {
                    Ok(text) => text.trim().to_owned(),
                    Err(why) => {
                        faults.push(FieldError::new(
                            path,
                            format!("{name}_FILE names {file}, which cannot be read: {why}"),
                        ));
                        continue;
                    }
                },
                (None, None) => continue,
            };
        let given = match leaf.numeric {
            true => text.parse::<u64>().map_or(Value::String(text), Value::from),
            false => Value::String(text),
        };
        let nested = leaf.path.iter().rev().fold(given, |inner, key| json!({ key: inner }));
        merge(value, nested);
    }
    faults
}

/// A key that holds a single value.
struct Leaf {
    path: Vec<String>,
    numeric: bool,
    secret: bool,
}

fn leaves(schema: &Value, path: &[String]) -> Vec<Leaf> {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let each = properties.iter().flat_map(|(key, schema)| {
        let path: Vec<String> = path.iter().chain([key]).cloned().collect();
        let deeper = leaves(schema, &path);
        let kind = schema.get("type");
        let numeric = kind.is_some_and(|kind| kind == "integer");
        if deeper.is_empty() && kind.is_none_or(|kind| kind != "object") {
            vec![Leaf { path, numeric, secret: schema.get("x-secret").is_some() }]
        } else {
            deeper
        }
    });
    each.collect()
}

/// A URL with its passwords hidden: the one before the host, even if it has a slash that should be escaped, and those in the
/// query.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may have a `?` that should be escaped.
    let is_cut = |place: &str| {
        let after_name = place.split_once(':').and_then(|(_, after)| after.split('/').next());
        !place.contains('@')
            && after_name.is_some_and(|it| !place.contains('/') || it.parse::<u16>().is_err())
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) if query.contains('@') && is_cut(place) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            rest.split_at(rest.len() - host.len() + host.find('?').unwrap_or(host.len()))
        }
        Some(_) => rest.split_at(rest.find('?').unwrap_or(rest.len())),
        None => (rest, ""),
    };
    let query = query.strip_prefix('?');
    let place = match place.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{user}:***@{host}"),
        None => place.to_owned(),
    };
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| query.split('&').map(hidden).collect::<Vec<_>>().join("&"));
    format!("{scheme}://{place}{}", query.map(|query| format!("?{query}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> (Value, Vec<FieldError>) {
        let mut value = json!({ "store": { "readers": 4 } });
        let schema = super::super::schema();
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let faults = environment(&mut value, &schema, variables);
        (value, faults)
    }

    #[test]
    fn names_are_paths_in_capitals() {
        let (value, faults) = overlaid(&[
            ("TENANTRY_STORE_READERS", "9"),
            ("TENANTRY_KEYRING_MASTER_KEY_FILE", "/k"),
            ("TENANTRY_SERVICE_HOST", "10.0.0.1"),
            ("STORE_READERS", "1"),
        ]);
        assert_eq!(value, json!({ "store": { "readers": 9 }, "keyring": { "master_key_file": "/k" } }));
        assert!(faults.is_empty());
    }

    #[test]
    fn passwords_of_urls_are_hidden_wherever_they_stand() {
        for (url, shown) in [
            ("postgres://me:hunter2@db:5432/x", "postgres://me:***@db:5432/x"),
            ("postgres://me:hun/ter2@db/x", "postgres://me:***@db/x"),
            ("postgres://me:hun@ter2@db/x", "postgres://me:***@db/x"),
            (
                "postgres://me@db/x?sslmode=require&password=hunter2",
                "postgres://me@db/x?sslmode=require&password=***",
            ),
            ("https://db/x?a=me:b@c", "https://db/x?a=me:b@c"),
            ("no url", "no url"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn secrets_come_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://a:b@c/d\n").unwrap();
        let name = file.path().to_str().unwrap();
        let (value, _) = overlaid(&[("TENANTRY_STORE_URL_FILE", name)]);
        assert_eq!(value["store"]["url"], "postgres://a:b@c/d");
        let (_, faults) = overlaid(&[("TENANTRY_STORE_URL_FILE", name), ("TENANTRY_STORE_URL", "x")]);
        assert_eq!(faults[0].path, "store.url");
        let (_, faults) = overlaid(&[("TENANTRY_KEYRING_URL_FILE", "/nowhere/at/all")]);
        assert_eq!(faults[0].path, "keyring.url");
    }

    #[test]
    fn passwords() {
        assert_eq!(without_password("postgres://u:p@h:1/d?x=@"), "postgres://u:***@h:1/d?x=@");
        assert_eq!(without_password("postgres://u:p:q@r@h/d"), "postgres://u:***@h/d");
        assert_eq!(without_password("postgres://u:p?q@h/d?x=y"), "postgres://u:***@h/d?x=y");
        assert_eq!(without_password("postgres://u:p/r?q@h/d"), "postgres://u:***@h/d");
        assert_eq!(without_password("postgres://h:1/d?mail=a@b"), "postgres://h:1/d?mail=a@b");
        assert_eq!(without_password("sqlite:///a/b.db"), "sqlite:///a/b.db");
    }
}
