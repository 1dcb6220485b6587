//! Takes personal data out of what a command or another service says, before it becomes a failure, an output or a
//! receipt. They were told it to do their work; the ledger must not hold it.

use serde_json::Value;

use tenantry_provider::verbs::Tenant;

const GAP: &str = "[redacted]";
/// Longest line of a message, in characters.
const MAX_LINE: usize = 300;

/// One line for people: without control characters, of bounded length, without e-mail address and names.
pub fn line(text: &str, tenant: &Tenant) -> String {
    let admin = &tenant.admin;
    let personal =
        [Some(&admin.email), Some(&tenant.name), admin.first_name.as_ref(), admin.last_name.as_ref()];
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = personal.into_iter().flatten().fold(plain, |text, word| without(&text, word));
    clean.trim().chars().take(MAX_LINE).collect()
}

/// A document for programs: without the e-mail address. A name may be part of a host or a path that somebody needs.
pub fn document(value: Value, tenant: &Tenant) -> Value {
    match value {
        Value::String(text) => Value::String(without(&text, &tenant.admin.email)),
        Value::Array(values) => values.into_iter().map(|value| document(value, tenant)).collect(),
        Value::Object(map) => {
            let entry =
                |(key, value): (String, Value)| (without(&key, &tenant.admin.email), document(value, tenant));
            Value::Object(map.into_iter().map(entry).collect())
        }
        other => other,
    }
}

/// The text without the word, where it stands alone, in whichever case.
fn without(text: &str, word: &str) -> String {
    let word = word.trim();
    if word.chars().count() < 2 {
        return text.to_owned();
    }
    // ASCII case only: the places stay the same.
    let (lower, needle) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for (at, found) in lower.match_indices(&needle) {
        let end = at + found.len();
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(end..).and_then(|after| after.chars().next());
        if ![before, after].into_iter().flatten().any(char::is_alphanumeric) {
            clean.push_str(text.get(from..at).unwrap_or_default());
            clean.push_str(GAP);
            from = end;
        }
    }
    clean.push_str(text.get(from..).unwrap_or_default());
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tenantry_model::TenantId;
    use tenantry_provider::verbs::Person;

    fn tenant() -> Tenant {
        Tenant {
            id: TenantId::new(),
            slug: "max".into(),
            name: "Max & Söhne".into(),
            plan: String::new(),
            region: String::new(),
            locale: String::new(),
            admin: Person {
                email: "max@example.com".into(),
                first_name: Some("Max".into()),
                last_name: Some("M".into()),
                role: String::new(),
            },
        }
    }

    #[test]
    fn lines() {
        for (text, clean) in [
            ("no such user: MAX@example.com!", "no such user: [redacted]!"),
            ("Max & Söhne: quota", "[redacted]: quota"),
            ("dear Max,\u{1b}[31m\r\n", "dear [redacted], [31m"),
            ("max_connections is Maximal for M", "[redacted]_connections is Maximal for M"),
            ("", ""),
        ] {
            assert_eq!(line(text, &tenant()), clean);
        }
        assert_eq!(line(&"ä".repeat(1000), &tenant()).chars().count(), 300);
    }

    #[test]
    fn documents_keep_what_others_need() {
        let value =
            json!({ "host": "max.example.com", "owner": ["mailto:max@example.com"], "max@example.com": 1 });
        let clean = json!({ "host": "max.example.com", "owner": ["mailto:[redacted]"], "[redacted]": 1 });
        assert_eq!(document(value, &tenant()), clean);
    }
}
