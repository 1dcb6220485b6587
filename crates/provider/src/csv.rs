//! Reads and writes tables as CSV (RFC 4180, as PostgreSQL's COPY does). Lines end in a line feed; the first
//! one names the columns. An empty field is NULL, `""` is the empty text, bytes are `\x` and hexadecimal
//! digits. Texts are quoted and numbers are not, so that types survive where columns have none.

use tenantry_model::Failure;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::transfer::{Sink, Tally, bad_archive, broken};

/// Bytes after which a table continues in another file.
const MAX_PART: usize = 4 << 20;
/// Longest accepted row, in bytes.
const MAX_ROW: usize = 256 << 20;

/// A field as written in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// NULL: an empty field without quotes.
    Null,
    /// A field without quotes.
    Bare(String),
    /// A field in quotes.
    Quoted(String),
}

impl Field {
    /// The text, quoted or not; none for NULL.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bare(text) | Self::Quoted(text) => Some(text),
        }
    }
}

/// Appends a quoted text.
pub fn quote(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    for piece in text.split_inclusive('"') {
        line.extend(piece.as_bytes());
        if piece.ends_with('"') {
            line.push(b'"');
        }
    }
    line.push(b'"');
}

/// A line of quoted texts; `None` is NULL.
pub fn line<'a>(fields: impl IntoIterator<Item = Option<&'a str>>) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        if let Some(text) = field {
            quote(&mut line, text);
        }
    }
    line.push(b'\n');
    line
}

/// Appends a row, with the quoting it was read with.
pub fn append(bytes: &mut Vec<u8>, row: &[Field]) {
    for (index, field) in row.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        match field {
            Field::Null => {}
            Field::Bare(text) => bytes.extend(text.bytes()),
            Field::Quoted(text) => quote(bytes, text),
        }
    }
    bytes.push(b'\n');
}

/// Writes one table to a sink, split into files.
pub struct Table<'a> {
    sink: &'a mut dyn Sink,
    tally: &'a mut Tally,
    name: &'a str,
    path: String,
    header: Vec<u8>,
    part: u32,
    bytes: Vec<u8>,
}

impl<'a> Table<'a> {
    /// Starts a table with these columns.
    pub fn new<'b>(
        sink: &'a mut dyn Sink,
        tally: &'a mut Tally,
        name: &'a str,
        columns: impl IntoIterator<Item = &'b str>,
    ) -> Self {
        Self::at(sink, tally, name, path(name), columns)
    }

    /// The same in files whose paths begin with `path`, which no table's encoded name may equal.
    pub fn at<'b>(
        sink: &'a mut dyn Sink,
        tally: &'a mut Tally,
        name: &'a str,
        path: String,
        columns: impl IntoIterator<Item = &'b str>,
    ) -> Self {
        let header = line(columns.into_iter().map(Some));
        tally.open(name);
        Self { sink, tally, name, path, part: 0, bytes: header.clone(), header }
    }

    /// Continues with other columns, in another file.
    pub async fn continue_with<'b>(
        &mut self,
        columns: impl IntoIterator<Item = &'b str> + Send,
    ) -> Result<(), Failure> {
        let header = line(columns.into_iter().map(Some));
        if self.bytes.len() > self.header.len() {
            self.flush().await?;
        }
        self.bytes.clone_from(&header);
        self.header = header;
        Ok(())
    }

    /// Writes a row, given with its line feed.
    pub async fn row(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.tally.add(self.name, &[line]);
        self.line(line).await
    }

    /// Writes a row of which only `content` counts for the digest: the other fields may differ after an
    /// import.
    pub async fn row_of(&mut self, line: &[u8], content: &[&[u8]]) -> Result<(), Failure> {
        self.tally.add(self.name, content);
        self.line(line).await
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        if self.bytes.len() + line.len() > MAX_PART && self.bytes.len() > self.header.len() {
            self.flush().await?;
        }
        self.bytes.extend(line);
        Ok(())
    }

    /// Writes the rest. A table without rows is written too.
    pub async fn end(mut self) -> Result<(), Failure> {
        if self.part == 0 || self.bytes.len() > self.header.len() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.part += 1;
        let path = format!("{}.{:06}.csv", self.path, self.part);
        self.sink.file(&path, self.bytes.len() as u64, &mut &*self.bytes).await?;
        self.bytes.clear();
        // Release the memory of an unusually long row.
        self.bytes.shrink_to(MAX_PART);
        self.bytes.extend(&self.header);
        Ok(())
    }
}

/// The name of the table whose file has this path, as `schema.table` if the path names a schema.
pub fn table_of(path: &str) -> Result<String, Failure> {
    let name = path.strip_suffix(".csv").and_then(|path| path.rsplit_once('.')).map(|(name, _)| name);
    name.and_then(decode_name).ok_or_else(|| not_of_table(path))
}

fn not_of_table(path: &str) -> Failure {
    bad_archive(format!("`{path}` is not the file of a table"))
}

/// The schema of the table whose file has this path, if the path names one.
pub fn schema_of(path: &str) -> Result<Option<String>, Failure> {
    let mut parts = path.split('.').rev().skip(2);
    let (_, schema) = (parts.next(), parts.next());
    schema.map(|schema| decode_name(schema).ok_or_else(|| not_of_table(path))).transpose()
}

/// The path of a table's files, before their numbers.
pub fn path(name: &str) -> String {
    encode_name(name)
}

/// The same for a table in this schema. No name of a table alone has such a path.
pub fn path_in(schema: &str, name: &str) -> String {
    format!("{}.{}", encode_name(schema), encode_name(name))
}

/// Encodes a table's name as part of a path. Distinct names have distinct paths, even on file systems that
/// ignore case.
fn encode_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

fn decode_name(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Reads the next row; none at the end.
pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<Field>>, Failure> {
    let (mut fields, mut bytes, mut length) = (Vec::new(), Vec::new(), 0);
    // Whether the field has a quote, and whether the position is inside quotes.
    let (mut quoted, mut inside) = (false, false);
    loop {
        let chunk = from.fill_buf().await.map_err(|error| broken(&error))?;
        if chunk.is_empty() {
            return match (length, inside) {
                (0, _) => Ok(None),
                _ => Err(bad_archive("the last row of a table is incomplete")),
            };
        }
        let (mut rest, mut ended) = (chunk, false);
        while !ended {
            // Copy plain text up to the next special character at once.
            let special = |byte: &u8| *byte == b'"' || !inside && matches!(byte, b',' | b'\n');
            let Some(at) = rest.iter().position(special) else {
                bytes.extend(rest);
                rest = &[];
                break;
            };
            let (text, [found, after @ ..]) = rest.split_at(at) else { break };
            bytes.extend(text);
            rest = after;
            if *found == b'"' {
                // The second of two adjacent quotes stands for a quote in the text.
                if quoted && !inside {
                    bytes.push(b'"');
                }
                (quoted, inside) = (true, !inside);
            } else {
                fields.push(field(std::mem::take(&mut bytes), quoted)?);
                quoted = false;
                ended = *found == b'\n';
            }
        }
        let used = chunk.len() - rest.len();
        from.consume(used);
        length += used;
        if ended {
            return Ok(Some(fields));
        }
        if length > MAX_ROW {
            return Err(bad_archive(format!("a table has a row of more than {MAX_ROW} bytes")));
        }
    }
}

fn field(bytes: Vec<u8>, quoted: bool) -> Result<Field, Failure> {
    let text = String::from_utf8(bytes).map_err(|_| bad_archive("a table holds text that is not UTF-8"))?;
    Ok(match (quoted, text.is_empty()) {
        (true, _) => Field::Quoted(text),
        (false, true) => Field::Null,
        (false, false) => Field::Bare(text),
    })
}

/// Reads the names of the columns from the first line of a table's file. The line of a table without columns is empty.
pub async fn header(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<String>, Failure> {
    let names: Option<Vec<String>> = match read(from).await? {
        Some(fields) if fields == [Field::Null] => Some(Vec::new()),
        fields => fields.and_then(|fields| fields.into_iter().map(Field::text).collect()),
    };
    names.ok_or_else(|| bad_archive("the first line of a table's file must name its columns"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn read_all(text: &[u8], buffer: usize) -> Result<Vec<Vec<Field>>, Failure> {
        let mut from = BufReader::with_capacity(buffer, text);
        let mut rows = Vec::new();
        while let Some(row) = read(&mut from).await? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[tokio::test]
    async fn every_text_survives_a_round_trip() {
        let texts = ["", "a", "a,b", "\"", "\"\"", "a\"b", "line\nfeed", "\r\n", "ü🎉", ",", "\\.", "\\x00"];
        let mut file = line(texts.iter().map(|text| Some(*text)));
        file.extend(line([None, Some(""), None]));
        file.extend(b"7,-1.5,\\x00ff,\n\n");
        let bare = |text: &str| Field::Bare(text.to_owned());
        let expected = vec![
            texts.iter().map(|text| Field::Quoted((*text).to_owned())).collect(),
            vec![Field::Null, Field::Quoted(String::new()), Field::Null],
            vec![bare("7"), bare("-1.5"), bare("\\x00ff"), Field::Null],
            vec![Field::Null],
        ];
        for buffer in [1, 2, 3, 4096] {
            assert_eq!(read_all(&file, buffer).await.unwrap(), expected, "{buffer} bytes at a time");
        }
    }

    #[tokio::test]
    async fn a_table_may_have_no_columns() {
        assert_eq!(header(&mut BufReader::new(&line([])[..])).await.unwrap(), Vec::<String>::new());
        assert_eq!(header(&mut &b""[..]).await.unwrap_err().code, "bad_archive");
    }

    #[tokio::test]
    async fn rejects_truncated_and_non_utf8_tables() {
        for bad in [&b"a,b"[..], b"\"a\n", b"\xff\n"] {
            assert_eq!(read_all(bad, 4096).await.unwrap_err().code, "bad_archive", "{bad:?}");
        }
        assert_eq!(read_all(b"", 4096).await.unwrap(), Vec::<Vec<Field>>::new());
    }

    #[test]
    fn table_names_survive_a_round_trip_through_paths() {
        for name in ["tasks", "Tasks", "a b", "../x", "ü", "a.b", "%"] {
            let path = format!("{}.000001.csv", encode_name(name));
            assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._%".contains(&b)), "{path}");
            assert_eq!((table_of(&path).unwrap(), schema_of(&path).unwrap()), (name.to_owned(), None));
            let path = format!("{}.000001.csv", path_in("My.Schema", name));
            let expected = (format!("My.Schema.{name}"), Some("My.Schema".to_owned()));
            assert_eq!((table_of(&path).unwrap(), schema_of(&path).unwrap()), expected);
        }
        for bad in ["tasks", "tasks.csv", "tasks.000001.txt", "%zz.000001.csv", "%f.1.csv", "%ff.1.csv"] {
            assert_eq!(table_of(bad).unwrap_err().code, "bad_archive", "{bad}");
        }
    }
}
