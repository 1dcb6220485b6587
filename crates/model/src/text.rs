//! What texts of people may contain, whether a request, an archive or a file has them.

/// Longest name of a person, in characters.
pub const MAX_PERSON_NAME: usize = 100;
/// Longest e-mail address, in bytes.
pub const MAX_EMAIL: usize = 254;

/// Why a text is not a line that people can read; none if it is one.
pub fn line_fault(text: &str) -> Option<&'static str> {
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        Some("must not contain control or invisible characters")
    } else if text.trim().is_empty() {
        Some("must not be blank")
    } else {
        None
    }
}

/// Whether this can be a person's given or family name.
pub fn is_person_name(text: &str) -> bool {
    text.chars().count() <= MAX_PERSON_NAME && line_fault(text).is_none()
}

/// Whether this is an e-mail address to which a message can be sent (RFC 5321 §4.1.2 without quoted local parts and address
/// literals).
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let atom =
        |c: char| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c) && !is_invisible(c);
    text.len() <= MAX_EMAIL
        && !local.is_empty()
        && local.len() <= 64
        && local.chars().all(atom)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && domain.len() <= 253
        && domain.split('.').all(|label| {
            !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
}

/// Characters that change how text looks without being seen: bidirectional overrides, zero-width, byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_no_second_header() {
        for good in ["a@b", "ada.l@example.com", "ü@exämple.de", "a+b@x-y.io", "o'neil@x"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@{}com", "a".repeat(64), "b.".repeat(100));
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a@b..c",
            "a@b@c",
            "a\n@b",
            "a@b\r\nBcc: c@d",
            ".a@b",
            "a,b@c",
            "a@[1.2.3.4]",
            "a@b\u{200b}",
            "a\u{200b}@b",
            &long,
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn names_are_one_visible_line() {
        assert!(is_person_name("Zoë O'Neil-李"));
        for bad in ["", "  ", "a\nb", "a\u{202e}b", &"x".repeat(101)] {
            assert!(!is_person_name(bad), "{bad:?}");
        }
    }
}
