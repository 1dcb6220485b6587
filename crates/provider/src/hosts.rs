//! Normalises host names to the form of DNS and certificates: ASCII, lower case, no trailing dot.

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// Longest name, in bytes.
pub const MAX_NAME: usize = 253;
/// Longest label of a name, in bytes (RFC 1035).
pub const MAX_LABEL: usize = 63;

/// Normalises a host name, with or without a domain.
pub fn name(given: &str) -> Result<String, String> {
    let none = || "is not a host name such as shop.example.com".to_owned();
    // A character has at most four bytes, so a longer text is rejected before parsing.
    if given.len() > 4 * MAX_NAME {
        return Err(none());
    }
    let given = given.strip_suffix('.').unwrap_or(given);
    let parsed = if given.is_ascii() { Name::from_ascii(given) } else { Name::from_utf8(given) };
    let mut name = parsed.map_err(|_| none())?;
    name.set_fqdn(false);
    let host = name.to_ascii().to_ascii_lowercase();
    if host.len() > MAX_NAME || host.parse::<IpAddr>().is_ok() {
        return Err(none());
    }
    host.split('.').try_for_each(check_label)?;
    Ok(host)
}

/// Normalises a host name that must include a domain.
pub fn full_name(given: &str) -> Result<String, String> {
    let name = name(given)?;
    if name.contains('.') {
        Ok(name)
    } else {
        Err("is not a full host name such as shop.example.com".to_owned())
    }
}

/// Validates one label; the error holds the reason.
pub fn check_label(label: &str) -> Result<(), String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let fits = !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(known)
        && !label.starts_with('-')
        && !label.ends_with('-');
    if fits {
        Ok(())
    } else {
        Err(format!(
            "has an invalid label: a label has 1 to {MAX_LABEL} of a-z, 0-9, - and _, without - at its ends"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_names_and_rejects_invalid_ones() {
        for (given, host) in [
            ("Shop.Example.COM.", "shop.example.com"),
            ("localhost", "localhost"),
            ("Müller.example", "xn--mller-kva.example"),
            ("tenant_1.example", "tenant_1.example"),
        ] {
            assert_eq!(name(given).as_deref(), Ok(host), "{given}");
        }
        let long = |count: usize| vec!["a".repeat(62); count].join(".");
        assert_eq!(name(&long(4)).map(|name| name.len()), Ok(251));
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "-a",
            "a-.b",
            "*",
            "*.a.b",
            "127.0.0.1",
            "::1",
            "a/b",
            "a\0b",
            "a\\.b",
            "a@b",
            &long(5),
            &"a".repeat(64),
            &"ä".repeat(64),
            &"a.".repeat(100_000),
        ] {
            assert!(name(bad).is_err(), "{bad:.40}");
        }
        assert!(full_name("localhost").is_err());
    }
}
