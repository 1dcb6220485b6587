//! Removes personal data from the text and JSON that commands and other services return. They receive it in
//! the request; the ledger must not store it in failures, outputs or receipts.

use serde_json::Value;

use tenantry_provider::verbs::Tenant;

const REDACTED: &str = "[redacted]";
/// Longest line of a message, in characters.
const MAX_LINE: usize = 300;

/// Reduces a message to one line of bounded length without control characters, and redacts the tenant's name
/// and its administrator's names and e-mail address.
pub fn line(text: &str, tenant: &Tenant) -> String {
    let admin = &tenant.admin;
    let personal =
        [Some(&admin.email), Some(&tenant.name), admin.first_name.as_ref(), admin.last_name.as_ref()];
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = personal.into_iter().flatten().fold(plain, |text, word| redact_word(&text, word));
    clean.trim().chars().take(MAX_LINE).collect()
}

/// Redacts the administrator's e-mail address in a JSON document. Names stay: they may be part of a host or
/// path.
pub fn document(value: Value, tenant: &Tenant) -> Value {
    match value {
        Value::String(text) => Value::String(redact_word(&text, &tenant.admin.email)),
        Value::Array(values) => values.into_iter().map(|value| document(value, tenant)).collect(),
        Value::Object(map) => {
            let entry = |(key, value): (String, Value)| {
                (redact_word(&key, &tenant.admin.email), document(value, tenant))
            };
            Value::Object(map.into_iter().map(entry).collect())
        }
        other => other,
    }
}

/// Redacts a word in a text where it stands alone, in any case.
fn redact_word(text: &str, word: &str) -> String {
    let word = word.trim();
    if word.chars().count() < 2 {
        return text.to_owned();
    }
    // ASCII case only, so that byte offsets stay the same.
    let (lower, needle) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for (at, found) in lower.match_indices(&needle) {
        let end = at + found.len();
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(end..).and_then(|after| after.chars().next());
        if ![before, after].into_iter().flatten().any(char::is_alphanumeric) {
            clean.push_str(text.get(from..at).unwrap_or_default());
            clean.push_str(REDACTED);
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
    fn lines_lose_names_addresses_and_control_characters() {
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
    fn documents_lose_the_address_and_keep_names() {
        let value =
            json!({ "host": "max.example.com", "owner": ["mailto:max@example.com"], "max@example.com": 1 });
        let clean = json!({ "host": "max.example.com", "owner": ["mailto:[redacted]"], "[redacted]": 1 });
        assert_eq!(document(value, &tenant()), clean);
    }
}
