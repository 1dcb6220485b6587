//! Which names of tenants are one: those that differ in case, spaces or form only, or that look alike.

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;

/// The form of a name that is compared: compatibility forms are one (NFKC), lower case, single spaces, and the first of the
/// characters that look alike (Unicode Technical Standard 39, §4), such as the Latin for a Cyrillic letter.
pub fn comparable(name: &str) -> String {
    let name = name.nfkc().collect::<String>().to_lowercase();
    let words: Vec<String> = name.split_whitespace().map(|word| skeleton(word).collect()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_one() {
        for (one, other) in [
            ("Acme  Inc", " acme inc"),
            ("Zo\u{eb}", "Zoe\u{308}"),
            ("paypal", "p\u{430}yp\u{430}l"),
            ("Ａｃｍｅ", "acme"),
            ("ﬁnance", "finance"),
            ("Straße", "STRAẞE"),
        ] {
            assert_eq!(comparable(one), comparable(other), "{one} and {other}");
        }
        for (one, other) in [("Acme", "Acme 2"), ("Müller", "Muller"), ("東京", "京都"), ("Mali", "Mall")]
        {
            assert_ne!(comparable(one), comparable(other), "{one} and {other}");
        }
    }
}
