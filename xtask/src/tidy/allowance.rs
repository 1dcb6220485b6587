//! Allowances: how many findings of a rule a folder may still have. A number may only shrink, so a rule can
//! apply to new code before the last old finding is fixed. It judges findings; it never looks for any.

use super::{File, Finding};

/// The file of the allowances: `rule count path`, one a line; `#` begins a comment.
pub const FILE: &str = "xtask/src/tidy/allowances.txt";

/// Findings shown of a folder that has too many; the new one may be any of them.
const SHOWN: usize = 20;

/// One line of the file.
enum Line {
    Allowance {
        rule: String,
        allowed: usize,
        path: String,
        found: usize,
    },
    /// A comment, an empty line, or one that cannot be read.
    Other {
        text: String,
    },
}

/// The allowances, and after `apply` also what was found.
pub struct Allowances {
    lines: Vec<Line>,
}

impl Allowances {
    /// Reads the allowances from the files of the repository; without their file nothing is allowed.
    pub fn read(files: &[File]) -> Self {
        let text = files.iter().find(|file| file.path == FILE).map_or("", |file| &file.text);
        let lines = text.lines().map(|text| {
            let fields: Vec<&str> = text.split_whitespace().collect();
            match fields.as_slice() {
                [rule, count, path] if !rule.starts_with('#') => match count.parse() {
                    Ok(allowed) => Line::Allowance {
                        rule: (*rule).to_owned(),
                        allowed,
                        path: (*path).to_owned(),
                        found: 0,
                    },
                    Err(_) => Line::Other { text: text.to_owned() },
                },
                _ => Line::Other { text: text.to_owned() },
            }
        });
        Self { lines: lines.collect() }
    }

    /// Drops the findings of a rule that are allowed. Each counts for the longest path that contains its
    /// file.
    pub fn apply(&mut self, rule: &str, findings: Vec<Finding>) -> Vec<Finding> {
        let mut kept = Vec::new();
        let mut counted: Vec<(usize, Vec<Finding>)> = Vec::new();
        for finding in findings {
            let Some(index) = self.index(rule, &finding.path) else {
                kept.push(finding);
                continue;
            };
            match counted.iter_mut().find(|(known, _)| *known == index) {
                Some((_, of_folder)) => of_folder.push(finding),
                None => counted.push((index, vec![finding])),
            }
        }
        for (index, mut of_folder) in counted {
            let Line::Allowance { allowed, path, found, .. } = &mut self.lines[index] else { continue };
            *found = of_folder.len();
            if *found > *allowed {
                let fix = format!(
                    "{path} has {found} findings of `{rule}` and may have {allowed}: fix the new ones"
                );
                of_folder.truncate(SHOWN);
                kept.append(&mut of_folder);
                kept.push(Finding::new(FILE, index + 1, "more findings than allowed", fix));
            }
        }
        kept
    }

    /// Findings about the file itself: lines that cannot be read, and numbers that are too high. Call after
    /// every `apply`.
    pub fn check(&self) -> Vec<Finding> {
        let lines = (1..).zip(&self.lines);
        lines
            .filter_map(|(number, line)| match line {
                Line::Allowance { found, allowed, .. } if found < allowed => {
                    let fix = match found {
                        0 => "delete the line".to_owned(),
                        found => format!("set it to {found}"),
                    };
                    let fix = format!("{fix}; `cargo xtask tidy --lower` does it for every line");
                    Some(Finding::new(FILE, number, "an allowance that is too high", fix))
                }
                Line::Other { text } if !text.is_empty() && !text.starts_with('#') => Some(Finding::new(
                    FILE,
                    number,
                    "an allowance that cannot be read",
                    "write `rule count path`",
                )),
                Line::Allowance { .. } | Line::Other { .. } => None,
            })
            .collect()
    }

    /// The file with each number lowered to what was found, and without those that became 0.
    pub fn lowered(&self) -> String {
        let lines = self.lines.iter().filter_map(|line| match line {
            Line::Allowance { found: 0, .. } => None,
            Line::Allowance { rule, allowed, path, found } => {
                Some(format!("{rule} {} {path}\n", allowed.min(found)))
            }
            Line::Other { text } => Some(format!("{text}\n")),
        });
        lines.collect()
    }

    fn index(&self, rule: &str, path: &str) -> Option<usize> {
        let matching = self.lines.iter().enumerate().filter_map(|(index, line)| match line {
            Line::Allowance { rule: of, path: folder, .. } if of == rule && contains(folder, path) => {
                Some((folder.len(), index))
            }
            Line::Allowance { .. } | Line::Other { .. } => None,
        });
        matching.max().map(|(_, index)| index)
    }
}

fn contains(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::{File, Finding, short};
    use super::{Allowances, FILE};

    fn allowances(text: &str) -> Allowances {
        Allowances::read(&[File::new(FILE, text)])
    }

    fn findings(paths: &[&str]) -> Vec<Finding> {
        paths.iter().map(|path| Finding::new(path, 7, "a word", "")).collect()
    }

    #[test]
    fn accepts_exactly_what_is_allowed() {
        let mut allowed = allowances("# comment\n\nwords 2 crates/a\nwords 1 crates/a/b\ncode 1 crates/a\n");
        let found = findings(&["crates/a/x.rs", "crates/a/b/x.rs", "crates/a/c/x.rs"]);
        assert!(allowed.apply("words", found).is_empty());
        assert!(allowed.apply("code", findings(&["crates/a/x.rs"])).is_empty());
        assert!(allowed.check().is_empty());
    }

    #[test]
    fn refuses_more_than_is_allowed_and_what_has_no_allowance() {
        let mut allowed = allowances("words 1 crates/a\n");
        assert_eq!(short(&allowed.apply("words", findings(&["crates/ab/x.rs"]))), ["7: a word"]);
        let found = allowed.apply("words", findings(&["crates/a/x.rs", "crates/a/y.rs"]));
        assert_eq!(short(&found), ["7: a word", "7: a word", "1: more findings than allowed"]);
    }

    #[test]
    fn refuses_a_number_that_is_too_high_and_lowers_it() {
        let mut allowed = allowances("# why\nwords 3 crates/a\nwords 1 crates/b\n");
        assert!(allowed.apply("words", findings(&["crates/a/x.rs"])).is_empty());
        let checked = allowed.check();
        assert_eq!(short(&checked), ["2: an allowance that is too high", "3: an allowance that is too high"]);
        assert!(checked[0].fix.starts_with("set it to 1;") && checked[1].fix.starts_with("delete the line;"));
        assert_eq!(allowed.lowered(), "# why\nwords 1 crates/a\n");
    }

    #[test]
    fn refuses_a_line_that_cannot_be_read() {
        assert_eq!(short(&allowances("words crates/a\n").check()), ["1: an allowance that cannot be read"]);
    }
}
