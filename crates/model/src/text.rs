//! What texts of people may contain, whether a request, an archive or a file has them.

/// Longest name of a person, in characters.
pub const MAX_PERSON_NAME: usize = 100;
/// Longest reason of a request, in characters.
pub const MAX_REASON: usize = 500;
/// Longest e-mail address, in bytes.
pub const MAX_EMAIL: usize = 254;

/// Keeps the letters before and after it apart, which some scripts need to tell words from each other.
const NON_JOINER: char = '\u{200c}';
/// Joins the letters or symbols before and after it.
const JOINER: char = '\u{200d}';
/// Shows the symbol before it as an emoji.
const AS_EMOJI: char = '\u{fe0f}';

/// Whether a text is a line of visible characters and spaces; it may be empty. Characters that are not seen would make two
/// texts look alike, or hide a part of one. Joiners are allowed where they are seen: between letters of a script that needs
/// them (Unicode Standard Annex 31, §2.3) and between symbols.
pub fn is_readable(text: &str) -> bool {
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let is_seen = match c {
            NON_JOINER | JOINER => characters.peek().is_some_and(|after| is_joined(before, *after)),
            AS_EMOJI => is_symbol(before),
            c => !c.is_control() && !is_ignorable(c),
        };
        if !is_seen {
            return false;
        }
        before = c;
    }
    true
}

/// Why a text is not a line that people can read; none if it is one.
pub fn line_fault(text: &str) -> Option<&'static str> {
    if !is_readable(text) {
        Some("must not contain control or invisible characters")
    } else if text.trim().is_empty() {
        Some("must not be blank")
    } else {
        None
    }
}

/// Why a text cannot be the reason of a request; none if it can.
pub fn reason_fault(text: &str) -> Option<&'static str> {
    let fits = text.chars().count() <= MAX_REASON && line_fault(text).is_none();
    (!fits).then_some("is required: 1 to 500 characters, no control or invisible characters")
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
        |c: char| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c) && !is_ignorable(c);
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

/// Whether a joiner between these characters is seen.
fn is_joined(before: char, after: char) -> bool {
    let script = |c: char| match c {
        // Arabic, Syriac, Thaana, N'Ko.
        '\u{600}'..='\u{8ff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' => Some(0),
        // The scripts of India, a block of 128 each.
        '\u{900}'..='\u{dff}' => Some(u32::from(c) / 128),
        // Myanmar, Khmer, Mongolian.
        '\u{1000}'..='\u{109f}' => Some(1),
        '\u{1780}'..='\u{17ff}' => Some(2),
        '\u{1800}'..='\u{18af}' => Some(3),
        _ => None,
    };
    script(before).is_some() && script(before) == script(after)
        || is_symbol(after) && (is_symbol(before) || before == AS_EMOJI)
}

/// Whether this is in the blocks of symbols that emoji are made of.
fn is_symbol(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

/// Characters that change a text without being seen: Unicode's property Default_Ignorable_Code_Point (17.0), the
/// separators of lines and paragraphs, and the blank of Braille.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
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
    fn joiners_are_allowed_where_they_are_seen() {
        for good in [
            "",
            "Acme",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "👩\u{200d}💻 Studio",
            "❤\u{fe0f}",
            "❤\u{fe0f}\u{200d}🔥",
        ] {
            assert!(is_readable(good), "{good:?}");
        }
        for bad in [
            "pay\u{200d}pal",
            "\u{200c}a",
            "م\u{200c}",
            "م\u{200c}a",
            "a\u{fe0f}",
            "a\u{2028}b",
            "a\u{85}b",
            "a\u{ad}b",
            "a\u{2800}b",
            "a\u{3164}b",
            "a\u{e0041}",
            "क\u{200d}\u{200d}ष",
            "م\u{200c}क",
        ] {
            assert!(!is_readable(bad), "{bad:?}");
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
