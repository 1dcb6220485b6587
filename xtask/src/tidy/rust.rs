//! Splits Rust source into code, comments and string literals, so that a rule about code is not fooled by
//! a word in a text. It knows just the tokens that can hide a quote; it does not parse.

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
    /// Moves on by so many bytes, at most to the end.
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

/// The length of a block comment, which may hold others.
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

/// The number of `#` when a raw string opens here. `code` is what stands before: in `for"…"`, which no
/// formatter leaves so, `r` would be the end of a word.
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

/// Bytes up to the closing quote that no backslash escapes.
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
