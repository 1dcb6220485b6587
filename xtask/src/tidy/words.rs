//! Rule for words: the tree uses one word per idea, names the actor of a sentence, and refers to no document
//! outside the repository. It reads prose and names alike; an underscore separates words.

use super::{File, Finding};

/// Files that people read.
const READ: [&str; 4] = [".rs", ".md", ".toml", ".yaml"];

/// Refused words and phrases, in lower case, and what to write instead. One that stands alone between quotes,
/// backticks or colons is a name and is accepted.
const WORDS: [(&str, &str); 43] = [
    ("nobody", ACTOR),
    ("somebody", ACTOR),
    ("anybody", ACTOR),
    ("everybody", ACTOR),
    ("whoever", ACTOR),
    ("whomever", ACTOR),
    ("ours", "name the owner: this crate, this process, Tenantry"),
    ("makes it so", RECONCILE),
    ("make it so", RECONCILE),
    ("made so", RECONCILE),
    ("makes so", RECONCILE),
    ("makes it not so", "write: deletes it"),
    ("make it not so", "write: deletes it"),
    ("put right", RECONCILE),
    ("puts right", RECONCILE),
    ("mend", RECONCILE),
    ("mends", RECONCILE),
    ("mended", RECONCILE),
    ("lets nobody in", "write: denies access"),
    ("who comes in", SIGN_IN),
    ("comes in", SIGN_IN),
    ("come in", SIGN_IN),
    ("coming in", SIGN_IN),
    ("way in", SIGN_IN),
    ("past tenantry", "write: direct database access, database login"),
    ("home of nobody", WARM),
    ("spare", WARM),
    ("spares", WARM),
    ("undo by need", "write: compensation"),
    ("farewell", "write: offboard, offboarding"),
    ("bulletin", NOTIFIER),
    ("deaf", NOTIFIER),
    ("deed", "write: event, audit record"),
    ("deeds", "write: event, audit record"),
    ("packer", ARCHIVE),
    ("shelf", ARCHIVE),
    ("outlet", ARCHIVE),
    ("inlet", ARCHIVE),
    ("lanes", "write: concurrency limit"),
    ("grade", "write: mode"),
    ("grades", "write: modes"),
    ("chores", "write: background tasks"),
    ("over there", "name the other side: the provider, the server"),
];

const ACTOR: &str = "name the actor: the client, the caller, the operator, the leader, the provider";
const RECONCILE: &str = "write: create, update, reconcile, repair";
const SIGN_IN: &str = "write: sign in, sign-in method, allow access";
const WARM: &str = "write: warm database, warm pool";
const NOTIFIER: &str = "write: notifier, notification";
const ARCHIVE: &str = "write: archive, archive store, export, restore, import";

const REFERENCE: &str = "a reference to a document outside the repository";

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    // This file names the words itself.
    let this = file.path == "xtask/src/tidy/words.rs";
    if this || !READ.iter().any(|ending| file.path.ends_with(ending)) {
        return findings;
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        let lower = line.to_ascii_lowercase().replace('_', " ");
        for (word, instead) in WORDS {
            for _ in prose(&lower, word) {
                let fix = format!("`{word}`: {instead}");
                findings.push(Finding::new(&file.path, number, "a word that this tree does not use", fix));
            }
        }
        for reference in references(line) {
            let fix = format!("`{reference}`: state the reason itself, or link to a page of docs/decisions");
            findings.push(Finding::new(&file.path, number, REFERENCE, fix));
        }
    }
    findings
}

/// Places of a word in a line, without those inside other words and those quoted as a name.
fn prose<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    line.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = line[..*at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let inside = [before, after].iter().flatten().any(|c| c.is_alphabetic());
        let quoted = before == after && matches!(before, Some('"' | '`' | ':'));
        !inside && !quoted
    })
}

/// References such as `S0.37`, `trap T4`, `(C11)` and `design §4`.
fn references(line: &str) -> Vec<String> {
    let mut found: Vec<String> =
        line.match_indices("design §").map(|(at, _)| shown(&line[at..], 9)).collect();
    let tokens =
        line.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).filter(|it| !it.is_empty());
    found.extend(tokens.filter(|token| is_requirement(token)).map(str::to_owned));
    for (at, c) in line.match_indices(['T', 'C']) {
        let digits = line[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let rest = &line[at + 1 + digits..];
        if !matches!(digits, 1 | 2) || rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let before = line[..at].to_ascii_lowercase();
        let named = ["trap ", "traps ", "conflict ", "conflicts "].iter().any(|word| before.ends_with(word));
        let in_brackets = before.ends_with('(') && rest.starts_with([')', ',']);
        if named || in_brackets {
            found.push(format!("{c}{}", &line[at + 1..at + 1 + digits]));
        }
    }
    found
}

/// `S0.37`, also with a range or a full stop behind it.
fn is_requirement(token: &str) -> bool {
    let Some((major, minor)) = token.strip_prefix('S').and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    !major.is_empty()
        && major.bytes().all(|b| b.is_ascii_digit())
        && minor.starts_with(|c: char| c.is_ascii_digit())
}

fn shown(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::{REFERENCE, WORDS, check};

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&File::new(path, text)))
    }

    #[test]
    fn refuses_each_word_in_prose_and_in_names() {
        for (word, _) in WORDS {
            let shouted = word.to_uppercase();
            let name = word.replace(' ', "_");
            for text in [format!("// {word}."), format!("{shouted} knows"), format!("fn f_{name}_g() {{}}")] {
                assert!(!found("a.rs", &text).is_empty(), "{text}");
            }
            assert!(!found("a.md", word).is_empty());
            assert!(found("a.sql", word).is_empty());
        }
    }

    #[test]
    fn accepts_words_inside_others_and_quoted_names() {
        for text in ["hours, yours; upgrades", "chown \"nobody\"", "the account `nobody`", "a spared step"] {
            assert!(found("a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn refuses_references_to_other_documents() {
        let requirement = format!("S{}", "0.37");
        for text in [
            format!("// see {requirement}-40."),
            format!("({requirement})"),
            format!("design {}4", '§'),
            format!("trap {}4 again", 'T'),
            format!("as ({}11) says", 'C'),
            format!("({}1, {}2)", 'T', 'T'),
        ] {
            assert_eq!(found("a.rs", &text), [format!("1: {REFERENCE}")], "{text}");
        }
        for text in ["AWS4.2", "S3.x", "fn f<T1>(a: T1)", "RFC 9110 §15", "JS0.3", "UTC12"] {
            assert!(found("a.rs", text).is_empty(), "{text}");
        }
    }
}
