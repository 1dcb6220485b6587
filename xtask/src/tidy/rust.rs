//! Splits Rust source into code, comments and string literals, so that a rule about code does not match text
//! inside a literal. It recognizes only the tokens that can hide a quote; it does not parse.

/// The parts of a source file. Lines count from 1.
#[derive(Debug, Default)]
pub struct Source {
    /// The source with the inside of comments, strings and characters removed; lines stay.
    pub code: String,
    /// Each line of a comment, with its line number.
    pub comments: Vec<(usize, String)>,
    /// The inside of each string literal as it is written, with the line of its opening quote.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    /// First line of the test module at the end of the file; `usize::MAX` without one.
    pub fn first_test_line(&self) -> usize {
        let mut lines = (1..).zip(self.code.lines()).peekable();
        while let Some((number, line)) = lines.next() {
            let module = lines.peek().is_some_and(|(_, next)| next.trim_start().starts_with("mod "));
            if line.trim() == "#[cfg(test)]" && module {
                return number;
            }
        }
        usize::MAX
    }

    /// The code before the test module.
    pub fn product_code(&self) -> String {
        let lines = self.code.lines().take(self.first_test_line().saturating_sub(1));
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// True for a file that holds tests only.
pub fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "tests.rs" | "benches") || part.ends_with("_tests.rs"))
}

/// True when `text` contains `word` with no letter, digit or underscore at either side. A side of `word` that
/// is punctuation needs no boundary.
pub fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = word.starts_with(is_part) && text[..at].ends_with(is_part);
        let after = word.ends_with(is_part) && text[at + word.len()..].starts_with(is_part);
        !before && !after
    })
}

/// Splits a source file.
pub fn split(text: &str) -> Source {
    let mut reader = Reader { rest: text, line: 1, source: Source::default() };
    while let Some(next) = reader.rest.chars().next() {
        if reader.rest.starts_with("//") {
            let end = reader.rest.find('\n').unwrap_or(reader.rest.len());
            reader.comment(end);
        } else if reader.rest.starts_with("/*") {
            let end = block_comment(reader.rest);
            reader.comment(end);
        } else if let Some(hashes) = raw_string(reader.rest, &reader.source.code) {
            let closing = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            let inside = reader.rest[open..].find(&closing).unwrap_or(reader.rest.len() - open);
            reader.string(open, inside, closing.len());
        } else if next == '"' {
            let inside = quoted(&reader.rest[1..], '"');
            reader.string(1, inside, 1);
        } else if let Some(length) = character(reader.rest) {
            reader.take(length);
            reader.source.code.push_str("' '");
        } else {
            let taken = reader.take(next.len_utf8());
            reader.source.code.push_str(taken);
        }
    }
    reader.source
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    source: Source,
}

impl<'a> Reader<'a> {
    /// Advances by `length` bytes, at most to the end.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn comment(&mut self, length: usize) {
        let first = self.line;
        let taken = self.take(length);
        self.source.comments.extend((first..).zip(taken.lines().map(str::to_owned)));
        self.keep_lines(taken);
    }

    fn string(&mut self, open: usize, inside: usize, close: usize) {
        let first = self.line;
        self.take(open);
        let taken = self.take(inside);
        self.take(close);
        self.source.strings.push((first, taken.to_owned()));
        self.source.code.push('"');
        self.keep_lines(taken);
        self.source.code.push('"');
    }

    fn keep_lines(&mut self, taken: &str) {
        self.source.code.extend(std::iter::repeat_n('\n', taken.matches('\n').count()));
    }
}

/// The length of a block comment, nested ones included.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The number of `#` when a raw string opens here. `code` is the code before it: the `r` of `for"…"` ends a
/// word and opens no raw string.
fn raw_string(text: &str, code: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let mut before = code.chars().rev();
    let previous = match before.next() {
        Some('b' | 'c') => before.next(),
        other => other,
    };
    let inside_word = previous.is_some_and(|c| c.is_alphanumeric() || c == '_');
    (after[hashes..].starts_with('"') && !inside_word).then_some(hashes)
}

/// Bytes up to the first unescaped `quote`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at;
        }
    }
    text.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        return Some(quoted(inside, '\'') + 2);
    }
    chars.next().filter(|(_, second)| *second == '\'').map(|(at, _)| at + 2)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn separates_code_from_text() {
        let source = split(
            "let a = \"one \\\" two\"; // three\n/* four /* five */\nsix */ let b = b'\\''; let c: &'a str = r#\"se\"ven\"#;\n",
        );
        assert_eq!(source.strings, [(1, "one \\\" two".to_owned()), (3, "se\"ven".to_owned())]);
        let comments: Vec<_> = source.comments.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(comments, [(1, "// three"), (2, "/* four /* five */"), (3, "six */")]);
        assert_eq!(
            source.code,
            "let a = \"\"; \n\n let b = b' '; let c: &'a str = r\"\";\n".replace("r\"", "\"")
        );
    }

    #[test]
    fn a_quote_as_a_character_opens_no_string() {
        let source = split("if c == '\"' { f('é', '\\u{1F600}') } // end\nlet s = br\"x\";");
        assert_eq!(source.strings, [(2, "x".to_owned())]);
        assert_eq!(source.comments.len(), 1);
    }

    #[test]
    fn broken_source_ends() {
        for text in ["\"open", "r##\"open\"#", "/* open", "'", "'\\", "r#", "\"\\"] {
            split(text);
        }
    }

    #[test]
    fn lines_of_long_strings_count() {
        let source = split("let a = \"one\n two\";\nlet b = \"three\";\n");
        assert_eq!(source.strings, [(1, "one\n two".to_owned()), (3, "three".to_owned())]);
        assert_eq!(source.code.lines().count(), 3);
    }
}
